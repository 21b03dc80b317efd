"""Tests the help, the flags, the history and the exit codes of every verb."""

import errno
import json
import os
import shlex
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest

from lord_fast import parser
from lord_fast.cli import VERBS, main
from lord_fast.commands import demo, train
from lord_fast.data import formats, sources
from lord_fast.data.store import ImageStore
from lord_fast.errors import Interrupted, explain, naming
from lord_fast.kernels import dispatch
from lord_fast.run.history import Command, read_history
from tests.test_cli import fails, folder_of
from tests.test_help import help_of
from tests.test_train import ROOT, flags


def function(verb: str):
    return getattr(VERBS[verb], verb.replace("-", "_"))


def pack_glyphs(store, *more: str) -> None:
    few = ("--size", "16", "--classes", "4", "--rotations", "0", "15")
    assert main(["pack", "glyphs", str(store), *few, *more]) == 0


# Help


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("pack glyphs store --size 0", "--size 0: must be positive"),
        ("pack glyphs store --workers -3", "--workers -3: must be 0 or more"),
        ("pack glyphs store --min-class-size -4", "--min-class-size -4: must be positive"),
        ("pack glyphs store --classes 0", "--classes 0: must be positive"),
        ("pack glyphs store --scales 1 0", "--scales 0.0: must be positive and less than 16"),
        ("pack glyphs store --scales 1e9", "--scales 1000000000.0: must be positive and less"),
        ("pack glyphs store --scales 0.01", "--scales 0.01: makes characters smaller than a pixel"),
        ("pack glyphs store --rotations nan", "--rotations nan: must be more than -360 and less"),
        ("pack kth store --every 0", "--every 0: must be positive"),
        ("split store a b --classes 0", "--classes 0: must be positive"),
        ("split store a b --images 1.5", "--images 1.5: must be more than 0 and less than 1"),
        ("split store a b --images 0.5 --seed -1", "--seed -1: must be 0 or more"),
        ("train store --run run --beta1 1.5", "--beta1 1.5: must be 0 or more and less than 1"),
        ("bench --threads -2", "--threads -2: must be 0 or more"),
        ("bench step --batch-size 0", "--batch-size 0: must be positive"),
        ("evaluate run --shots 0", "--shots 0: must be positive"),
        ("sample run -n 0", "-n 0: must be positive"),
        ("interpolate run a.png b.png --steps 1", "--steps 1: must be 2 or more"),
        ("fit run a.png --steps 0", "--steps 0: must be positive"),
    ],
)
def test_a_value_out_of_its_bounds_names_the_flag(
    tmp_path, monkeypatch, capsys, arguments, message
):
    monkeypatch.chdir(tmp_path)
    assert message in fails(capsys, *arguments.split())
    assert not os.listdir(tmp_path)


def test_flags_override_the_defaults_of_the_preset():
    for arguments in (["--preset", "paper"], ["--preset=paper"]):
        full = ["store", "--run", "run", "--lr", "0.5", *arguments]
        found, _ = parser.read(train.train, full, train.defaults(full))
        assert found["config"].preset == "paper"
        assert found["config"].model.content_dim == 128
        assert found["config"].adam.lr == 0.5
    assert train.defaults(["store", "--run", "run"])["config"].preset == "laptop"


def test_an_option_may_be_reset_to_none():
    full = ["store", "--run", "run", "--preset", "demo", "--steps", "None", "--epochs", "3"]
    found, _ = parser.read(train.train, full, train.defaults(full))
    assert (found["config"].steps, found["config"].epochs) == (None, 3)


def test_an_unknown_preset_is_refused(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["train", "store", "--run", "run", "--preset", "huge"])
    assert caught.value.code == 2
    assert "laptop" in capsys.readouterr().err


# Names


def test_names_with_brackets_are_printed_unchanged(tmp_path, capsys):
    store = tmp_path / "st[bold]9 :heart:"
    pack_glyphs(store)
    assert f"{store}: 80 images" in capsys.readouterr().err
    assert "r[/]z: not a run" in fails(capsys, "evaluate", tmp_path / "r[/]z")


def test_doctor_prints_extras_in_brackets(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "120")
    live = dispatch.Live("reference", "Triton is not installed; pip install 'lord-fast[triton]'")
    monkeypatch.setitem(dispatch._live, "cuda", live)
    assert main(["doctor"]) == 0
    assert "pip install 'lord-fast[triton]'" in capsys.readouterr().out


def test_a_module_without_a_distribution_has_an_unknown_version(monkeypatch, capsys):
    def version(name):
        raise __import__("importlib.metadata").metadata.PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.version", version)
    monkeypatch.setenv("COLUMNS", "120")
    assert dispatch._triton_version() == "Triton of an unknown version"
    assert main(["doctor"]) == 0
    rows = [line.split("│") for line in capsys.readouterr().out.splitlines() if "│" in line]
    found = {row[1].strip(): row[2].strip() for row in rows}
    assert found["torch"] == "installed, version unknown"
    assert found["nvidia-dali-cuda130"] == "not installed"


# A new source in a single file


RINGS = '''
from dataclasses import dataclass
from typing import Annotated
import numpy as np
from lord_fast.bounds import Checked, MoreThan
from lord_fast.data.formats import register
from lord_fast.data.records import Record, Source

@dataclass(frozen=True)
class RingOptions(Checked):
    """Pictures of rings."""
    turns: Annotated[int, MoreThan(0)] = 2
    """Number of rings."""

class Rings(Source):
    has_files = False
    def __init__(self, path, turns):
        self.path, self.turns = path, turns
    def __len__(self):
        return 2 * self.turns
    def __iter__(self):
        for i in range(len(self)):
            pixels = np.full((16, 16), i, dtype=np.uint8)
            yield Record(str(i), "ab"[i % 2], {"turn": str(i // 2)}, lambda pixels=pixels: pixels)
    def describe(self):
        return {"format": "rings", "path": str(self.path)}

@register("rings", "circles of grey", RingOptions)
def open_rings(path, config, options):
    return Rings(path, options.turns)
'''


@pytest.fixture
def rings(tmp_path, monkeypatch):
    folder = tmp_path / "more"
    folder.mkdir()
    (folder / "rings.py").write_text(RINGS)
    monkeypatch.setattr(sources, "__path__", [*sources.__path__, str(folder)])
    formats.formats.cache_clear()
    yield folder
    formats._FORMATS.pop("rings", None)
    sys.modules.pop("lord_fast.data.sources.rings", None)
    formats.formats.cache_clear()


def test_a_new_source_touches_one_file(rings, tmp_path, capsys, monkeypatch):
    text = help_of("pack", capsys, monkeypatch)
    assert "rings" in text
    assert "Pictures of rings." in text
    assert "--turns INT" in text
    assert "  rings       circles of grey" in text
    store = tmp_path / "store"
    arguments = ["pack", str(rings), str(store), "--format", "rings", "--size", "16"]
    assert "--turns 0: must be positive" in fails(capsys, *arguments, "--turns", "0")
    assert main([*arguments, "--turns", "5"]) == 0
    assert ImageStore(store).num_images == 10
    assert main(["pack", "--verify", str(store)]) == 0


def test_an_unknown_format_is_refused_with_a_list_of_formats():
    from lord_fast.data.options import PackConfig

    with pytest.raises(ValueError, match="--format tapes: must be one of auto, archive, cars3d"):
        PackConfig(format="tapes")


# History


def test_the_recorded_pack_makes_the_same_store_again(tmp_path, monkeypatch):
    source = folder_of(tmp_path / "my photos", {"a b": 3, "c'd": 3})
    store = tmp_path / "a store"
    pattern = r"(?P<n>\d+)"
    arguments = ["pack", str(source), str(store), "--size", "16", "--content-pattern", pattern]
    assert main(arguments) == 0
    sha256 = ImageStore(store).sha256
    [recorded] = read_history(store)
    shutil.rmtree(store)
    program, *again = shlex.split(recorded)
    assert program == "lord-fast"
    assert again == arguments
    assert main(again) == 0
    assert ImageStore(store).sha256 == sha256
    row = json.loads((store / "history.jsonl").read_text())
    assert set(row) == {"command", "version", "time", "checksum"}


def test_both_parts_of_a_split_have_the_whole_history(tmp_path):
    store, seen, held_out = (tmp_path / name for name in ("store", "seen", "held out"))
    pack_glyphs(store)
    split = ["split", str(store), str(seen), str(held_out), "--images", "0.2"]
    assert main(split) == 0
    assert read_history(store) == read_history(seen)[:1]
    assert read_history(seen)[1:] == [str(Command(tuple(split)))]
    assert read_history(held_out) == read_history(seen)


def test_a_run_records_its_commands(glyph_store, tmp_path):
    run = tmp_path / "run"
    arguments = ["train", str(glyph_store), "--run", str(run), *flags(), "--epochs", "1"]
    assert main(arguments) == 0
    trained = str(Command(tuple(arguments)))
    assert read_history(run) == [trained]
    assert main(arguments) == 0  # nothing to do
    assert read_history(run) == [trained]
    for folder in (run / "checkpoints").iterdir():
        shutil.rmtree(folder)
    assert main([*arguments, "--threads", "1"]) == 0
    assert read_history(run) == [trained, f"{trained} --threads 1"]
    assert main([*arguments, "--lr", "0.5"]) == 2  # refused
    assert main(["evaluate", str(run)]) == 0
    assert main(["report", str(run)]) == 0
    assert read_history(run)[2:] == [f"lord-fast evaluate {run}", f"lord-fast report {run}"]
    assert trained in (run / "report.html").read_text()


def test_the_demo_runs_the_verbs_as_one_types_them(tmp_path):
    run = tmp_path / "my demo"
    found = [shlex.join(map(str, arguments)) for _, arguments in demo.sequence(run)]
    base = str(run)
    assert found == [
        f"pack glyphs '{base}-store' --size 32",
        f"split '{base}-store' '{base}-train' '{base}-heldout' --images 0.1",
        f"train '{base}-train' --run '{base}' --preset demo",
        f"train-encoders '{base}'",
        f"evaluate '{base}'",
        f"evaluate '{base}' --store '{base}-heldout'",
        f"evaluate '{base}' --codes encoder --store '{base}-heldout'",
        f"report '{base}'",
    ]
    (tmp_path / "my demo-store").mkdir()
    (tmp_path / "my demo-heldout").mkdir()
    assert [arguments[0] for _, arguments in demo.sequence(run)][:2] == ["train", "train-encoders"]


# Exit codes


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["doctor"], ["trian"]])
def test_a_closed_pipe_ends_quietly(arguments):
    reading, writing = os.pipe()
    os.close(reading)
    streams = {"stdout": writing, "stderr": subprocess.PIPE}
    if arguments == ["trian"]:
        streams = {"stdout": subprocess.PIPE, "stderr": writing}
    command = [sys.executable, "-m", "lord_fast", *arguments]
    run = subprocess.run(command, cwd=ROOT, text=True, **streams)
    os.close(writing)
    assert run.returncode == 141
    assert not (run.stderr or "") + (run.stdout or "")


def raising(monkeypatch, error: BaseException) -> None:
    """Make `lord-fast doctor` raise an error."""

    def doctor() -> None:
        """Raise the error."""
        raise error

    fake = SimpleNamespace(__name__="lord_fast.commands.doctor", doctor=doctor)
    monkeypatch.setitem(VERBS, "doctor", fake)


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ValueError("--x 3: no"), 2, "--x 3: no"),
        (OSError(errno.ENOSPC, "No space left on device", "a[b].png"), 2,
         "a[b].png: No space left on device"),
        (OSError("checkpoint: cannot be written"), 2, "checkpoint: cannot be written"),
        (MemoryError(), 2, "out of memory; close other programs"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 2, "out of memory; "),
        (KeyError("tap"), 1, "unexpected error (KeyError: 'tap'). Please report it"),
        (KeyboardInterrupt(), 130, ""),
        (Interrupted(15, 3), 143, "stopped by SIGTERM after step 3"),
    ],
)  # fmt: skip
def test_errors_are_printed_in_one_line(monkeypatch, capsys, error, code, line):
    monkeypatch.delenv("LORD_FAST_TRACEBACK", raising=False)
    raising(monkeypatch, error)
    assert main(["doctor"]) == code
    printed = capsys.readouterr().err
    assert printed.startswith(f"lord-fast doctor: {line}" if line else "")
    assert len(printed.splitlines()) == bool(line)
    monkeypatch.setenv("LORD_FAST_TRACEBACK", "1")
    with pytest.raises(type(error)):
        main(["doctor"])


def test_an_out_of_memory_error_names_the_flag_to_lower():
    import torch

    assert explain(torch.OutOfMemoryError("CUDA"), "train") == (
        2, "out of memory; lower --batch-size",
    )  # fmt: skip
    assert "--workers" in explain(MemoryError(), "pack")[1]
    assert "-n" in explain(OSError(errno.ENOMEM, "Cannot allocate memory"), "sample")[1]


def test_an_error_of_a_full_disk_names_the_file(tmp_path, capsys, monkeypatch):
    def full(*arguments, **named):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("lord_fast.data.writer.StoreWriter.flush", full)
    source = folder_of(tmp_path / "images", {"a": 2, "b": 2})
    error = fails(capsys, "pack", source, tmp_path / "store", "--size", "16")
    assert error.startswith(
        f"lord-fast pack: {tmp_path / 'store'}.partial: No space left on device"
    )
    assert "the same command" in error
    with pytest.raises(OSError, match="named") as caught, naming(tmp_path):
        raise OSError(errno.ENOSPC, "full", "named")
    assert caught.value.filename == "named"
