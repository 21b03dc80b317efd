"""The manifest of a store and the hashes of its files.

manifest.json holds the hash of every other file of the store, the hashes of a sample of its images,
and its own hash. Labels and the sample are verified whenever a store is opened.
`lord_fast.data.verify` verifies everything.
"""

import hashlib
import json
import random
from pathlib import Path
from typing import Any

from lord_fast.atomic import file_sha256
from lord_fast.bounds import is_crop
from lord_fast.data.decode import Shape
from lord_fast.data.strings import label_files

STORE_VERSION = 2
"""Version of most new stores. Version 1 had no hashes of labels, offsets and manifest."""
LARGE_VERSION = 3
"""Version of new stores with labels in files of their own (see `lord_fast.data.strings`)."""
LABEL_FILES = ("class_ids.npy", "content_ids.npy", "offsets.npy")
"""Small files that are verified whenever the store is opened."""
HASHED = (*LABEL_FILES, "left_out.jsonl")
"""Files whose hashes are listed under `files`. The hash of the index is listed under `sha256`."""
SAMPLED = 64
"""Number of images that are verified whenever the store is opened."""
OWN_HASH = "manifest_sha256"


class Sample:
    """A uniform random sample of at most `SAMPLED` of the offered images.

    Reservoir sampling with a fixed seed makes the sample depend only on the number of images.
    """

    def __init__(self) -> None:
        self.rows: list[tuple[int, str]] = []
        self._random = random.Random(0)

    def offer(self, image_id: int, sha256: str) -> None:
        """Offer an image to the sample. The ids must come in order and start at 0."""
        slot = image_id if image_id < SAMPLED else self._random.randrange(image_id + 1)
        if slot < SAMPLED:
            self.rows[slot : slot + 1] = [(image_id, sha256)]


def data_file(folder: Path, encoded: bool) -> Path:
    """Return the path of the file that holds a store's images."""
    return folder / ("images.bin" if encoded else "images.u8")


def stored(row: dict, encoded: bool, shape: Shape) -> tuple[int, str]:
    """Return the length and the hash of an image in the data file.

    Args:
        row: The image's line of the index.
        encoded: Whether the store holds original files instead of pixels.
        shape: Shape of the pixels.
    """
    if encoded:
        return row["source_bytes"], row["source_sha256"]
    return shape.size**2 * shape.channels, row["sha256"]


def write_manifest(folder: Path, manifest: dict, sample: Sample) -> dict:
    """Hash the files of a store and write its manifest. All other files must be complete.

    Returns:
        The manifest with the hashes.
    """
    labels = label_files(manifest)
    names = [name for name in (*HASHED, *labels) if (folder / name).is_file()]
    files = {name: file_sha256(folder / name) for name in names}
    version = LARGE_VERSION if labels else STORE_VERSION
    sealed = {**manifest, "version": version, "files": files, "sample": sorted(sample.rows)}
    sealed = json.loads(json.dumps(sealed))  # Turns tuples into lists, as reading the file will.
    sealed[OWN_HASH] = _own_hash(sealed)
    (folder / "manifest.json").write_text(as_text(sealed))
    return sealed


def as_text(manifest: dict) -> str:
    """Return the exact text of manifest.json."""
    return json.dumps(manifest, indent=1) + "\n"


def read_manifest(path: Path) -> dict:
    """Read the manifest of a store and verify its hash.

    Raises:
        ValueError: The folder is not a store or has another version, or the manifest is damaged.
    """
    file = path / "manifest.json"
    if not file.is_file():
        raise ValueError(f"{path}: not a packed store; make one with: lord-fast pack SOURCE {path}")
    try:
        manifest = json.loads(file.read_text())
        version = manifest["version"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{file}: not the manifest of a store; pack again") from error
    if version not in (1, STORE_VERSION, LARGE_VERSION):
        raise ValueError(
            f"{path}: store version {version}, but this lord-fast reads version {LARGE_VERSION}; "
            f"pack again"
        )
    if version > 1 and manifest.get(OWN_HASH) != _own_hash(manifest):
        raise ValueError(f"{file}: damaged (its hash has changed); take it from a copy, or pack "
                         f"again")  # fmt: skip
    wrong = _wrong_keys(manifest)
    if wrong:
        raise ValueError(f"{file}: damaged ({', '.join(wrong)}); pack again")
    return manifest


def is_hashed(manifest: dict) -> bool:
    """Return whether the manifest holds the hashes of labels, offsets, images and itself."""
    return manifest["version"] > 1


def check_files(path: Path, manifest: dict, names: tuple[str, ...]) -> None:
    """Compare files of a store with their hashes.

    Args:
        path: The store's folder.
        manifest: The store's manifest. Version 1 has no hashes, so nothing is compared.
        names: Names of the files. Files without a hash in the manifest are skipped.

    Raises:
        ValueError: A file is missing or has changed.
    """
    for name in names:
        wanted = manifest.get("files", {}).get(name)
        if wanted is None:
            continue
        file = path / name
        if not file.is_file() or file_sha256(file) != wanted:
            raise ValueError(f"{file}: changed since packing; take it from a copy, or pack again")


def _own_hash(manifest: dict) -> str:
    """Hash the content of the manifest except this hash itself. Whitespace does not matter."""
    content = {key: value for key, value in manifest.items() if key != OWN_HASH}
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _wrong_keys(manifest: dict) -> list[str]:
    """List keys that are missing or have the wrong type. Version 1 has no hash to detect this."""
    crop, storage = manifest.get("crop"), manifest.get("storage", "decoded")
    counts = ("num_images", "size", "channels")
    wrong = [key for key in counts if not _is_count(manifest.get(key))]
    if not _is_texts(manifest.get("class_names")):
        wrong.append("class_names")
    factors = manifest.get("factors")
    if not isinstance(factors, dict) or not all(map(_are_labels, factors.values())):
        wrong.append("factors")
    if not isinstance(manifest.get("sha256"), str):
        wrong.append("sha256")
    if crop is not None and not is_crop(crop):
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


def _are_labels(value: Any) -> bool:
    return _is_texts(value) or (
        isinstance(value, dict) and set(value) == {"count"} and _is_count(value["count"])
    )


def _get(manifest: dict, *keys: str) -> Any:
    value: Any = manifest
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value
