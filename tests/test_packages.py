"""What a source distribution and a wheel hold, and what a checkout without links says."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

pytest.importorskip("setuptools", "77", reason="setuptools builds the packages")
pytest.importorskip("setuptools_scm", reason="setuptools-scm gives the version")

ROOT = Path(__file__).parents[1]
SKIPPED = shutil.ignore_patterns(
    "__pycache__", "*.so", "*.dylib", "*.dll", "*.egg-info", "build", "dist", "runs", ".*_cache",
    ".git", ".venv", ".benchmarks",
)  # fmt: skip
TAG = "1.2.3"
CMAKE_FAILS = "#!/bin/sh\necho there is no compiler\nexit 1\n"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("packages") / "checkout"
    out.mkdir()
    held = (ROOT / "MANIFEST.in").read_text()
    tops = [word for line in held.splitlines() for word in line.split()[1:] if "*" not in word]
    for name in {"lord_fast", "setup.py", "pyproject.toml", "MANIFEST.in", *tops}:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        extra = {"symlinks": True, "ignore": SKIPPED} if (ROOT / name).is_dir() else {}
        copy(ROOT / name, out / name, **extra)
    return out


def setup(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "setup.py", *words]
    env = {**os.environ, **environment}
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=env)


@pytest.fixture(scope="module")
def unpacked(checkout, tmp_path_factory) -> Path:
    """The unpacked source distribution."""
    made = setup(checkout, "sdist", SETUPTOOLS_SCM_PRETEND_VERSION=TAG)
    assert made.returncode == 0, made.stderr
    (archive,) = (checkout / "dist").glob("*.tar.gz")
    out = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(archive) as tar:
        tar.extractall(out, filter="data")
    return out / archive.name.removesuffix(".tar.gz")


@pytest.fixture(scope="module")
def wheel(unpacked, tmp_path_factory) -> zipfile.ZipFile:
    """A wheel that is built from the source distribution without a compiler."""
    return wheel_of(unpacked, tmp_path_factory.mktemp("tools"))


def wheel_of(folder: Path, tools: Path, **environment: str) -> zipfile.ZipFile:
    """Build a wheel without a compiler. `tools` is an empty folder."""
    (tools / "cmake").write_text(CMAKE_FAILS)
    (tools / "cmake").chmod(0o755)
    path = f"{tools}{os.pathsep}{os.environ['PATH']}"
    made = setup(folder, "bdist_wheel", PATH=path, **environment)
    assert made.returncode == 0, made.stderr
    assert "the native kernels were not built" in made.stderr
    (file,) = (folder / "dist").glob("*.whl")
    return zipfile.ZipFile(file)


def files(folder: Path) -> set[str]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix() for path in found}


def test_the_source_distribution_holds_what_its_files_name(checkout, unpacked):
    link = unpacked / "lord_fast" / "kernels"
    assert link.is_symlink()
    assert link.resolve() == (unpacked / "kernels").resolve()
    generated = r"(.*\.egg-info|build|dist|lord_fast/kernels)/.*"
    wanted = {name for name in files(checkout) if not re.fullmatch(generated, name)}
    assert wanted - files(unpacked) == set()
    assert {"bench/gpu.sh", ".ci/run", "tests/gate/conftest.py", "Makefile"} <= wanted


def test_the_wheel_needs_no_version_of_python(wheel):
    name = Path(str(wheel.filename)).name
    assert re.fullmatch(r"lord_fast-[^-]+-py3-none-(?!any)\w+\.whl", name)


def test_the_wheel_holds_the_package_once(unpacked, wheel):
    names = wheel.namelist()
    assert len(names) == len(set(names))
    tops = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert tops == {"lord_fast"}
    assert {"lord_fast/py.typed", "lord_fast/kernels/ops.py", "lord_fast/bench/step.py"} <= set(
        names
    )
    modules = {f"lord_fast/{name}" for name in files(unpacked / "lord_fast") if name[-3:] == ".py"}
    kernels = {f"lord_fast/kernels/{n}" for n in files(unpacked / "kernels") if n[-3:] == ".py"}
    assert modules | kernels == {name for name in names if name.endswith(".py")}
    for name in names:
        assert not re.search(rb"^\s*(import|from) pytest", wheel.read(name), re.MULTILINE), name


@pytest.mark.skipif(shutil.which("git") is None, reason="no git here")
def test_a_checkout_of_git_makes_the_same_wheel(checkout, wheel, tmp_path):
    """setuptools-scm lists the files of git, the link lord_fast/kernels among them."""
    clone = tmp_path / "clone"
    shutil.copytree(checkout, clone, symlinks=True, ignore=SKIPPED)
    me = ("-c", "user.name=a", "-c", "user.email=a@b")
    for words in (("init", "-q"), ("add", "."), (*me, "commit", "-qm", "all")):
        subprocess.run(["git", *words], cwd=clone, check=True)
    (tmp_path / "tools").mkdir()
    found = wheel_of(clone, tmp_path / "tools", SETUPTOOLS_SCM_PRETEND_VERSION=TAG)
    assert sorted(found.namelist()) == sorted(wheel.namelist())


def test_the_version_is_the_tag_of_git(unpacked, wheel):
    """The wheel is built from the source distribution, which has no tag of its own."""
    assert unpacked.name == f"lord_fast-{TAG}"
    assert f"lord_fast-{TAG}.dist-info/METADATA" in wheel.namelist()


def test_the_version_is_that_of_the_installed_package():
    import lord_fast

    assert lord_fast.__version__ == version("lord-fast")


def test_a_checkout_whose_link_became_a_text_file_says_how_to_get_it_back(tmp_path):
    """git writes a text file if symbolic links are disabled."""
    shutil.copy(ROOT / "setup.py", tmp_path)
    (tmp_path / "lord_fast").mkdir()
    shutil.copy(ROOT / "lord_fast" / "__init__.py", tmp_path / "lord_fast")
    (tmp_path / "lord_fast" / "kernels").write_text("../kernels")
    fix = "git config core.symlinks true && git checkout -- lord_fast/kernels"
    built = setup(tmp_path, "--version")
    assert built.returncode == 1
    assert built.stderr.count("\n") == 1
    assert fix in built.stderr
    command = [sys.executable, "-c", "import lord_fast"]
    imported = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert fix in imported.stderr.splitlines()[-1]
