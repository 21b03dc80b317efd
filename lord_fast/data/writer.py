"""Writes a store image by image, so that packing can continue after an interruption.

A store is a folder with these files:
    images.u8        pixels, uint8 [N, size, size, channels] (not in an encoded store)
    images.bin       the original files, concatenated (only in an encoded store)
    offsets.npy      offset of each original file, int64 [N + 1] (only in an encoded store)
    class_ids.npy    class of each image, int64 [N]
    content_ids.npy  index of each content label in its factor, int32 [N, factors]
    index.jsonl      one line per image with id, name, class, content and the sha256 of its pixels,
                     and source_sha256 and source_bytes if it came from a file
    labels-I.utf8    content labels of factor I, if the factor has more than 65,536
    labels-I.npy     offset of each of these labels, int64 [labels + 1]
    left_out.jsonl   one line per broken image with its position in the source, name and reason
    manifest.json    everything else, and the hashes of all files

manifest.json is written last, and a folder without it is not a store. An unfinished store is called
STORE.partial and holds packing.json, which describes the source and the options, and the checksums
of both JSON lines files.
"""

import array
import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from PIL import Image

from lord_fast import __version__
from lord_fast.atomic import empty
from lord_fast.data.content_labels import labels_are_shared
from lord_fast.data.decode import BadImageError, Decoder, Shape
from lord_fast.data.manifest import Sample, data_file, stored, write_manifest
from lord_fast.data.records import Record
from lord_fast.data.rows import Rows, json_line, read_rows
from lord_fast.data.strings import write_factors
from lord_fast.data.unfinished import PACKING


class StoreWriter:
    """Appends images to the files of a store. Labels stay in memory, but pixels do not.

    Args:
        folder: An `unfinished` store. Files that were packed from another source are removed.
        shape: Shape of the images.
        encoded: Whether to store the original files instead of pixels.
        fingerprint: Describes the source and the options as JSON values. Packing continues if the
            unfinished store has the same fingerprint.
    """

    def __init__(self, folder: Path, shape: Shape, encoded: bool, fingerprint: dict):
        self.folder, self.shape, self.encoded = folder, shape, encoded
        self.fingerprint = json.loads(json.dumps(fingerprint))
        self.data_file = data_file(folder, encoded)
        self.classes: dict[str, int] = {}
        self.factors: dict[str, dict[str, int]] = {}
        self.class_ids = array.array("q")
        self.content_ids = array.array("i")
        self.offsets = array.array("q", [0])
        self.digest = hashlib.sha256()
        self.sample = Sample()
        self.left_out: list[dict] = []
        self.content_labels: dict | None = None

    def start(self, records: Iterable[Record]) -> int:
        """Continue an interrupted packing of the same records, or start from the beginning.

        Returns:
            The number of records that are packed already.
        """
        try:
            started, rows, left_out = self._found()
            done = _same_records(records, rows, left_out, started)
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            done = None
        if done is None:
            self._begin()
            rows, left_out, done = [], [], 0
        self.left_out = [entry for entry in left_out if entry["position"] < done]
        # Everything after the last complete image is written again.
        self.index = Rows(self.folder / "index.jsonl", rows)
        self.reasons = Rows(self.folder / "left_out.jsonl", self.left_out)
        for row in rows:
            self._register(row)
        self.data = self.data_file.open("ab")
        self.data.truncate(self.offsets[-1])
        return done

    def add(self, record: Record, pixels: np.ndarray, source: bytes | None, sha256: str) -> None:
        """Append an image.

        Args:
            record: The image's record.
            pixels: The decoded image, uint8 [size, size, channels].
            source: The encoded image, or None if the source holds pixels.
            sha256: Hash of `source`, or an empty string.
        """
        assert pixels.shape == (self.shape.size, self.shape.size, self.shape.channels)
        data = pixels.tobytes()
        row = {
            "id": len(self.class_ids),
            "name": record.name,
            "class": record.class_name,
            "content": record.content,
            "sha256": hashlib.sha256(data).hexdigest(),
        }
        if source is not None:
            row |= {"source_sha256": sha256, "source_bytes": len(source)}
        if self.encoded:
            assert source is not None
            data = source
        self.data.write(data)
        self.index.add(row)
        self._register(row)

    def leave_out(self, position: int, name: str, reason: str) -> None:
        """Record a broken image in left_out.jsonl."""
        self.left_out.append({"position": position, "name": name, "reason": reason})
        self.reasons.add(self.left_out[-1])

    def flush(self) -> None:
        """Flush all files, the index last, because every image in the index must be complete."""
        for file in (self.data, self.reasons, self.index):
            file.flush()

    def close(self) -> None:
        """Close the files of the unfinished store."""
        with contextlib.ExitStack() as files:
            for file in (self.data, self.reasons, self.index):
                files.callback(file.close)

    def judge_labels(self, decoder: Decoder) -> None:
        """Remove the content labels after `close` unless they mean the same in every class.

        Args:
            decoder: Decodes the images of an encoded store.
        """
        images = _Packed(
            self.data_file, self.offsets, self.shape, decoder if self.encoded else None
        )
        classes, contents = np.array(self.class_ids), np.array(self.content_ids)
        found = labels_are_shared(images, classes, contents)
        used = "stem" if found is not None and found.shared else "none"
        self.content_labels = {"used": used, **({} if found is None else asdict(found))}
        if used == "none":
            self._forget_contents()

    def _forget_contents(self) -> None:
        """Write the index and the hash again without content labels."""
        rows = [{**row, "content": {}} for row in read_rows(self.folder / "index.jsonl")]
        text = "".join(map(json_line, rows))
        (self.folder / "index.jsonl").write_text(text)
        self.digest = hashlib.sha256(text.encode())
        self.factors, self.content_ids = {}, array.array("i")

    def finish(self, source: dict, decoder: dict) -> dict:
        """Write the remaining files after `close` and return the manifest."""
        np.save(self.folder / "class_ids.npy", np.array(self.class_ids, dtype=np.int64))
        contents = np.array(self.content_ids, dtype=np.int32)
        contents = contents.reshape(len(self.class_ids), len(self.factors))
        np.save(self.folder / "content_ids.npy", contents)
        if self.encoded:
            np.save(self.folder / "offsets.npy", np.array(self.offsets, dtype=np.int64))
        manifest = {
            "format": "lord-fast store",
            "version": 0,  # a placeholder that fixes the order of keys
            "storage": "encoded" if self.encoded else "decoded",
            "num_images": len(self.class_ids),
            "size": self.shape.size,
            "channels": self.shape.channels,
            "crop": self.shape.crop,
            "class_names": list(self.classes),
            "factors": write_factors(self.folder, self.factors),
            "content_labels": self.content_labels,
            "sha256": self.digest.hexdigest(),
            "left_out": len(self.left_out),
            "source": source,
            "decoder": decoder,
            "made_by": {"lord_fast": __version__, "pillow": Image.__version__},
        }
        return write_manifest(self.folder, manifest, self.sample)

    def _begin(self) -> None:
        empty(self.folder)
        content = {"started": time.time(), **self.fingerprint}
        (self.folder / PACKING).write_text(json.dumps(content))

    def _found(self) -> tuple[float, list[dict], list[dict]]:
        """Return the start time, complete images and broken images of an earlier packing."""
        content = json.loads((self.folder / PACKING).read_text())
        started = content.pop("started")
        if content != self.fingerprint:
            raise ValueError("of another source or configuration")
        left_out = list(read_rows(self.folder / "left_out.jsonl"))
        with self.data_file.open("rb") as data:
            rows = list(self._whole(read_rows(self.folder / "index.jsonl"), data))
        return started, rows, left_out

    def _whole(self, rows: Iterable[dict], data) -> Iterator[dict]:
        """Yield the rows before the first image whose data is missing or damaged."""
        for i, row in enumerate(rows):
            length, digest = stored(row, self.encoded, self.shape)
            if row["id"] != i:
                return
            if hashlib.sha256(data.read(length)).hexdigest() != digest:
                return
            yield row

    def _register(self, row: dict) -> None:
        self.digest.update(json_line(row).encode())
        length, digest = stored(row, self.encoded, self.shape)
        self.sample.offer(len(self.class_ids), digest)
        self.offsets.append(self.offsets[-1] + length)
        self.class_ids.append(self.classes.setdefault(row["class"], len(self.classes)))
        if not self.factors:
            self.factors = {factor: {} for factor in row["content"]}
        self.content_ids.extend(
            labels.setdefault(row["content"][factor], len(labels))
            for factor, labels in self.factors.items()
        )


class _Packed:
    """The images of an unfinished store by their ids, uint8 [size, size, channels].

    Args:
        file: The data file.
        offsets: Offset of each image in it, and the end.
        shape: Shape of the images.
        decoder: Decodes the images of an encoded store. None for a store of pixels.
    """

    def __init__(self, file: Path, offsets: Sequence[int], shape: Shape, decoder: Decoder | None):
        self.file, self.offsets, self.shape, self.decoder = file, offsets, shape, decoder

    def __getitem__(self, image_id: int) -> np.ndarray:
        with self.file.open("rb") as stream:
            stream.seek(self.offsets[image_id])
            data = stream.read(self.offsets[image_id + 1] - self.offsets[image_id])
        if self.decoder is not None:
            (pixels,) = self.decoder.decode([data])
            assert not isinstance(pixels, BadImageError)
            return pixels
        side = self.shape.size
        return np.frombuffer(data, dtype=np.uint8).reshape(side, side, self.shape.channels)


def _same_records(
    records: Iterable[Record], rows: list[dict], broken: list[dict], started: float
) -> int | None:
    """Return how many of `records` are packed, or None if records or files have changed.

    The change time of files is compared, because a copy may preserve the modification time.
    """
    reasons = {entry["position"]: entry["name"] for entry in broken}
    done = taken = 0
    for record in records:
        left_out = reasons.get(done) == record.name
        if taken == len(rows) and not left_out:
            break
        if isinstance(record.image, Path) and _changed_since(record.image, started):
            return None
        if left_out:
            done += 1
            continue
        row = rows[taken]
        labels = (record.name, record.class_name, record.content)
        if labels != (row["name"], row["class"], row["content"]):
            return None
        done, taken = done + 1, taken + 1
    return done if taken == len(rows) else None


def _changed_since(file: Path, started: float) -> bool:
    try:
        return os.stat(file).st_ctime > started
    except (FileNotFoundError, NotADirectoryError):
        return True
