"""The layout of folders and archives, in which every image has the path CLASS/NAME."""

from pathlib import Path, PurePath


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
