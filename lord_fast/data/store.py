"""The packed store as tensors."""

import hashlib
import math
import warnings
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from lord_fast.data.decode import BadImageError, Crop, Decoder, DecoderName, Shape, open_decoder
from lord_fast.data.manifest import (
    LABEL_FILES,
    check_files,
    data_file,
    is_hashed,
    read_manifest,
)
from lord_fast.memory import free_memory
from lord_fast.system import cpu_count

Place = Literal["auto", "cuda", "pinned", "disk"]
SHARE_OF_MEMORY = 0.5
"""Of what is free: how much the images may take before `auto` looks for another place."""


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
        crop: What was cut out of the images before they were scaled; None: nothing.
        encoded: Whether it holds the original files, which are decoded at every read.
        placed: Where the images lie, see `place`.
    """

    def __init__(self, path: Path):
        """Open a store: read its labels, compare them and a sample of the images with their hashes.

        A store of an older version has no such hashes, and a warning says so.

        Raises:
            ValueError: `path` is not a store, is incomplete or damaged, or was packed by another
                version.
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
        self.crop: Crop | None = _tuple(manifest.get("crop"))
        self.encoded: bool = manifest.get("storage", "decoded") == "encoded"
        if not is_hashed(manifest):
            warnings.warn(
                f"{path} was packed by an older lord-fast, without hashes of its labels; damage "
                f"to them is not noticed. Pack again to have them.", stacklevel=2
            )  # fmt: skip
        check_files(path, manifest, LABEL_FILES)
        self._read_labels()
        self._map(manifest)
        self._check_sample(manifest)
        self._resident: Tensor | None = None
        self.placed: Place = "disk"

    def _read_labels(self) -> None:
        """Class and content of every image.

        Raises:
            ValueError: they do not go with the manifest.
        """
        class_ids = _load(self.path / "class_ids.npy", (self.num_images,), self.num_classes)
        shape = (self.num_images, len(self.factors))
        most = max((len(labels) for labels in self.factors.values()), default=0)
        content_ids = _load(self.path / "content_ids.npy", shape, most)
        self.class_ids = torch.from_numpy(class_ids)
        self.content_ids = torch.from_numpy(content_ids).long()

    def _map(self, manifest: dict) -> None:
        """Map the images into memory.

        Raises:
            ValueError: the file has another length than it should.
        """
        file = data_file(self.path, self.encoded)
        if self.encoded:
            self._offsets = _load(self.path / "offsets.npy", (self.num_images + 1,), 1 << 62)
            if self._offsets[0] != 0 or (np.diff(self._offsets) < 0).any():
                raise ValueError(f"{self.path / 'offsets.npy'}: damaged; pack again")
            shape: tuple[int, ...] = (int(self._offsets[-1]),)
            self._shape = Shape(self.size, self.channels, self.crop)
            self._packed_by: str = manifest["decoder"]["name"]
            self._decoder: Decoder | None = None
        else:
            shape = (self.num_images, self.size, self.size, self.channels)
        if not file.is_file() or file.stat().st_size != math.prod(shape):
            raise ValueError(f"{file}: is not {math.prod(shape):,} bytes long; pack again")
        self._data: np.ndarray = np.memmap(file, dtype=np.uint8, mode="c", shape=shape)

    def _check_sample(self, manifest: dict) -> None:
        """Compare some images with their hashes.

        Raises:
            ValueError: names the first image that is another one.
        """
        for image_id, sha256 in manifest.get("sample", ()):
            if hashlib.sha256(self._stored(image_id)).hexdigest() != sha256:
                raise ValueError(
                    f"{data_file(self.path, self.encoded)}: image {image_id} is not the one that "
                    f"was packed; see all that changed with: lord-fast pack --verify {self.path}"
                )

    def _stored(self, image_id: int) -> bytes:
        """What the data file holds of an image: its pixels or its file."""
        if self.encoded:
            return self._data[self._offsets[image_id] : self._offsets[image_id + 1]].tobytes()
        return self._data[image_id].tobytes()

    @property
    def pixels(self) -> Tensor:
        """uint8 [num_images, size, size, channels], memory-mapped, not to be written.

        Raises:
            ValueError: the store is encoded and holds no pixels.
        """
        if self.encoded:
            raise ValueError(f"{self.path}: an encoded store; pack one without --encoded for this")
        return torch.from_numpy(self._data)

    def decode_with(self, name: DecoderName, device: str = "cpu", threads: int = 0) -> None:
        """Choose who decodes an encoded store; a decoded one has nothing to choose.

        Args:
            name: auto: the one that the store was packed with, so that the pixels are those of
                a decoded store; Pillow where DALI does not work.
            device: cpu, or cuda to decode there.
            threads: Threads that decode; 0: as many as there are cores.

        Raises:
            ValueError: DALI is asked for and does not work here.
        """
        if self.encoded:
            if name == "auto" and self._packed_by == "pillow":
                name = "pillow"
            threads = threads or cpu_count()
            self._decoder = open_decoder(name, self._shape, threads, device)

    def place(self, where: Place, device: torch.device) -> None:
        """Put the images where the steps read them from; an encoded store stays on the disk.

        Args:
            where: See `lord_fast.config.MachineConfig.store_device`.
            device: Of the steps.

        Raises:
            ValueError: that place does not hold the images, or there is no such place.
        """
        self.placed = where if where != "auto" else self._best_place(device)
        if self.placed == "disk":
            return
        if device.type != "cuda":
            raise ValueError(f"--store-device {where}: needs --device cuda")
        self._check_place(self.placed, device)
        if self.placed == "cuda":
            self._resident = torch.from_numpy(self._data).to(device)
        else:
            self._data = torch.from_numpy(self._data).pin_memory().numpy()

    def _best_place(self, device: torch.device) -> Place:
        if device.type != "cuda" or self.encoded:
            return "disk"
        if self._data.nbytes <= SHARE_OF_MEMORY * free_memory(device):
            return "cuda"
        fits = self._data.nbytes <= SHARE_OF_MEMORY * free_memory(torch.device("cpu"))
        return "pinned" if fits else "disk"

    def _check_place(self, where: Place, device: torch.device) -> None:
        if self.encoded:
            raise ValueError(
                f"--store-device {where}: {self.path} is an encoded store, which is decoded at "
                f"every read; leave it at disk, or pack without --encoded"
            )
        free = free_memory(device if where == "cuda" else torch.device("cpu"))
        if self._data.nbytes > free:
            raise ValueError(
                f"--store-device {where}: the images take {self._data.nbytes / 2**30:.1f} GiB and "
                f"{free / 2**30:.1f} GiB are free; leave it at auto"
            )

    def describe(self) -> dict[str, Any]:
        """What a run remembers of its store: where it was, its hash, its shape, and its crop."""
        return {
            "store": str(self.path.resolve()),
            "sha256": self.sha256,
            "num_images": self.num_images,
            "num_classes": self.num_classes,
            "size": self.size,
            "channels": self.channels,
            "crop": self.crop and list(self.crop),
        }

    def first_of_each_class(self, order: Tensor) -> Tensor:
        """The first image of each class in `order`, int64, in that order."""
        classes = self.class_ids[order].numpy()
        return order[np.sort(np.unique(classes, return_index=True)[1])]

    def describe_decoder(self) -> str:
        """Who decodes at a read; empty for a decoded store."""
        if not self.encoded:
            return ""
        return ", ".join(self._open_decoder().describe().values())

    def images(self, image_ids: Tensor) -> Tensor:
        """Images of a batch.

        Args:
            image_ids: int64 [B].

        Returns:
            uint8 [B, channels, size, size], channels last in memory; on the GPU if they lie or
            are decoded there.

        Raises:
            ValueError: an image of an encoded store does not decode.
        """
        if self._resident is not None:
            return self._resident[image_ids.to(self._resident.device)].permute(0, 3, 1, 2)
        # NumPy: a gather of PyTorch in a thread of its own starts a second team of threads.
        ids = image_ids.numpy()
        if not self.encoded:
            return torch.from_numpy(self._data[ids]).permute(0, 3, 1, 2)
        files = [self._stored(i) for i in ids]
        try:
            return self._open_decoder().batch(files).permute(0, 3, 1, 2)
        except BadImageError as error:
            raise ValueError(
                f"{self.path}: an image does not decode ({error}); see which with: lord-fast pack "
                f"--verify {self.path}"
            ) from error

    def _open_decoder(self) -> Decoder:
        if self._decoder is None:
            self.decode_with("auto")
        assert self._decoder is not None
        return self._decoder


def open_store(run: Path, data: dict[str, Any], moved_to: Path | None = None) -> ImageStore:
    """The store that a run was trained on.

    Args:
        run: The run's folder.
        data: What it remembers of its store, see `ImageStore.describe`.
        moved_to: Where the store is now; default: where it was.

    Raises:
        ValueError: it is gone, or holds other images now.
    """
    if moved_to is None and not data["store"]:
        raise ValueError(f"{run}: was imported, and has no store of its images")
    path = moved_to or Path(data["store"])
    if moved_to is None and not path.exists():
        raise ValueError(f"{run}: its store {path} is gone; say where it is with --store")
    store = ImageStore(path)
    if store.sha256 != data["sha256"]:
        raise ValueError(f"{path}: not the images that {run} was trained on")
    return store


def _load(file: Path, shape: tuple[int, ...], limit: int) -> np.ndarray:
    """Integers of a known shape, from 0 to below a limit.

    Raises:
        ValueError: the file holds something else.
    """
    try:
        values = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{file}: cannot be read ({error}); pack again") from error
    fits = values.shape == shape and values.dtype.kind == "i"
    if not fits or (values.size and not 0 <= values.min() <= values.max() < limit):
        raise ValueError(f"{file}: does not go with the manifest; pack again")
    return values


def _tuple(values: list[int] | None):
    return None if values is None else tuple(values)


def as_float(images: Tensor) -> Tensor:
    """uint8 pixels to float32 in [0, 1], the same shape and memory format."""
    return images.to(torch.float32) / 255
