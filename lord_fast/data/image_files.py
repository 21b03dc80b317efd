"""Reads image files that a user names, and crops and scales them like the images of a store."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lord_fast.data.decode import BadImageError, PillowDecoder, Shape, crop_flag, read_file
from lord_fast.data.sources.labels import image_extensions
from lord_fast.data.store import as_float
from lord_fast.system import INFERENCE_BATCH

SHOWN = 5
"""Number of broken images that an error names. The others are counted."""


def list_images(paths: Sequence[Path]) -> list[Path]:
    """List image files, including those inside the given folders.

    Raises:
        ValueError: A path does not exist, or a folder contains no images.
    """
    if not paths:
        raise ValueError("name images, or folders of images")
    extensions = image_extensions()
    found: list[Path] = []
    for path in paths:
        if not path.exists():
            raise ValueError(f"{path}: no such file or folder")
        if not path.is_dir():
            found.append(path)
            continue
        inside = [
            file
            for file in sorted(path.rglob("*"))
            if file.suffix.lower() in extensions and not file.name.startswith(".")
        ]
        if not inside:
            raise ValueError(f"{path}: no images in it")
        found += inside
    return found


def read_batches(files: Sequence[Path], shape: Shape) -> Iterator[Tensor]:
    """Read files in batches, cropped and scaled as by `lord-fast pack`.

    Args:
        files: The image files.
        shape: Size, channels and crop of the images.

    Returns:
        Batches float32 [B, channels, size, size] in [0, 1] in the order of the files, with B up to
        256.

    Raises:
        ValueError: Files are not images or are smaller than the crop. It is raised after all files
            were read and names several of them.
    """
    decoder, bad = PillowDecoder(shape), []
    for start in range(0, len(files), INFERENCE_BATCH):
        pixels = []
        for file in files[start : start + INFERENCE_BATCH]:
            try:
                pixels.append(_decode(file, decoder))
            except BadImageError as error:
                bad.append(f"{file}: {error}")
        if not bad:
            yield as_float(torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2))
    if bad:
        more = f" (and {len(bad) - SHOWN} more)" if len(bad) > SHOWN else ""
        cut = f"; this run's images were cropped to {crop_flag(shape.crop)}" if shape.crop else ""
        raise ValueError("; ".join(bad[:SHOWN]) + more + cut)


def read_images(files: Sequence[Path], shape: Shape) -> Tensor:
    """Read files as one batch, float32 [N, channels, size, size] in [0, 1]. See `read_batches`."""
    return torch.cat(list(read_batches(files, shape)))


def _decode(file: Path, decoder: PillowDecoder) -> np.ndarray:
    [pixels] = decoder.decode([read_file(file)])
    if isinstance(pixels, BadImageError):
        raise pixels
    return pixels
