"""No code of the project reads data in a way that could run what the data says."""

import ast
from pathlib import Path

import pytest

from tests.soak.mutations import MUTATIONS

ROOT = Path(__file__).parents[1]
FILES = sorted([*(ROOT / "lord_fast").rglob("*.py"), *(ROOT / "kernels").rglob("*.py")])
MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
BANNED = {
    "eval", "exec", "os.system", "os.popen", "torch.jit.load", "yaml.load", "yaml.load_all",
    "yaml.full_load", "yaml.unsafe_load", "yaml.unsafe_load_all", "torch.hub.load",
    "pandas.read_pickle", "subprocess.getoutput", "subprocess.getstatusoutput",
    "tarfile.TarFile.extractall",
}  # fmt: skip
EXTRACTS = {"extractall", "extract"}


def full_name(node: ast.AST, imported: dict[str, str]) -> str:
    """A dotted name as it would be without `as` and `from`; empty for other expressions."""
    if isinstance(node, ast.Name):
        return imported.get(node.id, node.id)
    if isinstance(node, ast.Attribute) and (left := full_name(node.value, imported)):
        return f"{left}.{node.attr}"
    return ""


def imports(tree: ast.AST) -> dict[str, str]:
    """Name in the module -> what it was imported from."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                first = alias.name.split(".")[0]
                found[alias.asname or first] = alias.name if alias.asname else first
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
    return {name: "numpy" + full.removeprefix("np") if full == "np" else full
            for name, full in found.items()}  # fmt: skip


def unsafe(source: str) -> list[str]:
    """Every unsafe way to load that a module uses, as LINE: WHAT."""
    tree = ast.parse(source)
    imported, found = imports(tree), []
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
        found += [(node.lineno, name) for name in names if name.split(".")[0] in MODULES]
        if isinstance(node, ast.Call):
            found += [(node.lineno, what) for what in unsafe_call(node, imported)]
        elif isinstance(node, ast.Name | ast.Attribute):  # also where it is only handed on
            name = full_name(node, imported)
            if name in BANNED:
                found.append((node.lineno, name))
    return [f"{line}: {what}" for line, what in sorted(set(found))]


def unsafe_call(node: ast.Call, imported: dict[str, str]) -> list[str]:
    name = full_name(node.func, imported)
    given = {k.arg: k.value for k in node.keywords}

    def is_true(key: str) -> bool:
        value = given.get(key)
        return isinstance(value, ast.Constant) and value.value is True

    found = []
    if name == "torch.load" and not is_true("weights_only"):
        found.append("torch.load without weights_only=True")
    if "allow_pickle" in given and not (
        isinstance(given["allow_pickle"], ast.Constant) and given["allow_pickle"].value is False
    ):
        found.append("allow_pickle")
    if name in ("numpy.load", "numpy.lib.format.read_array") and len(node.args) > 2:
        found.append("allow_pickle by position")
    if "shell" in given and not (
        isinstance(given["shell"], ast.Constant) and given["shell"].value is False
    ):
        found.append("shell")
    if isinstance(node.func, ast.Attribute) and node.func.attr in EXTRACTS:
        found.append("unpacks an archive to disk")
    if None in given and name in ("torch.load", "numpy.load", "subprocess.run", "subprocess.Popen"):
        found.append(f"{name} with ** arguments")
    return found


def test_no_module_loads_in_an_unsafe_way():
    assert len(FILES) > 80
    found = {str(f.relative_to(ROOT)): unsafe(f.read_text()) for f in FILES}
    assert {file: lines for file, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    "source",
    [
        "import pickle", "from pickle import loads", "import joblib as j",
        "import torch\ntorch.load('x')", "import torch as t\nt.load('x', weights_only=False)",
        "from torch import load\nload('x')", "from torch import load as l\nl('x', weights_only=w)",
        "import yaml\nyaml.load(s, Loader=yaml.Loader)", "from yaml import unsafe_load as u\nu(s)",
        "import numpy as np\nnp.load('x', allow_pickle=True)",
        "import numpy as np\nnp.load('x', None, True)", "np.load('x', allow_pickle=maybe)",
        "eval('1')", "f = exec", "import subprocess\nsubprocess.run('ls', shell=True)",
        "from os import system\nsystem('ls')", "archive.extractall('.')",
        "import torch\ntorch.load('x', **how)",
    ],
)  # fmt: skip
def test_the_lint_sees(source):
    assert unsafe(source)


@pytest.mark.parametrize(
    "source",
    [
        "import torch\ntorch.load('x', weights_only=True)", "import yaml\nyaml.safe_load(s)",
        "import numpy as np\nnp.load('x')", "import numpy as np\nnp.load('x', allow_pickle=False)",
        "model.eval()", "import subprocess\nsubprocess.run(['ls'])",
    ],
)  # fmt: skip
def test_the_lint_lets_pass(source):
    assert not unsafe(source)


@pytest.mark.parametrize("name", MUTATIONS)
def test_the_mutations_of_the_soak_still_apply(name):
    """Their text occurs in the code, and their tests exist."""
    mutation = MUTATIONS[name]
    assert mutation.old in (ROOT / mutation.file).read_text()
    assert all((ROOT / test).exists() for test in mutation.tests.split())
