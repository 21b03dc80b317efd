"""Any source to a packed store: pixels in one file, labels beside them, a hash of every image.

A store is a folder:
    images.u8        uint8 [N, size, size, channels], memory-mapped
    class_ids.npy    int64 [N]
    content_ids.npy  int32 [N, factors]: index into the factor's labels
    index.jsonl      one line an image: id, name, class, content, sha256 of its pixels
    manifest.json    everything else; written last, so that a store without it is not one
"""

import collections
import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from lord_fast import __version__
from lord_fast.config import PackConfig
from lord_fast.data import decode
from lord_fast.data.records import Record, Source

STORE_VERSION = 1
AHEAD = 64
"""Images decoded ahead of the writer, for each worker."""
SHOWN = 10
"""Broken images named in an error; the rest are counted."""


def pack(
    source: Source, out: Path, config: PackConfig, progress: Callable[[int], None] = lambda n: None
) -> dict:
    """Decode every record of `source` into a new store at `out`.

    Args:
        source: The records; iterated once or twice, in order.
        out: The store's folder; must not exist.
        config: Size, channels, workers.
        progress: Called with 1 for every image.

    Returns:
        The manifest.

    Raises:
        ValueError: `out` exists, or images are broken (all of them are looked at, `SHOWN` are
            named); nothing is left at `out`.
    """
    if out.exists():
        raise ValueError(f"{out}: exists already; give another folder or remove it")
    records = _of_large_classes(source, config.min_class_size)
    channels = config.channels if config.channels != "auto" else _channels(records, config.workers)
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        writer = _Writer(partial, config.size, int(channels))
        bad = []
        for record, pixels in _decoded(records, config, int(channels)):
            if isinstance(pixels, decode.BadImageError):
                bad.append(f"{record.name}: {pixels}")
            else:
                writer.add(record, pixels)
            progress(1)
        if bad:
            raise ValueError(_broken(bad, len(source)))
        manifest = writer.finish(source.describe())
        partial.rename(out)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return manifest


def _broken(bad: list[str], total: int) -> str:
    more = [f"... and {len(bad) - SHOWN} more"] if len(bad) > SHOWN else []
    lines = "\n  ".join((*bad[:SHOWN], *more))
    return f"{len(bad)} of {total} images cannot be used; repair or remove them:\n  {lines}"


def _of_large_classes(source: Source, least: int) -> Iterable[Record]:
    """The records of classes with at least `least` images."""
    if least <= 1:
        return source
    sizes = collections.Counter(record.class_name for record in source)
    kept = {name for name, size in sizes.items() if size >= least}
    if not kept:
        raise ValueError(f"--min-class-size {least}: no class has as many images")
    return [record for record in source if record.class_name in kept]


def _channels(records: Iterable[Record], workers: int) -> int:
    """1 if every image is grey by its header, else 3."""

    def grey(record: Record) -> bool:
        if isinstance(record.image, Path):
            try:
                return decode.is_grey(record.image)
            except decode.BadImageError:
                return True
        pixels = record.image()
        return pixels.ndim == 2 or pixels.shape[2] == 1

    return 1 if all(result for _, result in _in_order(grey, records, workers)) else 3


def _decoded(records: Iterable[Record], config: PackConfig, channels: int) -> Iterator[tuple]:
    """(record, its pixels or why there are none) for every record, in order."""

    def pixels(record: Record) -> np.ndarray | decode.BadImageError:
        try:
            if isinstance(record.image, Path):
                return decode.decode(record.image, config.size, channels)
            return decode.fit_array(record.image(), config.size, channels)
        except decode.BadImageError as error:
            return error

    return _in_order(pixels, records, config.workers)


def _in_order(function: Callable, records: Iterable[Record], workers: int) -> Iterator[tuple]:
    """(record, function(record)) in order, computed by threads a bounded number ahead."""
    with ThreadPoolExecutor(workers) as pool:
        pending: collections.deque = collections.deque()
        for record in records:
            pending.append((record, pool.submit(function, record)))
            if len(pending) > AHEAD * workers:
                done, future = pending.popleft()
                yield done, future.result()
        for done, future in pending:
            yield done, future.result()


class _Writer:
    """Appends images to the files of a store, holding labels but no pixels in memory."""

    def __init__(self, folder: Path, size: int, channels: int):
        self.folder, self.shape = folder, (size, size, channels)
        self.pixels = (folder / "images.u8").open("wb")
        self.index = (folder / "index.jsonl").open("w")
        self.digest = hashlib.sha256()
        self.classes: dict[str, int] = {}
        self.factors: dict[str, dict[str, int]] = {}
        self.class_ids: list[int] = []
        self.content_ids: list[tuple[int, ...]] = []

    def add(self, record: Record, pixels: np.ndarray) -> None:
        assert (pixels.shape, pixels.dtype) == (self.shape, np.uint8)
        data = pixels.tobytes()
        self.pixels.write(data)
        row = {
            "id": len(self.class_ids),
            "name": record.name,
            "class": record.class_name,
            "content": record.content,
            "sha256": hashlib.sha256(data).hexdigest(),
        }
        line = json.dumps(row) + "\n"
        self.index.write(line)
        self.digest.update(line.encode())
        self.class_ids.append(self.classes.setdefault(record.class_name, len(self.classes)))
        if not self.factors:
            self.factors = {factor: {} for factor in record.content}
        self.content_ids.append(
            tuple(
                labels.setdefault(record.content[factor], len(labels))
                for factor, labels in self.factors.items()
            )
        )

    def finish(self, source: dict) -> dict:
        self.pixels.close()
        self.index.close()
        np.save(self.folder / "class_ids.npy", np.array(self.class_ids, dtype=np.int64))
        contents = np.array(self.content_ids, dtype=np.int32).reshape(len(self.class_ids), -1)
        np.save(self.folder / "content_ids.npy", contents)
        manifest = {
            "format": "lord-fast store",
            "version": STORE_VERSION,
            "num_images": len(self.class_ids),
            "size": self.shape[0],
            "channels": self.shape[2],
            "class_names": list(self.classes),
            "factors": {factor: list(labels) for factor, labels in self.factors.items()},
            "sha256": self.digest.hexdigest(),
            "source": source,
            "made_by": {"lord_fast": __version__, "pillow": Image.__version__},
        }
        (self.folder / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
        return manifest
