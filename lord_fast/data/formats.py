"""The formats that `pack` reads: each module of `lord_fast.data.sources` registers its own."""

import functools
import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lord_fast.bounds import Checked

if TYPE_CHECKING:
    from lord_fast.data.records import Source

SOURCES = "lord_fast.data.sources"
"""The package that is searched. It is not imported before it is asked for, since its modules
import this one."""
_FORMATS: dict[str, "Format"] = {}


@dataclass(frozen=True)
class Format:
    """A format of images.

    Attributes:
        name: What --format calls it.
        about: One line about it, for `lord-fast pack --help`.
        opener: (path, config) -> its source, or (path, config, options) if it has options.
        options: Its own options, all with defaults; None: it has none.
        has_path: Whether SOURCE is a path.
        names_are_paths: Whether a record's name is its file's path below SOURCE.
    """

    name: str
    about: str
    opener: Callable[..., "Source"]
    options: type[Checked] | None = None
    has_path: bool = True
    names_are_paths: bool = False

    def open(self, path: Path, config: Any, *options: Checked) -> "Source":
        """The source at a path.

        Args:
            path: The folder or file.
            config: A `lord_fast.data.options.PackConfig`.
            options: Of any formats; those of this one are taken, or else its defaults.
        """
        if self.options is None:
            return self.opener(path, config)
        mine = [each for each in options if type(each) is self.options]
        return self.opener(path, config, mine[0] if mine else self.options())


def register(
    name: str,
    about: str,
    options: type[Checked] | None = None,
    has_path: bool = True,
    names_are_paths: bool = False,
) -> Callable[[Callable[..., "Source"]], Callable[..., "Source"]]:
    """Register the function below as the opener of a format; see `Format` for the arguments."""

    def decorate(opener: Callable[..., "Source"]) -> Callable[..., "Source"]:
        _FORMATS[name] = Format(name, about, opener, options, has_path, names_are_paths)
        return opener

    return decorate


@functools.cache
def formats() -> dict[str, Format]:
    """Every format by its name; all modules of `lord_fast.data.sources` are imported."""
    sources = importlib.import_module(SOURCES)
    for module in pkgutil.iter_modules(sources.__path__):
        importlib.import_module(f"{sources.__name__}.{module.name}")
    return dict(sorted(_FORMATS.items()))


def format_names() -> tuple[str, ...]:
    """What --format takes."""
    return ("auto", *formats())
