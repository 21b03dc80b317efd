"""Tests training that starts from another run."""

import shutil

import pytest
import torch

from lord_fast.data.split import split_images
from lord_fast.lord import Lord
from lord_fast.run.config import load_config
from tests.test_cli import fails
from tests.test_train import flags, train

ONE_STEP = ("--steps", "1", "--lr", "1e-9", "--latent-lr", "1e-9", "--class-lr", "1e-9",
            "--min-lr", "0")  # fmt: skip


def same_networks(first: Lord, second: Lord) -> bool:
    pairs = zip(first.decoders["latent"].parameters(), second.decoders["latent"].parameters(),
                strict=True)  # fmt: skip
    return all(torch.allclose(a, b, atol=1e-6) for a, b in pairs)


def test_networks_and_codes_come_from_the_other_run(glyph_store, trained_run, tmp_path, capsys):
    run = tmp_path / "run"
    assert train(glyph_store, run, "--init-from", str(trained_run), *ONE_STEP) == 0
    assert f"start:   networks and codes of {trained_run}, step 120" in capsys.readouterr().err
    old, new = Lord.load(trained_run, "cpu"), Lord.load(run, "cpu")
    assert same_networks(old, new)
    # One step updates 32 of 160 images. The others are saved too.
    assert torch.allclose(old.content_codes, new.content_codes, atol=1e-6)
    assert torch.allclose(old.class_codes, new.class_codes, atol=1e-6)
    assert load_config(run / "config.yaml")[0].init_from == trained_run


def test_other_images_get_new_codes(glyph_store, trained_run, tmp_path, capsys):
    split_images(glyph_store, tmp_path / "seen", tmp_path / "held", 0.2, seed=0)
    run = tmp_path / "run"
    assert train(tmp_path / "seen", run, "--init-from", str(trained_run), *ONE_STEP) == 0
    assert "start:   networks of" in capsys.readouterr().err
    old, new = Lord.load(trained_run, "cpu"), Lord.load(run, "cpu")
    assert same_networks(old, new)
    assert new.content_codes.abs().max() <= 0.05
    assert not torch.allclose(old.class_codes, new.class_codes, atol=1e-2)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("--content-dim", "5"), "--content-dim 4 -> 5"),
        (("--class-dim", "9"), "--class-dim 8 -> 9"),
        (("--adain-dim", "16"), "--adain-dim 8 -> 16"),
    ],
)
def test_other_sizes_are_refused_by_name(
    glyph_store, trained_run, tmp_path, capsys, option, message
):
    run = tmp_path / "run"
    command = ("train", glyph_store, "--run", run, *flags(), "--init-from", trained_run, *option)
    assert f"--init-from {trained_run}: has other sizes: {message}" in fails(capsys, *command)
    assert not run.exists()
    nothing = tmp_path / "nothing"
    command = ("train", glyph_store, "--run", run, *flags(), "--init-from", nothing)
    assert f"{nothing}: not a run" in fails(capsys, *command)


def test_a_resumed_run_gives_the_same_bits_without_the_other_run(
    glyph_store, trained_run, tmp_path, capsys
):
    other = tmp_path / "other"
    shutil.copytree(trained_run, other)
    begin = ("--init-from", str(other), "--steps", "12", "--save-every", "2", "--threads", "1")
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert train(glyph_store, whole, *begin) == 0
    assert train(glyph_store, cut, *begin, "--keep", "9") == 0
    for step in (4, 6, 8, 10, 12):
        shutil.rmtree(cut / "checkpoints" / f"latent-{step:09d}")
    shutil.rmtree(other)
    assert train(glyph_store, cut, *begin) == 0
    first, second = Lord.load(whole, "cpu"), Lord.load(cut, "cpu")
    assert torch.equal(first.content_codes, second.content_codes)
    assert torch.equal(first.class_codes, second.class_codes)
    capsys.readouterr()
    error = fails(capsys, "train", glyph_store, "--run", cut, *flags(), *begin[2:])
    assert f"--init-from {other} -> None" in error
