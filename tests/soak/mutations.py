"""Break what the project promises, one line at a time, in a copy: a test must fail each time.

Usage: python -m tests.soak.mutations [NAME ...]

Prints a line for each mutation and exits with 1 if one survives.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]


class Mutation(NamedTuple):
    """A change of one place.

    Attributes:
        file: Where.
        old: Text that occurs there.
        new: What takes its place, everywhere in the file.
        tests: The tests of which one must fail, as pytest takes them.
    """

    file: str
    old: str
    new: str
    tests: str


CHECKPOINT = "lord_fast/run/checkpoint.py"
REFERENCE = "kernels/reference.py"
MUTATIONS = {
    "fsync of checkpoint files": Mutation(
        CHECKPOINT, "    for file in partial.iterdir():\n        sync(file)\n", "",
        "tests/test_checkpoint.py",
    ),
    "fsync of the checkpoints' folder": Mutation(
        CHECKPOINT, "        partial.rename(final)\n        sync(folder)\n",
        "        partial.rename(final)\n", "tests/test_checkpoint.py",
    ),
    "fsync of a written file": Mutation(
        "lord_fast/atomic.py", "            os.fsync(stream.fileno())\n", "",
        "tests/test_reliability_files.py tests/test_battery_order.py",
    ),
    "fsync of a store's files": Mutation(
        "lord_fast/atomic.py", "    for path in partial.rglob(\"*\"):\n        sync(path)\n", "",
        "tests/test_interchange.py tests/test_battery_order.py",
    ),
    "rename of a checkpoint": Mutation(
        CHECKPOINT, "partial = folder / f\".{final.name}.partial\"", "partial = final",
        "tests/test_checkpoint.py tests/test_reliability_crash.py",
    ),
    "rename of a written file": Mutation(
        "lord_fast/atomic.py", "        partial.replace(path)\n",
        "        path.write_bytes(partial.read_bytes())\n        partial.unlink()\n",
        "tests/test_battery_order.py",
    ),
    "lock of a run": Mutation(
        "lord_fast/run/folder.py", "    with folder_lock(run):\n", "    if True:\n",
        "tests/test_reliability_files.py",
    ),
    "lock of a store": Mutation(
        "lord_fast/data/unfinished.py", "    with folder_lock(partial):\n", "    if True:\n",
        "tests/test_data_reliability.py",
    ),
    "finite loss": Mutation(
        "lord_fast/train/log.py", "        if not all(finite):\n", "        if False:\n",
        "tests/test_reliability.py",
    ),
    "finite state": Mutation(
        CHECKPOINT, "                if not _is_finite(part.detach()):\n",
        "                if False:\n", "tests/test_reliability.py",
    ),
    "step key of the noise": Mutation(
        REFERENCE, "(step & _MASK32).expand_as(ids))", "(0 * step).expand_as(ids))",
        "tests/test_latent.py",
    ),
    "bias correction of the replay": Mutation(
        REFERENCE, "    grown = torch.sqrt((1 - beta2**t) / beta2 ** j.double())\n",
        "    grown = torch.sqrt(1 / beta2 ** j.double())\n", "tests/test_latent.py",
    ),
    "first bias correction of the replay": Mutation(
        REFERENCE, "beta1 ** j.double() / (1 - beta1**t) * grown", "beta1 ** j.double() * grown",
        "tests/test_latent.py",
    ),
    "hash of labels": Mutation(
        "lord_fast/data/store.py", "        check_files(path, manifest, LABEL_FILES)\n", "",
        "tests/test_data_reliability.py",
    ),
    "hash of a checkpoint's files": Mutation(
        CHECKPOINT, "            if sha256(checkpoint / name) != digest:\n",
        "            if False:\n", "tests/test_checkpoint.py tests/test_battery_damage.py",
    ),
    "bounds": Mutation(
        "lord_fast/config.py", ", Below(MOST_DIM)]", "]", "tests/test_battery_numbers.py",
    ),
}  # fmt: skip


def killed(mutation: Mutation, folder: Path) -> bool:
    """Whether a test fails once the copy in `folder` is changed; it is changed back."""
    file = folder / mutation.file
    whole = file.read_text()
    assert mutation.old in whole, f"{mutation.file}: {mutation.old!r} is not there"
    file.write_text(whole.replace(mutation.old, mutation.new))
    tests = [test for test in mutation.tests.split() if (folder / test).exists()]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests],
        cwd=folder, capture_output=True, text=True,
    )  # fmt: skip
    file.write_text(whole)
    assert done.returncode in (0, 1), done.stdout[-2000:]
    return done.returncode == 1


def main() -> None:
    """Run from the command line."""
    survived = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "copy"
        ignored = shutil.ignore_patterns(".venv", ".git", "runs", "build", "__pycache__")
        shutil.copytree(ROOT, folder, symlinks=True, ignore=ignored)
        for name in sys.argv[1:] or MUTATIONS:
            result = "a test fails" if killed(MUTATIONS[name], folder) else "SURVIVED"
            print(json.dumps({name: result}), flush=True)
            survived += [name] if result == "SURVIVED" else []
    sys.exit(bool(survived))


if __name__ == "__main__":
    main()
