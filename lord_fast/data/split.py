"""Parts of a packed store as stores of their own: images held out from training."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np

from lord_fast.data.store import ImageStore, read_manifest


def split_images(
    store_path: Path, train_path: Path, test_path: Path, fraction: float, seed: int
) -> None:
    """Hold out a fraction of every class's images, and at least one of each.

    Both parts keep the class names, the factors and their numbering.

    Args:
        store_path: A packed store.
        train_path: The store of the images that stay, made anew.
        test_path: The store of those held out, made anew.
        fraction: Of each class's images to hold out, more than 0 and less than 1.
        seed: Of the draw.

    Raises:
        ValueError: a part exists already, or the fraction is out of its bounds.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"--images {fraction}: must be more than 0 and less than 1")
    store = ImageStore(store_path)
    order = np.random.default_rng(seed).permutation(store.num_images)
    classes = store.class_ids.numpy()[order]
    held_out = np.zeros(store.num_images, dtype=bool)
    for class_id in range(store.num_classes):
        members = order[classes == class_id]
        held_out[members[: max(1, round(fraction * len(members)))]] = True
    _write(store, train_path, np.flatnonzero(~held_out))
    _write(store, test_path, np.flatnonzero(held_out))


def _write(store: ImageStore, out: Path, image_ids: np.ndarray) -> None:
    if out.exists():
        raise ValueError(f"{out}: exists already; give another folder or remove it")
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    kept = set(image_ids.tolist())
    digest = hashlib.sha256()
    with (store.path / "index.jsonl").open() as rows, (partial / "index.jsonl").open("w") as index:
        rows = (line for i, line in enumerate(rows) if i in kept)
        for i, line in enumerate(rows):
            line = json.dumps({**json.loads(line), "id": i}) + "\n"
            index.write(line)
            digest.update(line.encode())
    with (partial / "images.u8").open("wb") as pixels:
        for piece in np.array_split(image_ids, max(1, len(image_ids) // 4096)):
            pixels.write(store.pixels[piece].numpy().tobytes())
    np.save(partial / "class_ids.npy", store.class_ids[image_ids].numpy())
    np.save(partial / "content_ids.npy", store.content_ids[image_ids].numpy().astype(np.int32))
    manifest = read_manifest(store.path)
    manifest |= {"num_images": len(image_ids), "sha256": digest.hexdigest()}
    (partial / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
    partial.rename(out)
