"""The layout of folders and archives, in which every image has the path CLASS/NAME."""

from collections.abc import Iterable
from pathlib import Path, PurePath

from lord_fast.data.sources.labels import image_extensions

JUNK = {"thumbs.db", "desktop.ini", "__macosx"}
"""Names in lower case of files and folders that systems add. They are ignored without a note."""
NEEDED = {
    ".heic": "pillow-heif (pip install 'lord-fast[heif]')",
    ".heif": "pillow-heif (pip install 'lord-fast[heif]')",
    ".avif": "a Pillow that was built with AVIF",
    ".webp": "a Pillow that was built with WebP",
}
"""Maps the extension of images that Pillow may not read to what is needed to read them."""
SHOWN = 5
"""Number of files that a note or an error names. The others are counted."""


class Others:
    """Collects the files of a source that are not packed, to say so in notes.

    Attributes:
        source: The folder or archive.
        no_images: Names of files that are no images.
        loose: Names of images that lie in no class folder.
        unreadable: Names of images that need a package which is missing.
    """

    def __init__(self, source: Path):
        self.source = source
        self.no_images: list[str] = []
        self.loose: list[str] = []
        self.unreadable: list[str] = []

    def add(self, path: PurePath) -> None:
        """Add a file by its path in the source, unless it is hidden or made by the system."""
        if is_junk(path):
            return
        name, ending = path.as_posix(), path.suffix.lower()
        if ending in image_extensions():
            self.loose.append(name)
        elif ending in NEEDED:
            self.unreadable.append(name)
        else:
            self.no_images.append(name)

    def check(self) -> None:
        """Check that no image needs a package that is missing.

        Raises:
            ValueError: There are such images. The error says what to install.
        """
        if self.unreadable:
            need = NEEDED[PurePath(self.unreadable[0]).suffix.lower()]
            raise ValueError(
                f"{self.source}: {counted(self.unreadable)} cannot be read; install {need}, or "
                f"convert them to JPEG"
            )

    def notes(self) -> list[str]:
        """Return a line for each kind of files that is not packed."""
        found = []
        if self.no_images:
            found.append(f"not packed, no images: {counted(self.no_images)}")
        if self.loose:
            found.append(f"not packed, in no class folder: {counted(self.loose)}")
        return found

    def nothing(self) -> ValueError:
        """Return the error for a source without images in class folders."""
        name = self.source.name.split(".")[0]
        if self.loose:
            return ValueError(
                f"{self.source}: {counted(self.loose)} in no class folder; make one folder for "
                f"each class and move the images into them, as {name}/CLASS/NAME.jpg"
            )
        more = f", but {counted(self.no_images)}" if self.no_images else ""
        return ValueError(
            f"{self.source}: no images{more}; lay them out as {name}/CLASS/NAME.jpg, with one "
            f"folder for each class"
        )


def is_junk(path: PurePath) -> bool:
    """Return whether a file or folder is hidden, or made by the system."""
    return any(
        (part.startswith(".") and part not in (".", "..")) or part.lower() in JUNK
        for part in path.parts
    )


def counted(names: Iterable[str]) -> str:
    """Return the number of names and the first of them."""
    names = list(names)
    some = ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
    return f"{len(names)} file{'s' if len(names) > 1 else ''} ({some})"


def check_matched(source: Path, unmatched: list[str], max_bad: int, pattern: str | None) -> None:
    """Check that few enough names do not match --content-pattern.

    Args:
        source: The folder or archive.
        unmatched: Names of the images that do not match.
        max_bad: Number of images that may be left out.
        pattern: The pattern.

    Raises:
        ValueError: There are more. The error counts them and names the first ones.
    """
    if len(unmatched) > max_bad:
        raise ValueError(
            f"--content-pattern {pattern}: does not match {counted(unmatched)} of {source}; "
            f"correct it, or leave these out with --max-bad {len(unmatched)}"
        )


def nested(source: Path, image: PurePath) -> ValueError:
    """Return the error for an image at another path, whose class would be ambiguous.

    Args:
        source: The folder or archive.
        image: Path of the image in it.
    """
    flat = "_".join(image.parent.parts) + "/" + image.name
    return ValueError(
        f"{source}: {image} does not lie at CLASS/NAME; the folder of an image is its class, so "
        f"put all class folders into one folder (with this image at {flat}, for example), or give "
        f"the folder that holds the class folders"
    )
