"""Finds the codes that a user names: images, images of the store, classes, and files of codes."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from lord_fast.data.image_files import list_images, read_images
from lord_fast.data.names import content_label, read_names, short_names
from lord_fast.data.store import read_image
from lord_fast.lord.networks import TrainedModel
from lord_fast.run.codes import Codes, Stage, load_codes

Kind = Literal["content", "class"]
CODES = ".npz"
WORDS = (str, Path, int, np.integer)
"""What a list may hold to be found one by one."""


@dataclass(frozen=True)
class Source:
    """A content or class code and where it comes from.

    Attributes:
        name: Its label.
        code: float32 [dim].
        stage: The stage that the code comes from. Codes of training come from `latent`.
        image: An image that has this content or class, float [C, H, W], if there is one.
        class_id: The class of training, or None.
        image_id: The image of the store, or None.
        file: The file that was encoded, or None.
    """

    name: str
    code: Tensor
    stage: Stage
    image: Tensor | None = None
    class_id: int | None = None
    image_id: int | None = None
    file: Path | None = None


class Finder:
    """Finds codes for one model.

    Args:
        lord: The model.
    """

    def __init__(self, lord: TrainedModel):
        self.lord = lord
        self.names: dict[str, int] | None = None

    def find(self, asked: Any, kind: Kind) -> list[Source]:
        """Return the codes that something stands for.

        Args:
            asked: An image, or several, in any form that `as_images` takes. A word may also be a
                file of codes, FILE.npz:NAME or FILE.npz:NUMBER, the name of a class (if `kind` is
                class), or the name or the number of an image of the store. An existing path comes
                first, then the name of a class, then that of an image.
            kind: content or class.

        Raises:
            ValueError: Nothing has this name, or an image cannot be read.
        """
        if isinstance(asked, list | tuple) and any(isinstance(each, WORDS) for each in asked):
            return _named([source for each in asked for source in self._of(each, kind)])
        return _named(self._of(asked, kind))

    def _of(self, asked: Any, kind: Kind) -> list[Source]:
        if isinstance(asked, int | np.integer):
            return [self._of_store(int(asked), kind)]
        if isinstance(asked, str | Path):
            return self._of_word(str(asked), kind)
        images = self.lord.as_images(asked)
        return self._encoded(images, [None] * len(images), kind)

    def _of_word(self, word: str, kind: Kind) -> list[Source]:
        path, (file, colon, which) = Path(word), word.rpartition(":")
        if path.suffix == CODES and path.exists():
            return self._of_codes(path, None, kind)
        if colon and Path(file).suffix == CODES and Path(file).exists():
            return self._of_codes(Path(file), which, kind)
        if path.exists():
            return self._of_files([path], kind)
        if kind == "class" and word in self.lord.class_names:
            return [self._of_class(self.lord.class_names.index(word))]
        number = self._image_names().get(word)
        if number is None and word.isdecimal():
            number = int(word)
        if number is None:
            raise ValueError(self._unknown(word, kind))
        return [self._of_store(number, kind)]

    def _of_files(self, paths: Sequence[Path], kind: Kind) -> list[Source]:
        files = list_images(paths)
        return self._encoded(read_images(files, self.lord.shape), files, kind)

    def _encoded(self, images: Tensor, files: Sequence[Path | None], kind: Kind) -> list[Source]:
        lord = self.lord
        codes = lord.encode_class(images) if kind == "class" else lord.encode(images)[0]
        return [
            Source(f"image {i}", code, "encoders", image, file=file)
            for i, (file, code, image) in enumerate(zip(files, codes, images, strict=True))
        ]

    def _of_codes(self, file: Path, which: str | None, kind: Kind) -> list[Source]:
        codes = load_codes(file)
        self.lord.check_codes(file, codes)
        if kind == "class" and len(codes.class_) == 1:
            return [self._of_row(codes, 0, file.stem, kind)]
        names = short_names([Path(name) for name in codes.names])
        chosen = range(len(names)) if which is None else [row_of(file, codes, which)]
        return [self._of_row(codes, row, names[row], kind) for row in chosen]

    def _of_row(self, codes: Codes, row: int, name: str, kind: Kind) -> Source:
        content, class_ = (torch.from_numpy(part) for part in (codes.content, codes.class_))
        own = class_[row if len(class_) > 1 else 0]
        image = self.lord.decode(content[row : row + 1], own[None], codes.stage)[0]
        return Source(name, own if kind == "class" else content[row], codes.stage, image)

    def _of_class(self, class_id: int) -> Source:
        store, image, first = self.lord.open_store(), None, None
        if store is not None:
            first = int((store.class_ids == class_id).nonzero()[0, 0])
            image = read_image(store, first)
        name = self.lord.class_names[class_id]
        return Source(name, self.lord.class_codes[class_id], "latent", image, class_id, first)

    def _of_store(self, image_id: int, kind: Kind) -> Source:
        count, store = self.lord.data["num_images"], self.lord.open_store()
        if not 0 <= image_id < count:
            raise ValueError(f"{image_id}: no such image; the store has images 0 to {count - 1}")
        if store is None and kind == "class":
            raise ValueError(
                f"{image_id}: the class of an image of training stands in the store, which is not "
                f"here; give the name of a class"
            )
        if store is None:
            return Source(f"image {image_id}", self.lord.content_codes[image_id], "latent")
        class_id, image = int(store.class_ids[image_id]), read_image(store, image_id)
        if kind == "class":
            name, code = self.lord.class_names[class_id], self.lord.class_codes[class_id]
        else:
            name = content_label(store, image_id) or f"image {image_id}"
            code = self.lord.content_codes[image_id]
        return Source(name, code, "latent", image, class_id, image_id)

    def _image_names(self) -> dict[str, int]:
        """Number of each image of the store by its name. Empty if the store is not here."""
        if self.names is None:
            store = self.lord.open_store()
            names = [] if store is None else read_names(store)
            self.names = {name: number for number, name in enumerate(names)}
        return self.names

    def _unknown(self, word: str, kind: Kind) -> str:
        known = [*self.lord.class_names] if kind == "class" else []
        near = difflib.get_close_matches(word, [*known, *self._image_names()], n=1)
        what = "file, class or image" if kind == "class" else "file or image"
        shown = f"; the classes are {', '.join(known[:8])}{', ...' if len(known) > 8 else ''}"
        hint = f"; did you mean {near[0]}?" if near else shown if known else ""
        return f"{word}: no such {what} of the store{hint}"


def _named(sources: list[Source]) -> list[Source]:
    """Name files by the shortest ends of their paths that tell all of them apart."""
    files = [source.file for source in sources if source.file is not None]
    names = dict(zip(files, short_names(files), strict=True))
    return [
        source if source.file is None else replace(source, name=names[source.file])
        for source in sources
    ]


def row_of(file: Path, codes: Codes, which: str) -> int:
    """Return the row of a file of codes that a name or a number stands for.

    Raises:
        ValueError: There is no such row.
    """
    names = short_names([Path(name) for name in codes.names])
    for listed in (codes.names, names):
        if which in listed:
            return listed.index(which)
    if which.isdecimal() and int(which) < len(names):
        return int(which)
    raise ValueError(
        f"{file}: no codes of {which}; give a number below {len(names)}, or one of "
        f"{', '.join(names[:8])}"
    )


def joint_stage(sources: Sequence[Source]) -> Stage:
    """Return the stage whose decoder combines codes: that of the encoders if they gave any."""
    return "encoders" if any(each.stage == "encoders" for each in sources) else "latent"
