"""Tests encoded stores, which hold the original files and decode them during training."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lord_fast.cli import main
from lord_fast.data.loader import AHEAD, Loader
from lord_fast.data.options import PackConfig
from lord_fast.data.pack import pack
from lord_fast.data.sampler import EpochSampler
from lord_fast.data.sources import open_source
from lord_fast.data.sources.glyphs import GlyphOptions
from lord_fast.data.store import ImageStore


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """A folder with 4 classes of 10 images of several sizes and formats."""
    root = tmp_path_factory.mktemp("photos") / "images"
    rng = np.random.default_rng(0)
    for c in range(4):
        (root / f"class{c}").mkdir(parents=True)
        for i in range(10):
            pixels = rng.integers(0, 256, (9, 8 + i, 3), dtype=np.uint8)
            image = Image.fromarray(pixels).resize((40 + i, 45))
            image.save(root / f"class{c}" / f"{i}.{('png', 'jpg')[i % 2]}")
    return root


@pytest.fixture(scope="module", params=["pillow", "dali"])
def stores(request, photos, tmp_path_factory) -> tuple[Path, Path]:
    """A decoded and an encoded store of the same images."""
    if request.param == "dali":
        pytest.importorskip("nvidia.dali", reason="DALI is not installed")
    root = tmp_path_factory.mktemp("stores")
    for encoded in (False, True):
        config = PackConfig(size=32, decoder=request.param, encoded=encoded)
        pack(open_source(str(photos), config), root / str(encoded), config)
    return root / "False", root / "True"


def test_both_stores_hold_the_same_images(stores, photos):
    decoded, encoded = map(ImageStore, stores)
    assert (decoded.encoded, encoded.encoded) == (False, True)
    assert decoded.sha256 == encoded.sha256
    order = torch.randperm(40)
    for image_ids in (order[:13], order[13:], torch.tensor([7, 7, 0])):
        ours, theirs = encoded.images(image_ids), decoded.images(image_ids)
        assert torch.equal(ours, theirs)
        assert ours.stride() == theirs.stride()
    original = b"".join(f.read_bytes() for f in sorted(photos.rglob("*.*")))
    assert (stores[1] / "images.bin").read_bytes() == original


def flags(run: Path) -> list[str]:
    values = {
        "--run": run, "--loss": "pyramid", "--steps": 6, "--batch-size": 16, "--content-dim": 4,
        "--class-dim": 4, "--adain-dim": 8, "--threads": 1, "--device": "cpu", "--log-every": 3,
        "--grid-every": 6, "--save-every": 3,
    }  # fmt: skip
    return [str(word) for pair in values.items() for word in pair]


def losses(run: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (run / "stats.jsonl").read_text().splitlines()]


def test_both_stores_train_to_the_same_bits(stores, tmp_path):
    """A run that started on the decoded store also continues on the encoded one."""
    for name, store in zip("de", stores, strict=True):
        assert main(["train", str(store), *flags(tmp_path / name)]) == 0
    assert losses(tmp_path / "d") == losses(tmp_path / "e")
    grids = [next((tmp_path / name / "grids").iterdir()).read_bytes() for name in "de"]
    assert grids[0] == grids[1]
    for file in (tmp_path / "d" / "checkpoints").iterdir():
        if "6" in file.name:
            (shutil.rmtree if file.is_dir() else Path.unlink)(file)
    assert main(["train", str(stores[1]), *flags(tmp_path / "d")]) == 0
    assert losses(tmp_path / "d") == losses(tmp_path / "e")


def test_a_damaged_file_in_the_store_is_named(stores, tmp_path):
    store = shutil.copytree(stores[1], tmp_path / "store")
    data = bytearray((store / "images.bin").read_bytes())
    data[:100] = bytes(100)
    opened = ImageStore(store)
    (store / "images.bin").write_bytes(data)
    with pytest.raises(ValueError, match=r"does not decode .*lord-fast pack --verify"):
        opened.images(torch.tensor([0, 1]))
    with pytest.raises(ValueError, match=r"image 0 is not the one .*lord-fast pack --verify"):
        ImageStore(store)
    (store / "images.bin").write_bytes(data[:-1])
    with pytest.raises(ValueError, match=r"images\.bin: is not .* bytes long"):
        ImageStore(store)


def test_encoded_stores_need_files_instead_of_pixels(tmp_path):
    config = PackConfig(size=32, encoded=True)
    with pytest.raises(ValueError, match="--encoded: this source holds pixels"):
        pack(open_source("glyphs", config, GlyphOptions(classes=2)), tmp_path / "store", config)
    assert not list(tmp_path.glob("store*"))


def test_an_encoded_store_has_no_pixels(stores):
    with pytest.raises(ValueError, match="an encoded store; pack one without --encoded"):
        _ = ImageStore(stores[1]).pixels


def test_loader_gives_each_step_its_images(glyph_store):
    """Steps are requested in order, repeated, backwards and ahead."""
    store = ImageStore(glyph_store)
    sampler, other = (EpochSampler(store.num_images, 32, seed=3) for _ in range(2))
    loader = Loader(store, sampler, torch.device("cpu"))
    for step in (0, 1, 2, 3, 4, 5, 6, 2, 2, 9, 10, 0):
        expected = store.images(other.image_ids(step))
        assert torch.equal(loader.batch(step).pixels, expected)
        assert len(loader._ready) == AHEAD


def test_the_loader_raises_errors_of_its_thread(glyph_store, monkeypatch):
    store = ImageStore(glyph_store)
    loader = Loader(store, EpochSampler(store.num_images, 32, 0), torch.device("cpu"))

    def broken(image_ids, pinned=False):
        raise ValueError("of the disk")

    monkeypatch.setattr(store, "images", broken)
    with pytest.raises(ValueError, match="of the disk"):
        loader.batch(0)


def test_an_encoded_store_stays_on_disk(stores):
    store = ImageStore(stores[1])
    with pytest.raises(ValueError, match=r"--store-device cuda: .* is an encoded store"):
        store.place("cuda", torch.device("cuda"))
    store.place("auto", torch.device("cuda"))
    assert store.placed == "disk"
