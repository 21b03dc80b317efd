"""Tests that a save writes what changed, that a checkpoint gives the whole table, and the disk."""

import errno
import os
import weakref
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load, load_file
from safetensors.torch import save as as_bytes

from lord_fast import kernels
from lord_fast.atomic import file_sha256
from lord_fast.model.latent import LatentTable, StoredCodes
from lord_fast.run import checkpoint, segments, snapshot
from lord_fast.run.segments import Segment, plan
from lord_fast.run.snapshot import can_link, save
from lord_fast.run.tensors import NotFiniteError, check_finite, write_tensors
from tests.plain_table import PlainTable, assert_same

ROWS, DIM = 100, 3


def table_of(num_rows: int = ROWS) -> PlainTable:
    return PlainTable(num_rows, DIM, seed=1)


def loaded(path: Path, num_rows: int = ROWS) -> PlainTable:
    table = table_of(num_rows)
    checkpoint.load(path).tables["content"].load_into({0: table})
    return table


def assert_equal(one: PlainTable, other: PlainTable) -> None:
    assert_same({"table": one.everything()}, {"table": other.everything()})


def rows_in(file: Path) -> list[int]:
    return load_file(file)["rows"].tolist()


def log(folder: Path, table: PlainTable, steps: dict[int, list[int]], **options) -> list[Path]:
    """Update the rows of each step and save after it."""
    paths: list[Path] = []
    for step, rows in steps.items():
        table.update(torch.tensor(rows, dtype=torch.int64), step)
        previous = paths[-1] if paths else None
        tables = {"content": {0: table}}
        paths.append(save(folder, "latent", step, {}, tables, previous, keep=99, **options))
    return paths


# Files


def test_files_have_the_bytes_of_the_safetensors_library(tmp_path):
    tensors = {
        "b": torch.randn(2, 3), "a": torch.arange(5), "one": torch.tensor(7.0),
        "flags": torch.ones(3, dtype=torch.bool), "half": torch.ones(3, dtype=torch.bfloat16),
        "double": torch.ones(1, dtype=torch.float64), "int": torch.ones(1, dtype=torch.int32),
        "none": torch.zeros(0, 4), "bytes": torch.ones(1, dtype=torch.uint8),
        "ä": torch.ones(1, dtype=torch.float16),
    }  # fmt: skip
    file = tmp_path / "x.safetensors"
    digest = write_tensors(file, tensors)
    assert file.read_bytes() == as_bytes(tensors)
    assert digest == file_sha256(file)
    strided = torch.randn(4, 5, 6).permute(2, 0, 1)
    write_tensors(file, {"x": strided})
    assert torch.equal(load(file.read_bytes())["x"], strided)


def test_a_large_file_is_written_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr("lord_fast.run.tensors.PIECE", 64)
    file, tensors = tmp_path / "x.safetensors", {"x": torch.randn(100, 7), "y": torch.arange(9)}
    assert write_tensors(file, tensors) == file_sha256(file)
    assert file.read_bytes() == as_bytes(tensors)


# Segments


def test_a_save_writes_the_rows_that_changed_and_links_the_rest(tmp_path):
    table = table_of()
    first, second, third = log(tmp_path, table, {10: [1, 2, 3], 20: [3, 50], 30: [1]})
    names = [f"content-0000-0000000{step}.safetensors" for step in (10, 20, 30)]
    assert [rows_in(third / name) for name in names] == [[1, 2, 3], [3, 50], [1]]
    assert not (second / names[2]).exists()
    inodes = [(path / names[0]).stat().st_ino for path in (first, second, third)]
    assert len(set(inodes)) == 1
    assert_equal(loaded(third), table)


def test_every_kept_checkpoint_gives_the_table_of_its_step(tmp_path):
    table, seen = table_of(), []
    paths = []
    for step in range(1, 40):
        table.update(torch.randperm(ROWS)[: 1 + step % 30], step)
        tables = {"content": {0: table}}
        paths.append(save(tmp_path, "latent", step, {}, tables, paths[-1] if paths else None, 99))
        seen.append(table.everything())
    for path, expected in zip(paths, seen, strict=True):
        assert_same({"table": loaded(path).everything()}, {"table": expected})


def test_a_save_after_no_change_writes_no_segment(tmp_path):
    table = table_of()
    _, last = log(tmp_path, table, {1: [4], 2: []})
    assert [file.name for file in sorted(last.glob("content*"))] == [
        "content-0000-000000001.safetensors"
    ]
    assert_equal(loaded(last), table)


def test_half_of_the_rows_make_a_full_segment(tmp_path):
    table = table_of()
    *_, third = log(tmp_path, table, {1: [0], 2: list(range(49)), 3: list(range(50))})
    [file] = third.glob("content*")
    assert rows_in(file) == list(range(ROWS))
    assert_equal(loaded(third), table)
    # All other rows have their initial values.
    assert torch.equal(load_file(file)["weight"][50:], table_of().weight[50:])


def test_going_back_continues_the_lineage_of_the_older_checkpoint(tmp_path):
    table = table_of()
    first, second = log(tmp_path, table, {10: [1, 2], 20: [2, 3]})
    table = loaded(first)
    table.update(torch.tensor([7]), 15)
    third = save(tmp_path, "latent", 15, {}, {"content": {0: table}}, first)
    assert not second.exists()
    assert_equal(loaded(third), table)
    names = sorted(file.name for file in third.glob("content*"))
    assert names == [f"content-0000-0000000{step}.safetensors" for step in (10, 15)]


def test_equal_saves_give_equal_bytes(tmp_path):
    files = []
    for name in ("a", "b"):
        *_, last = log(tmp_path / name, table_of(), {1: [5], 2: [5, 6], 3: [9]})
        files.append({file.name: file.read_bytes() for file in last.iterdir()})
    assert files[0] == files[1]


def test_shards_have_files_of_their_own(tmp_path):
    shards = {0: table_of(60), 1: table_of(41)}
    shards[0].update(torch.tensor([3]), 1)
    path = save(tmp_path, "latent", 1, {}, {"content": shards})
    shards[1].update(torch.tensor([40]), 2)
    path = save(tmp_path, "latent", 2, {}, {"content": shards}, path)
    saved = checkpoint.load(path).tables["content"]
    assert (saved.rows, saved.dim) == ([60, 41], DIM)
    again = {1: table_of(41), 0: table_of(60)}
    saved.load_into(again)
    for number, shard in shards.items():
        assert_equal(again[number], shard)
    assert {file.name for file in path.glob("content*")} == {
        "content-0000-000000001.safetensors", "content-0001-000000002.safetensors",
    }  # fmt: skip


# Memory


class Watched(PlainTable):
    """Records how many rows are read or written at once."""

    most = 0

    def read_rows(self, rows):
        self.most = max(self.most, len(rows))
        return super().read_rows(rows)

    def write_rows(self, rows, values):
        self.most = max(self.most, len(rows))
        return super().write_rows(rows, values)


def test_large_segments_are_written_and_read_in_blocks(tmp_path, monkeypatch):
    for module in ("segments", "snapshot", "saved"):
        monkeypatch.setattr(f"lord_fast.run.{module}.BLOCK", 16)
    table = Watched(ROWS, DIM, seed=1)
    table.update(torch.arange(ROWS), 1)
    taken = snapshot.take("latent", 1, {}, {"content": {0: table}})
    assert not taken.in_memory
    path = snapshot.write(tmp_path, taken)
    assert table.most == 16
    sizes = sorted(len(rows_in(file)) for file in path.glob("content*"))
    assert sizes == [4, *[16] * 6]
    again = Watched(ROWS, DIM, seed=1)
    checkpoint.load(path).tables["content"].load_into({0: again})
    assert again.most == 16
    assert_equal(again, table)
    table.update(torch.tensor([99]), 2)
    assert snapshot.take("latent", 2, {}, {"content": {0: table}}, path).in_memory


def test_one_block_is_in_memory_at_a_time(tmp_path, monkeypatch):
    for module in ("segments", "snapshot", "saved"):
        monkeypatch.setattr(f"lord_fast.run.{module}.BLOCK", 16)
    alive: list[weakref.ref] = []

    class Traced(PlainTable):
        def read_rows(self, rows):
            assert not any(block() is not None for block in alive)
            values = super().read_rows(rows)
            alive.append(weakref.ref(values["weight"]))
            return values

    table = Traced(ROWS, DIM, seed=1)
    table.update(torch.arange(ROWS), 1)
    save(tmp_path, "latent", 1, {}, {"content": {0: table}})
    assert len(alive) == 7


def test_a_snapshot_in_memory_does_not_change_with_the_table(tmp_path):
    table, network = table_of(), torch.ones(2, 2)
    table.update(torch.tensor([1, 2]), 1)
    expected = table.everything()
    taken = snapshot.take("latent", 1, {"decoder": {"w": network}}, {"content": {0: table}})
    table.update(torch.tensor([1, 5]), 2)
    network.zero_()
    path = snapshot.write(tmp_path, taken)
    assert_same({"table": loaded(path).everything()}, {"table": expected})
    assert torch.equal(checkpoint.load(path).state["decoder"]["w"], torch.ones(2, 2))


# Cleaning


@pytest.fixture
def quick_disk(monkeypatch):
    """Do not wait for the disk in the hundreds of saves of a simulation."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def disk(folder: Path) -> int:
    """Bytes of table files below a folder. Links count once."""
    files = {file.stat().st_ino: file.stat().st_size for file in folder.rglob("content*")}
    return sum(files.values())


def simulate(folder: Path, table: PlainTable, batches, every: int, keep: int = 2):
    """Train on batches of rows and save every few steps. Yield each checkpoint."""
    path = None
    for step, rows in enumerate(batches, start=1):
        table.update(rows, step)
        if step % every == 0:
            path = save(folder, "latent", step, {}, {"content": {0: table}}, path, keep)
            yield path


def epochs(num_rows: int, batch: int, count: int):
    random = torch.Generator().manual_seed(0)
    for _ in range(count):
        order = torch.randperm(num_rows, generator=random)
        yield from (part for part in order.split(batch) if len(part) == batch)


@pytest.mark.parametrize("every", [8, 50])
def test_the_disk_is_bounded_by_two_tables(tmp_path, quick_disk, every):
    """Four epochs over 1e5 rows. Each drops its last rows, as the sampler does."""
    size = 100_000
    table, most, rows_written = PlainTable(size, 1), 0, 0
    row_bytes = 3 * 4 + 2 * 8
    for path in simulate(tmp_path, table, epochs(size, 999, 4), every):
        found = [file for file in path.glob("content*")]
        rows = sum(file.stat().st_size // row_bytes for file in found)
        assert rows <= 2 * size + len(found) * 100
        most = max(most, disk(tmp_path) / (row_bytes * size))
        rows_written += (path / f"content-0000-{path.name[-9:]}.safetensors").stat().st_size
    table_again = PlainTable(size, 1)
    checkpoint.load(path).tables["content"].load_into({0: table_again})
    assert_equal(table_again, table)
    # Two checkpoints are kept. The older one may hold a segment that the newer one has dropped.
    assert most <= 2.1 + every * 999 / size
    # Cleaning rewrites little, because the oldest segments have few present rows.
    assert rows_written < 1.2 * 4 * size * row_bytes


def test_the_disk_is_bounded_where_rows_are_drawn_at_random(tmp_path, quick_disk):
    """Some rows are drawn often and some never again, as those of classes of other sizes."""
    size, random = 2000, torch.Generator().manual_seed(0)
    chances = torch.linspace(0, 1, size).pow(6) + 1e-4
    batches = [chances.multinomial(20, generator=random) for _ in range(402)]
    table = PlainTable(size, 1, seed=2)
    for path in simulate(tmp_path, table, batches, 3):
        contents = snapshot.read_contents(path).tables["content"].segments[0]
        assert sum(segment.rows for segment in contents) <= 2 * size
    again = PlainTable(size, 1, seed=2)
    checkpoint.load(path).tables["content"].load_into({0: again})
    assert_equal(again, table)


def test_the_number_of_segments_is_bounded(tmp_path, quick_disk, monkeypatch):
    monkeypatch.setattr(segments, "MOST_SEGMENTS", 8)
    table, counts = PlainTable(1000, 1, seed=3), []
    for path in simulate(tmp_path, table, epochs(1000, 20, 3), 1):
        counts.append(len(list(path.glob("content*"))))
        again = PlainTable(1000, 1, seed=3)
        checkpoint.load(path).tables["content"].load_into({0: again})
        assert_equal(again, table)
    assert max(counts) == 8
    assert min(counts[8:]) <= 5


def test_carried_rows_survive_the_death_of_their_new_segments_own_rows(monkeypatch):
    """A segment holds carried rows for as long as they are not updated."""
    table = table_of()
    monkeypatch.setattr(segments, "MOST_SEGMENTS", 2)
    older = [Segment(["a"], 2, [[0, 1]]), Segment(["b"], 1, [[1, 2]])]
    table.update(torch.tensor([0, 1]), 1)
    table.update(torch.tensor([5]), 2)
    table.update(torch.tensor([9]), 3)
    carrying = plan(table, "c", 3, older, 2)
    assert carrying.rows.tolist() == [0, 1, 5, 9]
    assert carrying.segments == [Segment(["c-000000003.safetensors"], 4, [[0, 3]])]
    table.update(torch.tensor([9]), 4)
    monkeypatch.setattr(segments, "MOST_SEGMENTS", 1)
    again = plan(table, "c", 4, carrying.segments, 3)
    assert again.rows.tolist() == [0, 1, 5, 9]


# Refusals


def damage(file: Path) -> None:
    """Change a byte of a copy, so that links to the file stay whole."""
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.unlink()
    file.write_bytes(data)


def test_a_damaged_segment_is_refused_and_the_checkpoint_before_is_used(tmp_path):
    table = table_of()
    first, second = log(tmp_path, table, {1: [1], 2: [2]})
    damage(second / "content-0000-000000002.safetensors")
    with pytest.raises(ValueError, match=r"content-0000-000000002\.safetensors: damaged"):
        checkpoint.load(second)
    said: list[str] = []
    assert checkpoint.load_latest(tmp_path, "latent", said.append).path == first
    assert len(said) == 1
    (second / "content-0000-000000001.safetensors").unlink()
    with pytest.raises(ValueError, match="not a complete checkpoint"):
        checkpoint.load(second)


@pytest.mark.parametrize(
    "change",
    [
        {"rows": torch.tensor([ROWS])}, {"rows": torch.tensor([-1])}, {"rows": torch.tensor([1.0])},
        {"rows": torch.tensor(1)}, {"weight": torch.ones(1, DIM + 1)}, {"last_step": torch.ones(1)},
        {"last_step": torch.tensor([2])}, {"weight": torch.ones(2, DIM)}, {"exp_avg": None},
        {"last_step": torch.tensor([-1])},
    ],
    ids=str,
)  # fmt: skip
def test_a_file_that_is_not_a_segment_of_the_table_is_refused(tmp_path, monkeypatch, change):
    class Wrong(PlainTable):
        def read_rows(self, rows):
            return super().read_rows(rows) | {k: v for k, v in change.items() if k != "rows"}

    def written(file, tensors):
        wanted = {k: v for k, v in ({**tensors, **change}).items() if v is not None}
        return write_tensors(file, wanted)

    table = Wrong(ROWS, DIM)
    table.update(torch.tensor([4]), 1)
    monkeypatch.setattr(snapshot, "write_tensors", written)
    monkeypatch.setattr(snapshot, "check_finite", lambda *_: None)
    path = save(tmp_path, "latent", 1, {}, {"content": {0: table}})
    with pytest.raises(ValueError, match=r"damaged|not a complete checkpoint"):
        checkpoint.load(path)


def test_rows_that_are_not_finite_are_neither_saved_nor_loaded(tmp_path, monkeypatch):
    table = table_of()
    table.update(torch.tensor([4]), 1)
    table.exp_avg[4, 0] = float("nan")
    with pytest.raises(NotFiniteError, match="content/exp_avg"):
        save(tmp_path, "latent", 1, {}, {"content": {0: table}})
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(snapshot, "check_finite", lambda *_: None)
    path = save(tmp_path, "latent", 1, {}, {"content": {0: table}})
    with pytest.raises(ValueError, match=r"not finite.*content/exp_avg"):
        checkpoint.load(path)


def test_a_table_can_be_read_after_its_checkpoint_was_removed(tmp_path):
    table = table_of()
    paths = log(tmp_path, table, {1: [1, 2], 2: [3]})
    found = checkpoint.load(paths[-1])
    expected = table.everything()
    for path in paths:
        for file in path.iterdir():
            file.unlink()
    again = table_of()
    found.tables["content"].load_into({0: again})
    assert_same({"table": again.everything()}, {"table": expected})


# Links


def test_a_file_system_without_links_is_named_once_per_question(tmp_path, monkeypatch):
    table = table_of()
    [path] = log(tmp_path, table, {1: [1]})

    def refused(source, target):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    said: list[str] = []
    assert not can_link(path, 2, said.append)
    assert said == [
        f"{tmp_path}: this file system has no hard links (Operation not permitted), so every "
        f"checkpoint holds the latent tables in full"
    ]
    monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError(errno.EIO, "EIO")))
    with pytest.raises(OSError, match="EIO"):
        can_link(path, 2, said.append)


def test_a_previous_checkpoint_that_is_gone_or_damaged_is_not_linked(tmp_path):
    table = table_of()
    first, second = log(tmp_path, table, {1: [1], 2: [2]})
    said: list[str] = []
    assert can_link(second, 3, said.append)
    assert not can_link(second, 2, said.append)
    assert said == []
    (second / "content-0000-000000001.safetensors").unlink()
    assert not can_link(second, 3, said.append)
    assert "content-0000-000000001.safetensors: missing; the latent tables are saved in full" in (
        said.pop()
    )
    damage(first / "state.json")
    assert not can_link(first, 3, said.append)
    assert "saved in full" in said.pop()
    assert [path.name for path in tmp_path.glob(".*")] == []


# The latent table itself


def test_a_latent_table_is_saved_reset_and_read(tmp_path):
    lr, adam = torch.full((50,), 0.1), kernels.Adam()
    tables = [LatentTable(ROWS, DIM, lr, adam=adam, seed=5) for _ in range(2)]
    trained, other = tables
    initial = trained.read_rows(torch.arange(ROWS))
    for step in range(20):
        for table, rows in ((trained, [1, 2, step]), (other, [3, 99 - step])):
            now = torch.tensor(step)
            codes = table.gather(torch.tensor(rows), now)
            codes.sum().backward()
            table.scatter_adam_(torch.tensor(rows), codes, now)
    assert (trained.num_rows, trained.dim) == (ROWS, DIM)
    path = save(tmp_path, "latent", 20, {}, {"content": {0: trained}})
    [file] = path.glob("content*")
    with safe_open(file, "pt") as content:
        assert content.get_slice("rows").get_shape() == [20]

    other.reset()
    assert_same({"t": other.read_rows(torch.arange(ROWS))}, {"t": initial})
    saved = checkpoint.load(path).tables["content"]
    saved.load_into({0: other})
    every = torch.arange(ROWS)
    assert_same({"t": other.read_rows(every)}, {"t": trained.read_rows(every)})
    codes = StoredCodes(ROWS, DIM, lr, 20, adam=adam, seed=5)
    saved.load_into({0: codes})
    assert torch.equal(codes.codes, trained.codes(20))


@pytest.mark.parametrize("value", [float("inf"), -float("inf"), float("nan")])
def test_values_that_are_not_finite_are_found_anywhere(value):
    for shape in ((), (1,), (7, 9)):
        for at in {0, -1}:
            tensor = torch.randn(shape)
            tensor.view(-1)[at] = value
            with pytest.raises(NotFiniteError, match="space/x is not finite"):
                check_finite("space", {"whole": torch.arange(3), "x": tensor})
    both = torch.tensor([float("inf"), -float("inf"), 1.0])
    with pytest.raises(NotFiniteError):
        check_finite("space", {"x": both})
    large = torch.full((100,), 3e38)
    check_finite("space", {"x": large, "none": torch.zeros(0, 3), "whole": torch.arange(3)})
