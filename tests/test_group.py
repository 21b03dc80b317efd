"""Tests that a run has the same bits on any number of processes."""

import hashlib
import shutil
from pathlib import Path

import pytest
import torch

from lord_fast.lord import Lord
from lord_fast.model.build import build_tables
from lord_fast.run import checkpoint
from lord_fast.run.config import load_config
from tests.processes import run, start

V = 4
TRAIN = (
    "--virtual-ranks", V, "--content-dim", 4, "--class-dim", 8, "--adain-dim", 8, "--loss",
    "pyramid", "--batch-size", 16, "--steps", 6, "--save-every", 3, "--keep", 9, "--log-every", 2,
    "--grid-every", 5, "--device", "cpu", "--threads", 1, "--precision", "float32",
    "--content-discrepancy", 1,
)  # fmt: skip
ENCODERS = (
    "--encoder-dim", 16, "--batch-size", 16, "--steps", 4, "--save-every", 2, "--log-every", 2,
    "--encoder-init", "kaiming", "--swaps", 1, "--class-cross-entropy", 1,
    "--class-bandwidth", 0.25, "--content-bandwidth", 0, "--content-codebook", 9,
    "--content-candidates", 3,
)  # fmt: skip


def train(world: int, store: Path, folder: Path, *more, mutation: str = "") -> Path:
    """Train stage 1 in `folder`/run. Return the run."""
    words = ["train", store, "--run", folder / "run", *TRAIN, *more]
    run(world, words, folder, mutation)
    return folder / "run"


def encode(world: int, trained: Path, folder: Path, *more, mutation: str = "") -> None:
    run(world, ["train-encoders", trained, *ENCODERS, *more], folder, mutation)


def hashes(trained: Path) -> dict[str, str]:
    """Return the sha256 of every file of every checkpoint and grid."""
    files = [*trained.glob("checkpoints/*/*"), *trained.glob("grids/*")]
    found = {f"{f.parent.name}/{f.name}": hashlib.sha256(f.read_bytes()) for f in sorted(files)}
    return {name: digest.hexdigest() for name, digest in found.items()}


@pytest.fixture(scope="session")
def alone(glyph_store, tmp_path_factory) -> dict[str, Path]:
    """Runs of both stages in one process with 4 virtual ranks, by kernels."""
    found = {}
    for kernels in ("native", "reference"):
        folder = tmp_path_factory.mktemp(kernels)
        found[kernels] = train(1, glyph_store, folder, "--kernels", kernels)
        encode(1, found[kernels], folder, "--kernels", kernels)
    return found


@pytest.mark.parametrize("kernels", ["native", "reference"])
@pytest.mark.parametrize("world", [2, 4])
def test_checkpoints_have_the_same_bytes_on_any_number_of_processes(
    glyph_store, tmp_path, alone, world, kernels
):
    trained = train(world, glyph_store, tmp_path, "--kernels", kernels)
    encode(world, trained, tmp_path, "--kernels", kernels)
    assert len(hashes(trained)) > 20
    assert hashes(trained) == hashes(alone[kernels])


@pytest.mark.parametrize("mutation", ["plain_all_reduce", "arrival_order"])
def test_another_order_of_additions_gives_other_bits(glyph_store, tmp_path, alone, mutation):
    """The order matters, so the test above would notice it."""
    trained = train(4, glyph_store, tmp_path, mutation=mutation)
    assert hashes(trained) != latent(hashes(alone["native"]))


def latent(found: dict[str, str]) -> dict[str, str]:
    return {name: digest for name, digest in found.items() if "encoders" not in name}


def test_a_run_continues_on_other_numbers_of_processes(glyph_store, tmp_path, alone):
    words = ["train", glyph_store, "--run", tmp_path / "run", *TRAIN]
    for world, mutation in ((2, "term_at_2"), (1, "term_at_4")):
        crew = start(world, words, tmp_path, mutation)
        assert crew.wait() == [143] * world, crew.texts()
        assert sum("stopped by SIGTERM" in text for text in crew.texts()) == 1
    found, expected = (tensors(path) for path in (train(4, glyph_store, tmp_path), alone["native"]))
    assert len(found) > 40
    assert found.keys() == expected.keys()
    assert [name for name in found if not torch.equal(found[name], expected[name])] == []


def tensors(trained: Path) -> dict[str, torch.Tensor]:
    """Return all tensors of the last checkpoint of stage 1. Its files depend on earlier saves."""
    found = checkpoint.load_latest(trained / "checkpoints", "latent")
    contents, class_ = tables_of(found, trained)
    rows = {f"content-{shard}": table.state._asdict() for shard, table in contents.items()}
    states = {**found.state, **rows, "class": class_.state._asdict()}
    states.pop("log")
    return {f"{name}/{key}": t for name, state in states.items() for key, t in state.items()}


def tables_of(found: checkpoint.Loaded, trained: Path):
    """Return the content tables by virtual rank and the class table of a checkpoint."""
    config, _ = load_config(trained / "config.yaml")
    contents, class_ = build_tables(config, 160, 8, 6, torch.device("cpu"))
    found.tables["content"].load_into(contents)
    found.tables["class"].load_into({0: class_})
    return contents, class_


def test_one_process_reads_the_codes_of_all_virtual_ranks(alone):
    lord = Lord.load(alone["native"], device="cpu", stage="latent")
    found = checkpoint.load_latest(alone["native"] / "checkpoints", "latent")
    contents, _ = tables_of(found, alone["native"])
    assert lord.content_codes.shape == (160, 4)
    for shard, table in contents.items():
        assert table.last_step.any()
        assert torch.equal(lord.content_codes[shard::V], table.codes(6))


def test_a_damaged_file_of_one_process_sends_all_back(glyph_store, tmp_path, alone):
    """Only the process that owns virtual rank 3 reads its file."""
    run_ = tmp_path / "run"
    shutil.copytree(alone["native"], run_)
    for path in (run_ / "checkpoints").glob("latent-000000006/content-0003-*"):
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.unlink()
        path.write_bytes(content)
    (run_ / "encoders.yaml").unlink()
    shutil.rmtree(run_ / "grids")
    for path in (run_ / "checkpoints").glob("encoders-*"):
        shutil.rmtree(path)
    texts = run(4, ["train", glyph_store, "--run", run_, *TRAIN], tmp_path)
    assert "its sha256 has changed" in texts[0]
    assert "latent-000000003 is undamaged and is used instead" in texts[0]
    found, expected = hashes(run_), latent(hashes(alone["native"]))
    assert {name: found[name] for name in found if "000000006/" in name} == {
        name: expected[name] for name in expected if "000000006/" in name
    }


def test_ten_launches_end_well(glyph_store, tmp_path):
    for number in range(10):
        words = ["train", glyph_store, "--run", tmp_path / str(number), *TRAIN, "--steps", 1]
        run(2, words, tmp_path)


def test_sizes_that_do_not_fit_are_refused_by_one_line(glyph_store, tmp_path):
    def refused(world: int, *flags) -> str:
        words = ["train", glyph_store, "--run", tmp_path / "run", *TRAIN, *flags]
        crew = start(world, words, tmp_path)
        assert crew.wait() == [2] * world
        # Each process says so, because torchrun may end the others before they speak.
        (text,) = set(crew.texts())
        assert text.count("\n") == 1
        return text

    assert "4 processes cannot share them equally; start 1 or 2" in refused(4, "--virtual-ranks", 2)
    assert "--virtual-ranks 3: must be a power of two" in refused(1, "--virtual-ranks", 3)
    assert "--batch-size 18: must be a multiple" in refused(2, "--batch-size", 18)
    assert not (tmp_path / "run").exists()


def test_other_verbs_refuse_several_processes(alone, tmp_path):
    crew = start(2, ["evaluate", alone["native"]], tmp_path)
    assert crew.wait() == [2, 2]
    for text in crew.texts():
        assert "runs in one process and torchrun started 2" in text
