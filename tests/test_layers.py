"""Tests that every module imports only what the table in docs/architecture.md allows."""

import ast
import re
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "lord_fast"
ARCHITECTURE = ROOT / "docs" / "architecture.md"


def rooms() -> tuple[dict[str, str], dict[str, set[str]]]:
    """Read the table. Return the room of each module, and the rooms that a room may import."""
    room_of, allowed = {}, {}
    for line in ARCHITECTURE.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 4 and cells[0].startswith("**"):
            room = cells[0].strip("*")
            for name in re.findall(r"`([\w./]+)`", cells[1]):
                room_of[name.removesuffix(".py").strip("/")] = room
            allowed[room] = set(re.findall(r"\w+", cells[2])) - {"nothing"}
    return room_of, allowed


def modules() -> dict[str, Path]:
    """Return the files of all modules by name, except for the root package and `__main__`."""
    found = {}
    for file in sorted((*PACKAGE.rglob("*.py"), *(PACKAGE / "kernels").rglob("*.py"))):
        parts = file.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if name not in ("", "__main__"):
            found[name] = file
    return found


def imports(name: str, source: str, known: set[str]) -> set[str]:
    """Return the modules of lord_fast that a source imports, also inside functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:  # relative, as in kernels
                package = name.split(".")
                package = package if name + ".__init__" in known else package[:-1]
                package = package[: len(package) - node.level + 1]
                base = ".".join(("lord_fast", *package, *filter(None, [node.module])))
            for alias in node.names:  # a module of a package, or a name of a module
                module = f"{base}.{alias.name}"
                found.add(module if module.removeprefix("lord_fast.") in known else base)
    inside = {m.removeprefix("lord_fast.") for m in found if m.startswith("lord_fast.")}
    return {module for module in inside if module in known} - {name}


def graph() -> dict[str, set[str]]:
    files = modules()
    known = set(files)
    packages = {f"{name}.__init__" for name, file in files.items() if file.stem == "__init__"}
    return {
        name: {m for m in imports(name, file.read_text(), known | packages) if m in known}
        for name, file in files.items()
    }


def violations(found: dict[str, set[str]]) -> list[str]:
    """List the imports that the table does not allow, as `module -> module`."""
    room_of, allowed = rooms()

    def room(module: str) -> str:
        return room_of[module.split(".")[0]]

    return [
        f"{module} -> {other}"
        for module, others in found.items()
        for other in sorted(others)
        if room(other) != room(module) and room(other) not in allowed[room(module)]
    ]


def test_every_module_has_a_room():
    room_of, allowed = rooms()
    assert {name.split(".")[0] for name in modules()} == set(room_of)
    assert set(room_of.values()) == set(allowed)
    for others in allowed.values():
        assert others <= set(allowed)


def test_rooms_import_only_what_the_table_allows():
    assert violations(graph()) == []


@pytest.mark.parametrize(
    ("module", "statement"),
    [
        ("train.loop", "from lord_fast.bench import measure"),
        ("train.loop", "def f():\n    import lord_fast.lord"),
        ("kernels.reference", "from ..config import TrainConfig"),
        ("model.latent", "from lord_fast.data.store import ImageStore"),
    ],
)
def test_a_forbidden_import_is_found(module, statement):
    files = modules()
    packages = {f"{name}.__init__" for name, file in files.items() if file.stem == "__init__"}
    found = imports(module, statement, set(files) | packages)
    assert violations({module: found}) != []


def test_nothing_imports_in_a_circle():
    try:
        list(TopologicalSorter(graph()).static_order())
    except CycleError as error:
        raise AssertionError(" -> ".join(error.args[1])) from error


def imported_by(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return set(run.stdout.split())


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
    assert "torch" not in imported_by("import lord_fast.data.pack")


def test_config_needs_only_the_standard_library():
    found = imported_by("import lord_fast.config")
    assert not {"torch", "numpy", "tyro", "rich", "yaml"} & found


def test_kernels_need_torch_and_no_triton():
    assert "triton" not in imported_by("import lord_fast.kernels")
