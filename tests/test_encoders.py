"""Tests stage 2, with learning, gradients, exact resuming, signals and errors."""

import signal
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch._dynamo.testing import CompileCounterWithBackend

from lord_fast.cli import main
from lord_fast.config import EncoderConfig, replace
from lord_fast.data.store import ImageStore, as_float
from lord_fast.errors import Interrupted
from lord_fast.lord import Lord
from lord_fast.machine import set_up
from lord_fast.model.build import stored_codes
from lord_fast.model.encoder import Encoder
from lord_fast.run import checkpoint
from lord_fast.run.config import load_config, load_encoder_config
from lord_fast.run.stats import read_stats
from lord_fast.train.encoders import EncoderStage
from lord_fast.train.loop import run_stage
from tests.test_cli import fails
from tests.test_train import StopAfter, files_of, train

SMALL = replace(
    EncoderConfig(),
    encoder_dim=16, batch_size=16, steps=12, log_every=1, save_every=5, grid_every=1000,
    device="cpu", lr=2e-3,
)  # fmt: skip

ENCODER_FLAGS = (
    "--encoder-dim", "16", "--batch-size", "16", "--steps", "120", "--lr", "2e-3",
    "--log-every", "25", "--threads", "1",
)  # fmt: skip


def stage_of(run, **changes) -> EncoderStage:
    config, data = load_config(run / "config.yaml")
    latent = checkpoint.load(checkpoint.latest(run / "checkpoints", "latent"))
    store, machine = ImageStore(Path(data["store"])), set_up("cpu", "float32", 1)
    counts = store.num_images, store.num_classes
    codes = stored_codes(latent.tables, latent.step, config, *counts, machine.device)
    return EncoderStage(
        replace(SMALL, **changes), config, store, latent.state, ({0: codes[0]}, codes[1]), machine
    )


def test_the_encoder_has_the_published_layers():
    """The published encoder has five convolutions and three fully connected layers."""
    encoder = Encoder(128, 256, 64, 3)
    shapes = [tuple(conv.weight.shape) for conv in encoder.convs]
    assert shapes == [
        (64, 3, 7, 7), (128, 64, 4, 4), (256, 128, 4, 4), (256, 256, 4, 4), (256, 256, 4, 4),
    ]  # fmt: skip
    assert [conv.stride for conv in encoder.convs] == [(1, 1), *[(2, 2)] * 4]
    linears = [*encoder.hidden, encoder.last]
    assert [tuple(layer.weight.shape) for layer in linears] == [(256, 4096), (256, 256), (128, 256)]


@pytest.mark.parametrize("size", [32, 64, 128, 256])
@pytest.mark.parametrize("channels", [1, 3])
def test_encoders_accept_every_size(size, channels):
    encoder = Encoder(6, 16, size, channels)
    assert encoder(torch.rand(2, channels, size, size)).shape == (2, 6)


def test_only_trainable_parameters_get_gradients(trained_run):
    stage = stage_of(trained_run)
    scalars = stage.graph(
        stage.store.images(torch.arange(16)), stage.content_codes[0][:16],
        stage.class_codes[stage.store.class_ids[:16]],
    )  # fmt: skip
    scalars["loss"].backward()
    for name, parameter in (*stage.encoders.named_parameters(), *stage.decoder.named_parameters()):
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name
    assert not stage.content_codes[0].requires_grad
    assert not stage.class_codes.requires_grad


def test_the_loss_is_the_published_one(trained_run):
    stage = stage_of(trained_run, content_weight=3.0, class_weight=7.0)
    store = stage.store
    scalars = stage.step(0)
    ids = stage_of(trained_run).sampler.image_ids(0)
    fresh = stage_of(trained_run)
    content, class_ = fresh.encoders(as_float(store.images(ids)))
    latent = Lord.load(trained_run, device="cpu", stage="latent")
    content_error = (content - latent.content_codes[ids]).square().mean()
    class_error = (class_ - latent.class_codes[store.class_ids[ids]]).square().mean()
    images = fresh.decoder(content, class_)
    reconstruction = fresh.graph.reconstruction(images, as_float(store.images(ids)))
    expected = reconstruction + 3 * content_error + 7 * class_error
    torch.testing.assert_close(scalars["content_error"], content_error)
    torch.testing.assert_close(scalars["class_error"], class_error)
    torch.testing.assert_close(scalars["loss"], expected)


def test_generator_and_modulation_start_from_stage_1(trained_run):
    state = checkpoint.load(checkpoint.latest(trained_run / "checkpoints", "latent")).state
    for name, tensor in stage_of(trained_run).decoder.state_dict().items():
        assert torch.equal(tensor, state["decoder"][name])


def test_encoders_learn(encoder_run):
    rows = read_stats(encoder_run / "stats.jsonl")
    rows = [row for row in rows if row["stage"] == "encoders"]
    assert set(rows[0]) == {
        "stage", "step", "epoch", "loss", "reconstruction", "content_error", "class_error", "lr",
        "images_per_second",
    }  # fmt: skip
    assert rows[-1]["class_error"] < 0.7 * rows[0]["class_error"]
    assert rows[-1]["content_error"] < 0.9 * rows[0]["content_error"]
    assert list((encoder_run / "grids").glob("encoders-*.png"))


def test_latent_codes_keep_their_decoder(encoder_run, trained_run):
    """Stage 2 fine-tunes its own decoder, so `evaluate --codes latent` gives the same result."""
    before = Lord.load(trained_run, device="cpu")
    after = Lord.load(encoder_run, device="cpu", stage="latent")
    tuned = Lord.load(encoder_run, device="cpu")
    assert (before.stage, after.stage, tuned.stage) == ("latent", "latent", "encoders")
    images = [m.decode(m.content_codes[:8], m.class_codes[:8]) for m in (before, after, tuned)]
    assert torch.equal(images[0], images[1])
    assert not torch.equal(images[0], images[2])


@pytest.mark.parametrize("stop_at", [1, 7, 10])
def test_an_interrupted_and_resumed_run_gives_the_same_bytes(trained_run, tmp_path, stop_at):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for run in (whole, broken):
        run.mkdir()
    run_stage(stage_of(trained_run), whole, Console(quiet=True))
    stopper, stage = StopAfter(f"encoders {stop_at}/", signal.SIGTERM), stage_of(trained_run)
    with pytest.raises(Interrupted):
        run_stage(stage, broken, stopper)
    assert checkpoint.steps_done(broken / "checkpoints", "encoders") == stop_at
    run_stage(stage_of(trained_run), broken, Console(quiet=True))
    last = "checkpoints/encoders-000000012"
    assert files_of(whole / last) == files_of(broken / last)


def test_compiles_to_one_graph(trained_run):
    """This checks only for graph breaks. Stage 1 tests the compiled code."""
    stage = stage_of(trained_run)
    counter = CompileCounterWithBackend("aot_eager")
    stage.run_graph = torch.compile(stage.graph, fullgraph=True, backend=counter)
    eager = stage_of(trained_run)
    for step in range(3):
        losses = [each.step(step)["loss"].detach() for each in (stage, eager)]
        torch.testing.assert_close(*losses, rtol=1e-4, atol=1e-6)
    assert counter.frame_count == 1


def test_the_runs_preset_sets_the_defaults(tmp_path):
    from lord_fast.config import PRESETS, encoder_defaults

    assert encoder_defaults(PRESETS["paper"]).lr == 1e-4
    assert encoder_defaults(PRESETS["paper"]).encoder_dim == 256
    assert encoder_defaults(PRESETS["a100"]).machine.precision == "bf16"


def test_the_command_says_that_a_finished_stage_is_finished(encoder_run, capsys):
    assert load_encoder_config(encoder_run / "encoders.yaml").encoder_dim == 16
    capsys.readouterr()
    assert main(["train-encoders", str(encoder_run), *ENCODER_FLAGS]) == 0
    assert "stage 2 is finished" in capsys.readouterr().err
    error = fails(capsys, "train-encoders", encoder_run, *ENCODER_FLAGS, "--lr", "0.5")
    assert "--lr 0.002 -> 0.5" in error


def test_unusable_runs_and_options_are_refused(glyph_store, tmp_path, capsys):
    run = tmp_path / "run"
    assert "not a run of lord-fast" in fails(capsys, "train-encoders", tmp_path)
    assert train(glyph_store, run, "--steps", "8") == 0
    checkpoints = run / "checkpoints"
    (checkpoints / "latent-000000008").rename(checkpoints / "latent-000000004")
    assert "stage 1 has done 4 of 8 steps" in fails(capsys, "train-encoders", run)
    (checkpoints / "latent-000000004").rename(checkpoints / "latent-000000008")
    assert "--encoder-dim 10" in fails(capsys, "train-encoders", run, "--encoder-dim", "10")
    assert not (run / "encoders.yaml").exists()
    images = torch.rand(2, 1, 32, 32)
    with pytest.raises(ValueError, match="train-encoders"):
        Lord.load(run, device="cpu").encode(images)
    with pytest.raises(ValueError, match="no encoders"):
        Lord.load(run, device="cpu", stage="encoders")


@pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without CUDA")
def test_missing_kernels_are_refused(trained_run, capsys):
    assert main(["train-encoders", str(trained_run), "--kernels", "triton"]) == 2
    assert "--kernels triton: " in capsys.readouterr().err
