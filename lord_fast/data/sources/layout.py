"""Images lie at CLASS/NAME in a folder or an archive, all class folders side by side."""

from pathlib import Path, PurePath


def nested(source: Path, image: PurePath) -> ValueError:
    """The error about an image that lies elsewhere: its class would be ambiguous.

    Args:
        source: The folder or archive.
        image: Where the image lies in it.
    """
    flat = "_".join(image.parent.parts) + "/" + image.name
    return ValueError(
        f"{source}: {image} does not lie at CLASS/NAME; the class is the folder that an image lies "
        f"in, so put all class folders side by side, this image at {flat} for example, or give the "
        f"folder that holds the class folders"
    )
