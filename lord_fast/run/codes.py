"""The npz files of codes that `encode` and `fit` write."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from lord_fast.atomic import atomic_write

Stage = Literal["latent", "encoders"]
"""The stages of training, which are stage 1 (latent optimization) and stage 2 (the encoders)."""


def save_codes(
    out: Path, stage: Stage, files: Sequence[Path], content: np.ndarray, class_: np.ndarray
) -> None:
    """Write codes to an npz file with the arrays `names`, `content`, `class_` and `stage`.

    Args:
        out: The file to write. An existing file is replaced.
        stage: The stage whose decoder reads the codes. Pass it to `Lord.decode`.
        files: The image files. They become `names` [N].
        content: Content codes, float32 [N, content_dim].
        class_: Class codes, float32 [N, class_dim], or [1, class_dim] if all images share one.
    """
    names = np.array([file.as_posix() for file in files])
    atomic_write(
        out,
        lambda stream: np.savez(
            stream, names=names, content=content, class_=class_, stage=np.array(stage)
        ),
    )
