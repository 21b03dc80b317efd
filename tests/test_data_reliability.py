"""Tests that no data is deleted, that damage to stores is noticed and that no work is lost."""

import dataclasses
import errno
import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest

from lord_fast.atomic import MARKER
from lord_fast.cli import main
from lord_fast.data import pack as pack_module
from lord_fast.data import split as split_module
from lord_fast.data import unfinished as unfinished_module
from lord_fast.data.manifest import SAMPLED, read_manifest
from lord_fast.data.options import PackConfig
from lord_fast.data.pack import pack
from lord_fast.data.sources import open_source
from lord_fast.data.sources.glyphs import Glyphs
from lord_fast.data.split import split_classes, split_images
from lord_fast.data.store import ImageStore
from lord_fast.data.verify import verify
from lord_fast.data.writer import StoreWriter
from lord_fast.lock import folder_lock
from tests.test_pack_broken import encoded

CONFIG = PackConfig(size=16, decoder="pillow", workers=1)


def image_folder(root: Path, images: int = 40) -> Path:
    for name in ("a", "b"):
        (root / name).mkdir(parents=True)
        for i in range(images):
            (root / name / f"{i:02}.png").write_bytes(encoded("PNG", seed=i))
    return root


def contents(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def packed(source: Path, out: Path, config: PackConfig = CONFIG) -> Path:
    pack(open_source(str(source), config), out, config)
    return out


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    """A read-only folder with 80 images of two classes."""
    return image_folder(tmp_path_factory.mktemp("images") / "images")


@pytest.fixture(scope="module")
def stores(images, tmp_path_factory) -> dict[str, Path]:
    """Read-only stores, one decoded, one encoded, and a part of the decoded one."""
    root = tmp_path_factory.mktemp("stores")
    found = {
        "decoded": packed(images, root / "decoded"),
        "encoded": packed(images, root / "encoded", PackConfig(size=16, encoded=True)),
    }
    split_images(found["decoded"], root / "part", root / "rest", 0.5, seed=0)
    return {**found, "part": root / "part"}


# Files of others are never removed.


def test_a_source_with_the_name_of_the_unfinished_store_stays(tmp_path):
    source = image_folder(tmp_path / "x.partial", images=2)
    before = contents(source)
    with pytest.raises(ValueError, match=r"x\.partial: lies in .*x\.partial, which would be wr"):
        packed(source, tmp_path / "x")
    assert contents(source) == before
    assert not (tmp_path / "x").exists()


def test_a_store_with_the_name_of_an_unfinished_part_stays(glyph_store, tmp_path):
    store = shutil.copytree(glyph_store, tmp_path / "x.partial")
    before = contents(store)
    for parts in ((tmp_path / "x", tmp_path / "t"), (tmp_path / "t", tmp_path / "x")):
        with pytest.raises(ValueError, match=r"x\.partial: lies in .*x\.partial"):
            split_images(store, *parts, 0.5, seed=0)
    assert contents(store) == before
    assert [path.name for path in tmp_path.iterdir()] == ["x.partial"]


@pytest.mark.parametrize("what", ["folder", "file", "link"])
def test_a_foreign_path_with_the_name_of_the_unfinished_store_stays(images, tmp_path, what):
    foreign = tmp_path / "x.partial"
    if what == "folder":
        foreign.mkdir()
        (foreign / "packing.json").write_text('{"mine": 1}')
    elif what == "file":
        foreign.write_text("mine")
    else:
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "elsewhere" / MARKER).touch()
        foreign.symlink_to(tmp_path / "elsewhere")
    before = contents(tmp_path)
    with pytest.raises(ValueError, match=r"x\.partial: in the way"):
        packed(images, tmp_path / "x")
    assert contents(tmp_path) == before


def test_an_unfinished_store_of_an_earlier_version_is_recognized(images, tmp_path):
    left = tmp_path / "x.partial"
    left.mkdir()
    content = {"started": 1, "source": {}, "decoder": {}, "size": 16}
    (left / "packing.json").write_text(json.dumps(content))
    (left / "images.u8").write_bytes(b"x")
    packed(images, tmp_path / "x")
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_store_inside_its_source_or_around_it_is_refused(tmp_path):
    source = image_folder(tmp_path / "out" / "images", images=2)
    with pytest.raises(ValueError, match=r"images/store: lies in .*images, which is only read"):
        packed(source, source / "store")
    (tmp_path / "name").symlink_to(source)
    with pytest.raises(ValueError, match="lies in"):
        packed(tmp_path / "name", source / "a" / "store")
    (tmp_path / "out").rename(tmp_path / "new.partial")
    with pytest.raises(ValueError, match=r"images: lies in .*new\.partial, which would be written"):
        packed(tmp_path / "new.partial" / "images", tmp_path / "new")
    assert len(contents(tmp_path / "new.partial")) == 4


# Only one process may write a store.


def test_two_packings_of_one_store_do_not_mix(images, tmp_path):
    refused = []

    def second(count: int) -> None:
        if count and not refused:
            with pytest.raises(ValueError, match=r"store\.partial: in use by process") as caught:
                packed(images, tmp_path / "store")
            refused.append(caught)

    pack(open_source(str(images), CONFIG), tmp_path / "store", CONFIG, second)
    assert refused
    assert verify(tmp_path / "store").startswith("all 80 images")


def test_a_part_that_another_process_writes_is_refused(glyph_store, tmp_path):
    (tmp_path / "test.partial").mkdir()
    lock = folder_lock(tmp_path / "test.partial")
    with lock, pytest.raises(ValueError, match=r"test\.partial: in use by"):
        split_images(glyph_store, tmp_path / "train", tmp_path / "test", 0.5, seed=0)
    split_images(glyph_store, tmp_path / "train", tmp_path / "test", 0.5, seed=0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["test", "train"]
    assert not list(tmp_path.glob("*/.lock"))


# Damage is noticed.


@pytest.mark.parametrize("kind", ["decoded", "encoded", "part"])
def test_verify_notices_every_flipped_bit(stores, tmp_path, kind):
    store = shutil.copytree(stores[kind], tmp_path / "store")
    rng = random.Random(0)
    for file in sorted(store.iterdir()):
        whole = file.read_bytes()
        for position in [rng.randrange(8 * len(whole)) for _ in range(15 if whole else 0)]:
            damaged = bytearray(whole)
            damaged[position // 8] ^= 1 << position % 8
            file.write_bytes(damaged)
            with pytest.raises(ValueError, match=r"store"):
                verify(store)
        for damaged in (whole[:-1], whole + b"\n"):
            file.write_bytes(damaged)
            if damaged != whole:
                with pytest.raises(ValueError, match=r"store"):
                    verify(store)
        file.write_bytes(whole)
    assert verify(store).startswith("all ")


@pytest.mark.parametrize("kind", ["decoded", "encoded", "part"])
def test_a_flipped_label_does_not_open(stores, tmp_path, kind):
    store = shutil.copytree(stores[kind], tmp_path / "store")
    for name in ("class_ids.npy", "content_ids.npy", "offsets.npy", "manifest.json"):
        file = store / name
        if not file.is_file():
            continue
        whole = file.read_bytes()
        for position in range(len(whole) - 9, len(whole) - 1):
            file.write_bytes(
                whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :]
            )
            with pytest.raises(ValueError, match=rf"{name}: (changed|damaged|not the manifest)"):
                ImageStore(store)
        file.write_bytes(whole)
    ImageStore(store)


@pytest.mark.parametrize("kind", ["decoded", "encoded", "part"])
def test_pixels_replaced_by_noise_do_not_open(stores, tmp_path, kind):
    store = shutil.copytree(stores[kind], tmp_path / "store")
    file = store / ("images.bin" if kind == "encoded" else "images.u8")
    file.write_bytes(np.random.default_rng(0).bytes(file.stat().st_size))
    with pytest.raises(ValueError, match=r"images\....?: image \d+ is not the one that was packed"):
        ImageStore(store)


def test_the_sample_is_spread_over_the_store(stores):
    rows = read_manifest(stores["decoded"])["sample"]
    assert len(rows) == SAMPLED < 80
    assert max(image_id for image_id, _ in rows) > 64
    index = [json.loads(line) for line in (stores["decoded"] / "index.jsonl").open()]
    assert all(index[image_id]["sha256"] == sha256 for image_id, sha256 in rows)


def test_verify_says_that_sources_without_hashes_were_not_compared(images, stores, tmp_path):
    class Norb(Glyphs):
        def describe(self):
            return {"format": "smallnorb", "path": str(images)}

    pack(Norb(16, 2), tmp_path / "store", CONFIG)
    assert "could not be compared" in verify(tmp_path / "store")
    assert "and so are their sources" in verify(stores["decoded"])


def as_version_1(store: Path) -> Path:
    """Turn a store into one that an older lord-fast would have packed."""
    file = store / "manifest.json"
    manifest = json.loads(file.read_text())
    for key in ("files", "sample", "manifest_sha256"):
        del manifest[key]
    file.write_text(json.dumps({**manifest, "version": 1}, indent=1) + "\n")
    return store


def test_a_store_without_hashes_opens_with_a_warning(stores, tmp_path):
    store = as_version_1(shutil.copytree(stores["decoded"], tmp_path / "store"))
    with pytest.warns(UserWarning, match="packed by an older lord-fast, without hashes"):
        opened = ImageStore(store)
    assert opened.sha256 == ImageStore(stores["decoded"]).sha256
    assert "manifest.json and left_out.jsonl were not checked" in verify(store)
    class_ids = np.load(store / "class_ids.npy")
    class_ids[3] ^= 1
    np.save(store / "class_ids.npy", class_ids)
    with pytest.raises(ValueError, match=r"the labels of a/03\.png are not those of its index"):
        verify(store)


def test_a_damaged_index_is_not_split(stores, tmp_path):
    store = shutil.copytree(stores["decoded"], tmp_path / "store")
    index = (store / "index.jsonl").read_text()
    (store / "index.jsonl").write_text(index.replace("a/07.png", "a/77.png"))
    with pytest.raises(ValueError, match=r"index\.jsonl: changed since packing"):
        split_images(store, tmp_path / "train", tmp_path / "test", 0.5, seed=0)
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


# Work is not lost.


def test_a_full_disk_keeps_what_is_packed(images, tmp_path, monkeypatch):
    real, calls = StoreWriter.flush, []

    def flush(writer):
        calls.append(writer)
        if len(calls) == 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(writer)

    with monkeypatch.context() as patch:
        patch.setattr(StoreWriter, "flush", flush)
        with pytest.raises(
            ValueError, match=r"store\.partial: No space left .* is kept there, and"
        ):
            packed(images, tmp_path / "store")
    steps = []
    pack(open_source(str(images), CONFIG), tmp_path / "store", CONFIG, steps.append)
    assert steps[0] >= 48
    whole = contents(packed(images, tmp_path / "whole"))
    assert contents(tmp_path / "store") == whole


def test_only_errors_of_the_system_can_be_continued(tmp_path):
    class Undrawable(Glyphs):
        def __iter__(self):
            def draw():
                raise OSError("raster overflow")

            return (dataclasses.replace(record, image=draw) for record in super().__iter__())

    with pytest.raises(ValueError, match="raster overflow") as caught:
        pack(Undrawable(16, 2), tmp_path / "store", CONFIG)
    assert "continues" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


class Killed(BaseException):
    """Plays the role of a killed process."""


def test_a_packing_that_was_killed_before_its_last_step_continues(images, tmp_path, monkeypatch):
    def killed(partial, out):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(pack_module, "finish", killed)
        with pytest.raises(Killed):
            packed(images, tmp_path / "store")
    steps = []
    pack(open_source(str(images), CONFIG), tmp_path / "store", CONFIG, steps.append)
    assert steps == [80]
    assert verify(tmp_path / "store").startswith("all 80 images")


def test_the_marker_remains_until_the_rename(images, tmp_path, monkeypatch):
    """A process that is killed while files are synced leaves a folder with lord-fast's marker."""
    real = unfinished_module.finish_folder

    def renamed(partial, out):
        monkeypatch.setattr(Path, "rename", lambda *_: (_ for _ in ()).throw(Killed))
        real(partial, out)

    monkeypatch.setattr(unfinished_module, "finish_folder", renamed)
    with pytest.raises(Killed):
        packed(images, tmp_path / "store")
    monkeypatch.undo()
    assert (tmp_path / "store.partial" / MARKER).is_file()
    packed(images, tmp_path / "store")
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


@pytest.mark.parametrize("function", [split_images, split_classes])
def test_a_killed_split_writes_the_missing_part_when_repeated(
    glyph_store, tmp_path, monkeypatch, function
):
    amount = 0.25 if function is split_images else 3
    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
    parts = [[tmp_path / name / part for part in ("train", "test")] for name in ("whole", "cut")]
    sizes = function(glyph_store, *parts[0], amount, seed=3)
    real = split_module.finish

    def finish(partial, out):
        if out.name == "test":
            raise Killed
        real(partial, out)

    with monkeypatch.context() as patch:
        patch.setattr(split_module, "finish", finish)
        with pytest.raises(Killed):
            function(glyph_store, *parts[1], amount, seed=3)
    assert [path.is_dir() for path in parts[1]] == [True, False]
    with pytest.raises(ValueError, match="train: exists already"):
        function(glyph_store, *parts[1], amount, seed=4)
    assert function(glyph_store, *parts[1], amount, seed=3) == sizes
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


def test_split_says_which_part_existed(glyph_store, tmp_path, capsys):
    parts = tmp_path / "train", tmp_path / "test"
    split_images(glyph_store, *parts, 0.25, seed=0)
    shutil.rmtree(parts[1])
    arguments = ["split", str(glyph_store), *map(str, parts), "--images", "0.25"]
    assert main(arguments) == 0
    printed = capsys.readouterr().err
    assert "train: 120 images (created by an earlier, interrupted command)" in printed
    assert "test: 40 images\n" in printed


def test_held_out_images_equal_those_of_a_loop_over_classes(tmp_path):
    """The random choice must stay that of the first version, which drew class by class."""
    source = Glyphs(16, 30, rotations=(0, 30))
    pack(source, tmp_path / "store", PackConfig(size=16))
    split_images(tmp_path / "store", tmp_path / "train", tmp_path / "test", 0.17, seed=5)
    store = ImageStore(tmp_path / "store")
    order = np.random.default_rng(5).permutation(store.num_images)
    wanted = set()
    for class_id in range(store.num_classes):
        members = order[store.class_ids.numpy()[order] == class_id]
        wanted |= set(members[: max(1, round(0.17 * len(members)))].tolist())
    names = {json.loads(line)["name"] for line in (tmp_path / "test" / "index.jsonl").open()}
    index = [json.loads(line) for line in (tmp_path / "store" / "index.jsonl").open()]
    assert names == {index[i]["name"] for i in wanted}
