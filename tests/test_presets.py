"""Tests that a preset's size and its recipe are separate."""

import pytest
import yaml

from lord_fast import Lord
from lord_fast.cli import main
from lord_fast.config import options, replace
from lord_fast.presets import ENCODER_PRESETS, PRESETS, PUBLISHED, encoder_defaults, train_defaults
from lord_fast.run.config import load_config, load_encoder_config

TINY = ("--content-dim", "4", "--class-dim", "8", "--adain-dim", "8", "--loss", "pyramid")
SHORT = ("--steps", "2", "--batch-size", "8", "--threads", "1", "--device", "cpu")
SIZES = {"content_dim", "class_dim", "adain_dim"}


def differing(one, other) -> set[str]:
    """Return the names of the options that differ."""
    return {name for name, value in options(one).items() if options(other)[name] != value}


def test_full_is_laptop_at_the_published_sizes():
    full, laptop, paper = PRESETS["full"], PRESETS["laptop"], PRESETS["paper"]
    assert differing(full, laptop) == {"preset", "lr", *SIZES}
    assert not SIZES & differing(full, paper)
    assert differing(ENCODER_PRESETS["full"], ENCODER_PRESETS["laptop"]) == {"encoder_dim", "lr"}
    assert ENCODER_PRESETS["full"].encoder_dim == ENCODER_PRESETS["paper"].encoder_dim


@pytest.mark.parametrize(("preset", "recipe", "equal"), [
    ("full", "published", "paper"), ("paper", "best", "full"), ("paper", "published", "paper"),
    ("laptop", "best", "laptop"),
])  # fmt: skip
def test_a_recipe_turns_one_preset_into_another(preset, recipe, equal):
    found = train_defaults(preset, recipe)
    assert replace(found, preset=equal) == PRESETS[equal]
    assert encoder_defaults(found) == encoder_defaults(PRESETS[equal])


def test_a_recipe_keeps_sizes_and_machine():
    for preset in PRESETS:
        for recipe in ("best", "published"):
            changed = differing(train_defaults(preset, recipe), PRESETS[preset])
            assert changed <= set(PUBLISHED)


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_the_published_recipe_is_that_of_paper_in_every_size(preset):
    found, paper = train_defaults(preset, "published"), PRESETS["paper"]
    assert differing(found, replace(paper, preset=preset)) <= {
        *SIZES, *options(paper.machine), *options(paper.logging),
    }  # fmt: skip


def test_the_command_line_takes_a_recipe(glyph_store, tmp_path, capsys):
    run = tmp_path / "run"
    words = ("train", str(glyph_store), "--run", str(run), *TINY, *SHORT, "--recipe", "published")
    assert main(words) == 0
    assert "options: preset laptop --recipe published" in capsys.readouterr().err
    config = load_config(run / "config.yaml")[0]
    assert (config.recipe, config.adam.lr, config.model.content_dim) == ("published", 3e-4, 4)
    assert main(("train-encoders", str(run), "--steps", "1", "--batch-size", "8")) == 0
    encoders = load_encoder_config(run / "encoders.yaml")
    assert (encoders.swaps, encoders.lr, encoders.encoder_dim) == (0, 1e-4, 64)


def test_a_file_of_options_takes_a_recipe(glyph_store, tmp_path):
    file = tmp_path / "options.yaml"
    file.write_text("recipe: published\nlr: 0.01\n")
    words = ("--config", str(file), *TINY, *SHORT)
    for name, flags, expected in (
        ("of-file", (), ("published", 3e-3, 0.01)),
        ("of-flag", ("--recipe", "best"), ("best", 8e-2, 0.01)),
    ):
        run = tmp_path / name
        assert main(("train", str(glyph_store), "--run", str(run), *words, *flags)) == 0
        config = load_config(run / "config.yaml")[0]
        assert (config.recipe, config.adam.latent_lr, config.adam.lr) == expected


@pytest.mark.parametrize(("preset", "recipe"), [("paper", "published"), ("laptop", "best")])
def test_a_run_without_a_recipe_resumes(glyph_store, tmp_path, preset, recipe):
    run = tmp_path / "run"
    words = ("train", str(glyph_store), "--run", str(run), "--preset", preset, *TINY, *SHORT)
    assert main(words) == 0
    values = yaml.safe_load((run / "config.yaml").read_text())
    assert values.pop("recipe") == recipe
    (run / "config.yaml").write_text(yaml.safe_dump({**values, "preset": [preset]}))
    with pytest.raises(ValueError, match=r"config\.yaml: "):
        load_config(run / "config.yaml")
    (run / "config.yaml").write_text(yaml.safe_dump(values))
    assert load_config(run / "config.yaml")[0].recipe == recipe
    assert main(words) == 0


def test_wrong_names_are_refused(tmp_path, capsys):
    with pytest.raises(ValueError, match="recipe: 'worst' is none of best, published"):
        Lord.train("three", tmp_path / "run", recipe="worst")
    file = tmp_path / "options.yaml"
    for text in ("preset: [laptop]", "recipe: [best]"):
        file.write_text(text)
        assert main(("train", "store", "--run", "run", "--config", str(file))) == 2
        assert "is none of" in capsys.readouterr().err
    for text in ("recipe: worst", "preset: worst"):
        file.write_text(text)
        assert main(("train", "store", "--run", "run", "--config", str(file))) == 2
        assert f"{file}: {text.replace('worst', '')}'worst' is none of" in capsys.readouterr().err
