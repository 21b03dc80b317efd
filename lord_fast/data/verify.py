"""A store against its hashes, and against the source that it was packed from."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

from lord_fast.data.decode import BadImageError, Shape, read_file
from lord_fast.data.formats import formats
from lord_fast.data.writer import data_file, read_manifest, stored


def verify(store: Path, progress: Callable[[int, int], None] = lambda n, total: None) -> str:
    """Hash the index and every image, and the files that they were packed from if they are there.

    Args:
        store: The store's folder.
        progress: Called with the number of images done and of all images.

    Returns:
        What was found in order.

    Raises:
        ValueError: names every image that is damaged, or whose source has changed or is gone.
    """
    manifest = read_manifest(store)
    index = (store / "index.jsonl").read_bytes()
    if hashlib.sha256(index).hexdigest() != manifest["sha256"]:
        raise ValueError(f"{store / 'index.jsonl'}: changed since packing; pack again")
    rows = [json.loads(line) for line in index.splitlines()]
    sources = _source_folder(manifest["source"])
    wrong = []
    encoded = manifest.get("storage") == "encoded"
    shape = Shape(manifest["size"], manifest["channels"])
    with data_file(store, encoded).open("rb") as data:
        for done, row in enumerate(rows, start=1):
            length, digest = stored(row, encoded, shape)
            if hashlib.sha256(data.read(length)).hexdigest() != digest:
                wrong.append(f"{row['name']}: damaged in the store")
            if sources is not None and "source_sha256" in row:
                wrong += _changed(sources / row["name"], row)
            progress(done, len(rows))
    if wrong:
        lines = "\n  ".join(wrong)
        raise ValueError(f"{store}: {len(wrong)} of {len(rows)} images:\n  {lines}")
    against = f", and so are their sources in {sources}" if sources is not None else ""
    return f"all {len(rows)} images are as they were packed{against}"


def _source_folder(source: dict) -> Path | None:
    """The folder that a store's names lie in, if it is there."""
    path, form = Path(source.get("path", "")), formats().get(source.get("format", ""))
    return path if form is not None and form.names_are_paths and path.is_dir() else None


def _changed(file: Path, row: dict) -> list[str]:
    try:
        data = read_file(file)
    except BadImageError as error:
        return [f"{row['name']}: its source cannot be read any more ({error})"]
    same = hashlib.sha256(data).hexdigest() == row["source_sha256"]
    return [] if same else [f"{row['name']}: its source {os.fspath(file)} changed since packing"]
