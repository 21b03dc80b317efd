"""What a store says of itself: its manifest, and the hashes of its files.

manifest.json holds the hash of every other file of the store, the hashes of a sample of its images,
and its own hash. Labels and the sample are compared whenever a store is opened; everything is
compared by `lord_fast.data.verify`.
"""

import hashlib
import json
import random
from pathlib import Path
from typing import Any

from lord_fast.data.decode import Shape

STORE_VERSION = 2
"""Of the stores that are written. Version 1 had no hashes of labels, offsets and manifest."""
LABEL_FILES = ("class_ids.npy", "content_ids.npy", "offsets.npy")
"""Small files that are hashed at every opening."""
HASHED = (*LABEL_FILES, "left_out.jsonl")
"""Files whose hash stands below `files`; the index's stands below `sha256`."""
SAMPLED = 64
"""Images compared with their hashes at every opening."""
OWN_HASH = "manifest_sha256"


class Sample:
    """An even sample of the images that are offered, at most `SAMPLED`, in memory.

    The draw depends on the number of images alone (reservoir sampling with a fixed seed).
    """

    def __init__(self) -> None:
        self.rows: list[tuple[int, str]] = []
        self._random = random.Random(0)

    def offer(self, image_id: int, sha256: str) -> None:
        """Take an image or leave it; ids come in order, from 0 on."""
        slot = image_id if image_id < SAMPLED else self._random.randrange(image_id + 1)
        if slot < SAMPLED:
            self.rows[slot : slot + 1] = [(image_id, sha256)]


def data_file(folder: Path, encoded: bool) -> Path:
    """Where a store keeps its images."""
    return folder / ("images.bin" if encoded else "images.u8")


def stored(row: dict, encoded: bool, shape: Shape) -> tuple[int, str]:
    """Length and hash of what the data file holds of an image.

    Args:
        row: Its line of the index.
        encoded: Whether the file is kept, or its pixels.
        shape: Of the pixels.
    """
    if encoded:
        return row["source_bytes"], row["source_sha256"]
    return shape.size**2 * shape.channels, row["sha256"]


def write_manifest(folder: Path, manifest: dict, sample: Sample) -> dict:
    """Hash the files of a store and write its manifest; the other files must be complete.

    Returns:
        The manifest with its hashes.
    """
    files = {name: file_sha256(folder / name) for name in HASHED if (folder / name).is_file()}
    sealed = {**manifest, "version": STORE_VERSION, "files": files, "sample": sorted(sample.rows)}
    sealed = json.loads(json.dumps(sealed))  # as it will be read: tuples are lists
    sealed[OWN_HASH] = _own_hash(sealed)
    (folder / "manifest.json").write_text(as_text(sealed))
    return sealed


def as_text(manifest: dict) -> str:
    """What manifest.json holds, to the byte."""
    return json.dumps(manifest, indent=1) + "\n"


def read_manifest(path: Path) -> dict:
    """The manifest of a store, compared with its own hash.

    Raises:
        ValueError: not a store, one of another version, or the manifest is damaged.
    """
    file = path / "manifest.json"
    if not file.is_file():
        raise ValueError(f"{path}: not a packed store; make one with: lord-fast pack SOURCE {path}")
    try:
        manifest = json.loads(file.read_text())
        version = manifest["version"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{file}: not the manifest of a store; pack again") from error
    if version not in (1, STORE_VERSION):
        raise ValueError(
            f"{path}: store version {version}, this lord-fast reads version {STORE_VERSION}; "
            f"pack again"
        )
    if version > 1 and manifest.get(OWN_HASH) != _own_hash(manifest):
        raise ValueError(f"{file}: damaged: it does not have the hash that it was written with; "
                         f"take it from a copy, or pack again")  # fmt: skip
    wrong = _wrong_keys(manifest)
    if wrong:
        raise ValueError(f"{file}: damaged ({', '.join(wrong)}); pack again")
    return manifest


def is_hashed(manifest: dict) -> bool:
    """Whether the manifest holds the hashes of labels, offsets, images and itself."""
    return manifest["version"] > 1


def check_files(path: Path, manifest: dict, names: tuple[str, ...]) -> None:
    """Compare files of a store with their hashes.

    Args:
        path: The store's folder.
        manifest: Its manifest. One of version 1 has no hashes, and nothing is compared.
        names: Of the files; those that the store never had are passed over.

    Raises:
        ValueError: a file is missing or changed.
    """
    for name in names:
        wanted = manifest.get("files", {}).get(name)
        if wanted is None:
            continue
        file = path / name
        if not file.is_file() or file_sha256(file) != wanted:
            raise ValueError(f"{file}: changed since packing; take it from a copy, or pack again")


def file_sha256(file: Path) -> str:
    """The hash of a file of any length."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while piece := stream.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def _own_hash(manifest: dict) -> str:
    """Of everything in the manifest but this hash, whatever the spaces between."""
    content = {key: value for key, value in manifest.items() if key != OWN_HASH}
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _wrong_keys(manifest: dict) -> list[str]:
    """The keys that are missing or of a wrong type, which a store of version 1 may well have."""
    crop, storage = manifest.get("crop"), manifest.get("storage", "decoded")
    counts = ("num_images", "size", "channels")
    wrong = [key for key in counts if not _is_count(manifest.get(key))]
    if not _is_texts(manifest.get("class_names")):
        wrong.append("class_names")
    factors = manifest.get("factors")
    if not isinstance(factors, dict) or not all(map(_is_texts, factors.values())):
        wrong.append("factors")
    if not isinstance(manifest.get("sha256"), str):
        wrong.append("sha256")
    is_crop = isinstance(crop, list) and len(crop) in (2, 4) and {type(n) for n in crop} == {int}
    if crop is not None and not is_crop:
        wrong.append("crop")
    if storage not in ("decoded", "encoded"):
        wrong.append("storage")
    files, sample = manifest.get("files", {}), manifest.get("sample", [])
    if not isinstance(files, dict) or not _is_texts(list(files.values())):
        wrong.append("files")
    if not wrong and not _is_sample(sample, manifest["num_images"]):
        wrong.append("sample")
    if storage == "encoded" and not isinstance(_get(manifest, "decoder", "name"), str):
        wrong.append("decoder")
    return wrong


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 < value < 1 << 48


def _is_sample(value: Any, count: int) -> bool:
    """Whether a value is a list of pairs of an image's number and a hash."""
    return isinstance(value, list) and all(
        isinstance(row, list) and [type(part) for part in row] == [int, str] and 0 <= row[0] < count
        for row in value
    )


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _get(manifest: dict, *keys: str) -> Any:
    value: Any = manifest
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value
