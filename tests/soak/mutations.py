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


SEGMENTS = "lord_fast/run/segments.py"
SNAPSHOT = "lord_fast/run/snapshot.py"
TENSORS = "lord_fast/run/tensors.py"
REFERENCE = "kernels/reference.py"
MUTATIONS = {
    "fsync of checkpoint files": Mutation(
        TENSORS, "        os.fsync(stream.fileno())\n", "", "tests/test_checkpoint.py",
    ),
    "fsync of state.json": Mutation(
        "lord_fast/run/contents.py", "        os.fsync(stream.fileno())\n", "",
        "tests/test_checkpoint.py",
    ),
    "fsync of the checkpoints' folder": Mutation(
        SNAPSHOT, "    partial.rename(final)\n    sync(final.parent)\n",
        "    partial.rename(final)\n", "tests/test_checkpoint.py",
    ),
    "links before state.json": Mutation(
        SNAPSHOT, "        os.link(snapshot.previous / file, partial / file)\n",
        "        pass\n", "tests/test_segments.py",
    ),
    "a segment that is left out": Mutation(
        SEGMENTS, "    kept, steps = list(older), [[since, step]]\n",
        "    kept, steps = list(older)[1:], [[since, step]]\n", "tests/test_segments.py",
    ),
    "rows of the last save once more": Mutation(
        SEGMENTS, "(shard.last_step > since).nonzero()", "(shard.last_step >= since).nonzero()",
        "tests/test_segments.py",
    ),
    "rows of the first step after a save": Mutation(
        SEGMENTS, "(shard.last_step > since).nonzero()",
        "(shard.last_step > since + 1).nonzero()", "tests/test_segments.py",
    ),
    "present rows of dropped segments": Mutation(
        SEGMENTS, "        rows = torch.cat([rows, more]).sort().values\n", "",
        "tests/test_segments.py",
    ),
    "intervals of carried rows": Mutation(
        SEGMENTS, "steps = _joined([*carried, *steps])", "steps = _joined(steps)",
        "tests/test_segments.py",
    ),
    "newest segments first": Mutation(
        "lord_fast/run/saved.py", "for segment in self._shards[shard] for file",
        "for segment in reversed(self._shards[shard]) for file", "tests/test_segments.py",
    ),
    "initial values before loading": Mutation(
        "lord_fast/train/stage.py", "                    shard.reset()\n",
        "                    pass\n", "tests/test_reliability.py",
    ),
    "waiting before going back": Mutation(
        "lord_fast/train/recovery.py",
        "        self.writer.wait()\n        done = max(done, found.step)\n",
        "        done = max(done, found.step)\n", "tests/test_writer.py",
    ),
    "copies in a snapshot": Mutation(
        SNAPSHOT, "torch.empty(tensor.shape, dtype=tensor.dtype).copy_(tensor.detach())",
        "tensor.detach()", "tests/test_segments.py tests/test_writer.py",
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
        SNAPSHOT, "partial = folder / f\".{final.name}.partial\"", "partial = final",
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
        TENSORS, "        if tensor.is_floating_point() and not _is_finite(tensor.detach()):\n",
        "        if False:\n", "tests/test_segments.py tests/test_reliability.py",
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
        "lord_fast/data/store.py",
        "        check_files(path, manifest, (*LABEL_FILES, *label_files(manifest)))\n", "",
        "tests/test_data_reliability.py",
    ),
    "hash of a checkpoint's files": Mutation(
        "lord_fast/run/contents.py", "            if file_sha256(folder / name) != digest:\n",
        "            if False:\n", "tests/test_checkpoint.py tests/test_battery_damage.py",
    ),
    "noise by global id": Mutation(
        "lord_fast/train/latent.py", ".gather(rows, now, ids)", ".gather(rows, now, rows)",
        "tests/test_virtual_ranks.py tests/test_group.py",
    ),
    "mean over virtual ranks": Mutation(
        "lord_fast/train/gradients.py", '(scalars["loss"] / count).backward()',
        'scalars["loss"].backward()', "tests/test_virtual_ranks.py",
    ),
    "order of the sum over processes": Mutation(
        "lord_fast/distributed/processes.py",
        "mine = pairwise(pieces.view(self.world, size)).contiguous()",
        "mine = sum(pieces.view(self.world, size)).contiguous()", "tests/test_group.py",
    ),
    "order of the class gradients": Mutation(
        "lord_fast/distributed/processes.py", "        return found.to(rows.device)\n",
        "        found = found.view(self.world, *rows.shape).flip(0).flatten(0, 1)\n"
        "        return found.to(rows.device)\n",
        "tests/test_group.py",
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
