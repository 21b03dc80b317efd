"""Tests the verb run, the defaults that depend on the data, and progress."""

import io
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from rich.console import Console

from lord_fast import console
from lord_fast.cli import main
from lord_fast.config import LEAST_STEPS, Default, EncoderConfig, fit_to, replace
from lord_fast.data.options import PackConfig
from lord_fast.data.pack import pack
from lord_fast.data.sources.glyphs import Glyphs
from lord_fast.model.schedule import cosine, extended_cosine
from lord_fast.presets import ENCODER_PRESETS, PRESETS
from lord_fast.run.config import load_config, load_encoder_config, options_from
from lord_fast.run.history import read_history
from lord_fast.train import log
from lord_fast.train.estimate import duration, estimate, size_of
from lord_fast.train.start import network_note
from tests.plain_table import state_of
from tests.test_cli import fails, folder_of, packed
from tests.test_train import files_of, flags, train


def length(config, num_images: int) -> tuple[int, int]:
    """Return the batch size and the steps of a configuration for a number of images."""
    found = fit_to(config, num_images)
    return found.batch_size, found.total_steps(num_images)


@pytest.mark.parametrize("stage", [PRESETS, ENCODER_PRESETS])
@pytest.mark.parametrize("preset", ["laptop", "paper"])
@pytest.mark.parametrize("num_images", [2, 10, 36, 200])
def test_small_data_gets_a_small_batch_and_the_least_steps(stage, preset, num_images):
    config = stage[preset]
    batch, steps = length(config, num_images)
    assert batch == min(num_images // 2, config.batch_size)
    assert steps >= LEAST_STEPS
    assert type(fit_to(config, num_images).batch_size) is int


def test_large_data_keeps_the_preset():
    assert fit_to(PRESETS["laptop"], 1774) == PRESETS["laptop"]
    assert length(PRESETS["laptop"], 1774) == (32, 45 * 55)
    assert length(PRESETS["demo"], 2790) == (32, 6000)
    assert length(ENCODER_PRESETS["demo"], 2790) == (32, 12 * 87)
    assert length(PRESETS["paper"], 100_000) == (128, 200 * 781)


def test_values_of_flags_do_not_change():
    laptop = PRESETS["laptop"]
    assert length(replace(laptop, epochs=45), 36) == (18, 90)
    assert length(replace(laptop, steps=7), 10) == (5, 7)
    assert length(replace(laptop, batch_size=4, epochs=2), 10) == (4, 4)
    with pytest.raises(ValueError, match="10 images are fewer than one batch of 32; use --batch"):
        fit_to(replace(laptop, batch_size=32), 10)


def test_fitting_twice_changes_nothing():
    once = fit_to(PRESETS["laptop"], 36)
    assert fit_to(once, 36) == once
    assert not isinstance(once.epochs, Default)


def test_the_command_line_tells_a_default_from_a_flag(tmp_path, capsys):
    """A typed value is not a default even if it equals that of the preset."""
    store = packed(tmp_path, {"a": 5, "b": 5})
    small = ("--loss", "pyramid", "--adain-dim", "8", "--device", "cpu", "--steps", "3")
    assert main(["train", str(store), "--run", str(tmp_path / "run"), *small]) == 0
    assert load_config(tmp_path / "run" / "config.yaml")[0].batch_size == 5
    error = fails(capsys, "train", store, "--run", tmp_path / "other", *small, "--batch-size", "32")
    assert "10 images are fewer than one batch of 32" in error


def test_a_small_run_resumes_with_what_was_chosen(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("lord_fast.config.LEAST_STEPS", 100)
    store, run = packed(tmp_path, {"a": 3, "b": 2}), tmp_path / "run"
    command = [
        "train", str(store), "--run", str(run), "--loss", "pyramid", "--adain-dim", "8",
        "--device", "cpu",
    ]  # fmt: skip
    assert main(command) == 0
    config, _ = load_config(run / "config.yaml")
    assert (config.batch_size, config.steps) == (2, 100)
    capsys.readouterr()
    assert main(command) == 0
    assert "stage 1 is finished (100 steps)" in capsys.readouterr().err


def photos_of(folder: Path, counts: dict[str, int]) -> Path:
    """Write photos with the same names in each class. The last photo of class a is broken."""
    photos = folder_of(folder / "photos", counts, size=(40, 30))
    (photos / "a" / f"{counts['a'] - 1}.png").write_bytes(b"\x89PNG broken")
    return photos


def refuses(capsys, *arguments) -> str:
    """Run the verb, which must exit with 2, and return what it prints."""
    capsys.readouterr()
    assert main(["run", *map(str, arguments)]) == 2
    said = capsys.readouterr().err
    assert said.splitlines()[-1].startswith("lord-fast run: ")
    return said


QUICK = ("--preset", "demo", "--steps", "6", "--size", "32", "--threads", "1")


def test_run_goes_from_photos_to_a_report(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("lord_fast.config.LEAST_STEPS", 4)
    monkeypatch.setitem(ENCODER_PRESETS, "demo", EncoderConfig(encoder_dim=8, epochs=Default(1)))
    photos, run = photos_of(tmp_path, {"a": 5, "b": 4}), tmp_path / "runs" / "mine"
    command = ["run", str(photos), "--run", str(run), *QUICK]
    assert main(command) == 0
    said = capsys.readouterr().err
    for line in (
        "photos: 9 in 2 classes of 4-5: a, b",
        "left out 1 images",
        "6 steps of 4 images, then 4 steps of 4 images for the encoders",
        "cost: ",
        f"picture: {run / 'grids' / 'latent-000000006.png'}",
        f"wrote {run / 'report.html'}",
    ):
        assert line in said
    assert said.index("cost: ") < said.index("length: ")
    store = tmp_path / "runs" / "mine-store"
    assert [line.split()[1] for line in read_history(run)] == [
        "train", "train-encoders", "evaluate", "evaluate", "report",
    ]  # fmt: skip
    assert read_history(store) == [f"lord-fast pack {photos} {store} --size 32 --max-bad 1"]
    assert load_encoder_config(run / "encoders.yaml").steps == 4
    assert {"metrics.json", "metrics-encoder.json", "report.html"} <= {
        f.name for f in run.iterdir()
    }

    packed_at = (store / "manifest.json").stat().st_mtime_ns
    assert main(command) == 0
    said = capsys.readouterr().err
    assert "stage 1 is finished (6 steps)" in said
    assert "cost: " not in said
    assert (store / "manifest.json").stat().st_mtime_ns == packed_at


def test_run_refuses_what_cannot_be_separated(tmp_path, capsys):
    for name, counts, message in (
        ("one", {"a": 5}, "one class only (a)"),
        ("alone", {"a": 5, "b": 1, "c": 1}, "one photo only in b, c"),
    ):
        photos = folder_of(tmp_path / name, counts)
        assert message in refuses(capsys, photos, "--run", tmp_path / "run", *QUICK)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alone", "one"]


def test_run_warns_about_few_photos(tmp_path, capsys):
    photos = folder_of(tmp_path / "photos", {"a": 3, "b": 12})
    gone = tmp_path / "gone.pth"
    said = refuses(capsys, photos, "--run", tmp_path / "run", "--perceptual-weights", gone)
    assert "note: a: fewer than 5 photos" in said
    assert f"--perceptual-weights {gone}: no such file" in said


def test_run_refuses_a_store_of_other_photos_or_another_size(tmp_path, capsys):
    photos = folder_of(tmp_path / "photos", {"a": 3, "b": 3})
    store = tmp_path / "mine-store"
    assert main(["pack", str(photos), str(store), "--size", "32"]) == 0
    error = refuses(capsys, photos, "--run", tmp_path / "mine", *QUICK, "--size", "64")
    assert f"--size 64: {store} holds 32 px images" in error
    Image.new("L", (32, 32)).save(photos / "a" / "new.png")
    error = refuses(capsys, photos, "--run", tmp_path / "mine", *QUICK)
    assert f"{store}: packed when {photos} had 6 photos, and now it has 7" in error


def test_run_reports_failed_downloads_of_weights_before_packing(tmp_path, capsys, monkeypatch):
    def offline(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr("lord_fast.model.perceptual.download", offline)
    photos = folder_of(tmp_path / "photos", {"a": 12, "b": 12})
    error = refuses(capsys, photos, "--run", tmp_path / "mine")
    assert "--perceptual-weights FILE" in error
    assert "--loss pyramid" in error
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


def test_the_first_picture_is_early_and_every_one_is_named(
    glyph_store, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(log, "FIRST_PICTURE", 0.0)
    run = tmp_path / "run"
    assert train(glyph_store, run, "--grid-every", "16") == 0
    pictures = sorted((run / "grids").iterdir())
    assert [file.stem for file in pictures] == [f"latent-{n:09d}" for n in (1, 16, 24)]
    said = capsys.readouterr().err
    for file in pictures:
        assert f"picture: {file}" in said


def test_the_header_is_short_and_names_what_was_chosen(glyph_store, tmp_path, capsys):
    run = tmp_path / "run"
    assert train(glyph_store, run, "--cache-target-features", "on") == 2
    assert train(glyph_store, run, "--save-every", "7") == 0
    header = capsys.readouterr().err.partition("latent 8/24")[0].splitlines()
    header = header[next(i for i, line in enumerate(header) if "stage 1" in line) :]
    assert len(header) <= 10
    [chosen] = [line for line in header if line.startswith("options:")]
    for option in ("preset laptop", "--content-dim 4", "--save-every 7", "--loss pyramid"):
        assert option in chosen
    assert "--min-lr" not in chosen
    assert f"{run / 'config.yaml'}" in "".join(header)


@pytest.mark.parametrize(("recipe", "size", "said"), [
    ("published", 128, "5 AdaIN layers from 4 x 4 instead of 4 from 8 x 8"),
    ("published", 256, "6 AdaIN layers from 4 x 4 instead of 4 from 16 x 16"),
    ("published", 64, None), ("best", 128, None),
])  # fmt: skip
def test_the_published_recipe_names_another_network(recipe, size, said):
    note = network_note(recipe, size)
    assert note == (
        [] if said is None else [f"network: not the published one at {size} px: {said}"]
    )


def test_the_header_of_large_images_names_the_network(tmp_path, capsys):
    store = tmp_path / "store"
    pack(Glyphs(128, 2, rotations=(0,)), store, PackConfig(size=128))
    assert train(store, tmp_path / "run", "--preset", "paper", "--steps", "1") == 0
    assert "network: not the published one at 128 px" in capsys.readouterr().err


def test_an_estimate_changes_nothing_and_knows_the_disk(glyph_store, encoder_run, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    assert train(glyph_store, first) == 0
    config = load_config(encoder_run / "config.yaml")[0]
    encoders = load_encoder_config(encoder_run / "encoders.yaml")
    cost = estimate(glyph_store, config, encoders)
    assert train(glyph_store, second) == 0
    name = "checkpoints/latent-000000024/content-0000-000000024.safetensors"
    assert (first / name).read_bytes() == (second / name).read_bytes()
    kept = [state_of(folder) for folder in (encoder_run / "checkpoints").iterdir()]
    assert len(kept) == 4
    numbers = 2 * 8 * (160 + 8)  # of the rows, which segments hold besides the tables
    assert cost.disk == pytest.approx(sum(map(size_of, kept)) + numbers, rel=0.001)
    assert 1e8 < cost.memory < 1e11
    assert min(cost.latent_seconds, cost.encoders_seconds) > 0
    one_step = estimate(glyph_store, replace(config, steps=1), replace(encoders, steps=1))
    assert one_step.length.startswith("1 steps of 16 images")


def test_durations_are_readable():
    assert [duration(s) for s in (4.4, 89, 700, 5300, 12000)] == [
        "4 s", "89 s", "12 min", "88 min", "3 h 20 min",
    ]  # fmt: skip


class Seen(list):
    """Records the progress of a job."""

    def __call__(self, done: int, total: int) -> None:
        self.append((done, total))

    def ends(self) -> bool:
        counts = [done for done, _ in self]
        return len(self) > 2 and counts == sorted(counts) and self[-1][0] == self[-1][1]


def test_long_jobs_report_progress(trained_run, glyph_store, tmp_path):
    from lord_fast.apply import fit_files, sample_grid
    from lord_fast.evaluate.options import EvaluateConfig
    from lord_fast.evaluate.run import evaluate_run
    from lord_fast.lord import Lord
    from lord_fast.report.page import write_report

    run = tmp_path / "run"
    shutil.copytree(trained_run, run)
    lord, picture = Lord.load(run, device="cpu", stage="latent"), tmp_path / "one.png"
    Image.new("L", (32, 32)).save(picture)
    jobs = {
        "fit": lambda told: fit_files(lord, [picture], tmp_path / "o.npz", steps=3, progress=told),
        "sample": lambda told: sample_grid(lord, 4, tmp_path / "grid.png", progress=told),
        "evaluate": lambda told: evaluate_run(run, EvaluateConfig(), told),
        "report": lambda told: write_report(run, progress=told),
    }
    for name, job in jobs.items():
        told = Seen()
        job(told)
        assert told.ends(), (name, told)


def test_a_bar_is_drawn_only_on_a_terminal(monkeypatch):
    for terminal in (True, False):
        stream = io.StringIO()
        monkeypatch.setattr(console, "err", Console(file=stream, force_terminal=terminal))
        with console.progress_bar("evaluate") as progress:
            progress(1, 4)
            progress(4, 4)
        assert ("evaluate" in stream.getvalue()) == terminal


def test_options_come_from_a_file_and_flags_override_it(glyph_store, tmp_path, capsys):
    file, run = tmp_path / "mine.yaml", tmp_path / "run"
    file.write_text("preset: demo\ncontent_dim: 4\nadain_dim: 8\nsteps: 3\nlr: 0.5\n")
    command = ["train", str(glyph_store), "--run", str(run), "--config", str(file)]
    assert main([*command, "--lr", "0.1", "--device", "cpu"]) == 0
    config, _ = load_config(run / "config.yaml")
    assert (config.preset, config.steps, config.adam.lr) == ("demo", 3, 0.1)
    assert (config.model.content_dim, config.model.class_dim) == (4, 64)

    again = tmp_path / "again"
    command = ["train", str(glyph_store), "--run", str(again), "--config", str(run / "config.yaml")]
    assert main(command) == 0
    assert load_config(again / "config.yaml")[0] == config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learning_rate: 1", "no option of train: learning_rate"),
        ("preset: desktop", "preset: 'desktop' is none of"),
        ("lr: fast", "lr: 'fast'"),
        ("- lr", "not the configuration of a run"),
        (None, "No such file"),
    ],
)
def test_unusable_files_of_options_are_refused(tmp_path, text, message, capsys):
    file = tmp_path / "mine.yaml"
    if text is not None:
        file.write_text(text)
    error = fails(capsys, "train", tmp_path / "s", "--run", tmp_path / "r", "--config", file)
    assert message in error
    assert str(file) in error


def test_defaults_still_depend_on_the_data_with_a_file_of_options(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("lr: 0.5\n")
    assert length(options_from(file), 36) == (18, LEAST_STEPS)
    file.write_text("epochs: 3\n")
    assert length(options_from(file), 36) == (18, 6)


def test_an_extended_run_keeps_its_old_rates_and_ends_like_a_longer_run():
    once, longer = cosine(1e-2, 1e-5, 24), cosine(1e-2, 1e-5, 40)
    found = extended_cosine(1e-2, 1e-5, (24, 40))
    assert torch.equal(found[:24], once)
    assert torch.equal(found[24:], longer[24:])
    assert torch.equal(extended_cosine(1e-2, 1e-5, (24,)), once)
    with pytest.raises(ValueError, match="--extended-from 40: must increase"):
        extended_cosine(1e-2, 1e-5, (40, 24))


def test_a_finished_run_is_extended_by_more_steps(glyph_store, tmp_path, capsys):
    """The bits equal those of a run that had these learning rates from the start."""
    run, whole = tmp_path / "run", tmp_path / "whole"
    assert train(glyph_store, run) == 0
    assert train(glyph_store, run, "--steps", "40") == 0
    assert "extended from 24 steps" in capsys.readouterr().err
    assert train(glyph_store, whole, "--steps", "40", "--extended-from", "24") == 0
    last = "checkpoints/latent-000000040"
    assert files_of(run / last) == files_of(whole / last)
    config, _ = load_config(run / "config.yaml")
    assert (config.steps, config.extended_from) == (40, (24,))
    capsys.readouterr()
    assert train(glyph_store, run, "--steps", "40") == 0
    assert "stage 1 is finished (40 steps)" in capsys.readouterr().err
    assert "--steps 40 -> 24" in fails(capsys, "train", glyph_store, "--run", run, *flags())
    assert "--lr 0.002 -> 0.5" in fails(
        capsys, "train", glyph_store, "--run", run, *flags(), "--steps", "50", "--lr", "0.5"
    )


def test_only_a_finished_run_without_encoders_is_extended(
    glyph_store, encoder_run, tmp_path, capsys
):
    run = tmp_path / "run"
    shutil.copytree(encoder_run, run)
    more = ("--steps", "200", "--lr", "3e-3", "--latent-lr", "1e-1")
    error = fails(capsys, "train", glyph_store, "--run", run, *flags(), *more)
    assert "has encoders of the codes after 120 steps" in error
    shutil.rmtree(run / "checkpoints" / "latent-000000120")
    for encoders in (run / "checkpoints").glob("encoders-*"):
        shutil.rmtree(encoders)
    error = fails(capsys, "train", glyph_store, "--run", run, *flags(), *more)
    assert "--steps 120 -> 200" in error
