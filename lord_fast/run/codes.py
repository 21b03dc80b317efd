"""The files of codes that `encode` and `fit` write: npz, for other programs and other verbs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from lord_fast.atomic import atomic_write

Stage = Literal["latent", "encoders"]
"""Whose decoder codes go with: stage 1 (latent optimization) or stage 2 (the encoders)."""


def save_codes(
    out: Path, stage: Stage, files: Sequence[Path], content: np.ndarray, class_: np.ndarray
) -> None:
    """Write `names` [N], `content` [N, content_dim], `class_` [N or 1, class_dim] and `stage`.

    Args:
        out: Replaced if it exists.
        stage: Says which decoder they go with: `Lord.decode(content, class_, stage=...)`.
        files: The images, [N].
        content: float32 [N, content_dim].
        class_: float32 [N, class_dim], or [1, class_dim] for one class.
    """
    names = np.array([file.as_posix() for file in files])
    atomic_write(
        out,
        lambda stream: np.savez(
            stream, names=names, content=content, class_=class_, stage=np.array(stage)
        ),
    )
