"""The records that every source of images yields."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lord_fast.data.decode import Crop


@dataclass(frozen=True)
class Record:
    """An image of a source before it is decoded.

    Attributes:
        name: A unique name within the source. It is a path relative to the folder, or a key that
            is made from the labels.
        class_name: The class, which is who or what the image shows.
        content: Label of each content factor. It is empty if the source has no such labels.
        image: A file to decode, or a function. The function returns an encoded image as bytes or
            pixels as uint8 [H, W] or [H, W, C], and raises BadImageError if the image is unusable.
        size: Number of bytes that the function returns or holds, if known. Not used for files.
    """

    name: str
    class_name: str
    content: dict[str, str]
    image: Path | Callable[[], np.ndarray | bytes]
    size: int = 0


class Source:
    """A finite sequence of records that can be iterated several times in the same order.

    Attributes:
        crop: Default crop of the images, which --crop overrides.
        channels: Number of channels, or None if it is not known before reading the images.
        has_files: Whether the images are encoded files. Otherwise they are pixels.
        path: The file or folder that the source reads. Sources that read none lack the attribute.
    """

    path: Path
    crop: Crop | None = None
    channels: int | None = None
    has_files: bool = True

    def __len__(self) -> int:
        raise NotImplementedError

    def __iter__(self) -> Iterator[Record]:
        raise NotImplementedError

    def notes(self) -> list[str]:
        """Return lines about files that the source ignores, for the user."""
        return []

    def describe(self) -> dict:
        """Describe the source for the manifest, as JSON values."""
        raise NotImplementedError
