"""Reads a packed store as tensors."""

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
from lord_fast.data.mapped import ScatteredReads, is_ascending, map_integers
from lord_fast.data.strings import Labels, label_files, read_factors
from lord_fast.memory import free_memory
from lord_fast.system import cpu_count

Place = Literal["auto", "cuda", "pinned", "disk"]
SCANNED = 1 << 16
"""Number of images whose labels are looked at at a time."""
SHARE_OF_MEMORY = 0.5
"""Fraction of the free memory that the images may take with --store-device auto."""


class ImageStore:
    """A packed store. See `lord_fast.data.writer` for its files.

    Attributes:
        path: The store's folder.
        num_images: Number of images.
        num_classes: Number of classes.
        size: Side of the images in pixels.
        channels: 1 or 3.
        class_names: Names of the classes, [num_classes].
        factors: The labels of each content factor by the factor's name.
        class_ids: Class of each image, int64 [num_images].
        content_ids: Indices into the labels, int32 [num_images, number of factors].
        sha256: Hash of the index, which holds names, labels and the hash of every image. Training
            on stores with the same hash gives the same result.
        crop: The region that was cut out of the images before they were scaled, or None.
        encoded: Whether the store holds the original files, which are decoded at every read.
        placed: Location of the images, see `place`.
    """

    def __init__(self, path: Path):
        """Open a store, and verify the hashes of its labels and of a sample of its images.

        Stores of older versions have no such hashes, which a warning says.

        Args:
            path: The store's folder.

        Raises:
            ValueError: `path` is not a store, is incomplete or damaged, or was packed by another
                version of lord-fast.
        """
        self.path = path
        manifest = read_manifest(path)
        self.num_images: int = manifest["num_images"]
        self.size: int = manifest["size"]
        self.channels: int = manifest["channels"]
        self.class_names: list[str] = manifest["class_names"]
        self.num_classes = len(self.class_names)
        self.sha256: str = manifest["sha256"]
        self.crop: Crop | None = _tuple(manifest.get("crop"))
        self.encoded: bool = manifest.get("storage", "decoded") == "encoded"
        if not is_hashed(manifest):
            warnings.warn(
                f"{path} was packed by an older lord-fast, without hashes of its labels. Damage "
                f"to them will not be noticed. Pack again to add the hashes.", stacklevel=2
            )  # fmt: skip
        check_files(path, manifest, (*LABEL_FILES, *label_files(manifest)))
        self.factors: dict[str, Labels] = read_factors(path, manifest)
        self._map_labels()
        self._map(manifest)
        self._check_sample(manifest)
        self._resident: Tensor | None = None
        self.placed: Place = "disk"

    def _map_labels(self) -> None:
        """Map the class and the content labels of every image.

        Raises:
            ValueError: They do not match the manifest.
        """
        class_ids = map_integers(self.path / "class_ids.npy", (self.num_images,), self.num_classes)
        shape = (self.num_images, len(self.factors))
        most = max((len(labels) for labels in self.factors.values()), default=0)
        content_ids = map_integers(self.path / "content_ids.npy", shape, most)
        self.class_ids = torch.from_numpy(class_ids)
        self.content_ids = torch.from_numpy(content_ids)

    def _map(self, manifest: dict) -> None:
        """Map the images into memory.

        Raises:
            ValueError: The file has the wrong length.
        """
        file = data_file(self.path, self.encoded)
        if self.encoded:
            offsets = self.path / "offsets.npy"
            self._offsets = map_integers(offsets, (self.num_images + 1,), 1 << 62)
            if self._offsets[0] != 0 or not is_ascending(self._offsets):
                raise ValueError(f"{self.path / 'offsets.npy'}: damaged; pack again")
            shape: tuple[int, ...] = (int(self._offsets[-1]),)
            self._shape = Shape(self.size, self.channels, self.crop)
            self._packed_by: str = manifest["decoder"]["name"]
            self._decoder: Decoder | None = None
        else:
            shape = (self.num_images, self.size, self.size, self.channels)
        if not file.is_file() or file.stat().st_size != math.prod(shape):
            raise ValueError(f"{file}: is not {math.prod(shape):,} bytes long; pack again")
        mapped = np.memmap(file, dtype=np.uint8, mode="c", shape=shape)
        self._data: np.ndarray = mapped
        self._reads = ScatteredReads(mapped, free_memory(torch.device("cpu")))

    def _check_sample(self, manifest: dict) -> None:
        """Compare a sample of the images with their hashes.

        Raises:
            ValueError: An image has changed. The error names the first one.
        """
        for image_id, sha256 in manifest.get("sample", ()):
            if hashlib.sha256(self.stored(image_id)).hexdigest() != sha256:
                raise ValueError(
                    f"{data_file(self.path, self.encoded)}: image {image_id} is not the one that "
                    f"was packed; see all that changed with: lord-fast pack --verify {self.path}"
                )

    def stored(self, image_id: int) -> bytes:
        """Return the bytes of an image in the data file, which are its pixels or its file."""
        if self.encoded:
            return self._data[self._offsets[image_id] : self._offsets[image_id + 1]].tobytes()
        return self._data[image_id].tobytes()

    def _spans(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return where images begin and end in the data file."""
        if self.encoded:
            return self._offsets[ids], self._offsets[ids + 1]
        size = self.size**2 * self.channels
        return ids * size, (ids + 1) * size

    @property
    def pixels(self) -> Tensor:
        """All images, uint8 [num_images, size, size, channels], memory-mapped. Do not write to it.

        Raises:
            ValueError: The store is encoded and holds no pixels.
        """
        if self.encoded:
            raise ValueError(f"{self.path}: an encoded store; pack one without --encoded for this")
        return torch.from_numpy(self._data)

    def decode_with(self, name: DecoderName, device: str = "cpu", threads: int = 0) -> None:
        """Choose the decoder of an encoded store. On a decoded store this does nothing.

        Args:
            name: dali, pillow or auto. auto selects the decoder that packed the store, which gives
                the same pixels as a decoded store. It selects Pillow if DALI does not work.
            device: cpu, or cuda to decode on the GPU.
            threads: Number of threads that decode. 0 means one for each core.

        Raises:
            ValueError: DALI is requested but does not work.
        """
        if self.encoded:
            if name == "auto" and self._packed_by == "pillow":
                name = "pillow"
            threads = threads or cpu_count()
            self._decoder = open_decoder(name, self._shape, threads, device)

    def place(self, where: Place, device: torch.device) -> None:
        """Move the images to the memory from which training reads them.

        An encoded store stays on disk.

        Args:
            where: See `lord_fast.config.MachineConfig.store_device`.
            device: Device of the training steps.

        Raises:
            ValueError: The images do not fit there, or the device has no such memory.
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
                f"every read; use --store-device disk, or pack without --encoded"
            )
        free = free_memory(device if where == "cuda" else torch.device("cpu"))
        if self._data.nbytes > free:
            raise ValueError(
                f"--store-device {where}: the images take {self._data.nbytes / 2**30:.1f} GiB and "
                f"{free / 2**30:.1f} GiB are free; use --store-device auto"
            )

    def describe(self) -> dict[str, Any]:
        """Describe the store for a run's configuration."""
        return {
            "store": str(self.path.resolve()),
            "sha256": self.sha256,
            "num_images": self.num_images,
            "num_classes": self.num_classes,
            "size": self.size,
            "channels": self.channels,
            "crop": self.crop and list(self.crop),
        }

    def first_of_each_class(self, order: Tensor, most: int) -> Tensor:
        """Return the first image of each class in an order, for the first classes of the order.

        Args:
            order: All image ids, integers [num_images].
            most: Number of classes.

        Returns:
            Image ids in the same order, int64 [at most `most`].
        """
        found: dict[int, int] = {}
        for block in order.split(SCANNED):
            ids = block.numpy()
            classes = self.class_ids.numpy()[ids]
            for place in np.sort(np.unique(classes, return_index=True)[1]):
                found.setdefault(int(classes[place]), int(ids[place]))
            if len(found) >= min(most, self.num_classes):
                break
        return torch.tensor(list(found.values())[:most])

    def describe_decoder(self) -> str:
        """Describe the decoder of an encoded store. The result is empty for a decoded store."""
        if not self.encoded:
            return ""
        return ", ".join(self._open_decoder().describe().values())

    def images(self, image_ids: Tensor, pinned: bool = False) -> Tensor:
        """Read a batch of images.

        Args:
            image_ids: int64 [B].
            pinned: Read pixels directly into page-locked memory, from which a GPU copies them
                without waiting. Images that must be decoded ignore this.

        Returns:
            uint8 [B, channels, size, size], channels last in memory. It is on the GPU if the
            images are stored or decoded there.

        Raises:
            ValueError: An image of an encoded store cannot be decoded.
        """
        if self._resident is not None:
            return self._resident[image_ids.to(self._resident.device)].permute(0, 3, 1, 2)
        # Uses NumPy, because a PyTorch gather in the loader's thread would start a second pool.
        ids = image_ids.numpy()
        if self.placed == "pinned":
            return self._pixels(ids, pinned)
        with self._reads.of(*self._spans(ids)):
            if not self.encoded:
                return self._pixels(ids, pinned)
            files = [self.stored(i) for i in ids]
        try:
            return self._open_decoder().batch(files).permute(0, 3, 1, 2)
        except BadImageError as error:
            raise ValueError(
                f"{self.path}: an image does not decode ({error}); find it with lord-fast pack "
                f"--verify {self.path}"
            ) from error

    def _pixels(self, ids: np.ndarray, pinned: bool) -> Tensor:
        shape = (len(ids), *self._data.shape[1:])
        found = torch.empty(shape, dtype=torch.uint8, pin_memory=pinned)
        # NumPy would write to a second buffer first with any other mode.
        np.take(self._data, ids, 0, out=found.numpy(), mode="clip")
        return found.permute(0, 3, 1, 2)

    def _open_decoder(self) -> Decoder:
        if self._decoder is None:
            self.decode_with("auto")
        assert self._decoder is not None
        return self._decoder


def open_store(run: Path, data: dict[str, Any], moved_to: Path | None = None) -> ImageStore:
    """Open the store that a run was trained on.

    Args:
        run: The run's folder.
        data: The run's description of its store, see `ImageStore.describe`.
        moved_to: New path of the store. Defaults to its old path.

    Raises:
        ValueError: The store does not exist or holds other images.
    """
    if moved_to is None and not data["store"]:
        raise ValueError(
            f"{run}: has no store; import it with --store, or use the run that it was exported from"
        )
    path = moved_to or Path(data["store"])
    if moved_to is None and not path.exists():
        raise ValueError(
            f"{run}: its store {path} is gone; if it has moved, tell the run with: "
            f"lord-fast train NEW_PATH --run {run}"
        )
    store = ImageStore(path)
    if store.sha256 != data["sha256"]:
        raise ValueError(f"{path}: not the images that {run} was trained on")
    return store


def _tuple(values: list[int] | None):
    return None if values is None else tuple(values)


def read_image(store: ImageStore, image_id: int) -> Tensor:
    """Read one image, float32 [channels, size, size] in [0, 1]."""
    return as_float(store.images(torch.tensor([image_id])))[0]


def as_float(images: Tensor) -> Tensor:
    """Convert uint8 pixels to float32 in [0, 1] in the same shape and memory format."""
    return images.to(torch.float32) / 255
