"""lord-fast pack."""

import dataclasses
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

from lord_fast.bounds import Checked
from lord_fast.console import err
from lord_fast.data.formats import formats
from lord_fast.data.options import PackConfig
from lord_fast.errors import Interrupted, naming
from lord_fast.run.history import Command


def source_options() -> Checked:
    """Return the options of all formats as one configuration, with a group for each format."""
    groups = [
        (name, form.options, dataclasses.field(default_factory=form.options))
        for name, form in formats().items()
        if form.options is not None
    ]
    return dataclasses.make_dataclass("SourceOptions", groups, bases=(Checked,), frozen=True)()


def pack(
    command: Command,
    config: Annotated[PackConfig, arg(name="")],
    of_source: Annotated[Checked, arg(name="")],
    source: Positional[str | None] = None,
    store: Positional[Path | None] = None,
    verify: Path | None = None,
) -> None:
    """Convert images or a data set into a store to train on.

    Examples:
        lord-fast pack photos store --size 64
        lord-fast pack glyphs store --size 32
        lord-fast pack kth store --format kth --every 5
        lord-fast pack --verify store

    Args:
        source: A folder with files SOURCE/CLASS/NAME.png, an archive of such a folder, an .npz
            file, the files of a data set (see --format), or the word glyphs.
        store: The folder to create. Repeat the command to continue after an interruption.
        verify: Verify this store against its hashes and its source instead of packing.
    """
    if verify is not None:
        _verify(verify)
    elif source is None or store is None:
        raise ValueError("give SOURCE and STORE, or --verify STORE")
    else:
        with naming(store):
            _pack(source, store, config, vars(of_source).values())
            command.record(store)


def defaults(arguments: Sequence[str]) -> dict[str, Any]:
    """Return the default options of all formats."""
    return {"of_source": source_options()}


def notes() -> str:
    """Describe the formats."""
    lines = (f"  {name:<12}{form.about}" for name, form in formats().items())
    return "\n\nFormats:\n" + "\n".join(lines)


def _pack(source: str, store: Path, config: PackConfig, options: Any) -> None:
    import time

    from lord_fast.data.pack import pack as pack_source
    from lord_fast.data.sources import open_source

    records = open_source(source, config, *options)
    for note in records.notes():
        err.print(f"note: {note}")
    with _progress("pack", len(records)) as advance, _sigterm(store):
        steps: list[int] = []
        start = time.perf_counter()
        total = 0

        def done(count: int) -> None:
            nonlocal total
            steps.append(count)
            total += count
            advance(total, len(records))

        manifest = pack_source(records, store, config, done)
    # The first count is the number of images that an interrupted command had packed.
    speed = sum(steps[1:]) / (time.perf_counter() - start)
    _print_left_out(store)
    _print_summary(store, manifest, speed)


def _verify(store: Path) -> None:
    from lord_fast.data.verify import verify

    with _progress("verify", None) as advance:
        checked = verify(store, advance)
    err.print(f"{store}: {checked}")


def _print_summary(store: Path, manifest: dict, speed: float) -> None:
    import numpy as np

    from lord_fast.data.strings import num_labels

    counts = np.bincount(np.load(store / "class_ids.npy"))
    counts_of = {name: num_labels(labels) for name, labels in manifest["factors"].items()}
    factors = ", ".join(f"{name} ({count})" for name, count in counts_of.items()) or "none"
    factors += _why_labels(manifest)
    err.print(
        f"{store}: {manifest['num_images']} images of {len(counts)} classes "
        f"({counts.min()}-{counts.max()} each), {manifest['size']} x {manifest['size']}, "
        f"{'grey' if manifest['channels'] == 1 else 'RGB'}, {manifest['storage']} by "
        f"{manifest['decoder']['name']}; content factors: {factors}; {speed:,.0f} images/s"
    )
    _note_unshared(store, manifest)
    if counts.min() < 2 or len(counts) < 2:
        err.print(
            "note: training needs at least two classes with at least two images each. "
            "--min-class-size 2 leaves out smaller classes"
        )


def _why_labels(manifest: dict) -> str:
    """Say why names of files were taken as content labels or not."""
    found = manifest["content_labels"]
    if found is None:
        return ""
    if "similarity" not in found:
        return " (no two classes share the name of a file)"
    alike = f"correlation {found['similarity']:.2f} above chance, p {found['p']:.3f}"
    if found["used"] == "stem":
        return f" (images of the same name are alike: {alike})"
    return (
        f" (images of the same name are not alike: {alike}; if they do show the same content, "
        f"use --content-labels stem)"
    )


def _note_unshared(store: Path, manifest: dict) -> None:
    """Say that content labels are of no use if no two classes share one."""
    import numpy as np

    found = manifest["content_labels"]
    hint = (
        "transfer cannot be measured. If the names hold labels such as an angle, give them with "
        "--content-pattern"
    )
    if found is not None and "similarity" not in found:
        err.print(f"note: no two classes share the name of a file, so {hint}")
    if not manifest["factors"]:
        return
    _, contents = np.unique(np.load(store / "content_ids.npy"), axis=0, return_inverse=True)
    pairs = np.unique(np.stack((contents.reshape(-1), np.load(store / "class_ids.npy"))), axis=1)
    if len(pairs[0]) == len(np.unique(pairs[0])):
        err.print(f"note: no two classes share a content label, so {hint}")


def _print_left_out(store: Path) -> None:
    import json

    from lord_fast.data.pack import SHOWN

    rows = [json.loads(line) for line in (store / "left_out.jsonl").read_text().splitlines()]
    if rows:
        err.print(f"left out {len(rows)} images ({store / 'left_out.jsonl'}):")
        for row in rows[:SHOWN]:
            err.print(f"  {row['name']}: {row['reason']}")
        if len(rows) > SHOWN:
            err.print(f"  and {len(rows) - SHOWN} more")


@contextmanager
def _progress(what: str, total: int | None) -> Iterator[Any]:
    """Show a progress bar on a terminal. Yields a function that takes the count and the total."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Speed(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.finished_speed or task.speed or 0:,.0f} images/s")

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("images"), Speed())
    with Progress(
        *columns, TimeRemainingColumn(), console=err, disable=not err.is_terminal
    ) as progress:
        task = progress.add_task(what, total=total)
        yield lambda done, total: progress.update(task, completed=done, total=total)


@contextmanager
def _sigterm(store: Path) -> Iterator[None]:
    """Make SIGTERM stop packing in the same way as Ctrl-C, so that the images so far are kept."""

    def handle(signum: int, frame: object) -> None:
        raise Interrupted(signum, f"while packing {store}")

    previous = signal.signal(signal.SIGTERM, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
