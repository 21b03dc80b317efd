"""Tests that a streamed table gives the bits of a table in memory, whatever its threads do."""

import errno
import os
import threading
import time

import numpy as np
import pytest
import torch

from lord_fast import kernels
from lord_fast.data.sampler import EpochSampler
from lord_fast.kernels.native import row_file
from lord_fast.model import streamed_table
from lord_fast.model.latent import INITIAL_ROWS, LatentTable
from lord_fast.model.row_storage import FileRows, HostRows
from lord_fast.model.streamed_table import StreamedTable

ROWS, DIM, BATCH, STEPS = 70, 13, 16, 26
LR = torch.linspace(0.1, 0.01, STEPS)
OPTIONS = {"adam": kernels.Adam(), "seed": 3, "std": 0.5}
"""Four steps in an epoch, so that the rows of most steps are still in flight when they return."""


@pytest.fixture(params=["native", "reference"])
def implementation(request):
    kernels.use(request.param)
    yield
    kernels.use("auto")


@pytest.fixture
def file_table(tmp_path):
    table = StreamedTable(lambda: FileRows(tmp_path, DIM), ROWS, DIM, LR, **OPTIONS)
    yield table
    table.close()


@pytest.fixture
def host_table():
    table = StreamedTable(lambda: HostRows(ROWS, DIM), ROWS, DIM, LR, **OPTIONS)
    yield table
    table.close()


def advance(table: LatentTable, steps: range) -> list[torch.Tensor]:
    """Train some steps. The gradient depends on the codes, so that an error would grow."""
    sampler, found = EpochSampler(ROWS, BATCH, seed=1), []
    for step in steps:
        ids, now = sampler.image_ids(step), torch.tensor(step)
        table.load(step, sampler.image_ids)
        codes = table.gather(ids, now)
        found.append(codes.detach().clone())
        codes.grad = torch.sin(codes.detach() + step)
        table.scatter_adam_(ids, codes, now, unique=True)
        table.store(step)
    return found


def in_memory(steps: int = STEPS) -> tuple[LatentTable, list[torch.Tensor]]:
    table = LatentTable(ROWS, DIM, LR, **OPTIONS)
    return table, advance(table, range(steps))


def assert_same(table: StreamedTable, wanted: LatentTable) -> None:
    for name, tensor in table.read_rows(torch.arange(ROWS)).items():
        assert torch.equal(tensor, getattr(wanted.state, name)), name


@pytest.mark.parametrize("storage", ["file_table", "host_table"])
@pytest.mark.parametrize("copies", [False, True], ids=["in place", "as on a GPU"])
def test_the_bits_are_those_of_a_table_in_memory(request, storage, copies, implementation):
    table, (wanted, codes) = request.getfixturevalue(storage), in_memory()
    table._copies = copies
    for mine, theirs in zip(advance(table, range(STEPS)), codes, strict=True):
        assert torch.equal(mine, theirs)
    assert_same(table, wanted)
    assert torch.equal(table.codes(STEPS), wanted.codes(STEPS))
    some = torch.tensor([5, 69, 0, 5])
    assert torch.equal(table.codes(STEPS, some), wanted.codes(STEPS, some))


def test_initial_codes_do_not_depend_on_the_blocks_they_are_written_in(monkeypatch, file_table):
    weight = LatentTable(ROWS, DIM, LR, **OPTIONS).state.weight
    start = torch.Generator().manual_seed(OPTIONS["seed"])
    whole = torch.empty(ROWS, DIM).uniform_(-0.05, 0.05, generator=start)
    assert ROWS < INITIAL_ROWS
    for module in ("latent", "streamed_table"):
        monkeypatch.setattr(f"lord_fast.model.{module}.INITIAL_ROWS", 32)
    assert torch.equal(file_table.read_rows(torch.arange(ROWS))["weight"], weight)
    assert torch.equal(weight, whole)


def test_rows_that_are_not_written_yet_are_taken_from_their_blocks(file_table):
    """The storage stands still while several epochs pass."""
    released, write = threading.Event(), file_table.storage.write
    file_table.storage.write = lambda *arguments: (released.wait(30), write(*arguments))
    wanted, codes = in_memory(20)
    for mine, theirs in zip(advance(file_table, range(20)), codes, strict=True):
        assert torch.equal(mine, theirs)
    released.set()
    assert_same(file_table, wanted)


def test_a_read_that_overlaps_a_write_takes_the_newer_rows(file_table, monkeypatch):
    """Reads wait at their start, so that steps pass between the request and the read."""
    read = file_table.storage.read
    file_table.storage.read = lambda *arguments: (time.sleep(0.002), read(*arguments))
    monkeypatch.setattr(streamed_table, "AHEAD", 3)
    wanted, _ = in_memory()
    advance(file_table, range(STEPS))
    assert_same(file_table, wanted)


def test_reading_rows_for_a_save_waits_until_they_are_written(file_table):
    write = file_table.storage.write
    file_table.storage.write = lambda *arguments: (time.sleep(0.01), write(*arguments))
    wanted, _ = in_memory(10)
    advance(file_table, range(10))
    assert_same(file_table, wanted)


def test_few_blocks_wait_and_are_used_again(file_table, monkeypatch):
    monkeypatch.setattr(streamed_table, "MOST_UNWRITTEN", 4)
    monkeypatch.setattr(streamed_table, "AHEAD", 2)
    write = file_table.storage.write
    file_table.storage.write = lambda *arguments: (time.sleep(0.005), write(*arguments))
    made, block = [], streamed_table.Block
    monkeypatch.setattr(
        streamed_table, "Block", lambda *args, **kw: made.append(1) or block(*args, **kw)
    )
    wanted, _ = in_memory()
    advance(file_table, range(STEPS))
    assert_same(file_table, wanted)
    assert len(made) <= 4 + 2 * 3


@pytest.mark.parametrize("back", [6, 13])
def test_going_back_forgets_what_was_read_ahead_and_in_flight(file_table, back):
    advance(file_table, range(back))
    rows = torch.arange(ROWS)
    saved = file_table.read_rows(rows)
    advance(file_table, range(back, 15))
    file_table.reset()
    touched = rows[saved["last_step"] > 0]
    file_table.write_rows(touched, {name: part[touched] for name, part in saved.items()})
    wanted, codes = in_memory()
    for mine, theirs in zip(advance(file_table, range(back, STEPS)), codes[back:], strict=True):
        assert torch.equal(mine, theirs)
    assert_same(file_table, wanted)


def test_steps_may_be_left_out(file_table):
    wanted = LatentTable(ROWS, DIM, LR, **OPTIONS)
    for table in (wanted, file_table):
        advance(table, range(7))
        advance(table, range(9, STEPS))
    assert_same(file_table, wanted)


def test_the_tensors_of_a_captured_step_stay_where_they_are(host_table):
    host_table._copies = True
    advance(host_table, range(1))
    places = [tensor.data_ptr() for tensor in (*host_table.state, host_table._slots)]
    advance(host_table, range(1, 5))
    assert places == [tensor.data_ptr() for tensor in (*host_table.state, host_table._slots)]


def fail(*_):
    raise OSError(errno.EIO, os.strerror(errno.EIO))


@pytest.mark.parametrize("name", ["read_rows", "write_rows"])
def test_an_error_of_a_thread_reaches_the_main_thread_with_the_files_name(
    file_table, tmp_path, monkeypatch, name
):
    advance(file_table, range(2))
    file_table.flush()
    monkeypatch.setattr(row_file, name, fail)
    with pytest.raises(OSError, match="content table") as caught:
        advance(file_table, range(2, STEPS))
    assert caught.value.errno == errno.EIO
    assert str(tmp_path) in caught.value.filename


def test_nothing_is_read_for_a_save_after_a_failed_write(file_table, monkeypatch):
    advance(file_table, range(2))
    file_table.flush()
    monkeypatch.setattr(row_file, "write_rows", fail)
    advance(file_table, range(2, 3))
    with pytest.raises(OSError, match="content table"):
        file_table.read_rows(torch.arange(ROWS))


@pytest.fixture(params=[True, False], ids=["native", "python"])
def built(request, monkeypatch):
    """Whether rows of files are copied by the library or, where it is not built, by Python."""
    monkeypatch.setattr(row_file, "is_built", lambda: request.param)


def test_a_file_that_ends_early_is_an_error(tmp_path, built):
    rows = FileRows(tmp_path, DIM)
    rows.write(np.arange(3), np.ones((3, 3, DIM), np.float32))
    with pytest.raises(OSError, match="shorter than the table"):
        rows.read(np.array([1, 3]), np.empty((2, 3, DIM), np.float32))
    rows.close()


def test_rows_of_a_file_are_read_as_they_were_written(tmp_path, built):
    rows, values = FileRows(tmp_path, DIM), np.random.rand(5, 3, DIM).astype(np.float32)
    places = np.array([7, 2, 3, 4, 0])
    rows.write(places, values)
    found = np.empty_like(values)
    rows.read(places, found)
    assert np.array_equal(found, values)
    whole = np.empty((8, 3, DIM), np.float32)
    rows.read(np.arange(8), whole)
    assert np.array_equal(whole[places], values)
    assert not whole[[1, 5, 6]].any()
    rows.close()


@pytest.mark.parametrize("name", ["read", "write"])
def test_errors_of_the_system_name_the_file(tmp_path, built, name):
    rows, values = FileRows(tmp_path, DIM), np.zeros((1, 3, DIM), np.float32)
    rows._fd = os.open(tmp_path, os.O_RDONLY)  # a folder
    with pytest.raises(OSError, match="content table") as caught:
        getattr(rows, name)(np.array([2]), values)
    assert caught.value.errno in (errno.EISDIR, errno.EBADF)
    os.close(rows._fd)


def test_short_reads_and_writes_go_on_in_python(tmp_path, monkeypatch):
    monkeypatch.setattr(row_file, "is_built", lambda: False)
    whole_read, whole_write = os.preadv, os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, part, at: whole_write(fd, part[:50], at))
    monkeypatch.setattr(os, "preadv", lambda fd, parts, at: whole_read(fd, [parts[0][:70]], at))
    test_rows_of_a_file_are_read_as_they_were_written(tmp_path, None)


def test_the_scratch_file_has_no_name(file_table, tmp_path):
    advance(file_table, range(3))
    assert list(tmp_path.iterdir()) == []


def test_a_failed_start_frees_the_file(tmp_path, monkeypatch):
    made = []

    def storage():
        made.append(FileRows(tmp_path, DIM))
        return made[0]

    table = StreamedTable(storage, ROWS, DIM, LR, **OPTIONS)
    monkeypatch.setattr(row_file, "write_rows", fail)
    with pytest.raises(OSError, match="content table") as caught:
        advance(table, range(1))
    assert str(tmp_path) in caught.value.filename
    assert made[0]._file.closed


def test_a_batch_with_a_repeated_row_is_refused(file_table):
    with pytest.raises(AssertionError, match="repeats"):
        file_table.load(0, lambda step: torch.tensor([1, 2, 1]))
