"""The registry of the formats that `pack` reads. Modules of `lord_fast.data.sources` fill it."""

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
"""The package whose modules register formats. It is imported late, because its modules import this
one."""
_FORMATS: dict[str, "Format"] = {}


@dataclass(frozen=True)
class Format:
    """A format of images.

    Attributes:
        name: Its value of --format.
        about: A line about the format for `lord-fast pack --help`.
        opener: Takes (path, config), or (path, config, options) if the format has options, and
            returns the source.
        options: Class of the format's own options, which all have defaults, or None.
        has_path: Whether SOURCE is a path.
        names_are_paths: Whether the name of a record is the path of its file relative to SOURCE.
        signs: Patterns of files in SOURCE by which a folder of this format is recognized.
    """

    name: str
    about: str
    opener: Callable[..., "Source"]
    options: type[Checked] | None = None
    has_path: bool = True
    names_are_paths: bool = False
    signs: tuple[str, ...] = ()

    def open(self, path: Path, config: Any, *options: Checked) -> "Source":
        """Open the source at a path.

        Args:
            path: The folder or file.
            config: A `lord_fast.data.options.PackConfig`.
            options: Options of any formats. Those of other formats are ignored, and missing ones
                get their defaults.
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
    signs: tuple[str, ...] = (),
) -> Callable[[Callable[..., "Source"]], Callable[..., "Source"]]:
    """Register the decorated function as the opener of a format. See `Format` for the arguments."""

    def decorate(opener: Callable[..., "Source"]) -> Callable[..., "Source"]:
        _FORMATS[name] = Format(name, about, opener, options, has_path, names_are_paths, signs)
        return opener

    return decorate


@functools.cache
def formats() -> dict[str, Format]:
    """Import all modules of `lord_fast.data.sources` and return the formats by name."""
    sources = importlib.import_module(SOURCES)
    for module in pkgutil.iter_modules(sources.__path__):
        importlib.import_module(f"{sources.__name__}.{module.name}")
    return dict(sorted(_FORMATS.items()))


def format_names() -> tuple[str, ...]:
    """Return the values of --format."""
    return ("auto", *formats())
