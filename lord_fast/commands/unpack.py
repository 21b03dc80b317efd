"""lord-fast unpack."""

from pathlib import Path

from tyro.conf import Positional

from lord_fast.console import err, progress_bar
from lord_fast.errors import naming


def unpack(store: Positional[Path], folder: Positional[Path]) -> None:
    """Write the images of a store as files FOLDER/CLASS/NAME.

    Examples:
        lord-fast unpack runs/photos-store photos-64px

    Args:
        store: A packed store.
        folder: The folder to create. pack reads it with the same classes.
    """
    from lord_fast.data.unpack import unpack as unpack_store

    with naming(folder), progress_bar("unpack") as progress:
        count = unpack_store(store, folder, progress)
    err.print(f"{folder}: {count} images")
