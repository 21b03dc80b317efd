"""Tests stage 1 end to end, with learning, exact resuming, signals and statistics."""

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch._dynamo.testing import CompileCounterWithBackend

from lord_fast.bounds import flag
from lord_fast.cli import main
from lord_fast.config import TrainConfig, options, replace
from lord_fast.data.store import ImageStore, as_float
from lord_fast.errors import Interrupted
from lord_fast.lord import Lord
from lord_fast.machine import set_up
from lord_fast.presets import PRESETS
from lord_fast.run import checkpoint
from lord_fast.run.stats import read_stats
from lord_fast.train.latent import LatentStage
from lord_fast.train.loop import run_stage
from tests.plain_table import assert_same, state_of

SMALL = replace(
    TrainConfig(),
    content_dim=4, class_dim=8, adain_dim=8, loss="pyramid", batch_size=16, steps=24,
    save_every=8, log_every=8, grid_every=1000, device="cpu",
)  # fmt: skip
ROOT = Path(__file__).parents[1]


def flags(config: TrainConfig = SMALL) -> list[str]:
    """Return the command-line flags by which `config` differs from the laptop preset."""
    default = options(PRESETS["laptop"])
    return [
        word
        for name, value in options(config).items()
        if value != default[name]
        for word in (flag(name), str(value))
    ]


def train(store: Path, run: Path, *extra: str) -> int:
    return main(["train", str(store), "--run", str(run), *flags(), *extra])


def files_of(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_training_learns_and_writes_all_outputs(glyph_store, tmp_path, capsys):
    run = tmp_path / "run"
    assert train(glyph_store, run, "--steps", "150", "--lr", "3e-3", "--latent-lr", "1e-1") == 0
    rows = read_stats(run / "stats.jsonl")
    assert [row["step"] for row in rows] == [*range(8, 151, 8), 150]
    assert set(rows[0]) == {
        "stage", "step", "epoch", "loss", "reconstruction", "content_penalty", "lr",
        "images_per_second",
    }  # fmt: skip
    assert rows[-1]["reconstruction"] < 0.6 * rows[0]["reconstruction"]
    assert rows[-1]["lr"] < 1.2e-5
    assert (run / "grids" / "latent-000000150.png").is_file()
    assert checkpoint.steps_done(run / "checkpoints", "latent") == 150
    header = capsys.readouterr().err
    for expected in ("--content-dim 4", "160 images of 8 classes", "CPU", str(run)):
        assert expected in header

    lord = Lord.load(run, device="cpu")
    store = ImageStore(glyph_store)
    images = lord.decode(lord.content_codes, lord.class_codes[store.class_ids])
    error = (images - as_float(store.images(torch.arange(160)))).square().mean()
    assert error < 0.8 * as_float(store.images(torch.arange(160))).var()

    assert train(glyph_store, run, "--steps", "150", "--lr", "3e-3", "--latent-lr", "1e-1") == 0
    assert "stage 1 is finished (150 steps)" in capsys.readouterr().err


class StopAfter(Console):
    """A console that sends this process a signal when it prints a given step."""

    def __init__(self, text: str, signum: int):
        super().__init__(quiet=True)
        self.text, self.signum = text, signum

    def print(self, *args, **kwargs) -> None:
        if args and self.text in str(args[0]):
            signal.raise_signal(self.signum)


@pytest.mark.parametrize("stop_at", [1, 11, 16, 23])
def test_an_interrupted_and_resumed_run_gives_the_same_state(glyph_store, tmp_path, stop_at):
    store, machine = ImageStore(glyph_store), set_up("cpu", "float32", 2)
    config = replace(SMALL, log_every=1, save_every=10, content_discrepancy=1.0)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for run in (whole, broken):
        run.mkdir()
    run_stage(LatentStage(config, store, machine), whole, Console(quiet=True))

    stopper = StopAfter(f"latent {stop_at}/", signal.SIGTERM)
    with pytest.raises(Interrupted) as caught:
        run_stage(LatentStage(config, store, machine), broken, stopper)
    assert caught.value.signum == signal.SIGTERM
    assert checkpoint.steps_done(broken / "checkpoints", "latent") == stop_at
    run_stage(LatentStage(config, store, machine), broken, Console(quiet=True))

    last = "checkpoints/latent-000000024"
    assert_same(state_of(whole / last), state_of(broken / last))
    steps = [row["step"] for row in read_stats(broken / "stats.jsonl")]
    assert steps == list(range(1, 25))


def test_a_killed_run_loses_at_most_one_save_interval(glyph_store, tmp_path):
    """After SIGKILL the same command gives the same bits as an uninterrupted run."""
    run, whole = tmp_path / "run", tmp_path / "whole"
    command = [
        sys.executable, "-m", "lord_fast", "train", glyph_store, "--run", run, *flags(),
        "--steps", "400", "--save-every", "20", "--threads", "1",
    ]  # fmt: skip
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    while checkpoint.steps_done(run / "checkpoints", "latent") < 20:
        assert process.poll() is None
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert 20 <= checkpoint.steps_done(run / "checkpoints", "latent") < 400
    assert subprocess.run(command, cwd=ROOT, stderr=subprocess.DEVNULL).returncode == 0
    command[command.index(run)] = whole
    assert subprocess.run(command, cwd=ROOT, stderr=subprocess.DEVNULL).returncode == 0
    last = "checkpoints/latent-000000400"
    assert files_of(run / last) == files_of(whole / last)


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_exit_codes_of_signals(glyph_store, tmp_path, signum, code):
    run = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, "-m", "lord_fast", "train", glyph_store, "--run", run, *flags(),
         "--steps", "100000", "--save-every", "50000"],
        cwd=ROOT, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while not (run / "stats.jsonl").exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signum)
    message = process.communicate()[1].splitlines()[-1]
    assert process.returncode == code
    assert signal.Signals(signum).name in message
    assert "all saved" in message
    assert checkpoint.steps_done(run / "checkpoints", "latent") >= 8


def test_the_noise_and_the_penalty_are_in_the_graph(glyph_store):
    store, machine = ImageStore(glyph_store), set_up("cpu", "float32", 2)
    config = replace(SMALL, content_decay=0.1, content_std=3.0)
    stage = LatentStage(config, store, machine)
    scalars = stage.step(0)
    # Codes start within 0.05, so almost all of the penalty is noise, 0.1 * content_dim * 9.
    assert scalars["content_penalty"].item() == pytest.approx(0.1 * 4 * 9, rel=0.5)
    assert scalars["loss"] == scalars["reconstruction"] + scalars["content_penalty"]
    quiet = LatentStage(replace(config, content_std=0.0), store, machine)
    assert quiet.step(0)["content_penalty"] < 0.01


def test_only_the_rows_of_the_batch_change(glyph_store):
    store, machine = ImageStore(glyph_store), set_up("cpu", "float32", 2)
    stage = LatentStage(SMALL, store, machine)
    stage.step(0)
    ids = stage.sampler.image_ids(0)
    touched = stage.contents[0].state.last_step.nonzero()[:, 0]
    assert torch.equal(touched, ids.sort().values)
    classes = store.class_ids[ids].unique()
    assert torch.equal(stage.class_.state.last_step.nonzero()[:, 0], classes)


def test_compiled_steps_match_eager_steps(glyph_store):
    store, machine = ImageStore(glyph_store), set_up("cpu", "float32", 2)
    losses = []
    for compiled in (False, True):
        stage = LatentStage(replace(SMALL, compile="on" if compiled else "off"), store, machine)
        losses.append(torch.stack([stage.step(step)["loss"].detach() for step in range(5)]))
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-4, atol=1e-6)


def test_one_compilation_serves_a_whole_run(glyph_store, tmp_path):
    """Steps are not recompiled after grids, after checkpoints or after a resume."""
    store, machine = ImageStore(glyph_store), set_up("cpu", "float32", 2)
    config = replace(SMALL, grid_every=8)
    counter = CompileCounterWithBackend("aot_eager")
    torch._dynamo.reset()
    for steps in (12, 24):
        stage = LatentStage(config, store, machine)
        stage.total_steps = steps
        stage.run_graph = torch.compile(stage.graph, fullgraph=True, backend=counter)
        run_stage(stage, tmp_path, Console(quiet=True))
    assert counter.frame_count == 1


def test_the_paper_preset_has_the_published_settings():
    paper = PRESETS["paper"]
    model, loss, adam = paper.model, paper.loss, paper.adam
    assert (model.content_dim, model.class_dim, model.adain_dim) == (128, 256, 256)
    assert (model.content_std, loss.content_decay) == (1.0, 1e-4)
    assert (adam.lr, adam.latent_lr, adam.class_lr) == (3e-4, 3e-3, 3e-3)
    assert (adam.beta1, adam.beta2, adam.eps) == (0.5, 0.999, 1e-8)
    assert (paper.batch_size, paper.epochs, model.leaky_slope) == (128, 200, 0.01)
    assert loss.perceptual_taps == ("relu1_2", "relu2_2", "relu3_2", "relu4_3", "pool5")
    assert (loss.pixel_weight, loss.perceptual_weight) == (1.0, 1.0)
    assert (loss.perceptual_scale, loss.perceptual_input) == ("raw", "unit")
    assert model.adain_init == "linear"


def test_vgg_loss_trains_on_real_faces(shared, tmp_path):
    """The laptop preset's loss trains for a few steps, and its tap scale is saved."""
    from lord_fast.data.options import PackConfig
    from lord_fast.data.pack import pack
    from lord_fast.data.sources import open_source

    source = tmp_path / "faces"
    source.mkdir()
    for person in ("yaleB11", "yaleB12"):
        shutil.copytree(shared / "data" / "yaleb_28" / person, source / person)
    config = PackConfig(size=32)
    pack(open_source(str(source), config), tmp_path / "store", config)
    weights = shared / "weights" / "vgg16_features.safetensors"
    run = tmp_path / "run"
    code = main(
        ["train", str(tmp_path / "store"), "--run", str(run), *flags(), "--loss", "vgg16",
         "--perceptual-weights", str(weights), "--steps", "16"]
    )  # fmt: skip
    assert code == 0
    rows = read_stats(run / "stats.jsonl")
    assert rows[-1]["reconstruction"] < rows[0]["reconstruction"]
    state = checkpoint.load(checkpoint.latest(run / "checkpoints", "latent")).state
    assert state["loss"]["tap_scale"].min() > 1


def test_a_foreign_config_yaml_is_not_overwritten(glyph_store, tmp_path, capsys):
    (tmp_path / "config.yaml").write_text("my: precious\n")
    assert train(glyph_store, tmp_path) == 2
    assert "config.yaml: not the configuration of a run" in capsys.readouterr().err
    assert (tmp_path / "config.yaml").read_text() == "my: precious\n"


def test_a_finished_run_learns_where_its_store_has_moved(glyph_store, tmp_path, capsys):
    store, run, moved = tmp_path / "store", tmp_path / "run", tmp_path / "moved"
    shutil.copytree(glyph_store, store)
    assert train(store, run) == 0
    store.rename(moved)
    assert main(["report", str(run)]) == 2
    assert f"lord-fast train NEW_PATH --run {run}" in capsys.readouterr().err
    assert train(moved, run) == 0
    assert "nothing to do" in capsys.readouterr().err
    assert main(["report", str(run)]) == 0


def test_another_decoder_is_refused_on_resume(glyph_store, tmp_path, capsys):
    """DALI and Pillow give different pixels."""
    assert train(glyph_store, tmp_path / "run") == 0
    assert train(glyph_store, tmp_path / "run", "--decoder", "pillow") == 2
    assert "--decoder auto -> pillow" in capsys.readouterr().err
