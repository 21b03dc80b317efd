"""The sources of images. Each module reads one format and defines the format's options.

`lord_fast.data.formats` imports all modules of this package. Each one registers a function that
opens a `Source` of records.
"""

from pathlib import Path

from lord_fast.bounds import Checked
from lord_fast.data.formats import formats
from lord_fast.data.options import PackConfig
from lord_fast.data.records import Source
from lord_fast.data.sources.archive import Archive, is_archive
from lord_fast.data.sources.folder import Folder
from lord_fast.data.sources.npz import NpzFile

__all__ = ["Archive", "Folder", "NpzFile", "open_source"]


def open_source(source: str, config: PackConfig, *options: Checked) -> Source:
    """Open the source for a value of SOURCE in `lord-fast pack SOURCE`.

    Args:
        source: A path, or the word glyphs.
        config: The format, and the options that all formats share.
        options: Options of single formats, such as `GlyphOptions`. Those of other formats are
            ignored.

    Raises:
        ValueError: The source does not exist, has another format or holds no images.
    """
    path = Path(source)
    name = config.format if config.format != "auto" else _format(path)
    form = formats()[name]
    if form.has_path and not path.exists():
        raise ValueError(f"{path}: no such folder or file")
    return form.open(path, config, *options)


def _format(path: Path) -> str:
    if str(path) == "glyphs":
        return "glyphs"
    if path.is_dir():
        _refuse_published(path)
        return "folder"
    if path.suffix == ".npz":
        return "npz"
    if is_archive(path) or not path.exists():
        return "archive"
    raise ValueError(f"{path}: neither a folder, an archive nor an .npz file; see --format")


def _refuse_published(path: Path) -> None:
    """Check that a folder does not look like a published data set, which has its own format.

    Raises:
        ValueError: It does. The error names the format.
    """
    for form in formats().values():
        for sign in form.signs:
            found = next(path.glob(sign), None)
            if found is not None:
                raise ValueError(
                    f"{path}: looks like {form.about}, because it holds {found.relative_to(path)}; "
                    f"use --format {form.name}, or --format folder for a folder of class folders"
                )
