"""Packs any source into a store. See `lord_fast.data.writer` for the files of a store."""

import collections
import contextlib
import hashlib
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lord_fast.atomic import refuse_overlap
from lord_fast.data import decode
from lord_fast.data.decode import BadImageError, Decoder, Shape
from lord_fast.data.options import PackConfig
from lord_fast.data.records import Record, Source
from lord_fast.data.unfinished import discard, finish, unfinished
from lord_fast.data.writer import StoreWriter
from lord_fast.system import cpu_count

SHOWN = 20
"""Largest number of broken images that are named."""
CHUNK = 16
"""Largest number of images that a worker reads and decodes at a time."""
CHUNK_BYTES = 32 << 20
"""Largest size of a chunk's files and pixels. A larger image forms its own chunk."""
HELD_BYTES = 256 << 20
"""Largest total size of the chunks that are processed at the same time. A larger chunk is processed
alone. As a file has at most `decode.MAX_BYTES`, this bounds the memory of packing."""


@dataclass(frozen=True)
class _Loaded:
    """A record with its pixels or an error, and the encoded file if there was one."""

    record: Record
    pixels: np.ndarray | BadImageError
    source: bytes | None = None
    sha256: str = ""


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


@dataclass(frozen=True)
class _Job:
    """The records to pack and the settings to pack them with."""

    source: Source
    records: _LargeClasses
    config: PackConfig
    decoder: Decoder
    shape: Shape
    workers: int


def pack(
    source: Source, out: Path, config: PackConfig, progress: Callable[[int], None] = lambda n: None
) -> dict:
    """Decode every record of `source` into a new store at `out`.

    If packing is interrupted, the finished part stays at `out`.partial. Repeat the call to
    continue.

    Args:
        source: The records. They are iterated several times.
        out: The store's folder. It must not exist.
        config: Size, channels, decoder, workers and limits.
        progress: Called with the number of images since the last call.

    Returns:
        The manifest.

    Raises:
        ValueError: `out` exists, another process creates it, or `out` and the source overlap. Or
            more than `max_bad` images are broken. Then all images were checked, the error names
            the broken ones, and nothing is left at `out`. Or reading or writing failed. Then the
            finished part stays and the same call continues.
    """
    if (path := _path_of(source)) is not None:
        refuse_overlap(path, out)
    if out.exists():  # Fails early. `unfinished` checks again under the lock.
        raise ValueError(f"{out}: exists already; give another folder or remove it")
    if config.encoded and not source.has_files:
        raise ValueError("--encoded: this source holds pixels, not encoded images")
    records = _LargeClasses(source, config.min_class_size)
    workers = config.workers or cpu_count()
    shape = Shape(config.size, _channels(source, records, config, workers), _crop(source, config))
    # Pillow also scales sources of pixels.
    name: decode.DecoderName = config.decoder if source.has_files else "pillow"
    job = _Job(source, records, config, decode.open_decoder(name, shape, workers), shape, workers)
    with unfinished(out) as partial:
        try:
            manifest = _write(job, partial, progress)
            finish(partial, out)
        except OSError as error:
            raise ValueError(
                f"{partial}: {_reason(error)}; everything packed so far is kept there, and the "
                f"same command continues"
            ) from error
        except ValueError:
            discard(partial)
            raise
    return manifest


def _write(job: _Job, partial: Path, progress: Callable[[int], None]) -> dict:
    """Fill the unfinished store `partial` and return its manifest."""
    source, shape, config = job.source, job.shape, job.config
    made_of = {"source": source.describe(), "decoder": job.decoder.describe()}
    writer = StoreWriter(partial, shape, config.encoded, {
        **made_of, "size": shape.size, "channels": shape.channels, "crop": shape.crop,
        "encoded": config.encoded, "min_class_size": config.min_class_size,
        "content_labels": config.content_labels, "changed": _changed(source),
    })  # fmt: skip
    done = writer.start(job.records)
    try:
        progress(done)
        _fill(writer, job, done, progress)
    except BaseException:
        # On a full disk closing fails too, but the first error is the one to report.
        with contextlib.suppress(OSError):
            writer.close()
        raise
    writer.close()
    if len(writer.left_out) > config.max_bad:
        raise ValueError(_broken(writer.left_out, len(source)))
    if not writer.class_ids:
        raise ValueError(f"none of {len(source)} images can be used")
    if _has_unsure_labels(source, config):
        writer.judge_labels(job.decoder)
    return writer.finish(**made_of)


def _has_unsure_labels(source: Source, config: PackConfig) -> bool:
    """Return whether the labels are names of files that may not mean the same in every class."""
    stem = getattr(source, "stem", None)
    return stem is not None and stem.pattern is None and config.content_labels == "auto"


def _path_of(source: Source) -> Path | None:
    """Return the file or folder that a source reads, or None."""
    return getattr(source, "path", None)


def _changed(source: Source) -> list[int] | None:
    """Return size and change times of a source file, by which a later call notices changes."""
    path = _path_of(source)
    if path is None or not path.is_file():
        return None
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def _reason(error: OSError) -> str:
    reason = error.strerror or str(error)
    return f"{error.filename}: {reason}" if error.filename else reason


def _fill(writer: StoreWriter, job: _Job, done: int, progress: Callable[[int], None]) -> None:
    """Decode and write all records except the first `done`."""
    rest = itertools.islice(job.records, done, None)
    chunks = _chunks(rest, job.shape.size**2 * job.shape.channels)
    results = _in_order(
        lambda c: _load(c.records, job.decoder, job.shape), chunks, job.workers, lambda c: c.size
    )
    for chunk in results:
        for loaded in chunk:
            if isinstance(loaded.pixels, BadImageError):
                writer.leave_out(done, loaded.record.name, str(loaded.pixels))
            else:
                writer.add(loaded.record, loaded.pixels, loaded.source, loaded.sha256)
            done += 1
        writer.flush()
        progress(len(chunk))


@dataclass(frozen=True)
class _Chunk:
    """Records that are read and decoded together, and their size in memory in bytes."""

    records: list[Record]
    size: int


def _chunks(records: Iterable[Record], pixels: int) -> Iterator[_Chunk]:
    """Group records into chunks of at most `CHUNK` images and `CHUNK_BYTES`.

    A larger record forms its own chunk.

    Args:
        records: The records in order.
        pixels: Size of a decoded image in bytes.
    """
    group: list[Record] = []
    held = 0
    for record in records:
        size = _size(record) + pixels
        if group and (len(group) == CHUNK or held + size > CHUNK_BYTES):
            yield _Chunk(group, held)
            group, held = [], 0
        group.append(record)
        held += size
    if group:
        yield _Chunk(group, held)


def _size(record: Record) -> int:
    """Return the number of bytes that a record's file will take in memory."""
    if not isinstance(record.image, Path):
        return record.size
    try:
        size = os.stat(record.image).st_size
    except OSError:  # Reading the file will report the error.
        return 0
    return size if size <= decode.MAX_BYTES else 0  # Larger files are not read.


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
        # A new exception, because the traceback of the old one keeps the data in memory.
        return BadImageError(str(error))
    except OSError as error:
        if error.errno is not None:
            raise
        # The system numbers its errors. Pillow and others raise this one for what they cannot draw.
        return BadImageError(str(error))


def _fitted(image: np.ndarray | BadImageError, shape: Shape) -> np.ndarray | BadImageError:
    if isinstance(image, BadImageError):
        return image
    try:
        return decode.fit_array(image, shape)
    except BadImageError as error:
        return error


def _broken(left_out: list[dict], total: int) -> str:
    lines = [f"{entry['name']}: {entry['reason']}" for entry in left_out[:SHOWN]]
    if len(left_out) > SHOWN:
        lines.append(f"and {len(left_out) - SHOWN} more")
    return (
        f"{len(left_out)} of {total} images cannot be used; repair or remove them, or pack the "
        f"others with --max-bad {len(left_out)}:\n  " + "\n  ".join(lines)
    )


def _crop(source: Source, config: PackConfig) -> decode.Crop | None:
    """Parse --crop into (width, height) or (width, height, left, top)."""
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
    """Return --channels. auto is 1 if every image is grey according to its header, else 3."""
    if config.channels != "auto":
        return int(config.channels)
    if source.channels is not None:
        return source.channels

    def grey(record: Record) -> bool:
        image = _read(record)
        if isinstance(image, np.ndarray):
            return image.ndim == 2 or image.shape[2] == 1
        try:
            return isinstance(image, BadImageError) or decode.is_grey(image)
        except BadImageError:
            return True

    return 1 if all(_in_order(grey, records, workers, _size)) else 3


def _in_order(
    function: Callable, items: Iterable, workers: int, size: Callable[[Any], int]
) -> Iterator:
    """Apply a function to items with threads, and yield the results in order.

    Args:
        function: The function.
        items: The items.
        workers: Number of threads.
        size: Returns the memory of an item in bytes. Items that are processed at the same time
            take at most `HELD_BYTES` together, unless there is only one.
    """
    with ThreadPoolExecutor(workers) as pool:
        pending: collections.deque = collections.deque()
        held = 0
        try:
            for item in items:
                taken = size(item)
                while pending and (len(pending) > workers or held + taken > HELD_BYTES):
                    future, freed = pending.popleft()
                    yield future.result()
                    held -= freed
                pending.append((pool.submit(function, item), taken))
                held += taken
            while pending:
                yield pending.popleft()[0].result()
        finally:
            for future, _ in pending:
                future.cancel()
