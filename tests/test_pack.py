"""Tests packing of folders, npz files and glyphs."""

import hashlib
import json
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lord_fast.data.decode import BadImageError, PillowDecoder, Shape, read_file
from lord_fast.data.options import PackConfig
from lord_fast.data.pack import pack
from lord_fast.data.records import Record, Source
from lord_fast.data.sources import Folder, NpzFile, open_source
from lord_fast.data.sources.glyphs import Glyphs
from lord_fast.data.store import ImageStore


def image_of(colour, size=(40, 30), mode="RGB") -> Image.Image:
    return Image.new("RGB", size, colour).convert(mode)


@pytest.fixture
def folder(tmp_path):
    """A folder with two classes of images of several modes, sizes and formats."""
    root = tmp_path / "images"
    for name in ("cat", "dog"):
        (root / name).mkdir(parents=True)
    image_of("red").save(root / "cat" / "a_1.png")
    image_of("red", (64, 64)).save(root / "cat" / "b_2.jpg", quality=95)
    image_of("red", (33, 90), "P").save(root / "cat" / "c_3.gif")
    image_of("white", (10, 10), "L").save(root / "dog" / "a_1.pgm")
    image_of("white", (50, 20), "CMYK").save(root / "dog" / "b_2.jpg", quality=95)
    image_of("white", (64, 65), "1").save(root / "dog" / "c_3.png")
    (root / "dog" / "notes.txt").write_text("not an image")
    return root


def test_a_folder_becomes_a_store(folder, tmp_path):
    out = tmp_path / "store"
    pack(Folder(folder), out, PackConfig(size=32, content_labels="stem"))
    store = ImageStore(out)
    assert (store.num_images, store.num_classes, store.size, store.channels) == (6, 2, 32, 3)
    assert store.class_names == ["cat", "dog"]
    assert store.class_ids.tolist() == [0, 0, 0, 1, 1, 1]
    assert store.factors == {"content": ["a_1", "b_2", "c_3"]}
    assert store.content_ids[:, 0].tolist() == [0, 1, 2, 0, 1, 2]
    images = store.images(torch.tensor([5, 0, 1]))
    assert images.shape == (3, 3, 32, 32)
    assert images.dtype == torch.uint8
    assert images[0].float().mean() == 255
    for image in images[1:]:
        assert image.float().mean((1, 2)).sub(torch.tensor([255.0, 0, 0])).abs().max() < 3


def test_index_has_the_hash_of_every_image(folder, tmp_path):
    out = tmp_path / "store"
    pack(Folder(folder), out, PackConfig(size=32))
    rows = [json.loads(line) for line in (out / "index.jsonl").read_text().splitlines()]
    assert [row["name"] for row in rows][:2] == ["cat/a_1.png", "cat/b_2.jpg"]
    pixels = np.fromfile(out / "images.u8", dtype=np.uint8).reshape(6, -1)
    for row in rows:
        assert row["sha256"] == hashlib.sha256(pixels[row["id"]].tobytes()).hexdigest()


def test_packing_again_gives_the_same_bytes(folder, tmp_path):
    stores = []
    for name, workers in (("a", 1), ("b", 3)):
        pack(Folder(folder), tmp_path / name, PackConfig(size=32, workers=workers))
        stores.append(tmp_path / name)
    for file in ("images.u8", "index.jsonl", "class_ids.npy", "content_ids.npy", "manifest.json"):
        assert (stores[0] / file).read_bytes() == (stores[1] / file).read_bytes()


def test_auto_channels_are_grey_if_every_image_is_grey(tmp_path):
    root = tmp_path / "grey" / "x"
    root.mkdir(parents=True)
    values = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) * 16
    Image.fromarray(values).save(root / "deep.png")
    Image.new("L", (64, 64), 7).save(root / "flat.png")
    pack(Folder(tmp_path / "grey"), tmp_path / "store", PackConfig(size=64))
    store = ImageStore(tmp_path / "store")
    assert store.channels == 1
    deep, flat = store.images(torch.tensor([0, 1]))
    assert torch.equal(deep[0], torch.from_numpy((values >> 8).astype(np.uint8)))
    assert flat.unique().tolist() == [7]


def decoded(file: Path, size: int, channels: int):
    """Return the pixels of a file or the error."""
    return PillowDecoder(Shape(size, channels)).decode([read_file(file)])[0]


def test_centre_crop_and_orientation(tmp_path):
    """A wide image is rotated as EXIF says and then cut to its middle."""
    wide = Image.new("L", (90, 30), 0)
    wide.paste(200, (30, 0, 60, 30))
    wide.save(tmp_path / "wide.png")
    assert decoded(tmp_path / "wide.png", 32, 1)[:, 2:-2].min() == 200
    turned = Image.new("L", (40, 40), 0)
    turned.paste(255, (0, 0, 40, 20))
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    turned.save(tmp_path / "turned.png", exif=exif)
    pixels = decoded(tmp_path / "turned.png", 32, 1)[:, :, 0]
    assert pixels[:10].max() == 0
    assert pixels[-10:].min() == 255


def test_transparency_is_blended_on_white(tmp_path):
    Image.new("RGBA", (32, 32), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    assert decoded(tmp_path / "clear.png", 32, 3).min() == 255


def test_content_pattern(folder, tmp_path):
    source = Folder(folder, r"(?P<letter>[a-z])_(?P<number>\d)")
    pack(source, tmp_path / "store", PackConfig(size=32))
    store = ImageStore(tmp_path / "store")
    assert store.factors == {"letter": ["a", "b", "c"], "number": ["1", "2", "3"]}
    with pytest.raises(
        ValueError, match=r"cat/a_1\.png: its name does not match --content-pattern"
    ):
        pack(Folder(folder, r"(?P<x>z+)"), tmp_path / "other", PackConfig(size=32))
    assert not list(tmp_path.glob("other*"))
    for pattern, problem in (("(", "missing"), ("no group", "name each content factor")):
        with pytest.raises(ValueError, match=problem):
            Folder(folder, pattern)


def test_an_npz_file_becomes_a_store(tmp_path):
    rng = np.random.default_rng(0)
    imgs = rng.integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    contents = np.array([["0", "l"], ["1", "l"], ["0", "r"], ["1", "r"]])
    file = tmp_path / "data.npz"
    np.savez(file, imgs=imgs, classes=np.array([3, 3, 8, 8]), contents=contents)
    pack(open_source(str(file), PackConfig()), tmp_path / "store", PackConfig(size=32))
    store = ImageStore(tmp_path / "store")
    assert store.class_names == ["3", "8"]
    assert store.factors == {"content0": ["0", "1"], "content1": ["l", "r"]}
    pixels = store.images(torch.arange(4)).permute(0, 2, 3, 1).numpy()
    assert np.array_equal(pixels, imgs)


def test_an_npz_file_without_the_arrays_is_refused(tmp_path):
    np.savez(tmp_path / "bad.npz", images=np.zeros(3))
    with pytest.raises(ValueError, match=r"bad\.npz: .*imgs \[N, H, W, C\] uint8"):
        NpzFile(tmp_path / "bad.npz")


def test_broken_images_are_named_and_nothing_is_left(folder, tmp_path):
    (folder / "cat" / "empty.png").touch()
    (folder / "dog" / "text.jpg").write_text("hello")
    whole = (folder / "cat" / "a_1.png").read_bytes()
    (folder / "dog" / "cut.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"^3 of 9 images") as caught:
        pack(Folder(folder), tmp_path / "store", PackConfig(size=32))
    message = str(caught.value)
    assert "cat/empty.png: empty file" in message
    assert "dog/text.jpg: not an image" in message
    assert "dog/cut.png: " in message
    assert not list(tmp_path.glob("store*"))


def test_an_image_of_too_many_pixels_is_refused_before_decoding(tmp_path, monkeypatch):
    monkeypatch.setattr("lord_fast.data.decode.pillow.MAX_PIXELS", 1000)
    image_of("red").save(tmp_path / "large.png")
    with pytest.raises(BadImageError, match="40 x 30: more than 1,000 pixels"):
        raise decoded(tmp_path / "large.png", 32, 3)


def test_min_class_size_leaves_out_small_classes(folder, tmp_path):
    (folder / "solo").mkdir()
    image_of("blue").save(folder / "solo" / "one.png")
    pack(Folder(folder), tmp_path / "store", PackConfig(size=32, min_class_size=2))
    assert ImageStore(tmp_path / "store").class_names == ["cat", "dog"]
    with pytest.raises(ValueError, match="--min-class-size 9"):
        pack(Folder(folder), tmp_path / "other", PackConfig(size=32, min_class_size=9))


def test_existing_output_and_empty_or_missing_sources_are_refuseds_are_refused(folder, tmp_path):
    (tmp_path / "taken").mkdir()
    with pytest.raises(ValueError, match="taken: exists already"):
        pack(Folder(folder), tmp_path / "taken", PackConfig())
    (tmp_path / "nothing").mkdir()
    with pytest.raises(ValueError, match=r"nothing: no images; lay them out as nothing/CLASS"):
        open_source(str(tmp_path / "nothing"), PackConfig())
    with pytest.raises(ValueError, match="nowhere: no such folder or file"):
        open_source(str(tmp_path / "nowhere"), PackConfig())


def test_stores_of_another_version_and_damaged_stores_are_refused(folder, tmp_path):
    out = tmp_path / "store"
    pack(Folder(folder), out, PackConfig(size=32))
    with (out / "images.u8").open("ab") as file:
        file.write(b"x")
    with pytest.raises(ValueError, match=r"images\.u8: is not 18,432 bytes long"):
        ImageStore(out)
    manifest = json.loads((out / "manifest.json").read_text())
    (out / "manifest.json").write_text(json.dumps({**manifest, "version": 99}))
    with pytest.raises(ValueError, match="store version 99"):
        ImageStore(out)
    (out / "manifest.json").write_text("{")
    with pytest.raises(ValueError, match="not the manifest of a store"):
        ImageStore(out)
    with pytest.raises(ValueError, match="not a packed store"):
        ImageStore(folder)


class Many(Source):
    """A source that creates its images on demand."""

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def __iter__(self):
        pixels = np.zeros((64, 64), dtype=np.uint8)
        for i in range(self.count):
            yield Record(str(i), str(i % 10), {"content": str(i // 10)}, lambda: pixels.copy())

    def describe(self):
        return {"format": "many"}


def test_pixels_are_not_held_in_memory(tmp_path):
    """3,000 images have 12 MB of pixels, and packing takes less memory than that."""
    tracemalloc.start()
    try:
        pack(Many(3000), tmp_path / "store", PackConfig(size=64, channels=1))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert os.path.getsize(tmp_path / "store" / "images.u8") == 3000 * 64 * 64
    assert peak < 6e6


def test_glyphs_are_a_full_grid(glyph_store):
    store = ImageStore(glyph_store)
    assert (store.num_images, store.num_classes, store.channels) == (160, 8, 1)
    assert [len(labels) for labels in store.factors.values()] == [10, 2]
    keys = torch.cat((store.class_ids[:, None], store.content_ids), dim=1)
    assert len(keys.unique(dim=0)) == 160
    assert len(store.pixels.flatten(1).unique(dim=0)) == 160


def test_many_glyph_classes_use_fewer_typefaces():
    source = Glyphs(32, 3000, rotations=(0,))
    assert len(source.typefaces) == 4
    assert len(set(source.chars)) == 3000
    with pytest.raises(ValueError, match="share only 62 characters"):
        Glyphs(32, 63, typefaces=("cmr10", "DejaVuSans"))
    with pytest.raises(ValueError, match="--typefaces Comic: no such font; there are DejaVuSans"):
        Glyphs(32, 10, typefaces=("Comic",))


def test_glyph_manifest_names_the_fonts_by_hash(glyph_store):
    source = json.loads((glyph_store / "manifest.json").read_text())["source"]
    assert all(len(digest) == 64 for digest in source["fonts"].values())
    assert source["freetype"]
