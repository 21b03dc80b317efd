"""Checkpoints: written aside and renamed, verified by hash when read, the last few kept.

A checkpoint is a folder RUN/checkpoints/STAGE-STEP of safetensors files, one a namespace, and
state.json with the stage, the step, the sha256 of each file, and a checksum of its own content.
The same state makes the same bytes.
"""

import errno
import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from lord_fast.atomic import let_others_read, sync
from lord_fast.console import err

KEPT = 2
NAME = re.compile(r"(?P<stage>latent|encoders)-(?P<step>\d{9})")
LEFTOVER = re.compile(rf"\.{NAME.pattern}(\.old)?\.partial")
KEYS = {"stage", "step", "sha256", "checksum"}
OLD_NAMES = {"amortized": "encoders"}
"""Stages as lord-fast 0.1 named them; their folders were renamed by hand."""

State = dict[str, dict[str, Tensor]]
"""Namespace (`generator`, `content`, `optimizer`, ...) -> name -> tensor."""
Say = Callable[[str], object]
"""Tells the user one line."""


class Loaded(NamedTuple):
    """A checkpoint that was read.

    Attributes:
        path: Its folder.
        step: Steps done.
        state: Its tensors, on the CPU.
    """

    path: Path
    step: int
    state: State


def save(
    folder: Path, stage: str, step: int, state: State, keep: int = KEPT, say: Say = err.print
) -> Path:
    """Write a checkpoint, then remove all but the last few of the stage.

    Whatever interrupts it, `folder` holds complete checkpoints only: the files are written and
    synced under another name, renamed together, and the rename is synced. Checkpoints of later
    steps are removed too: training went back behind them.

    Args:
        folder: RUN/checkpoints; created if need be.
        stage: latent or encoders.
        step: Steps done.
        state: The tensors, on any device.
        keep: How many remain.
        say: Is told of an old checkpoint that cannot be removed.

    Returns:
        The checkpoint's folder.

    Raises:
        OSError: the disk is full or not writable; the partial folder is removed.
    """
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        sync(folder.parent)
    final = folder / f"{stage}-{step:09d}"
    partial = folder / f".{final.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir()
        _fill(partial, stage, step, state)
        if final.exists():
            final.rename(_aside(final))
        partial.rename(final)
        sync(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    shutil.rmtree(_aside(final), ignore_errors=True)
    found = list_checkpoints(folder, stage)
    now = found.index(final) + 1
    for old in found[: max(now - keep, 0)] + found[now:]:
        _remove(old, say)
    return final


def load(checkpoint: Path) -> tuple[int, State]:
    """Read a checkpoint and verify it.

    Returns:
        Steps done, and the tensors on the CPU.

    Raises:
        ValueError: a file is missing or is not what was written, the folder has the name of
            another step, or a value is not finite.
    """
    step, names = _verify(checkpoint)
    try:
        state = {Path(name).stem: load_file(checkpoint / name) for name in names}
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{checkpoint}: not a whole checkpoint ({error})") from error
    wrong = not_finite(state)
    if wrong is not None:
        raise ValueError(f"{checkpoint}: holds values that are not finite ({wrong})")
    return step, state


def load_latest(folder: Path, stage: str, say: Say = err.print) -> Loaded | None:
    """Read the checkpoint of a stage with the most steps, or the one before it if it is damaged.

    A checkpoint that training removes meanwhile is no damage: the newest is read instead.

    Args:
        folder: RUN/checkpoints.
        stage: latent or encoders.
        say: Is told which one is damaged and which one is read instead.

    Returns:
        None where there is no checkpoint.

    Raises:
        ValueError: none of them is whole.
    """
    failed: dict[Path, ValueError] = {}
    while untried := [p for p in list_checkpoints(folder, stage) if p not in failed]:
        path = untried[-1]
        try:
            step, state = load(path)
        except ValueError as error:
            failed[path] = error
            continue
        for damaged, reason in failed.items():
            if damaged.exists():
                say(f"{reason}; {path} is whole and is used instead")
        return Loaded(path, step, state)
    if not failed:
        return None
    first = next(iter(failed.values()))
    raise ValueError(f"{first}; no other checkpoint of the {stage} stage is whole")


def load_at(folder: Path, stage: str, step: int) -> Loaded:
    """Read the checkpoint of a step.

    Raises:
        ValueError: there is none, or it is damaged.
    """
    path = folder / f"{stage}-{step:09d}"
    if not path.is_dir():
        steps = [str(_step_of(found)) for found in list_checkpoints(folder, stage)]
        raise ValueError(
            f"{folder}: no checkpoint of the {stage} stage at step {step}; "
            f"there are: {', '.join(steps) or 'none'}"
        )
    return Loaded(path, *load(path))


def list_checkpoints(folder: Path, stage: str) -> list[Path]:
    """The checkpoints of a stage, oldest first.

    Raises:
        ValueError: the folder holds checkpoints of lord-fast 0.1, which named stage 2 otherwise.
    """
    if not folder.is_dir():
        return []
    old = sorted(folder.glob("amortized-*"))
    if old:
        raise ValueError(
            f"{old[-1]}: written by lord-fast 0.1; stage 2 is called encoders now: rename the "
            f"amortized-* folders in {folder} to encoders-*"
        )
    found = [path for path in folder.iterdir() if NAME.fullmatch(path.name)]
    return sorted(path for path in found if path.name.startswith(f"{stage}-"))


def latest(folder: Path, stage: str) -> Path | None:
    """The checkpoint of a stage with the most steps, if there is one."""
    found = list_checkpoints(folder, stage)
    return found[-1] if found else None


def steps_done(folder: Path, stage: str) -> int:
    """Steps of the latest checkpoint of a stage; 0 if there is none."""
    found = latest(folder, stage)
    return _step_of(found) if found else 0


def is_finished(folder: Path, stage: str, end: int) -> bool:
    """Whether the last checkpoint of a stage is that of its end, and undamaged."""
    found = latest(folder, stage)
    if found is None or _step_of(found) != end:
        return False
    try:
        _verify(found)
    except ValueError:
        return False
    return True


def not_finite(state: State, since: int | None = None) -> str | None:
    """Find a value that is not finite.

    Args:
        state: The tensors, on any device.
        since: Look only at the rows of tables that were updated after this many steps.

    Returns:
        NAMESPACE/NAME of the first tensor with one; None: all are finite.
    """
    for namespace, tensors in state.items():
        rows = None
        if since is not None and "last_step" in tensors:
            rows = (tensors["last_step"] > since).nonzero()[:, 0]
        for name, tensor in tensors.items():
            if tensor.is_floating_point():
                part = tensor if rows is None else tensor[rows]
                if not _is_finite(part.detach()):
                    return f"{namespace}/{name}"
    return None


def remove_leftovers(folder: Path) -> None:
    """Remove what a process that was killed while saving has left in RUN/checkpoints."""
    for path in folder.glob(".*.partial"):
        if LEFTOVER.fullmatch(path.name):
            shutil.rmtree(path, ignore_errors=True)


def write_tensors(file: Path, tensors: dict[str, Tensor]) -> None:
    """Write a safetensors file that others may read, as the umask allows.

    Raises:
        OSError: it cannot be written; the file is named.
    """
    content = {name: tensor.contiguous().cpu() for name, tensor in sorted(tensors.items())}
    try:
        save_file(content, file)
    except SafetensorError as error:  # how it reports a full disk
        number = re.search(r"os error (\d+)", str(error))
        code = int(number[1]) if number else errno.EIO
        raise OSError(code, f"cannot be written ({error})", str(file)) from error
    let_others_read(file)


def sha256(file: Path) -> str:
    """Hash of a file's bytes, read in pieces."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while piece := stream.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def _fill(partial: Path, stage: str, step: int, state: State) -> None:
    hashes = {}
    for namespace, tensors in sorted(state.items()):
        file = partial / f"{namespace}.safetensors"
        write_tensors(file, tensors)
        hashes[file.name] = sha256(file)
    content: dict[str, Any] = {"stage": stage, "step": step, "sha256": hashes}
    content["checksum"] = _checksum(content)
    (partial / "state.json").write_text(json.dumps(content, indent=1) + "\n")
    for file in partial.iterdir():
        sync(file)
    sync(partial)


def _verify(checkpoint: Path) -> tuple[int, list[str]]:
    """The step and the names of the files, all of which are as they were written.

    Raises:
        ValueError: one is not. The checksum came later: a checkpoint may do without.
    """
    try:
        content = json.loads((checkpoint / "state.json").read_text())
        checksum = content.pop("checksum", None)
        if set(content) != KEYS - {"checksum"}:
            raise ValueError(f"{checkpoint / 'state.json'}: damaged (its keys have changed)")
        if checksum is not None and checksum != _checksum(content):
            raise ValueError(f"{checkpoint / 'state.json'}: damaged (its checksum has changed)")
        stage, step = OLD_NAMES.get(content["stage"], content["stage"]), content["step"]
        if type(step) is not int or f"{stage}-{step:09d}" != checkpoint.name:
            raise ValueError(
                f"{checkpoint}: damaged or renamed (its state.json is of {stage}, step {step})"
            )
        for name, digest in content["sha256"].items():
            if sha256(checkpoint / name) != digest:
                raise ValueError(f"{checkpoint / name}: damaged (its sha256 has changed)")
    except (OSError, json.JSONDecodeError, UnicodeDecodeError, AttributeError, TypeError) as error:
        raise ValueError(f"{checkpoint}: not a whole checkpoint ({error})") from error
    return step, list(content["sha256"])


def _checksum(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _is_finite(tensor: Tensor) -> bool:
    if not tensor.numel():
        return True
    if tensor.device.type != "cpu":
        return bool(tensor.isfinite().all())
    # 40 times as fast as isfinite on a CPU; both give NaN where there is one.
    return bool(tensor.amin().isfinite() and tensor.amax().isfinite())


def _step_of(checkpoint: Path) -> int:
    return int(checkpoint.name[-9:])


def _aside(checkpoint: Path) -> Path:
    return checkpoint.with_name(f".{checkpoint.name}.old.partial")


def _remove(checkpoint: Path, say: Say) -> None:
    """Remove a checkpoint, renamed first: what has a checkpoint's name is whole."""
    aside = _aside(checkpoint)
    try:
        checkpoint.rename(aside)
        shutil.rmtree(aside)
    except OSError as error:
        say(f"{checkpoint}: an old checkpoint cannot be removed ({error}); training goes on")
