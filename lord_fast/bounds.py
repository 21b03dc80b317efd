"""Bounds of option values, which are written in annotations and checked when a value is set."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, get_args, get_origin, get_type_hints


@dataclass(frozen=True)
class MoreThan:
    """The value must be greater than a limit."""

    limit: float

    def allows(self, value: float) -> bool:
        """Return whether a value is within the bound. NaN never is."""
        return value > self.limit

    def __str__(self) -> str:
        return f"more than {self.limit}" if self.limit else "positive"


@dataclass(frozen=True)
class AtLeast:
    """The value must be equal to a limit or greater."""

    limit: float

    def allows(self, value: float) -> bool:
        """Return whether a value is within the bound. NaN never is."""
        return value >= self.limit

    def __str__(self) -> str:
        return f"{self.limit} or more"


@dataclass(frozen=True)
class Below:
    """The value must be less than a limit."""

    limit: float

    def allows(self, value: float) -> bool:
        """Return whether a value is within the bound. NaN never is."""
        return value < self.limit

    def __str__(self) -> str:
        return f"less than {self.limit}"


@dataclass(frozen=True)
class PowerOfTwo:
    """The value must be 1, 2, 4, 8 and so on."""

    def allows(self, value: int) -> bool:
        """Return whether a value is within the bound."""
        return value > 0 and value & (value - 1) == 0

    def __str__(self) -> str:
        return "a power of two"


@dataclass(frozen=True)
class OneOf:
    """The value must be one of some names. A function returns the names when they are needed."""

    names: Callable[[], Sequence[str]]

    def allows(self, value: str) -> bool:
        """Return whether a value is one of the names."""
        return value in self.names()

    def __str__(self) -> str:
        return f"one of {', '.join(self.names())}"


@dataclass(frozen=True)
class Repeated:
    """A tuple whose flag is repeated for every value. It is no bound."""


Bound = MoreThan | AtLeast | Below | PowerOfTwo | OneOf


class Checked:
    """A base class for dataclasses of options that raises an error for values out of bounds.

    Write the bound in the annotation, such as `Annotated[int, MoreThan(0)]`. None is always
    allowed. Every value of a tuple is checked.
    """

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            ValueError: A value is out of bounds. The error names the flag and the bounds.
        """
        check(type(self), vars(self))


def check(kind: Any, values: Mapping[str, Any]) -> None:
    """Check the fields of a dataclass, or the arguments of a function.

    Args:
        kind: A dataclass or function with bounds in its annotations.
        values: Maps names to values.

    Raises:
        ValueError: A value is out of bounds. The error names the flag and the bounds.
    """
    for name, bounds in _bounds(kind).items():
        value = values.get(name)
        for item in value if isinstance(value, tuple) else (value,):
            if item is not None and not all(bound.allows(item) for bound in bounds):
                raise ValueError(f"{flag(name)} {item}: must be {' and '.join(map(str, bounds))}")


def is_crop(value: object) -> bool:
    """Return whether a value of a file is a crop, [width, height] or [width, height, left, top]."""
    return isinstance(value, list) and len(value) in (2, 4) and {type(n) for n in value} == {int}


def flag(name: str) -> str:
    """Return an option's name on the command line, such as `--batch-size`."""
    return "--" + name.replace("_", "-")


@functools.cache
def _bounds(kind: Any) -> dict[str, tuple[Bound, ...]]:
    hints = get_type_hints(kind, include_extras=True)
    return {name: found for name, hint in hints.items() if (found := tuple(_bounds_of(hint)))}


def _bounds_of(hint: Any) -> list[Bound]:
    if get_origin(hint) is Annotated:
        return [extra for extra in get_args(hint)[1:] if isinstance(extra, Bound)]
    return [bound for part in get_args(hint) for bound in _bounds_of(part)]
