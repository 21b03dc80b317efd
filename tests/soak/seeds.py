"""Small valid files of each parser of `tests.soak.parsers`."""

import gzip
import io
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from lord_fast.config import EncoderConfig, TrainConfig
from lord_fast.data.options import PackConfig
from lord_fast.data.pack import pack
from lord_fast.data.sources.glyphs import Glyphs
from lord_fast.data.sources.mnist import IMAGES, LABELS
from lord_fast.data.store import ImageStore
from lord_fast.run.config import save_config, save_encoder_config
from lord_fast.run.snapshot import save
from tests.soak.parsers import CHECKPOINT, FOLDER


def npz() -> bytes:
    """Four images of two classes."""
    file = io.BytesIO()
    imgs = np.zeros((4, 2, 2, 1), dtype=np.uint8)
    np.savez(file, imgs=imgs, classes=np.array([0, 0, 1, 1]), contents=np.array(["x", "y"] * 2))
    return file.getvalue()


def files(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Those that the program writes; the rest of the store and the checkpoint goes to `FOLDER`."""
    pack(Glyphs(8, 2, rotations=(0,)), folder / "store", PackConfig(size=8))
    for file in (folder / "store").iterdir():
        (FOLDER / "store" / file.name).write_bytes(file.read_bytes())
    manifest = (folder / "store" / "manifest.json").read_bytes()
    for name in ("manifest", "open store", "sealed manifest"):
        yield name, manifest
    saved = save(folder, "latent", 12, {"decoder": {"w": torch.ones(2)}})
    assert saved.name == CHECKPOINT
    for file in saved.iterdir():
        (FOLDER / CHECKPOINT / file.name).write_bytes(file.read_bytes())
    for name in ("state.json", "sealed state.json"):
        yield name, (saved / "state.json").read_bytes()
    save_config(folder / "config.yaml", TrainConfig(), ImageStore(folder / "store").describe())
    save_encoder_config(folder / "encoders.yaml", EncoderConfig())
    for name in ("config.yaml", "encoders.yaml"):
        whole = (folder / name).read_bytes()
        yield name, whole
        yield name, whole[whole.index(b"\n") + 1 :]  # without its hash


def seeds() -> Iterator[tuple[str, bytes]]:
    """Pairs of a parser and a file for it."""
    idx = struct.pack(">4I", IMAGES, 2, 2, 2) + bytes(8)
    yield "idx", idx
    yield "idx.gz", gzip.compress(idx)
    yield "idx labels", struct.pack(">2I", LABELS, 2) + bytes(2)
    yield "npz", npz()
    yield "norb", struct.pack("<6i", 0x1E3D4C55, 4, 1, 2, 2, 2) + bytes(8)
    yield "norb", struct.pack("<5i", 0x1E3D4C54, 1, 2, 1, 1) + bytes(8)
    row = {"stage": "latent", "step": 1, "reconstruction": 0.5, "lr": 0.1, "loss": 1}
    yield "stats.jsonl", (json.dumps(row) + "\n").encode() * 2
    yield "history.jsonl", b'{"command": "lord-fast train", "version": "0", "time": "x"}\n'
    found = {"codes": "latent", "step": 1, "images": 2, "seed": 0, "transfer": None,
             "probed": {"images": 2, "classes": 1, "classes_of_one_image": 0},
             "reconstruction": {"psnr": 1.0, "psnr_per_image": 1.0, "ssim": 1.0,
                                "perceptual": None, "interval": {"psnr": [0, 1]}},
             "leakage": {"missing": "few"}, "informativeness": {"missing": "few"}}  # fmt: skip
    yield "metrics.json", json.dumps(found).encode()
    yield "crop", b"64x64+2+2"
    yield "content pattern", rb"(?P<angle>\d+)-(?P<light>[a-z]+)"
    with TemporaryDirectory() as folder:
        yield from files(Path(folder))
