"""Where images come from: one module for each data set, with its options and its registration.

A new module here is found by `lord_fast.data.formats`. It registers a function that opens its
`Source` of records.
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
    """The source that `lord-fast pack SOURCE` names.

    Args:
        source: A path, or the word glyphs.
        config: Its format, and the options that formats share.
        options: Options of single formats, such as `GlyphOptions`; those of other formats are
            passed over.

    Raises:
        ValueError: it does not exist, is of another format or holds no images.
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
        return "folder"
    if path.suffix == ".npz":
        return "npz"
    if is_archive(path) or not path.exists():
        return "archive"
    raise ValueError(f"{path}: neither a folder, an archive nor an .npz file; see --format")
