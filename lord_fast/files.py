"""Image files for a trained model, and the files of codes that it writes."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lord_fast.data.decode import BadImageError, decode
from lord_fast.lord import Lord

SHOWN = 5
"""Broken images named in an error; the rest are counted."""


def list_images(paths: Sequence[Path]) -> list[Path]:
    """Image files: those named, and all below the folders named, sorted.

    Raises:
        ValueError: a path does not exist, or a folder holds no images.
    """
    if not paths:
        raise ValueError("name images, or folders of images")
    extensions = set(Image.registered_extensions())
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


def read_images(files: Sequence[Path], lord: Lord) -> Tensor:
    """Files as a model takes them: resized and cropped as `lord-fast pack` does.

    Returns:
        float32 [N, channels, size, size] in [0, 1].

    Raises:
        ValueError: files that are no images; all are looked at.
    """
    size, channels = lord.data["size"], lord.data["channels"]
    pixels, bad = [], []
    for file in files:
        try:
            pixels.append(decode(file, size, channels))
        except BadImageError as error:
            bad.append(f"{file}: {error}")
    if bad:
        more = f" (and {len(bad) - SHOWN} more)" if len(bad) > SHOWN else ""
        raise ValueError("; ".join(bad[:SHOWN]) + more)
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 255


def save_codes(
    out: Path, lord: Lord, files: Sequence[Path], content: Tensor, class_: Tensor
) -> None:
    """Write an npz file: `names` [N], `content` [N, content_dim], `class_` [N or 1, class_dim].

    `codes` says which decoder they go with: `Lord.load(run, codes=...)`.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(out.name + ".partial")
    with partial.open("wb") as stream:
        np.savez(
            stream,
            names=np.array([file.as_posix() for file in files]),
            content=content.cpu().numpy(),
            class_=class_.cpu().numpy(),
            codes=np.array(lord.codes),
        )
    partial.replace(out)
