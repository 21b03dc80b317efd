"""Who may import whom, checked in fresh processes."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def imported_by(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return set(run.stdout.split())


def ours(modules: set[str], *names: str) -> set[str]:
    return {m for m in modules for name in names if m.startswith(f"lord_fast.{name}")}


def test_help_needs_no_torch():
    for arguments in (["--help"], ["train", "--help"]):
        found = imported_by(
            f"import io, contextlib, lord_fast.cli\n"
            f"with contextlib.redirect_stdout(io.StringIO()):\n"
            f"    try: lord_fast.cli.main({arguments!r})\n"
            f"    except SystemExit: pass\n"
        )
        assert not {"torch", "numpy", "PIL", "sklearn"} & found


def test_pack_needs_no_torch():
    assert "torch" not in imported_by("import lord_fast.commands.pack")


def test_config_needs_the_standard_library_and_yaml_alone():
    assert not {"torch", "numpy", "tyro", "rich"} & imported_by("import lord_fast.config")


def test_kernels_need_torch_and_nothing_of_the_package():
    found = imported_by("import lord_fast.kernels")
    assert not ours(found, "model", "data", "train", "config")
    assert "triton" not in found


@pytest.mark.parametrize(
    ("room", "forbidden"),
    [
        ("model.generator", ("data", "train", "evaluate", "report", "commands")),
        ("model.encoder", ("data", "train", "evaluate", "report", "commands")),
        ("model.latent", ("data", "train", "evaluate", "report", "commands")),
        ("model.perceptual", ("data", "train", "evaluate", "report", "commands")),
        ("data.store", ("model", "train", "evaluate", "report", "commands")),
        ("train.latent", ("evaluate", "report", "commands")),
        ("train.encoders", ("evaluate", "report", "commands")),
        ("model.fit", ("data", "evaluate", "report", "commands")),
        ("lord", ("evaluate", "report", "commands", "interchange")),
        ("evaluate.evaluate", ("report", "commands")),
        ("report.page", ("evaluate", "commands")),
    ],
)
def test_rooms(room, forbidden):
    found = imported_by(f"import lord_fast.{room}")
    assert not ours(found, *forbidden)
    assert not {m for m in found if m.split(".")[0] in ("bench", "tests", "torchvision")}
