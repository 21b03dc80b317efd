"""lord-fast split."""

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional

from lord_fast.bounds import AtLeast, Below, MoreThan
from lord_fast.console import err
from lord_fast.errors import naming
from lord_fast.run.history import Command, copy_history


def split(
    command: Command,
    store: Positional[Path],
    train: Positional[Path],
    test: Positional[Path],
    classes: Annotated[int, MoreThan(0)] | None = None,
    images: float | None = None,
    seed: Annotated[int, AtLeast(0), Below(1 << 63)] = 0,
) -> None:
    """Split a store into a training store and a test store.

    Examples:
        lord-fast split store train heldout --images 0.1
        lord-fast split store train people --classes 4

    Args:
        store: A packed store.
        train: The training store to create.
        test: The test store to create. It gets the images that are held out.
        classes: Number of classes to hold out.
        images: Fraction of each class's images to hold out.
        seed: Seed of the random choice.
    """
    from lord_fast.data.split import split_classes, split_images

    if (classes is None) == (images is None):
        raise ValueError("give either --classes N or --images FRACTION")
    earlier = [path for path in (train, test) if path.exists()]
    with naming(train):
        if classes is not None:
            sizes = split_classes(store, train, test, classes, seed)
        else:
            assert images is not None
            sizes = split_images(store, train, test, images, seed)
        for path, size in zip((train, test), sizes, strict=True):
            copy_history(store, path)
            command.record(path)
            note = " (created by an earlier, interrupted command)" if path in earlier else ""
            err.print(f"{path}: {size} images{note}")
