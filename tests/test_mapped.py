"""Tests stores whose images and labels do not fit in memory."""

import json
import os

import numpy as np
import pytest
import torch

from lord_fast.data import mapped, strings
from lord_fast.data import store as store_module
from lord_fast.data.options import PackConfig
from lord_fast.data.pack import pack
from lord_fast.data.sources.glyphs import Glyphs
from lord_fast.data.split import split_images
from lord_fast.data.store import ImageStore
from lord_fast.data.strings import Strings, write_strings
from lord_fast.data.verify import verify
from lord_fast.evaluate.labels import content_names
from tests.test_train import files_of, train

IMAGES, SIDE = 8000, 64


@pytest.fixture
def small_memory(monkeypatch):
    """Make every store larger than the free memory."""
    monkeypatch.setattr(store_module, "free_memory", lambda device: 0)


@pytest.fixture
def large_factors(monkeypatch):
    """Write the labels of every factor to files."""
    monkeypatch.setattr(strings, "MOST_IN_MANIFEST", 1)


def packed(out, **options):
    pack(Glyphs(32, 4, rotations=(0, 30)), out, PackConfig(size=32, **options))
    return out


def test_images_of_a_store_larger_than_memory_are_the_same(tmp_path, small_memory):
    store = ImageStore(packed(tmp_path / "store"))
    assert store._reads.needed
    ids = torch.tensor([5, 0, 79, 5])
    assert torch.equal(store.images(ids).permute(0, 2, 3, 1), store.pixels[ids])


def bytes_read() -> int:
    with open("/proc/self/io") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("read_bytes"))


def cold_batch(file, free: int) -> int:
    """Bytes that one batch of 64 images reads from a file that is not in the system's cache."""
    data = np.memmap(file, dtype=np.uint8, mode="c")
    reads = mapped.ScatteredReads(data, free)
    with file.open("rb") as opened:
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    size = SIDE * SIDE
    ids = np.random.default_rng(0).permutation(IMAGES)[:64]
    before = bytes_read()
    with reads.of(ids * size, (ids + 1) * size):
        data.reshape(IMAGES, size)[ids]
    return bytes_read() - before


@pytest.mark.skipif(not os.path.exists("/proc/self/io"), reason="needs Linux")
def test_a_cold_batch_reads_little_more_than_its_images(tmp_path):
    file = tmp_path / "images.u8"
    with file.open("wb") as out:
        out.write(os.urandom(IMAGES * SIDE * SIDE))
        out.flush()
        os.fsync(out.fileno())
    usual = cold_batch(file, 1 << 60)
    if usual == 0:
        pytest.skip("this file system does not count what it reads, such as a tmpfs")
    assert cold_batch(file, 0) <= 64 * (SIDE * SIDE + 2 * 4096)
    assert usual > 4 * 64 * SIDE * SIDE


def test_labels_are_mapped(tmp_path):
    store = ImageStore(packed(tmp_path / "store"))
    for name in ("class_ids", "content_ids"):
        wanted = np.load(tmp_path / "store" / f"{name}.npy")
        assert np.array_equal(getattr(store, name).numpy(), wanted)
        with open("/proc/self/maps") as maps:
            assert any(f"/{name}.npy" in line for line in maps)


def test_many_labels_are_not_in_the_manifest(tmp_path, large_factors, monkeypatch):
    small, large = tmp_path / "small", tmp_path / "large"
    packed(large)
    monkeypatch.setattr(strings, "MOST_IN_MANIFEST", 1 << 16)
    packed(small)
    manifest = json.loads((large / "manifest.json").read_text())
    assert manifest["version"] == 3
    assert all(set(labels) == {"count"} for labels in manifest["factors"].values())
    assert json.loads((small / "manifest.json").read_text())["version"] == 2
    one, other = ImageStore(small), ImageStore(large)
    assert {k: list(v) for k, v in other.factors.items()} == one.factors
    assert content_names(other) == content_names(one)
    assert one.sha256 == other.sha256
    assert "all 80 images are as they were packed" in verify(large)


def test_parts_of_a_split_keep_labels_in_files(tmp_path, large_factors):
    packed(tmp_path / "store")
    parts = tmp_path / "train", tmp_path / "test"
    split_images(tmp_path / "store", *parts, 0.2, seed=0)
    whole = ImageStore(tmp_path / "store").factors
    for part in parts:
        found = ImageStore(part).factors
        assert {k: list(v) for k, v in found.items()} == {k: list(v) for k, v in whole.items()}
        verify(part)


@pytest.mark.parametrize("name", ["labels-0.utf8", "labels-0.npy"])
def test_damaged_labels_are_noticed_when_the_store_is_opened(tmp_path, large_factors, name):
    file = packed(tmp_path / "store") / name
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(ValueError, match=rf"{name}: changed since packing"):
        ImageStore(tmp_path / "store")


def test_strings_are_read_as_they_were_written(tmp_path):
    texts = ["", "a", "größer", "b c\n", "日本"]
    write_strings(tmp_path / "labels-0", texts)
    found = Strings(tmp_path / "labels-0", len(texts))
    assert list(found) == texts
    assert found[torch.tensor(2)] == "größer"
    assert np.array(found)[[4, 1]].tolist() == ["日本", "a"]
    with pytest.raises(IndexError):
        found[5]
    with pytest.raises(ValueError, match="does not match the manifest"):
        Strings(tmp_path / "labels-0", 4)


def test_training_on_a_store_larger_than_memory(tmp_path, small_memory, large_factors, monkeypatch):
    store = packed(tmp_path / "store")
    assert train(store, tmp_path / "run", "--steps", "8") == 0
    monkeypatch.setattr(store_module, "free_memory", lambda device: 1 << 60)
    assert train(store, tmp_path / "usual", "--steps", "8") == 0
    last = "checkpoints/latent-000000008"
    assert files_of(tmp_path / "run" / last) == files_of(tmp_path / "usual" / last)
