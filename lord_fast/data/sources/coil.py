"""COIL-20 and COIL-100 show objects on a turntable (Nene, Nayar and Murase, 1996)."""

import re
from pathlib import Path

from lord_fast.data.formats import register
from lord_fast.data.options import PackConfig
from lord_fast.data.records import Source
from lord_fast.data.sources.labels import Labels, image_extensions
from lord_fast.data.sources.named import NamedFiles, groups

COIL = re.compile(r"obj(?P<object>\d+)__(?P<angle>\d+)$")


class Coil(NamedFiles):
    """The images of COIL, such as `obj3__45.png`. The class is the object.

    The content is the number or the degrees of the angle, as in the name.

    Args:
        path: A folder that holds the images at any depth.

    Raises:
        ValueError: There are no such images.
    """

    def __init__(self, path: Path):
        extensions = image_extensions()
        files = [
            file
            for file in sorted(path.rglob("obj*__*"))
            if file.suffix.lower() in extensions and COIL.match(file.stem)
        ]
        if not files:
            raise ValueError(f"{path}: no obj1__0.png or similar names")
        super().__init__("coil", path, files, Labels(("object",), ("angle",)))

    def labels_of(self, file: Path) -> dict[str, str]:
        """See `NamedFiles`."""
        return groups(COIL.match(file.stem))


@register("coil", "COIL-20 or COIL-100 (obj1__0.png)", names_are_paths=True, signs=("obj*__*.png",))
def open_coil(path: Path, config: PackConfig) -> Source:
    """Open the source at a path."""
    return Coil(path)
