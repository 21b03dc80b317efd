"""Checks that a store that exists already was packed from the same images."""

from pathlib import Path

from lord_fast.data.store import ImageStore


def check_store(images: Path, store: Path, run: Path, count: int, size: int) -> None:
    """Check that an existing store has the right number of images and the right size.

    Args:
        images: The folder that the store was packed from.
        store: The store.
        run: The folder of the run on this store.
        count: Number of images in the folder.
        size: Requested side of the images in pixels.

    Raises:
        ValueError: The number of images or the size differs.
    """
    packed = ImageStore(store)
    before = packed.num_images + len((store / "left_out.jsonl").read_text().splitlines())
    again = f"Give another --run, or remove {store} and {run} to begin again"
    if before != count:
        raise ValueError(
            f"{store}: packed when {images} had {before} photos, and now it has {count}. {again}"
        )
    if packed.size != size:
        raise ValueError(f"--size {size}: {store} holds {packed.size} px images. {again}")
