"""Any source to a packed store (its files: `lord_fast.data.writer`)."""

import collections
import hashlib
import itertools
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lord_fast.data import decode
from lord_fast.data.decode import BadImageError, Decoder, Shape
from lord_fast.data.options import PackConfig
from lord_fast.data.records import Record, Source
from lord_fast.data.writer import StoreWriter
from lord_fast.errors import Interrupted
from lord_fast.system import cpu_count

CHUNK = 16
"""Images that a worker reads and decodes at a time; each holds at most one chunk, and one waits."""


@dataclass(frozen=True)
class _Loaded:
    """A record's pixels or why there are none; what they were decoded from, if it was a file."""

    record: Record
    pixels: np.ndarray | BadImageError
    source: bytes | None = None
    sha256: str = ""


def pack(
    source: Source, out: Path, config: PackConfig, progress: Callable[[int], None] = lambda n: None
) -> dict:
    """Decode every record of `source` into a new store at `out`.

    A packing that was interrupted left its part at `out`.partial: the same call goes on with it.

    Args:
        source: The records; iterated a few times, in order.
        out: The store's folder; must not exist.
        config: Size, channels, decoder, workers and what may be left out.
        progress: Called with the number of images done since the last call.

    Returns:
        The manifest.

    Raises:
        ValueError: `out` exists, or more than `max_bad` images are broken (all of them are looked
            at and named); nothing is left at `out`.
    """
    if out.exists():
        raise ValueError(f"{out}: exists already; give another folder or remove it")
    if config.encoded and not source.has_files:
        raise ValueError("--encoded: this source holds pixels, not encoded images")
    records = _LargeClasses(source, config.min_class_size)
    workers = config.workers or cpu_count()
    shape = Shape(config.size, _channels(source, records, config, workers), _crop(source, config))
    # Pillow scales pixels, too.
    name: decode.DecoderName = config.decoder if source.has_files else "pillow"
    decoder = decode.open_decoder(name, shape, workers)
    partial = out.with_name(out.name + ".partial")
    writer = StoreWriter(partial, shape, config.encoded, {
        "source": source.describe(), "decoder": decoder.describe(), "size": shape.size,
        "channels": shape.channels, "crop": shape.crop, "encoded": config.encoded,
        "min_class_size": config.min_class_size,
    })  # fmt: skip
    try:
        done = writer.start(records)
        progress(done)
        _fill(writer, records, done, decoder, workers, progress)
        if len(writer.left_out) > config.max_bad:
            raise ValueError(_broken(writer.left_out, len(source)))
        if not writer.class_ids:
            raise ValueError(f"none of {len(source)} images can be used")
        manifest = writer.finish(source.describe(), decoder.describe())
        partial.rename(out)
    except Interrupted:  # leaves its part to go on with, as Ctrl-C does
        raise
    except Exception:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return manifest


def _fill(
    writer: StoreWriter,
    records: Iterable[Record],
    done: int,
    decoder: Decoder,
    workers: int,
    progress: Callable[[int], None],
) -> None:
    """Decode and write the records from number `done` on."""
    rest = itertools.islice(records, done, None)
    chunks = iter(lambda: tuple(itertools.islice(rest, CHUNK)), ())
    try:
        for chunk in _in_order(lambda c: _load(c, decoder, writer.shape), chunks, workers):
            for loaded in chunk:
                if isinstance(loaded.pixels, BadImageError):
                    writer.leave_out(done, loaded.record.name, str(loaded.pixels))
                else:
                    writer.add(loaded.record, loaded.pixels, loaded.source, loaded.sha256)
                done += 1
            writer.flush()
            progress(len(chunk))
    finally:
        writer.flush()


def _load(records: Sequence[Record], decoder: Decoder, shape: Shape) -> list[_Loaded]:
    """Read and decode some records."""
    images = [_read(record) for record in records]
    files = [image for image in images if isinstance(image, bytes)]
    decoded = iter(decoder.decode(files))
    loaded = []
    for record, image in zip(records, images, strict=True):
        if isinstance(image, bytes):
            digest = hashlib.sha256(image).hexdigest()
            loaded.append(_Loaded(record, next(decoded), image, digest))
        else:
            loaded.append(_Loaded(record, _fitted(image, shape)))
    return loaded


def _read(record: Record) -> np.ndarray | bytes | BadImageError:
    try:
        image = record.image
        return decode.read_file(image) if isinstance(image, Path) else image()
    except BadImageError as error:
        return error


def _fitted(image: np.ndarray | BadImageError, shape: Shape) -> np.ndarray | BadImageError:
    if isinstance(image, BadImageError):
        return image
    try:
        return decode.fit_array(image, shape)
    except BadImageError as error:
        return error


def _broken(left_out: list[dict], total: int) -> str:
    lines = "\n  ".join(f"{entry['name']}: {entry['reason']}" for entry in left_out)
    return (
        f"{len(left_out)} of {total} images cannot be used; repair or remove them, or pack the "
        f"others with --max-bad {len(left_out)}:\n  {lines}"
    )


class _LargeClasses:
    """The records of classes with at least `least` images."""

    def __init__(self, source: Source, least: int):
        self.source = source
        self.kept: set[str] | None = None
        if least > 1:
            sizes = collections.Counter(record.class_name for record in source)
            self.kept = {name for name, size in sizes.items() if size >= least}
            if not self.kept:
                raise ValueError(f"--min-class-size {least}: no class has as many images")

    def __iter__(self) -> Iterator[Record]:
        kept = self.kept
        return (record for record in self.source if kept is None or record.class_name in kept)


def _crop(source: Source, config: PackConfig) -> decode.Crop | None:
    """--crop as (width, height) or (width, height, left, top); the source's own without it."""
    if config.crop == "auto":
        return source.crop
    if config.crop == "none":
        return None
    size, *offset = config.crop.split("+")
    try:
        values = tuple(map(int, (*size.split("x"), *offset)))
    except ValueError:
        values = ()
    if len(values) not in (2, 4) or min(values) < 0 or min(values[:2]) == 0:
        raise ValueError(f"--crop {config.crop}: give WIDTHxHEIGHT or WIDTHxHEIGHT+LEFT+TOP")
    return values  # type: ignore[return-value]


def _channels(source: Source, records: Iterable[Record], config: PackConfig, workers: int) -> int:
    """--channels; auto: 1 if every image is grey by its header, else 3."""
    if config.channels != "auto":
        return int(config.channels)
    if source.channels is not None:
        return source.channels

    def grey(record: Record) -> bool:
        image = _read(record)
        try:
            if isinstance(image, bytes):
                return decode.is_grey(image)
        except BadImageError as error:
            image = error
        return isinstance(image, BadImageError) or image.ndim == 2 or image.shape[2] == 1

    return 1 if all(_in_order(grey, records, workers)) else 3


def _in_order(function: Callable, items: Iterable, workers: int) -> Iterator:
    """function(item) of every item in order, computed by threads at most one item ahead of each."""
    with ThreadPoolExecutor(workers) as pool:
        pending: collections.deque = collections.deque()
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) > workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
