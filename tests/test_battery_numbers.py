"""Absurd numbers and memory that runs out: one line that names the flag, and exit code 2."""

import shutil

import pytest
import torch

from lord_fast.cli import main
from lord_fast.config import TrainConfig, replace
from lord_fast.train.encoders import EncoderStage
from lord_fast.train.latent import LatentStage
from tests.test_cli import fails
from tests.test_reliability import SHORT_FLAGS
from tests.test_train import flags, train

ABSURD = {
    "train": [
        ("--steps", 10**18), ("--steps", 10**9), ("--epochs", 10**20), ("--content-dim", 10**12),
        ("--class-dim", 10**21), ("--adain-dim", 8 * 10**9), ("--threads", 100_000),
        ("--threads", 10**12), ("--batch-size", 10**12), ("--seed", 10**24), ("--lr", "nan"),
    ],
    "pack": [("--size", 100_000), ("--workers", 10**6)],
    "sample": [("-n", 10**12), ("--seed", 10**24)],
    "split": [("--classes", 10**18), ("--images", "1e18"), ("--images", "nan")],
    "train-encoders": [("--encoder-dim", 10**12), ("--steps", 10**18), ("--epochs", 10**20)],
}  # fmt: skip


@pytest.mark.parametrize(
    ("verb", "flag", "value"), [(verb, *pair) for verb, pairs in ABSURD.items() for pair in pairs]
)
def test_absurd_numbers_name_the_flag(glyph_store, short_run, tmp_path, capsys, verb, flag, value):
    small = flags(replace(TrainConfig(), content_dim=4, loss="pyramid", batch_size=16))
    command = {
        "train": ("train", glyph_store, "--run", tmp_path / "run", *small),
        "pack": ("pack", "glyphs", tmp_path / "store"),
        "sample": ("sample", short_run, "--out", tmp_path / "grid.png"),
        "split": ("split", glyph_store, tmp_path / "a", tmp_path / "b"),
        "train-encoders": ("train-encoders", short_run),
    }[verb]
    error = fails(capsys, *command, flag, value)
    assert flag.lstrip("-") in error
    assert list(tmp_path.iterdir()) == []


def no_memory(*arguments):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def no_memory_on_the_cpu(*arguments):
    torch.empty(1 << 60)


@pytest.mark.parametrize("fault", [no_memory, no_memory_on_the_cpu])
def test_out_of_memory_says_which_batch_to_try(glyph_store, tmp_path, monkeypatch, capsys, fault):
    run = tmp_path / "run"
    monkeypatch.setattr(LatentStage, "update", fault)
    assert train(glyph_store, run, *SHORT_FLAGS) == 2
    assert "out of memory with --batch-size 16; try --batch-size 8" in capsys.readouterr().err
    monkeypatch.undo()
    # Nothing was saved, so the same folder takes the smaller batch.
    assert train(glyph_store, run, *SHORT_FLAGS, "--batch-size", "8") == 0


def test_out_of_memory_in_stage_2(short_run, tmp_path, monkeypatch, capsys):
    run = shutil.copytree(short_run, tmp_path / "run")
    monkeypatch.setattr(EncoderStage, "update", no_memory)
    assert main(["train-encoders", str(run), "--batch-size", "12", "--steps", "2"]) == 2
    assert "out of memory with --batch-size 12; try --batch-size 6" in capsys.readouterr().err
