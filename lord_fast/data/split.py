"""Splits a store into two stores, so that images or classes are held out from training."""

import contextlib
import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lord_fast.atomic import empty, partial_of, refuse_overlap
from lord_fast.data.manifest import Sample, data_file, read_manifest, write_manifest
from lord_fast.data.store import ImageStore
from lord_fast.data.strings import label_files
from lord_fast.data.unfinished import discard, finish, unfinished

PIECE = 32 << 20
"""Number of bytes of images that are copied at a time."""


@dataclass(frozen=True)
class _Part:
    """One of the two stores to create.

    Attributes:
        path: Path of the new store.
        class_names: Names of its classes, in the order of the original store.
        image_ids: Ids of its images in the original store, ascending.
        split_of: Describes its origin for the manifest.
    """

    path: Path
    class_names: list[str]
    image_ids: np.ndarray
    split_of: dict


def split_images(
    store_path: Path, train_path: Path, test_path: Path, fraction: float, seed: int
) -> tuple[int, int]:
    """Hold out a fraction of every class's images, at least one of each class.

    Both parts keep the ids of classes and labels. Images keep their order.

    Args:
        store_path: A packed store.
        train_path: The training store to create.
        test_path: The store of held-out images to create.
        fraction: Fraction of each class's images to hold out, more than 0 and less than 1.
        seed: Seed of the random choice.

    Returns:
        The number of images in the training store and in the test store.

    Raises:
        ValueError: Both parts exist already, or another store is in the way of one. Or the
            fraction is out of bounds, or a class has only one image.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"--images {fraction}: must be more than 0 and less than 1")
    store = ImageStore(store_path)
    sizes = np.bincount(store.class_ids.numpy(), minlength=store.num_classes)
    single = np.flatnonzero(sizes < 2)
    if len(single):
        raise ValueError(
            f"{store_path}: one image of {store.class_names[single[0]]}, which cannot be in "
            f"both parts; pack again with --min-class-size 2"
        )
    order = np.random.default_rng(seed).permutation(store.num_images)
    order = order[np.argsort(store.class_ids.numpy()[order], kind="stable")]
    # The order is now by class, and random within each class. The first of each are held out.
    starts = np.cumsum(sizes) - sizes
    places = np.arange(store.num_images) - np.repeat(starts, sizes)
    counts = np.minimum(np.maximum(1, np.rint(fraction * sizes)), sizes - 1)
    held_out = np.zeros(store.num_images, dtype=bool)
    held_out[order[places < np.repeat(counts, sizes)]] = True
    names = store.class_names
    drawn = {"seed": seed, "images": fraction}
    return _write_both(store, (train_path, names), (test_path, names), held_out, drawn)


def split_classes(
    store_path: Path, train_path: Path, test_path: Path, count: int, seed: int
) -> tuple[int, int]:
    """Hold out whole classes.

    Each part has its own class ids, in the order of the original store. The ids of content labels
    stay the same.

    Args:
        store_path: A packed store.
        train_path: The training store to create.
        test_path: The store of held-out classes to create.
        count: Number of classes to hold out. At least two must stay.
        seed: Seed of the random choice.

    Returns:
        The number of images in the training store and in the test store.

    Raises:
        ValueError: Both parts exist already, or another store is in the way of one. Or the count
            is out of bounds.
    """
    store = ImageStore(store_path)
    if not 1 <= count <= store.num_classes - 2:
        raise ValueError(
            f"--classes {count}: must be 1 to {store.num_classes - 2}; {store_path} has "
            f"{store.num_classes} classes, and two must stay to train on"
        )
    drawn = np.zeros(store.num_classes, dtype=bool)
    drawn[np.random.default_rng(seed).permutation(store.num_classes)[:count]] = True
    out = [name for name, is_out in zip(store.class_names, drawn, strict=True) if is_out]
    stay = [name for name, is_out in zip(store.class_names, drawn, strict=True) if not is_out]
    held_out = drawn[store.class_ids.numpy()]
    arguments = {"seed": seed, "classes": count}
    return _write_both(store, (train_path, stay), (test_path, out), held_out, arguments)


def _write_both(
    store: ImageStore,
    train: tuple[Path, list[str]],
    test: tuple[Path, list[str]],
    held_out: np.ndarray,
    drawn: dict,
) -> tuple[int, int]:
    """Write both parts, except a part that an interrupted call with the same arguments wrote."""
    _refuse_nested(train[0], test[0])
    parts = [
        _Part(path, names, np.flatnonzero(mask), {"sha256": store.sha256, **drawn, "part": part})
        for part, mask, (path, names) in (("train", ~held_out, train), ("test", held_out, test))
    ]
    for part in parts:
        refuse_overlap(store.path, part.path)
    made = [part for part in parts if _is_made(part)]
    missing = [part for part in parts if part not in made]
    if not missing:
        raise ValueError(
            f"{train[0]}: exists already, and so does {test[0]}; give other folders, or remove them"
        )
    with contextlib.ExitStack() as held:
        folders: list[Path] = []
        try:
            for part in missing:
                folders.append(held.enter_context(unfinished(part.path)))
            for folder, part in zip(folders, missing, strict=True):
                _write(store, folder, part)
        except BaseException:
            for folder in folders:
                discard(folder)
            raise
        for folder, part in zip(folders, missing, strict=True):
            finish(folder, part.path)
    return len(parts[0].image_ids), len(parts[1].image_ids)


def _refuse_nested(train: Path, test: Path) -> None:
    for inner, outer in ((train, test), (test, train)):
        folders = inner.resolve(), *inner.resolve().parents
        if outer.resolve() in folders or partial_of(outer).resolve() in folders:
            raise ValueError(
                f"{inner}: is the same as {outer}, or lies in it; give the two parts different "
                f"folders side by side"
            )


def _is_made(part: _Part) -> bool:
    """Return whether a killed call with the same arguments has written this part.

    Raises:
        ValueError: Something else exists at the path.
    """
    if not part.path.exists():
        return False
    try:
        if read_manifest(part.path).get("split_of") == part.split_of:
            return True
    except ValueError:
        pass
    raise ValueError(f"{part.path}: exists already; give another folder or remove it")


def _write(store: ImageStore, out: Path, part: _Part) -> None:
    """Fill the unfinished store `out` with one part."""
    empty(out)
    digest, sample = _write_index(store, out, part)
    step = max(1, PIECE // (store.size**2 * store.channels))
    with data_file(out, encoded=False).open("wb") as pixels:
        for start in range(0, len(part.image_ids), step):
            pixels.write(store.pixels[part.image_ids[start : start + step]].numpy().tobytes())
    new_ids = {name: i for i, name in enumerate(part.class_names)}
    numbers = np.array([new_ids.get(name, -1) for name in store.class_names])
    np.save(out / "class_ids.npy", numbers[store.class_ids[part.image_ids].numpy()])
    contents = store.content_ids[part.image_ids].numpy().astype(np.int32)
    np.save(out / "content_ids.npy", contents)
    manifest = read_manifest(store.path)
    manifest |= {
        "num_images": len(part.image_ids),
        "class_names": part.class_names,
        "split_of": part.split_of,
        "sha256": digest,
    }
    for name in label_files(manifest):
        shutil.copyfile(store.path / name, out / name)
    write_manifest(out, manifest, sample)


def _write_index(store: ImageStore, out: Path, part: _Part) -> tuple[str, Sample]:
    """Write the index of one part with new ids. Return its hash and a sample of its images."""
    kept = np.zeros(store.num_images, dtype=bool)
    kept[part.image_ids] = True
    whole, digest, sample, count = hashlib.sha256(), hashlib.sha256(), Sample(), 0
    with (store.path / "index.jsonl").open() as rows, (out / "index.jsonl").open("w") as index:
        for line, keep in zip(rows, kept, strict=True):
            whole.update(line.encode())
            if not keep:
                continue
            row = {**json.loads(line), "id": count}
            line = json.dumps(row) + "\n"
            index.write(line)
            digest.update(line.encode())
            sample.offer(count, row["sha256"])
            count += 1
    if whole.hexdigest() != store.sha256:
        raise ValueError(f"{store.path / 'index.jsonl'}: changed since packing; pack again")
    return digest.hexdigest(), sample
