"""Parses a command line into the arguments of a verb with tyro."""

import dataclasses
import inspect
from collections.abc import Callable, Iterable, Sequence
from types import ModuleType, NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import docstring_parser
import tyro
from tyro.conf import (
    OmitArgPrefixes,
    Positional,
    PositionalMetavarFromFieldName,
    UseAppendAction,
    arg,
)
from tyro.constructors import ConstructorRegistry, StructConstructorSpec, StructFieldSpec

from lord_fast.bounds import Checked, OneOf, Repeated, check
from lord_fast.console import err
from lord_fast.run.history import Command

POSITIONAL = get_args(Positional[int])[1]
Step = tuple[ModuleType, Sequence[object]]
"""A verb and its command line, such as ("report", run)."""
MARKERS = (OmitArgPrefixes, PositionalMetavarFromFieldName)


class _RefusedError(Exception):
    """Carries a ValueError of a configuration through tyro, which would print it in a box."""


def call(verb: ModuleType, arguments: Sequence[str]) -> None:
    """Parse a verb's command line and run the verb.

    Args:
        verb: A module of `lord_fast.commands` with a function of the same name. It may also have
            `defaults(arguments)`, which returns other defaults of parameters, and `notes()`, which
            returns text for the end of the help.
        arguments: The words after the verb on the command line.

    Raises:
        ValueError: An option is out of bounds, or the verb raised the error.
        SystemExit: tyro printed help or an error.
    """
    name = verb.__name__.rpartition(".")[2]
    function = getattr(verb, name)
    defaults = verb.defaults(arguments) if hasattr(verb, "defaults") else {}
    notes = verb.notes() if hasattr(verb, "notes") else ""
    values, _ = read(function, arguments, defaults, notes)
    if "command" in inspect.signature(function).parameters:
        values["command"] = Command((name.replace("_", "-"), *arguments))
    function(**values)


def call_in_turn(steps: Iterable[Step]) -> None:
    """Print and run several command lines.

    Raises:
        ValueError: A verb raised the error, see `call`.
        SystemExit: tyro printed an error.
    """
    for verb, arguments in steps:
        words = tuple(map(str, arguments))
        err.print(f"\n$ {Command(words)}")
        call(verb, words[1:])


def read(
    function: Callable[..., None],
    arguments: Sequence[str],
    defaults: dict[str, Any] | None = None,
    notes: str = "",
    partly: bool = False,
) -> tuple[dict[str, Any], list[str]]:
    """Parse a command line into the arguments of a function.

    Args:
        function: The function. Its parameters become flags, and so do the fields of parameters
            that are configurations. A parameter called `command` is skipped.
        arguments: The words after the verb on the command line.
        defaults: Defaults of parameters that replace those of the function.
        notes: Text that the help shows below the examples.
        partly: Whether to ignore flags that the function does not have, including -h.

    Returns:
        The values by name, and the ignored words.

    Raises:
        ValueError: An option is out of bounds.
        SystemExit: tyro printed help or an error.
    """
    verb = function.__name__.replace("_", "-")
    registry = ConstructorRegistry()

    @registry.struct_rule
    def rule(info: Any) -> StructConstructorSpec | None:
        if info.type is function:
            return _of_function(function, defaults or {})
        if isinstance(info.type, type) and issubclass(info.type, Checked):
            return _of_config(info.type, info.default)
        return None

    try:
        found: Any = tyro.cli(
            function, prog=f"lord-fast {verb}", args=list(arguments), registry=registry,
            config=MARKERS, description=describe(function) + notes, return_unknown_args=partly,
            add_help=not partly,
        )  # type: ignore[call-overload]  # fmt: skip
    except _RefusedError as error:
        raise ValueError(str(error)) from error
    return found if partly else (found, [])


def describe(function: Callable[..., None]) -> str:
    """Return the description and the examples from a function's docstring."""
    parsed = docstring_parser.parse(function.__doc__ or "")
    blocks = [one_line(parsed.short_description), *(parsed.long_description or "").split("\n\n")]
    text = "\n\n".join(one_line(block) for block in blocks if block)
    for example in parsed.examples:
        lines = (example.description or "").splitlines()
        text += "\n\nExamples:\n" + "\n".join(f"  {line.strip()}" for line in lines)
    return text


def one_line(text: str | None) -> str:
    """Join the lines of a paragraph."""
    return " ".join((text or "").split())


def _of_function(function: Callable[..., None], defaults: dict[str, Any]) -> StructConstructorSpec:
    hints = get_type_hints(function, include_extras=True)
    fields = []
    for name, parameter in inspect.signature(function).parameters.items():
        if name == "command":
            continue
        default = defaults.get(name, parameter.default)
        if default is inspect.Parameter.empty:
            default = tyro.MISSING
        fields.append(_field(name, hints[name], default, _documented(function)))

    def instantiate(**values: Any) -> dict[str, Any]:
        _checked(check, function, values)
        return values

    return StructConstructorSpec(instantiate, tuple(fields))


def _of_config(kind: type[Checked], instance: Any) -> StructConstructorSpec:
    """Specify a configuration. Its own options come first, then its groups, inherited ones last."""
    hints = get_type_hints(kind, include_extras=True)
    documented: dict[str, str] = {}
    for base in reversed(kind.__mro__[:-1]):
        documented |= _documented(base)
    default = instance if isinstance(instance, kind) else kind()
    own = inspect.get_annotations(kind)

    def order(name: str) -> tuple[bool, bool]:
        return isinstance(getattr(default, name), Checked), name not in own

    names = sorted((field.name for field in dataclasses.fields(kind)), key=order)  # type: ignore[arg-type]
    fields = tuple(_field(name, hints[name], getattr(default, name), documented) for name in names)
    return StructConstructorSpec(lambda **values: _checked(kind, **values), fields)


def _field(name: str, hint: Any, default: Any, documented: dict[str, str]) -> StructFieldSpec:
    kind, extras = (hint, ()) if get_origin(hint) is not Annotated else _split(hint)
    choices = [extra for extra in extras if isinstance(extra, OneOf)]
    if choices:
        hint = Annotated[(Literal[tuple(choices[0].names())], *extras)]
    if any(isinstance(extra, Repeated) for extra in extras):
        hint = Annotated[hint, UseAppendAction]
    shown = None if POSITIONAL in extras else _metavar(kind)
    if shown is not None:
        hint = Annotated[hint, arg(metavar=shown)]
    if default is None or default == ():
        hint = Annotated[hint, arg(help_behavior_hint="")]
    # The help of a group is the docstring of the group's class.
    helptext = default.__doc__ if isinstance(default, Checked) else documented.get(name)
    return StructFieldSpec(name, hint, default, helptext)


def _split(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    kind, *extras = get_args(hint)
    return kind, tuple(extras)


def _metavar(kind: Any) -> str | None:
    """Return the placeholder for an optional value. None means that tyro's placeholder is used."""
    if get_origin(kind) not in (Union, UnionType) or NoneType not in get_args(kind):
        return None
    inner = next(part for part in get_args(kind) if part is not NoneType)
    if get_origin(inner) is Annotated:
        inner = get_args(inner)[0]
    if get_origin(inner) is Literal:
        return "{" + ",".join(map(str, get_args(inner))) + "}"
    return inner.__name__.upper()


def _documented(documented: Any) -> dict[str, str]:
    """Return the description of each option from the docstrings of a function or of fields."""
    found = docstring_parser.parse_from_object(documented).params
    return {each.arg_name: one_line(each.description) for each in found if each.description}


def _checked(make: Callable[..., Any], *arguments: Any, **values: Any) -> Any:
    try:
        return make(*arguments, **values)
    except ValueError as error:
        raise _RefusedError(str(error)) from error
