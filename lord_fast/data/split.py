"""Parts of a packed store as stores of their own: images or classes held out from training."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np

from lord_fast.data.store import ImageStore
from lord_fast.data.writer import data_file, read_manifest


def split_images(
    store_path: Path, train_path: Path, test_path: Path, fraction: float, seed: int
) -> tuple[int, int]:
    """Hold out a fraction of every class's images, and at least one of each.

    Both parts keep the class names, the factors and their numbering. Images keep their order.

    Args:
        store_path: A packed store.
        train_path: The store of the images that stay, made anew.
        test_path: The store of those held out, made anew.
        fraction: Of each class's images to hold out, more than 0 and less than 1.
        seed: Of the draw.

    Returns:
        The number of images in each part.

    Raises:
        ValueError: a part exists already, the fraction is out of its bounds, or a class has one
            image, which cannot be in both parts.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"--images {fraction}: must be more than 0 and less than 1")
    store = ImageStore(store_path)
    order = np.random.default_rng(seed).permutation(store.num_images)
    classes = store.class_ids.numpy()[order]
    held_out = np.zeros(store.num_images, dtype=bool)
    for class_id in range(store.num_classes):
        members = order[classes == class_id]
        if len(members) < 2:
            raise ValueError(
                f"{store_path}: one image of {store.class_names[class_id]}, which cannot be in "
                f"both parts; pack again with --min-class-size 2"
            )
        held_out[members[: min(max(1, round(fraction * len(members))), len(members) - 1)]] = True
    names = store.class_names
    return _write_both(store, (train_path, names), (test_path, names), held_out, seed)


def split_classes(
    store_path: Path, train_path: Path, test_path: Path, count: int, seed: int
) -> tuple[int, int]:
    """Hold out whole classes.

    Each part numbers its own classes, in the order of the store; the factors' numbering stays.

    Args:
        store_path: A packed store.
        train_path: The store of the classes that stay, made anew.
        test_path: The store of those held out, made anew.
        count: Classes to hold out; at least two must stay.
        seed: Of the draw.

    Returns:
        The number of images in each part.

    Raises:
        ValueError: a part exists already, or the count is out of its bounds.
    """
    store = ImageStore(store_path)
    if not 1 <= count <= store.num_classes - 2:
        raise ValueError(
            f"--classes {count}: must be 1 to {store.num_classes - 2}; {store_path} has "
            f"{store.num_classes} classes, and two must stay to train on"
        )
    drawn = np.random.default_rng(seed).permutation(store.num_classes)[:count]
    held_out = np.isin(store.class_ids.numpy(), drawn)
    out = [name for i, name in enumerate(store.class_names) if i in drawn]
    stay = [name for i, name in enumerate(store.class_names) if i not in drawn]
    return _write_both(store, (train_path, stay), (test_path, out), held_out, seed)


def _write_both(
    store: ImageStore,
    train: tuple[Path, list[str]],
    test: tuple[Path, list[str]],
    held_out: np.ndarray,
    seed: int,
) -> tuple[int, int]:
    """Both parts, or neither."""
    if train[0].resolve() == test[0].resolve():
        raise ValueError(f"{train[0]}: give the two parts different folders")
    partials = []
    for path, _ in (train, test):
        if path.exists():
            raise ValueError(f"{path}: exists already; give another folder or remove it")
        partials.append(path.with_name(path.name + ".partial"))
        shutil.rmtree(partials[-1], ignore_errors=True)
    try:
        for part, mask, (_, names) in zip(
            partials, (~held_out, held_out), (train, test), strict=True
        ):
            _write(store, part, np.flatnonzero(mask), names, seed)
    except BaseException:
        for part in partials:
            shutil.rmtree(part, ignore_errors=True)
        raise
    for part, (path, _) in zip(partials, (train, test), strict=True):
        part.rename(path)
    return int((~held_out).sum()), int(held_out.sum())


def _write(
    store: ImageStore, out: Path, image_ids: np.ndarray, class_names: list[str], seed: int
) -> None:
    """One part; `out` is made."""
    out.mkdir(parents=True)
    kept = set(image_ids.tolist())
    digest = hashlib.sha256()
    with (store.path / "index.jsonl").open() as rows, (out / "index.jsonl").open("w") as index:
        rows_kept = (line for i, line in enumerate(rows) if i in kept)
        for i, line in enumerate(rows_kept):
            line = json.dumps({**json.loads(line), "id": i}) + "\n"
            index.write(line)
            digest.update(line.encode())
    with data_file(out, encoded=False).open("wb") as pixels:
        for piece in np.array_split(image_ids, max(1, len(image_ids) // 4096)):
            pixels.write(store.pixels[piece].numpy().tobytes())
    numbers = np.array(
        [class_names.index(n) if n in class_names else -1 for n in store.class_names]
    )
    np.save(out / "class_ids.npy", numbers[store.class_ids[image_ids].numpy()])
    np.save(out / "content_ids.npy", store.content_ids[image_ids].numpy().astype(np.int32))
    manifest = read_manifest(store.path)
    manifest |= {
        "num_images": len(image_ids),
        "class_names": class_names,
        "split_of": {"sha256": store.sha256, "seed": seed},
        "sha256": digest.hexdigest(),
    }
    (out / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
