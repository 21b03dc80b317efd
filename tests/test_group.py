"""Tests that a run has the same bits on any number of processes."""

import hashlib
import shutil
from pathlib import Path

import pytest
import torch

from tests.processes import run, start

V = 4
TRAIN = (
    "--virtual-ranks", V, "--content-dim", 4, "--class-dim", 8, "--adain-dim", 8, "--loss",
    "pyramid", "--batch-size", 16, "--steps", 6, "--save-every", 3, "--keep", 9, "--log-every", 2,
    "--grid-every", 5, "--device", "cpu", "--threads", 1, "--precision", "float32",
)  # fmt: skip
ENCODERS = (
    "--encoder-dim", 16, "--batch-size", 16, "--steps", 4, "--save-every", 2, "--log-every", 2,
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
