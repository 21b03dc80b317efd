"""What every source of images yields."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np


@dataclass(frozen=True)
class Record:
    """One image of a source, not yet decoded.

    Attributes:
        name: Unique within the source: the path below the folder, or a key made of the labels.
        class_name: What LORD separates from: who or what is in the image.
        content: Label of each content factor, empty where the source knows none.
        image: A file to decode, or a function that returns uint8 [H, W] or [H, W, C].
    """

    name: str
    class_name: str
    content: dict[str, str]
    image: Path | Callable[[], np.ndarray]


class Source(Protocol):
    """A finite, ordered, repeatable sequence of records."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Record]: ...

    def describe(self) -> dict:
        """What the manifest says of the source; JSON values."""
        ...
