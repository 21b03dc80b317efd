"""Tests the help of every verb and the overview."""

import itertools
import shlex
import subprocess
import sys

import pytest

from lord_fast import parser
from lord_fast.cli import GROUPS, VERBS, main
from tests.test_train import ROOT


def function(verb: str):
    return getattr(VERBS[verb], verb.replace("-", "_"))


def help_of(verb: str, capsys, monkeypatch, *more: str) -> str:
    monkeypatch.setenv("COLUMNS", "80")
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        main([verb, *more, "--help"])
    assert caught.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("verb", VERBS)
def test_help_fits_a_terminal_and_has_examples_that_parse(verb, capsys, monkeypatch):
    text = help_of(verb, capsys, monkeypatch)
    assert max(map(len, text.splitlines()[1:])) <= 80
    assert "Examples:" in text
    examples = [line.strip() for line in text.splitlines() if line.startswith("  lord-fast ")]
    assert examples
    defaults = {"of_source": VERBS["pack"].source_options()} if verb == "pack" else {}
    for example in examples:
        _, name, *arguments = shlex.split(example)
        assert name == verb
        parser.read(function(verb), arguments, defaults)


def test_positionals_have_the_names_of_the_readme(capsys, monkeypatch):
    assert "split [-h] STORE TRAIN TEST" in help_of("split", capsys, monkeypatch)
    assert "[SOURCE] [STORE]" in help_of("pack", capsys, monkeypatch)
    assert "RUN FIRST SECOND" in help_of("interpolate", capsys, monkeypatch)


def test_flags_of_train_are_grouped(capsys, monkeypatch):
    text = help_of("train", capsys, monkeypatch)
    # Without UTF-8 tyro draws no boxes, so a title follows an empty line.
    lines = text.splitlines()
    below = [line for above, line in itertools.pairwise(lines) if not above.strip()]
    titles = [line.strip() for line in below if line.startswith(" ") and line.strip()]
    assert titles == [
        "positional arguments", "options", "model options", "loss options", "adam options",
        "machine options", "logging options",
    ]  # fmt: skip
    assert "--beta1 FLOAT" in text
    assert "Adam and its learning rates." in text


def test_help_of_a_preset_shows_its_defaults(capsys, monkeypatch):
    text = " ".join(help_of("train", capsys, monkeypatch, "--preset=paper").split())
    assert "generator and modulation. (default: 0.0003)" in text


def test_the_overview_has_a_line_for_every_verb(capsys):
    assert main(["--help"]) == 0
    overview = capsys.readouterr().out
    assert max(map(len, overview.splitlines())) <= 80
    for title, modules in GROUPS.items():
        assert f"\n{title}\n" in overview
        assert modules
    lines = overview.splitlines()[2:]
    assert [line.split()[0] for line in lines if line.startswith("  ")] == list(VERBS)
    assert main(["help"]) == 0
    assert capsys.readouterr().out == overview


def test_help_is_a_verb_too(capsys, monkeypatch):
    wanted = help_of("split", capsys, monkeypatch)
    with pytest.raises(SystemExit):
        main(["help", "split"])
    assert capsys.readouterr().out == wanted


def test_a_misspelt_verb_gets_a_suggestion(capsys):
    assert main(["trian"]) == 2
    assert capsys.readouterr().err == "lord-fast: no command 'trian'; did you mean train?\n"
    assert main(["help", "pakc"]) == 2
    assert "did you mean pack?" in capsys.readouterr().err


def test_help_imports_little():
    code = (
        "import contextlib, io, sys\n"
        "from lord_fast.cli import VERBS, main\n"
        "for verb in sorted(VERBS, key='pack'.__eq__):\n"
        "    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):\n"
        "        main([verb, '--help'])\n"
        "    heavy = {'torch', 'matplotlib', 'sklearn', *(['numpy'] if verb != 'pack' else [])}\n"
        "    assert not heavy & set(sys.modules), (verb, heavy & set(sys.modules))\n"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


# Flags
