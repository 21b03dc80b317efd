"""Checkpoints: written aside and renamed, verified by hash when read, the last two kept.

A checkpoint is a folder RUN/checkpoints/STAGE-STEP of safetensors files, one a namespace, and
state.json with the step and the sha256 of each file. The same state makes the same bytes.
"""

import hashlib
import json
import re
import shutil
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from lord_fast.atomic import sync

KEPT = 2
NAME = re.compile(r"(?P<stage>latent|encoders)-(?P<step>\d{9})")

State = dict[str, dict[str, Tensor]]
"""Namespace (`generator`, `content`, `optimizer`, ...) -> name -> tensor."""


def save(folder: Path, stage: str, step: int, state: State) -> Path:
    """Write a checkpoint, then remove all but the last two of the stage.

    Whatever interrupts it, `folder` holds complete checkpoints only: the files are written and
    synced under another name, renamed together, and the rename is synced.

    Args:
        folder: RUN/checkpoints; created if need be.
        stage: latent or encoders.
        step: Steps done.
        state: The tensors, on any device.

    Returns:
        The checkpoint's folder.

    Raises:
        OSError: the disk is full or not writable; the partial folder is removed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / f"{stage}-{step:09d}"
    partial = folder / f".{final.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir()
        hashes = {}
        for namespace, tensors in sorted(state.items()):
            file = partial / f"{namespace}.safetensors"
            save_file({name: t.contiguous().cpu() for name, t in sorted(tensors.items())}, file)
            hashes[file.name] = sha256(file)
        content = {"stage": stage, "step": step, "sha256": hashes}
        (partial / "state.json").write_text(json.dumps(content, indent=1) + "\n")
        for file in partial.iterdir():
            sync(file)
        sync(partial)
        shutil.rmtree(final, ignore_errors=True)
        partial.rename(final)
        sync(folder)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        if isinstance(error, SafetensorError):  # how it reports a full disk
            raise OSError(f"{final}: cannot be written ({error})") from error
        raise
    for old in list_checkpoints(folder, stage)[:-KEPT]:
        shutil.rmtree(old)
    return final


def load(checkpoint: Path) -> tuple[int, State]:
    """Read a checkpoint and verify it.

    Returns:
        Steps done, and the tensors on the CPU.

    Raises:
        ValueError: a file is missing or is not what was written.
    """
    try:
        content = json.loads((checkpoint / "state.json").read_text())
        for name, digest in content["sha256"].items():
            if sha256(checkpoint / name) != digest:
                raise ValueError(f"{checkpoint / name}: damaged (its sha256 has changed)")
    except (OSError, json.JSONDecodeError, KeyError) as error:
        raise ValueError(f"{checkpoint}: not a whole checkpoint ({error})") from error
    state = {Path(name).stem: load_file(checkpoint / name) for name in content["sha256"]}
    return content["step"], state


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
    return int(found.name.removeprefix(f"{stage}-")) if found else 0


def sha256(file: Path) -> str:
    """Hash of a file's bytes, read in pieces."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while piece := stream.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()
