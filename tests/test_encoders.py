"""Tests stage 2, with learning, gradients, exact resuming, signals and errors."""

import signal
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import yaml
from rich.console import Console
from threadpoolctl import threadpool_limits
from torch._dynamo.testing import CompileCounterWithBackend

from lord_fast.cli import main
from lord_fast.config import EncoderConfig, fit_to, options, replace
from lord_fast.data.store import ImageStore, as_float
from lord_fast.errors import Interrupted
from lord_fast.lord import Lord
from lord_fast.machine import set_up
from lord_fast.model.build import stored_codes
from lord_fast.model.codebook import Codebook
from lord_fast.model.encoder import Encoder, KnownCodes
from lord_fast.presets import ENCODER_PRESETS
from lord_fast.run import checkpoint
from lord_fast.run.config import as_plain, load_config, load_encoder_config
from lord_fast.run.stats import read_stats
from lord_fast.train import optimizer
from lord_fast.train.encoders import EncoderStage
from lord_fast.train.loop import run_stage
from tests.test_cli import fails
from tests.test_train import StopAfter, files_of, train

NEW = {
    "encoder_init": "kaiming", "reconstruction_weight": 0.0, "swaps": 1,
    "class_cross_entropy": 1.0, "class_bandwidth": 0.25, "content_bandwidth": 0.0,
    "content_codebook": 9, "content_candidates": 3,
}  # fmt: skip
"""Options of the demo preset, with a smaller codebook."""

PUBLISHED = {
    "encoder_init": "linear", "reconstruction_weight": 1.0, "swaps": 0,
    "class_cross_entropy": 0.0, "class_bandwidth": 0.0, "content_bandwidth": 0.0,
    "content_codebook": 0, "content_candidates": 16,
}  # fmt: skip
"""The options that give the published form of stage 2."""

SMALL = replace(
    EncoderConfig(), **PUBLISHED,
    encoder_dim=16, batch_size=16, steps=12, log_every=1, save_every=5, grid_every=1000,
    device="cpu", lr=2e-3,
)  # fmt: skip

ENCODER_FLAGS = (
    "--encoder-dim", "16", "--batch-size", "16", "--steps", "120", "--lr", "2e-3",
    "--log-every", "25", "--threads", "1", "--reconstruction-weight", "1",
)  # fmt: skip


def stage_of(run, **changes) -> EncoderStage:
    config, data = load_config(run / "config.yaml")
    latent = checkpoint.load(checkpoint.latest(run / "checkpoints", "latent"))
    store, machine = ImageStore(Path(data["store"])), set_up("cpu", "float32", 1)
    counts = store.num_images, store.num_classes
    codes = stored_codes(latent.tables, latent.step, config, *counts, machine.device)
    stage = EncoderStage(
        replace(SMALL, **changes), config, store, latent.state, ({0: codes[0]}, codes[1]), machine
    )
    stage.begin()
    return stage


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
    class_ids = stage.store.class_ids[:16]
    scalars = stage.graph(
        stage.store.images(torch.arange(16)), stage.content_codes[0][:16],
        stage.class_codes[class_ids], class_ids,
    )  # fmt: skip
    scalars["loss"].backward()
    for name, parameter in (*stage.encoders.named_parameters(), *stage.decoder.named_parameters()):
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name
    assert not stage.content_codes[0].requires_grad
    assert not stage.class_codes.requires_grad


def test_the_published_form_gives_the_bits_of_the_published_loss(trained_run):
    """Losses of three steps equal those of a loop that is written from the paper."""
    stage = stage_of(trained_run, content_weight=3.0, class_weight=7.0, **PUBLISHED)
    other = stage_of(trained_run, **PUBLISHED)
    store, latent = stage.store, Lord.load(trained_run, device="cpu", stage="latent")
    for step in range(3):
        scalars = stage.step(step)
        ids = other.sampler.image_ids(step)
        content, class_ = other.encoders(as_float(store.images(ids)), other.decoder)
        images = other.decoder(content, class_)
        loss = other.reconstruction(images, as_float(store.images(ids)))
        content_error = F.mse_loss(content, latent.content_codes[ids])
        loss = loss + 3.0 * content_error
        loss = loss + 7.0 * F.mse_loss(class_, latent.class_codes[store.class_ids[ids]])
        assert torch.equal(scalars["loss"], loss.detach())
        assert torch.equal(scalars["content_error"], content_error.detach())
        assert set(scalars) == {"loss", "reconstruction", "content_error", "class_error"}
        loss.backward()
        optimizer.set_learning_rate(other.adam, other.learning_rate(step))
        optimizer.step(other.adam)


def test_swaps_take_content_from_one_image_and_class_from_another(trained_run):
    stage = stage_of(trained_run, swaps=2)
    content, class_ids = stage.content_codes[0][:5], torch.tensor([0, 1, 2, 3, 4])
    images = stage.graph.with_swaps(torch.rand(5, 1, 32, 32), content, stage.class_codes[class_ids])
    assert images.shape == (15, 1, 32, 32)
    assert not images.requires_grad
    wanted = stage.decoder(content[3:4], stage.class_codes[class_ids[2:3]])
    torch.testing.assert_close(images[5 + 3 : 5 + 4], wanted)
    wanted = stage.decoder(content[0:1], stage.class_codes[class_ids[3:4]])
    torch.testing.assert_close(images[10:11], wanted)


def test_the_loss_of_swaps_asks_for_the_codes_that_made_them(trained_run):
    weights = {"content_weight": 3.0, "class_weight": 7.0, "class_cross_entropy": 5.0}
    stage = stage_of(trained_run, **NEW | weights)
    ids = torch.arange(0, 64, 4)
    class_ids = stage.store.class_ids[ids]
    content, class_ = stage.content_codes[0][ids], stage.class_codes[class_ids]
    scalars = stage.graph(stage.store.images(ids), content, class_, class_ids)
    images = stage.graph.with_swaps(as_float(stage.store.images(ids)), content, class_)
    predicted = stage.encoders.content.predict(images), stage.encoders.class_.predict(images)
    turned = torch.cat([class_ids, class_ids[-1:], class_ids[:-1]])
    content_error = F.mse_loss(predicted[0], torch.cat([content, content]))
    class_error = F.mse_loss(predicted[1], stage.class_codes[turned])
    entropy = F.cross_entropy(stage.encoders.class_.known.logits(predicted[1]), turned)
    torch.testing.assert_close(scalars["loss"], 3 * content_error + 7 * class_error + 5 * entropy)


def test_without_reconstruction_the_decoder_of_stage_1_stays(trained_run):
    stage = stage_of(trained_run, **NEW)
    before = {name: tensor.clone() for name, tensor in stage.decoder.state_dict().items()}
    scalars = [stage.step(step) for step in range(3)]
    assert all(torch.equal(before[name], t) for name, t in stage.decoder.state_dict().items())
    assert all(s["reconstruction"] > 0 for s in scalars)


def test_known_codes_are_weighted_by_a_gaussian_kernel():
    codes, predicted = torch.randn(7, 3), torch.randn(5, 3)
    known = KnownCodes(7, 3)
    known.fill(codes, bandwidth=0.5)
    std = 0.5 * (codes - codes.mean(0)).norm(dim=1).square().mean().sqrt()
    weights = torch.exp(-torch.cdist(predicted, codes).square() / (2 * std**2))
    wanted = weights @ codes / weights.sum(1, keepdim=True)
    torch.testing.assert_close(known(predicted), wanted)
    torch.testing.assert_close(
        known.logits(predicted).softmax(1), weights / weights.sum(1)[:, None]
    )


def test_the_encoders_return_means_of_the_codes_of_stage_1(trained_run):
    stage = stage_of(trained_run, class_bandwidth=0.01, content_bandwidth=0.01)
    images = as_float(stage.store.images(torch.arange(6)))
    content, class_ = stage.encoders(images, stage.decoder)
    for found, known in ((content, stage.content_codes[0]), (class_, stage.class_codes)):
        assert torch.cdist(found, known).min(1)[0].max() < 1e-3
    raw = stage.encoders.class_.predict(images)
    assert torch.cdist(raw, stage.class_codes).min(1)[0].min() > 1e-2


def test_a_codebook_keeps_what_classes_share():
    """Codes are a content of four and a little of their class of ten."""
    generator = torch.Generator().manual_seed(0)
    contents = torch.randn(4, 3, generator=generator)
    classes = 0.05 * torch.randn(10, 3, generator=generator)
    book = Codebook(4, 3, num_candidates=1)
    book.fill((contents[:, None] + classes).flatten(0, 1), seed=0)
    wanted = contents + classes.mean(0)
    assert torch.cdist(wanted, book.codes).min(1)[0].max() < 1e-5
    found = book(contents + 0.1)
    assert torch.cdist(found, wanted).argmin(1).tolist() == [0, 1, 2, 3]
    assert torch.cdist(found, wanted).min(1)[0].max() < 1e-5


def test_a_codebook_takes_any_seed_and_does_not_depend_on_threads():
    codes = torch.randn(3000, 8, generator=torch.Generator().manual_seed(0))
    found = []
    for threads in (1, 2):
        book = Codebook(16, 8, num_candidates=1)
        with threadpool_limits(threads):
            book.fill(codes, seed=1 << 40)
        found.append(book.codes)
    assert torch.equal(*found)


def test_a_default_codebook_has_at_most_half_of_the_images():
    demo = ENCODER_PRESETS["demo"]
    sizes = {
        count: (fitted.content_codebook, fitted.content_candidates)
        for count in (10, 100, 256, 100_000)
        for fitted in [fit_to(demo, count)]
    }
    assert sizes == {10: (5, 5), 100: (50, 16), 256: (128, 16), 100_000: (128, 16)}
    given = fit_to(replace(demo, content_codebook=90, content_candidates=99), 100)
    assert (given.content_codebook, given.content_candidates) == (90, 99)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"content_bandwidth": 0.2}, "--content-bandwidth 0.2: only one of them can be used"),
        ({"reconstruction_weight": 1.0}, "--reconstruction-weight 1.0: the codes of a codebook"),
        ({"content_codebook": 161}, "--content-codebook 161: there are 160 images; use 160"),
        ({"content_candidates": 10}, "--content-candidates 10: use 9 or less"),
    ],
)
def test_options_that_do_not_fit_a_codebook_are_refused(trained_run, changes, message):
    with pytest.raises(ValueError, match=message):
        stage_of(trained_run, **NEW | changes)


def test_a_search_takes_the_candidate_whose_image_is_nearest():
    book = Codebook(5, 1, num_candidates=2)
    book.codes.copy_(torch.tensor([[0.0], [1.0], [2.0], [3.0], [4.0]]))

    def decode(content_code, class_code):
        return (content_code + class_code)[:, :, None, None].expand(-1, 1, 2, 2)

    predicted, class_code = torch.tensor([[0.1], [0.1], [3.2]]), torch.tensor([[0.0], [1.0], [0.0]])
    images = torch.tensor([0.9, 1.1, 0.0])[:, None, None, None].expand(-1, 1, 2, 2)
    # The third image is that of code 0, which is not among the two nearest to the prediction.
    assert book.search(predicted, class_code, images, decode).flatten().tolist() == [1.0, 0.0, 3.0]


def test_encoders_with_a_codebook_return_its_codes(trained_run):
    stage = stage_of(trained_run, **NEW | {"content_codebook": 7, "content_candidates": 7})
    images = as_float(stage.store.images(torch.arange(12)))
    content, class_ = stage.encoders(images, stage.decoder)
    book = stage.encoders.content.known.codes
    assert torch.cdist(content, book).min(1)[0].max() < 1e-6
    every = [stage.decoder(code.expand(12, -1), class_) for code in book]
    errors = [(made - images).square().mean((1, 2, 3)) for made in every]
    assert torch.equal(content, book[torch.stack(errors).argmin(0)])


def test_the_kaiming_start_has_the_scale_of_the_codes(trained_run):
    """With PyTorch's default, all images get nearly the same code."""
    spread = {}
    for init in ("kaiming", "linear"):
        stage = stage_of(trained_run, encoder_init=init)
        found = stage.encoders(as_float(stage.store.images(torch.arange(64))), stage.decoder)
        known = stage.content_codes[0], stage.class_codes
        spread[init] = [
            float(a.detach().std(0).mean() / b.std(0).mean())
            for a, b in zip(found, known, strict=True)
        ]
    assert all(0.3 < ratio < 3 for ratio in spread["kaiming"])
    assert all(ratio < 0.1 for ratio in spread["linear"])


def test_a_run_of_an_older_version_loads_as_the_published_form(trained_run, tmp_path):
    file = tmp_path / "encoders.yaml"
    values = {k: v for k, v in as_plain(SMALL).items() if k not in PUBLISHED}
    file.write_text(yaml.safe_dump(values))
    loaded = options(load_encoder_config(file))
    assert {name: loaded[name] for name in PUBLISHED} == PUBLISHED


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


@pytest.mark.parametrize(("stop_at", "form"), [(1, PUBLISHED), (7, NEW), (10, PUBLISHED)])
def test_an_interrupted_and_resumed_run_gives_the_same_bytes(trained_run, tmp_path, stop_at, form):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for run in (whole, broken):
        run.mkdir()
    run_stage(stage_of(trained_run, **form), whole, Console(quiet=True))
    stopper, stage = (
        StopAfter(f"encoders {stop_at}/", signal.SIGTERM),
        stage_of(trained_run, **form),
    )
    with pytest.raises(Interrupted):
        run_stage(stage, broken, stopper)
    assert checkpoint.steps_done(broken / "checkpoints", "encoders") == stop_at
    run_stage(stage_of(trained_run, **form), broken, Console(quiet=True))
    last = "checkpoints/encoders-000000012"
    assert files_of(whole / last) == files_of(broken / last)


@pytest.mark.parametrize("form", [PUBLISHED, NEW])
def test_compiles_to_one_graph(trained_run, form):
    """This checks only for graph breaks. Stage 1 tests the compiled code."""
    stage = stage_of(trained_run, **form)
    counter = CompileCounterWithBackend("aot_eager")
    stage.run_graph = torch.compile(stage.graph, fullgraph=True, backend=counter)
    eager = stage_of(trained_run, **form)
    for step in range(3):
        losses = [each.step(step)["loss"].detach() for each in (stage, eager)]
        torch.testing.assert_close(*losses, rtol=1e-4, atol=1e-6)
    assert counter.frame_count == 1


def test_the_runs_preset_sets_the_defaults(tmp_path):
    from lord_fast.presets import PRESETS, encoder_defaults

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
    error = fails(capsys, "train-encoders", run, "--class-cross-entropy", "1")
    assert "needs a --class-bandwidth" in error
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
