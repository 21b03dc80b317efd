"""Our own parsers: whatever they are given, they return or raise one ValueError."""

import json
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lord_fast.bounds import AtLeast, Below, MoreThan
from lord_fast.config import TrainConfig, options, replace
from lord_fast.data.decode import BadImageError, Shape
from lord_fast.data.decode.contract import crop_flag
from tests.soak.parsers import PARSERS, run
from tests.soak.seeds import seeds

few = settings(  # `LORD_FAST_EXAMPLES=10000` for long
    max_examples=int(os.environ.get("LORD_FAST_EXAMPLES", "30")),
    deadline=None, derandomize=True, database=None,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
SEEDS: dict[str, list[bytes]] = {}
"""Parser -> valid files; filled once, as it packs a store."""
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda part: st.lists(part, max_size=4)
    | st.dictionaries(st.text(max_size=8), part, max_size=4),
    max_leaves=8,
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def valid_files():
    for name, data in seeds():
        SEEDS.setdefault(name, []).append(data)


def edits(size: int):
    """Where to replace how much by what."""
    return st.lists(
        st.tuples(st.integers(0, size), st.integers(0, 8), st.binary(max_size=8)),
        min_size=1, max_size=4,
    )  # fmt: skip


@pytest.mark.parametrize("name", PARSERS)
@few
@given(st.data())
def test_every_parser_takes_or_refuses_any_bytes(name, data):
    run(name, data.draw(st.binary(max_size=64)))


@pytest.mark.parametrize("name", PARSERS)
@few
@given(st.data())
def test_every_parser_takes_or_refuses_an_edited_file(name, data):
    content = data.draw(st.sampled_from(SEEDS[name]))
    for start, length, by in data.draw(edits(len(content))):
        content = content[:start] + by + content[start + length :]
    run(name, content)


@pytest.mark.parametrize("name", [n for n in PARSERS if "manifest" in n or "json" in n])
@few
@given(st.data())
def test_json_of_other_types_is_refused(name, data):
    """A valid file with some of its values replaced, or any other JSON."""
    try:
        content = json.loads(data.draw(st.sampled_from(SEEDS[name])))
    except ValueError:  # JSON lines
        content = {}
    for key in data.draw(st.lists(st.sampled_from(sorted(content)), max_size=3)) if content else ():
        content[key] = data.draw(JSON)
    content = data.draw(st.just(content) | JSON)
    run(name, json.dumps(content).encode() + b"\n")


def test_the_seeds_are_valid():
    for name, files in SEEDS.items():
        for data in files:
            PARSERS[name](data)


@few
@given(st.tuples(*[st.integers(1, 500)] * 4), st.integers(1, 600), st.integers(1, 600))
def test_a_crop_is_read_as_it_is_written_and_lies_inside(crop, width, height):
    for part in (crop[:2], crop):
        assert PARSERS["crop"](crop_flag(part).encode()) == part
        try:
            left, top, right, bottom = Shape(8, 1, part).box(width, height)
        except BadImageError:
            assert len(part) == 4 or part[0] > width or part[1] > height
            continue
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
        assert right - left == bottom - top == min(part[:2])


@few
@given(st.sampled_from([MoreThan, AtLeast, Below]), st.floats(), st.floats())
def test_bounds_are_comparisons_and_refuse_nan(kind, limit, value):
    allowed = kind(limit).allows(value)
    assert allowed == {
        MoreThan: value > limit, AtLeast: value >= limit, Below: value < limit
    }[kind]  # fmt: skip
    assert not kind(limit).allows(float("nan"))


NUMBERS = [n for n, v in options(TrainConfig()).items() if type(v) in (int, float)]


@few
@given(st.sampled_from(NUMBERS), st.integers() | st.floats())
def test_an_option_is_kept_as_given_or_refused_by_its_flag(name, value):
    try:
        kept = options(replace(TrainConfig(), **{name: value}))[name]
    except ValueError as error:
        refused = str(error)
    else:
        assert kept is value
        return
    assert refused.startswith(f"--{name.replace('_', '-')} {value}: must be ")
