"""lord-fast split."""

from pathlib import Path

from rich.console import Console

from lord_fast.data.split import split_classes, split_images


def run(
    store: Path, train: Path, test: Path, classes: int | None, images: float | None, seed: int
) -> None:
    """Write the two parts of a store and print their sizes."""
    if (classes is None) == (images is None):
        raise ValueError("give either --classes N or --images FRACTION")
    earlier = [path for path in (train, test) if path.exists()]
    if classes is not None:
        sizes = split_classes(store, train, test, classes, seed)
    else:
        assert images is not None
        sizes = split_images(store, train, test, images, seed)
    console = Console(stderr=True, soft_wrap=True)
    for path, size in zip((train, test), sizes, strict=True):
        note = " (made by an earlier call that was cut off)" if path in earlier else ""
        console.print(f"{path}: {size} images{note}")
