"""Tests the exit codes and errors of the command line, and that it leaves no partial files."""

import contextlib
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lord_fast.cli import main
from tests.test_train import ROOT, flags, train


def folder_of(root, counts: dict[str, int], size=(32, 32)):
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for i in range(count):
            Image.new("L", size, 20 * i).save(root / name / f"{i}.png")
    return root


def packed(tmp_path, counts, size=32):
    source = folder_of(tmp_path / "images", counts)
    flags = ("--size", str(size), "--content-labels", "stem")
    assert main(["pack", str(source), str(tmp_path / "store"), *flags]) == 0
    return tmp_path / "store"


def fails(capsys, *arguments) -> str:
    """Run a command that must exit with 2, and return its single line on stderr."""
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith(f"lord-fast {arguments[0]}: ")
    assert "Traceback" not in error
    return error


def test_overview_and_version(capsys):
    assert main(["--help"]) == 0
    assert "pack" in capsys.readouterr().out
    assert main(["--version"]) == 0
    assert main(["sing"]) == 2
    assert "no command 'sing'" in capsys.readouterr().err


def test_unknown_flag_exits_with_2():
    with pytest.raises(SystemExit) as caught:
        main(["train", "store", "--run", "run", "--no-such-flag", "1"])
    assert caught.value.code == 2


def test_presets_are_the_defaults_of_the_flags(glyph_store, tmp_path):
    from lord_fast.run.config import load_config

    run = tmp_path / "run"
    assert train(glyph_store, run, "--preset", "paper", "--perceptual-scale", "raw") == 0
    config, _ = load_config(run / "config.yaml")
    assert config.loss.perceptual_taps[-1] == "pool5"  # of the preset
    assert config.model.content_dim == 4  # of a flag


@pytest.mark.parametrize(
    ("counts", "size", "extra", "message"),
    [
        ({"only": 20}, 32, (), r"one class only (only)"),
        ({"a": 20, "b": 1}, 32, (), "1 of 2 classes have one image (b)"),
        ({"a": 5, "b": 5}, 32, (), "10 images are fewer than one batch of 16"),
        ({"a": 20, "b": 20}, 48, (), "images of 48 x 48"),
        ({"a": 20, "b": 20}, 32, ("--adain-dim", "12"), "--adain-dim 12"),
        ({"a": 20, "b": 20}, 32, ("--beta1", "1.5"), "--beta1 1.5"),
        (
            {"a": 20, "b": 20}, 32, ("--loss", "vgg16", "--perceptual-taps", "conv9"),
            "--perceptual-taps conv9",
        ),
        (
            {"a": 20, "b": 20}, 32, ("--loss", "vgg16", "--perceptual-weights", "gone.pth"),
            "--perceptual-weights gone.pth: no such file",
        ),
        ({"a": 20, "b": 20}, 32, ("--steps", "0"), "--steps 0"),
        ({"a": 20, "b": 20}, 32, ("--batch-size", "0"), "--batch-size 0"),
        ({"a": 20, "b": 20}, 32, ("--lr", "-1"), "--lr -1"),
    ],
)  # fmt: skip
def test_bad_input_of_train(tmp_path, capsys, counts, size, extra, message):
    store = packed(tmp_path, counts, size)
    run = tmp_path / "run"
    error = fails(capsys, "train", store, "--run", run, *flags(), *extra)
    assert message in error
    assert not run.exists()


def test_cuda_without_a_gpu_is_refused(glyph_store, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    error = fails(
        capsys, "train", glyph_store, "--run", tmp_path / "r", *flags(), "--device", "cuda"
    )
    assert "--device cuda: this PyTorch sees no GPU" in error


def test_a_run_refuses_another_configuration_or_store(glyph_store, tmp_path, capsys):
    run = tmp_path / "run"
    assert train(glyph_store, run) == 0
    before = {f: f.read_bytes() for f in sorted(run.rglob("*")) if f.is_file()}
    error = fails(capsys, "train", glyph_store, "--run", run, *flags(), "--lr", "0.5")
    assert "--lr 0.002 -> 0.5" in error
    other = packed(tmp_path, {"a": 20, "b": 20})
    error = fails(capsys, "train", other, "--run", run, *flags())
    assert "other images" in error
    assert {f: f.read_bytes() for f in sorted(run.rglob("*")) if f.is_file()} == before
    assert train(glyph_store, run, "--threads", "1", "--save-every", "7") == 0  # may differ


def test_a_folder_that_is_not_a_run_is_refused_is_refused(glyph_store, tmp_path, capsys):
    (tmp_path / "letters.txt").write_text("mine")
    error = fails(capsys, "train", glyph_store, "--run", tmp_path, *flags())
    assert "not empty and not a run" in error
    assert os.listdir(tmp_path) == ["letters.txt"]
    for verb in ("evaluate", "report"):
        assert "not a run of lord-fast" in fails(capsys, verb, tmp_path)


@pytest.fixture
def public_path():
    """A folder that every user may enter, unlike pytest's temporary folders."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        yield Path(name)


@contextlib.contextmanager
def as_nobody():
    """Drop root's rights while the block runs, because root may write anywhere."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def test_a_read_only_folder_is_an_error_is_an_error(public_path, capsys):
    store = packed(public_path, {"a": 20, "b": 20})
    source = public_path / "images"
    assert train(store, public_path / "first") == 0
    closed = public_path / "closed"
    closed.mkdir(mode=0o555)
    with as_nobody():
        for command in (
            ("train", store, "--run", closed / "run", *flags()),
            ("pack", source, closed / "store"),
            ("report", public_path / "first"),
        ):
            assert "Permission denied" in fails(capsys, *command)
    assert os.listdir(closed) == []


def limit_file_size(size: int):
    """Make writes fail in the middle, like on a full disk, but with EFBIG instead of ENOSPC."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@pytest.mark.parametrize("verb", ["pack", "train"])
def test_failed_writes_leave_no_partial_files(glyph_store, tmp_path, verb):
    source = folder_of(tmp_path / "images", {"a": 20, "b": 20})
    out = tmp_path / "out"
    arguments = {
        "pack": ["pack", source, out, "--size", "32"],
        "train": ["train", glyph_store, "--run", out, *flags()],
    }[verb]
    command = [sys.executable, "-m", "lord_fast", *map(str, arguments)]
    failed = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, preexec_fn=limit_file_size(20_000)
    )
    assert failed.returncode == 2
    assert "File too large" in failed.stderr.splitlines()[-1]
    assert "Traceback" not in failed.stderr
    if verb == "pack":
        assert sorted(os.listdir(tmp_path)) == ["images", "out.partial"]  # what is packed so far
    else:
        assert os.listdir(out / "checkpoints") == []
    assert subprocess.run(command, cwd=ROOT, capture_output=True).returncode == 0


def test_broken_images_leave_no_store(tmp_path, capsys):
    source = folder_of(tmp_path / "images", {"a": 3, "b": 3})
    (source / "a" / "1.png").write_bytes(b"\x89PNG broken")
    error = fails(capsys, "pack", source, tmp_path / "store")
    assert "1 of 6 images cannot be used" in error
    assert "a/1.png" in error
    assert sorted(os.listdir(tmp_path)) == ["images"]


def test_evaluate_finds_a_moved_store_and_refuses_another(tmp_path, capsys):
    store = packed(tmp_path, {"a": 20, "b": 20})
    run = tmp_path / "run"
    assert train(store, run) == 0
    moved = tmp_path / "moved"
    store.rename(moved)
    assert "lord-fast train NEW_PATH --run" in fails(capsys, "evaluate", run)
    assert main(["evaluate", str(run), "--store", str(moved)]) == 0
    rng = np.random.default_rng(0)
    np.savez(
        tmp_path / "o.npz",
        imgs=rng.integers(0, 255, (4, 32, 32), dtype=np.uint8),
        classes=np.array([0, 0, 1, 1]),
    )
    assert main(["pack", str(tmp_path / "o.npz"), str(tmp_path / "other"), "--size", "32"]) == 0
    moved.rename(store)
    error = fails(capsys, "evaluate", run, "--store", tmp_path / "other")
    assert "not the images that" in error
