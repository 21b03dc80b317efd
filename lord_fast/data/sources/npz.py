"""npz files, those of the published preprocess among them."""

import functools
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np

from lord_fast.data.formats import register
from lord_fast.data.options import PackConfig
from lord_fast.data.records import Record, Source


class NpzFile(Source):
    """An npz file: `imgs` uint8 [N, H, W(, C)], `classes` [N], `contents` [N(, factors)] if known.

    Args:
        path: The file.

    Raises:
        ValueError: not such a file.
    """

    has_files = False

    def __init__(self, path: Path):
        self.path = path
        try:
            with np.load(path, allow_pickle=False) as arrays:
                self.classes = arrays["classes"]
                nothing = np.empty((len(self.classes), 0), dtype="U1")
                contents = arrays.get("contents", nothing)
            self.imgs = stored_array(path, "imgs")
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise ValueError(
                f"{path}: cannot be read ({error}); an npz source holds imgs [N, H, W, C] uint8, "
                f"classes [N] and contents [N] or [N, factors]"
            ) from error
        self.contents = contents[:, None] if contents.ndim == 1 else contents
        if not len(self.imgs) == len(self.classes) == len(self.contents) > 0:
            raise ValueError(f"{path}: imgs, classes and contents differ in length or are empty")
        if self.imgs.ndim == 3 or self.imgs.shape[-1] in (1, 3):
            self.channels = 1 if self.imgs.ndim == 3 else self.imgs.shape[-1]

    def __len__(self) -> int:
        return len(self.imgs)

    def __iter__(self) -> Iterator[Record]:
        factors = self.contents.shape[1]
        names = ["content"] if factors == 1 else [f"content{i}" for i in range(factors)]
        for i in range(len(self)):
            yield Record(
                name=str(i),
                class_name=str(self.classes[i]),
                content=dict(zip(names, map(str, self.contents[i]), strict=True)),
                image=functools.partial(self.imgs.__getitem__, i),
            )

    def describe(self) -> dict:
        """Format and file."""
        return {"format": "npz", "path": os.path.abspath(self.path)}


@register("npz", "an .npz file of imgs, classes and contents")
def open_npz(path: Path, config: PackConfig) -> Source:
    """The source at a path."""
    return NpzFile(path)


def stored_array(path: Path, name: str) -> np.ndarray:
    """An array of an npz file: memory-mapped where it is not compressed (np.savez), else read.

    Raises:
        KeyError: there is no such array.
        ValueError: it holds Python objects.
    """
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(f"{name}.npy")
        if info.compress_type != zipfile.ZIP_STORED:
            with np.load(path, allow_pickle=False) as arrays:
                return arrays[name]
        with archive.open(info) as member:
            version = np.lib.format.read_magic(member)
            read_header = getattr(np.lib.format, f"read_array_header_{version[0]}_0")
            shape, fortran_order, dtype = read_header(member)
            header = member.tell()
    if dtype.hasobject:
        raise ValueError(f"{name} holds Python objects")
    with path.open("rb") as file:
        # The local header's name and extra field may differ in length from the directory's.
        file.seek(info.header_offset + 26)
        name_length, extra_length = np.frombuffer(file.read(4), dtype="<u2").tolist()
    offset = info.header_offset + 30 + name_length + extra_length + header
    order: Literal["F", "C"] = "F" if fortran_order else "C"
    return np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=shape, order=order)
