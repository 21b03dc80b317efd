"""Damage every kind of file that the program reads back, and see what it makes of it.

Usage: python -m tests.soak.damage [--count 1000] [--seed 0] [--files PART]

A damaged file must be refused by one ValueError (OSError where it is gone), or give what the
whole file gave. Anything else is silent, or a crash. Prints one line a file: how many of each.
"""

import argparse
import contextlib
import hashlib
import json
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from lord_fast.cli import main as lord_fast
from lord_fast.data.options import PackConfig
from lord_fast.data.pack import pack
from lord_fast.data.sources import open_source
from lord_fast.data.split import split_images
from lord_fast.data.store import ImageStore
from lord_fast.data.verify import verify
from lord_fast.run import checkpoint, history, metrics, stats
from lord_fast.run.config import load_config, load_encoder_config
from tests.plain_table import state_of

Read = Callable[[], object]
"""Reads a file and everything that belongs to it; returns what must stay the same."""


def damaged(whole: bytes, rng: random.Random) -> bytes | None:
    """A copy with a flipped bit, cut, with zeros or other bytes in it, longer, or None: removed."""
    kind, at = rng.randrange(8), rng.randrange(max(len(whole), 1))
    if kind < 3 and whole:
        return whole[:at] + bytes([whole[at] ^ 1 << rng.randrange(8)]) + whole[at + 1 :]
    if kind == 3:
        return whole[:at]
    if kind == 4:
        size = min(rng.choice((1, 16, 512, 4096)), len(whole) - at)
        return whole[:at] + bytes(size) + whole[at + size :]
    if kind == 5:
        size = min(rng.choice((1, 16, 512)), len(whole) - at)
        return whole[:at] + rng.randbytes(size) + whole[at + size :]
    if kind == 6:
        return whole + rng.randbytes(rng.choice((1, 64)))
    return None if rng.random() < 0.1 else whole[at:]


def attack(file: Path, read: Read, count: int, rng: random.Random) -> Counter:
    """Damage a file `count` times; what came of it: refused, harmless, silent, or an exception."""
    whole, expected = file.read_bytes(), read()
    found: Counter[str] = Counter()
    for _ in range(count):
        content = damaged(whole, rng)
        file.unlink()  # a file that is mapped into memory must not be cut
        if content is not None:
            file.write_bytes(content)
        try:
            same = read() == expected
        except (ValueError, OSError):  # what the command line makes one line and exit code 2 of
            found["refused"] += 1
        except Exception as error:
            found[f"{type(error).__name__}: {error}"[:90]] += 1
        else:
            found["harmless" if same else "silent"] += 1
        file.unlink(missing_ok=True)
        file.write_bytes(whole)
    return found


def tensors(path: Path) -> list[tuple[str, str, bytes]]:
    """A checkpoint's values."""
    flat = [(space, name, t) for space, part in state_of(path).items() for name, t in part.items()]
    return [("step", path.name, b""), *((s, n, t.numpy().tobytes()) for s, n, t in sorted(
        flat, key=lambda item: item[:2]))]  # fmt: skip


def labels(store: Path) -> tuple:
    """What opening a store gives, but for its images."""
    opened = ImageStore(store)
    return (
        opened.class_names, opened.factors, opened.sha256, opened.crop, opened.size,
        opened.channels, opened.encoded, opened.class_ids.tolist(), opened.content_ids.tolist(),
    )  # fmt: skip


def files_of_run(run: Path) -> Iterator[tuple[Path, Read]]:
    """Every hashed file of a run with both stages, and who reads it."""
    yield run / "config.yaml", lambda: load_config(run / "config.yaml")
    yield run / "encoders.yaml", lambda: load_encoder_config(run / "encoders.yaml")
    for stage in ("latent", "encoders"):
        path = checkpoint.latest(run / "checkpoints", stage)
        assert path is not None
        for file in sorted(path.iterdir()):
            yield file, lambda path=path: tensors(path)  # type: ignore[misc]


def files_of_store(store: Path) -> Iterator[tuple[Path, Read]]:
    """Every file of a store: labels by opening it, all of them by `pack --verify`."""
    for file in sorted(store.iterdir()):
        if file.name != history.FILE:
            yield file, lambda: verify(store)
        if file.suffix == ".npy" or file.name == "manifest.json":
            yield file, lambda: labels(store)


def logs_of_run(run: Path) -> Iterator[tuple[Path, Read]]:
    """Yield sealed text files and whether everything that is read from them is true.

    A file that ends early has fewer lines, which is not an error.
    """
    file = run / "stats.jsonl"
    rows, commands = stats.read_stats(file), history.read_history(run)
    yield file, lambda: all(_holds(row, rows) for row in stats.read_stats(file, torn=True))
    yield run / history.FILE, lambda: set(history.read_history(run)) <= set(commands)
    for measured in metrics.read_metrics(run):
        # A file that is gone has no metrics, which is not an error.
        yield (
            measured.file,
            lambda whole=measured.values: all(  # type: ignore[misc]
                _holds(found.values, [whole]) for found in metrics.read_metrics(run)
            ),
        )


def _holds(found: dict, whole: list[dict]) -> bool:
    """Whether a row is one of the whole file's. A damaged name of its checksum may be added."""
    return any({name: found.get(name) for name in row} == row for row in whole)


def unfinished(source: Path, folder: Path) -> Iterator[tuple[Path, Read]]:
    """The files of a packing that was cut off: what is made of them must be the same store."""
    config = PackConfig(size=8, decoder="pillow", workers=1)
    cut, out = folder / "cut.partial", folder / "out"

    def stop(done: int) -> None:
        if done >= 16:
            raise KeyboardInterrupt

    with contextlib.suppress(KeyboardInterrupt):
        pack(open_source(str(source), config), folder / "cut", config, stop)
    assert (cut / "packing.json").is_file(), sorted(cut.iterdir())

    def go_on() -> str:
        for path in (out, folder / "out.partial"):
            shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(cut, folder / "out.partial")
        pack(open_source(str(source), config), out, config)
        digest = hashlib.sha256()
        for file in sorted(out.iterdir()):
            digest.update(file.name.encode() + file.read_bytes())
        return digest.hexdigest()

    for file in sorted(cut.iterdir()):
        if file.stat().st_size and file.name != ".lock":
            yield file, go_on


def write_images(root: Path, each: int = 20) -> Path:
    """Two classes of small images."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        (root / name).mkdir(parents=True)
        for i in range(each):
            pixels = rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i:02}.png")
    return root


def targets(run: Path, folder: Path) -> Iterator[tuple[Path, Read]]:
    """Every kind of file; `run` has both stages and metrics, and is damaged and repaired."""
    images = write_images(folder / "images")
    for name, encoded in (("decoded", False), ("encoded", True)):
        config = PackConfig(size=8, decoder="pillow", workers=1, encoded=encoded)
        pack(open_source(str(images), config), folder / name, config)
        yield from files_of_store(folder / name)
    split_images(folder / "decoded", folder / "part", folder / "rest", 0.5, 0)
    yield from files_of_store(folder / "part")
    yield from unfinished(images, folder)
    yield from files_of_run(run)
    yield from logs_of_run(run)


def is_wrong(found: Counter) -> bool:
    """Whether damage to a file was used silently, or made anything but a ValueError."""
    return bool(set(found) - {"refused", "harmless"})


def small_run(folder: Path) -> Path:
    """A run with both stages and metrics, a few steps each."""
    small = ("--batch-size", "8", "--threads", "1")
    sizes = ("--content-dim", "4", "--class-dim", "4", "--adain-dim", "8", "--loss", "pyramid")
    run = folder / "run"
    for command in (
        ("pack", "glyphs", folder / "glyphs", "--size", "32", "--classes", "8"),
        ("train", folder / "glyphs", "--run", run, "--steps", "4", *sizes, *small),
        ("train-encoders", run, "--steps", "4", "--encoder-dim", "8", *small),
        ("evaluate", run),
    ):
        assert lord_fast([str(word) for word in command]) == 0
    return run


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--files", default="", help="a part of FOLDER/NAME; default: all files")
    given = parser.parse_args()
    wrong, total = False, Counter[str]()
    with tempfile.TemporaryDirectory() as temporary:
        run = small_run(Path(temporary))
        for file, read in targets(run, Path(temporary)):
            if given.files not in f"{file.parent.name}/{file.name}":
                continue
            rng = random.Random(f"{given.seed} {file.name}")
            found = attack(file, read, given.count, rng)
            print(json.dumps({"file": f"{file.parent.name}/{file.name}", **found}), flush=True)
            wrong |= is_wrong(found)
            total += found
    print(json.dumps({"all": sum(total.values()), **total}))
    sys.exit(wrong)


if __name__ == "__main__":
    main()
