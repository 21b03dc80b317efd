"""Writes the images of a store as files."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from PIL import Image

from lord_fast.atomic import atomic_folder, refuse_overlap
from lord_fast.data.decode.pillow import open_image
from lord_fast.data.names import content_label, read_names
from lord_fast.data.store import ImageStore
from lord_fast.progress import Progress, silent

SUFFIXES = {"JPEG": ".jpg"}
"""Pillow's name of a format -> suffix, where it is not the name in lower case."""


def unpack(store_path: Path, folder: Path, progress: Progress = silent) -> int:
    """Write every image of a store to FOLDER/CLASS/NAME.

    A decoded store gives PNG files of its size, and an encoded store the original files. The name
    is the image's content labels if they tell the images of a class apart. Otherwise it is the name
    in the store. `lord-fast pack` reads the folder with the same classes.

    Args:
        store_path: The store.
        folder: The folder to create.
        progress: Called with the number of written images and of all images.

    Returns:
        The number of images.

    Raises:
        ValueError: The store is damaged, or the folder exists.
    """
    store = ImageStore(store_path)
    refuse_overlap(store_path, folder)
    places = list(_places(store))
    with atomic_folder(folder) as partial:
        for image_id, place in enumerate(places):
            progress(image_id, len(places))
            (partial / place).parent.mkdir(exist_ok=True)
            _write(store, image_id, partial / place)
        progress(len(places), len(places))
    return len(places)


def _places(store: ImageStore) -> Iterator[Path]:
    """Yield the relative path of each image, without its suffix. All are different."""
    folders = _unique(_plain(name) for name in store.class_names)
    names = read_names(store)
    labels = [content_label(store, i).replace(" ", "_") for i in range(store.num_images)]
    pairs = set(zip(store.class_ids.tolist(), labels, strict=True))
    if not store.factors or len(pairs) < store.num_images:
        labels = [Path(name).stem for name in names]
    taken: dict[int, set[str]] = {}
    for class_id, label in zip(store.class_ids.tolist(), labels, strict=True):
        seen = taken.setdefault(class_id, set())
        name = _free(_plain(label), seen)
        yield Path(folders[class_id], name)


def _write(store: ImageStore, image_id: int, place: Path) -> None:
    if store.encoded:
        file = store.stored(image_id)
        form = open_image(file).format or "PNG"
        suffix = SUFFIXES.get(form, f".{form.lower()}")
        place.with_name(place.name + suffix).write_bytes(file)
        return
    pixels = store.images(torch.tensor([image_id]))[0].permute(1, 2, 0).numpy()
    picture = Image.fromarray(pixels[:, :, 0] if store.channels == 1 else pixels)
    picture.save(place.with_name(place.name + ".png"))


def _unique(names: Iterator[str]) -> list[str]:
    seen: set[str] = set()
    return [_free(name, seen) for name in names]


def _free(name: str, seen: set[str]) -> str:
    """Return a name that is not taken yet. Windows and macOS ignore case."""
    fold = str.lower if sys.platform in ("win32", "darwin") else str
    candidate, number = name, 1
    while fold(candidate) in seen:
        number += 1
        candidate = f"{name}_{number}"
    seen.add(fold(candidate))
    return candidate


def _plain(name: str) -> str:
    """Return a name that is safe as the name of a file or folder."""
    safe = re.sub(r'[\x00-\x1f<>:"/\\|?*]+', "_", name).strip(" .")
    return safe[:200] or "_"
