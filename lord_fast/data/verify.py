"""Verifies a store against its hashes and against the source that it was packed from."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from lord_fast.atomic import file_sha256
from lord_fast.data.decode import BadImageError, Shape, read_file
from lord_fast.data.formats import formats
from lord_fast.data.manifest import (
    HASHED,
    as_text,
    check_files,
    data_file,
    is_hashed,
    read_manifest,
    stored,
)
from lord_fast.data.strings import label_files, read_factors


def verify(store: Path, progress: Callable[[int, int], None] = lambda n, total: None) -> str:
    """Compare every file and image with its hash, and with the source files if they still exist.

    Args:
        store: The store's folder.
        progress: Called with the number of verified images and the number of all images.

    Returns:
        A line that says what was verified and what could not be verified.

    Raises:
        ValueError: Images are damaged, or their source has changed or is missing. The error names
            all of them. Or another file of the store is damaged.
    """
    manifest = read_manifest(store)
    _check_manifest_text(store, manifest)
    check_files(store, manifest, (*HASHED, *label_files(manifest)))
    index = store / "index.jsonl"
    if not index.is_file() or file_sha256(index) != manifest["sha256"]:
        raise ValueError(f"{index}: changed since packing; pack again")
    sources = _source_folder(manifest.get("source", {}))
    wrong, compared = [], 0
    encoded = manifest.get("storage") == "encoded"
    shape = Shape(manifest["size"], manifest["channels"])
    labels = _Labels(store, manifest)
    total, done = manifest["num_images"], 0
    with data_file(store, encoded).open("rb") as data:
        for done, row in enumerate(_rows(index), start=1):
            length, digest = stored(row, encoded, shape)
            labels.check(row, length)
            if hashlib.sha256(data.read(length)).hexdigest() != digest:
                wrong.append(f"{row['name']}: damaged in the store")
            if sources is not None and "source_sha256" in row:
                wrong += _changed(sources / row["name"], row)
                compared += 1
            progress(done, total)
        if data.read(1) or done != total:
            raise ValueError(f"{data.name}: not the {total} images of the manifest; pack again")
    if wrong:
        lines = "\n  ".join(wrong)
        raise ValueError(f"{store}: {len(wrong)} of {total} images:\n  {lines}")
    against = "" if sources is None else _against(sources, compared)
    unchecked = "" if is_hashed(manifest) else (
        ". manifest.json and left_out.jsonl were not checked, because older versions wrote no "
        "hashes of them"
    )  # fmt: skip
    return f"all {total} images are as they were packed{against}{unchecked}"


def _check_manifest_text(store: Path, manifest: dict) -> None:
    """Compare the exact text, because the manifest's hash ignores whitespace and escapes."""
    file = store / "manifest.json"
    if is_hashed(manifest) and file.read_bytes() != as_text(manifest).encode():
        raise ValueError(f"{file}: changed since packing; take it from a copy, or pack again")


class _Labels:
    """The labels and offsets of a store, which are compared with its index.

    Args:
        store: The store's folder.
        manifest: The store's manifest.

    Raises:
        ValueError: The number of labels differs from the number of images.
    """

    def __init__(self, store: Path, manifest: dict):
        self.store = store
        self.class_names = manifest["class_names"]
        self.factors = list(read_factors(store, manifest).items())
        count = manifest["num_images"]
        self.class_ids = self._load("class_ids.npy", (count,))
        self.content_ids = self._load("content_ids.npy", (count, len(self.factors)))
        self.offsets = None
        if manifest.get("storage") == "encoded":
            self.offsets = self._load("offsets.npy", (count + 1,))

    def check(self, row: dict, length: int) -> None:
        """Compare the labels of an image with its line of the index.

        Raises:
            ValueError: They differ.
        """
        i = row["id"]
        if not self._same_class(row) or not self._same_content(row):
            raise ValueError(
                f"{self.store}: the labels of {row['name']} are not those of its index; pack again"
            )
        if self.offsets is not None and self.offsets[i + 1] - self.offsets[i] != length:
            raise ValueError(f"{self.store / 'offsets.npy'}: damaged; pack again")

    def _same_class(self, row: dict) -> bool:
        class_id = self.class_ids[row["id"]]
        return 0 <= class_id < len(self.class_names) and (
            self.class_names[class_id] == row["class"]
        )

    def _same_content(self, row: dict) -> bool:
        ids = self.content_ids[row["id"]]
        return all(
            0 <= i < len(labels) and labels[i] == row["content"][name]
            for i, (name, labels) in zip(ids, self.factors, strict=True)
        )

    def _load(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        try:
            values = np.load(self.store / name, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise ValueError(f"{self.store / name}: cannot be read ({error})") from error
        if values.shape != shape:
            raise ValueError(f"{self.store / name}: does not match the manifest; pack again")
        return values


def _rows(index: Path) -> Iterator[dict]:
    with index.open() as lines:
        for line in lines:
            yield json.loads(line)


def _source_folder(source: dict) -> Path | None:
    """Return the folder with the source files of a store, or None if it does not exist."""
    path, form = Path(source.get("path", "")), formats().get(source.get("format", ""))
    return path if form is not None and form.names_are_paths and path.is_dir() else None


def _against(sources: Path, compared: int) -> str:
    """Say whether the sources were compared. Images without a file of their own have no hash."""
    if compared:
        return f", and so are their sources in {sources}"
    return f". Their sources in {sources} could not be compared: the store has no hashes of them"


def _changed(file: Path, row: dict) -> list[str]:
    try:
        data = read_file(file)
    except BadImageError as error:
        return [f"{row['name']}: its source cannot be read any more ({error})"]
    same = hashlib.sha256(data).hexdigest() == row["source_sha256"]
    return [] if same else [f"{row['name']}: its source {os.fspath(file)} changed since packing"]
