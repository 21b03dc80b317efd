"""The names of the images of a store, by which they can be chosen."""

import json
from pathlib import Path

from lord_fast.data.store import ImageStore


def read_names(store: ImageStore) -> list[str]:
    """Return the name of each image, such as CLASS/NAME.png, from the store's index.

    Raises:
        ValueError: The index is damaged.
    """
    file = store.path / "index.jsonl"
    try:
        with file.open(encoding="utf-8") as lines:
            names = [json.loads(line)["name"] for line in lines]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file}: damaged ({error}); pack again") from error
    if len(names) != store.num_images:
        raise ValueError(f"{file}: damaged ({len(names)} lines); pack again")
    return names


def short_names(files: list[Path]) -> list[str]:
    """Return the shortest ends of paths that tell them apart, without their suffixes."""
    paths = [file.with_suffix("").as_posix().split("/") for file in files]
    for depth in range(1, max(map(len, paths), default=1) + 1):
        names = ["/".join(parts[-depth:]) for parts in paths]
        if len(set(names)) == len(set(map(tuple, paths))):
            return names
    return names


def content_label(store: ImageStore, image_id: int) -> str:
    """Return the content labels of an image, or an empty text if it has none."""
    labels = store.content_ids[image_id]
    return " ".join(v[i] for v, i in zip(store.factors.values(), labels, strict=True))
