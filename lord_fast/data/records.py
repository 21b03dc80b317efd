"""What every source of images yields."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lord_fast.data.decode import Crop


@dataclass(frozen=True)
class Record:
    """One image of a source, not yet decoded.

    Attributes:
        name: Unique within the source: the path below the folder, or a key made of the labels.
        class_name: What LORD separates from: who or what is in the image.
        content: Label of each content factor, empty where the source knows none.
        image: A file to decode, or a function that returns an encoded image as bytes, or pixels
            as uint8 [H, W] or [H, W, C], or raises BadImageError where there is none to be had.
        size: Bytes that `image` returns or holds, as far as they are known without reading; a
            file's are looked up.
    """

    name: str
    class_name: str
    content: dict[str, str]
    image: Path | Callable[[], np.ndarray | bytes]
    size: int = 0


class Source:
    """A finite, ordered, repeatable sequence of records.

    Attributes:
        crop: What is cut out of its images unless --crop says otherwise.
        channels: Of its images where that is known without looking at them.
        has_files: Whether its images are encoded files; pixels need no decoder.
        path: The file or folder that it reads; a source that reads none does not have it.
    """

    path: Path
    crop: Crop | None = None
    channels: int | None = None
    has_files: bool = True

    def __len__(self) -> int:
        raise NotImplementedError

    def __iter__(self) -> Iterator[Record]:
        raise NotImplementedError

    def describe(self) -> dict:
        """What the manifest says of the source; JSON values."""
        raise NotImplementedError
