"""The packed store as tensors."""

import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lord_fast.data.writer import STORE_VERSION


class ImageStore:
    """Read access to a packed store (see `lord_fast.data.writer` for its files).

    Attributes:
        path: The store's folder.
        num_images: Number of images.
        num_classes: Number of classes.
        size: Side of the images in pixels.
        channels: 1 or 3.
        class_names: [num_classes].
        factors: Name -> labels of each content factor; empty where the source knew none.
        class_ids: int64 [num_images].
        content_ids: int64 [num_images, number of factors], indices into the labels.
        sha256: Of the index, which holds names, labels and the hash of every image: two stores
            with the same one train the same.
        pixels: uint8 [num_images, size, size, channels], memory-mapped, not to be written.
    """

    def __init__(self, path: Path):
        """Open a store.

        Raises:
            ValueError: `path` is not a store, is incomplete, or was packed by another version.
        """
        self.path = path
        manifest = read_manifest(path)
        self.num_images: int = manifest["num_images"]
        self.size: int = manifest["size"]
        self.channels: int = manifest["channels"]
        self.class_names: list[str] = manifest["class_names"]
        self.num_classes = len(self.class_names)
        self.factors: dict[str, list[str]] = manifest["factors"]
        self.sha256: str = manifest["sha256"]
        self.class_ids = torch.from_numpy(np.load(path / "class_ids.npy"))
        self.content_ids = torch.from_numpy(np.load(path / "content_ids.npy")).long()
        shape = (self.num_images, self.size, self.size, self.channels)
        file = path / "images.u8"
        if file.stat().st_size != int(np.prod(shape)):
            raise ValueError(f"{file}: is not {int(np.prod(shape)):,} bytes long; pack again")
        self.pixels = torch.from_numpy(np.memmap(file, dtype=np.uint8, mode="c", shape=shape))

    def images(self, image_ids: Tensor) -> Tensor:
        """Images of a batch.

        Args:
            image_ids: int64 [B].

        Returns:
            uint8 [B, channels, size, size], channels last in memory.
        """
        return self.pixels[image_ids].permute(0, 3, 1, 2)


def read_manifest(path: Path) -> dict:
    """The manifest of a store.

    Raises:
        ValueError: not a store, or one of another version.
    """
    file = path / "manifest.json"
    if not file.is_file():
        raise ValueError(f"{path}: not a packed store; make one with: lord-fast pack SOURCE {path}")
    try:
        manifest = json.loads(file.read_text())
        version = manifest["version"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{file}: not the manifest of a store; pack again") from error
    if version != STORE_VERSION:
        raise ValueError(
            f"{path}: store version {version}, this lord-fast reads version {STORE_VERSION}; "
            f"pack again"
        )
    return manifest


def as_float(images: Tensor) -> Tensor:
    """uint8 pixels to float32 in [0, 1], the same shape and memory format."""
    return images.to(torch.float32) / 255
