"""The npz files of codes that `encode`, `fit` and others write and `decode` reads."""

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from lord_fast.atomic import atomic_write

Stage = Literal["latent", "encoders"]
"""The stages of training, which are stage 1 (latent optimization) and stage 2 (the encoders)."""
ARRAYS = ("names", "content", "class_", "stage")


@dataclass(frozen=True)
class Codes:
    """Codes of images.

    Attributes:
        stage: The stage whose decoder reads the codes. Pass it to `Lord.decode`.
        names: Name of each image, [N].
        content: Content codes, float32 [N, content_dim].
        class_: Class codes, float32 [N, class_dim], or [1, class_dim] if all images share one.
    """

    stage: Stage
    names: list[str]
    content: np.ndarray
    class_: np.ndarray

    def save(self, out: Path) -> None:
        """Write an npz file with the arrays names, content, class_ and stage. It is replaced."""
        atomic_write(
            out,
            lambda stream: np.savez(
                stream, names=np.array(self.names), content=self.content, class_=self.class_,
                stage=np.array(self.stage),
            ),
        )  # fmt: skip


def file_names(files: Sequence[Path]) -> list[str]:
    """Return the names of images in a file of codes, which are their paths."""
    return [file.as_posix() for file in files]


def load_codes(file: Path) -> Codes:
    """Read a file that `Codes.save` wrote.

    Raises:
        ValueError: The file is missing, is no npz file or lacks an array.
    """
    try:
        with np.load(file, allow_pickle=False) as arrays:
            names, content, class_, stage = (arrays[name] for name in ARRAYS)
    except KeyError as error:
        raise ValueError(
            f"{file}: not codes of lord-fast encode or fit ({error}); a file of codes holds the "
            f"arrays {', '.join(ARRAYS)}"
        ) from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, TypeError) as error:
        raise ValueError(f"{file}: not an npz file of codes ({error})") from error
    fits = content.ndim == class_.ndim == 2 and len(names) == len(content) > 0
    if not fits or len(class_) not in (1, len(content)) or str(stage) not in ("latent", "encoders"):
        raise ValueError(f"{file}: its arrays do not fit together; write it again")
    codes = content.astype(np.float32), class_.astype(np.float32)
    return Codes("latent" if str(stage) == "latent" else "encoders", names.tolist(), *codes)
