"""The table of verbs and the entry point of the command line."""

import difflib
import os
import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress
from types import ModuleType

from lord_fast import __version__, parser
from lord_fast.commands import (
    bench,
    decode,
    demo,
    doctor,
    encode,
    evaluate,
    export,
    fit,
    import_lord,
    interpolate,
    pack,
    push,
    report,
    run,
    sample,
    score,
    seeds,
    split,
    train,
    train_encoders,
    translate,
    ui,
    unpack,
)
from lord_fast.console import err, out
from lord_fast.errors import TRACEBACK, Interrupted, explain
from lord_fast.launch import check_launch, leave, this_launch

GROUPS: dict[str, tuple[ModuleType, ...]] = {
    "start": (run, demo),
    "data": (pack, split, unpack),
    "train": (train, train_encoders, seeds),
    "use": (evaluate, score, encode, translate, fit, sample, interpolate, decode, ui),
    "share": (export, push, import_lord, report),
    "machine": (bench, doctor),
}
VERBS: dict[str, ModuleType] = {
    module.__name__.rpartition(".")[2].replace("_", "-"): module
    for group in GROUPS.values()
    for module in group
}
IN_PROCESSES = ("train", "train-encoders")
"""Verbs that can run in several processes of torchrun."""
CLOSED_PIPE = 141
"""Exit code that shells report when a closed pipe ends a program."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb.

    Args:
        arguments: The words after the program's name. Defaults to those of the process.

    Returns:
        The exit code. 0 means success, 1 an unexpected error, 2 wrong usage or bad input, 141 a
        closed pipe, and 128 plus the number of a signal that ended the verb (130 Ctrl-C, 143
        SIGTERM, 129 SIGHUP, 138 SIGUSR1).

    Raises:
        SystemExit: tyro printed the help of a verb or an error about its flags.
    """
    try:
        try:
            code = _run(list(sys.argv[1:] if arguments is None else arguments))
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        _close_pipes()
        code = CLOSED_PIPE
    return leave(code)


def _run(arguments: list[str]) -> int:
    warnings.formatwarning = _one_line
    if arguments[:1] == ["help"]:
        arguments = [*arguments[1:2], "--help"]
    verb, *rest = arguments or [""]
    if verb in ("-h", "--help"):
        out.print(_overview(), soft_wrap=True)
    elif verb == "--version":
        out.print(f"lord-fast {__version__}")
    elif verb in VERBS:
        return _call(verb, rest)
    else:
        near = difflib.get_close_matches(verb, VERBS, n=1)
        hint = f"; did you mean {near[0]}?" if near else f"\n\n{_overview()}"
        err.print(f"lord-fast: no command {verb!r}{hint}" if verb else _overview())
        return 2
    return 0


def _call(verb: str, arguments: list[str]) -> int:
    launch = this_launch()
    out.quiet = err.quiet = launch.rank > 0
    try:
        check_launch(launch, verb, IN_PROCESSES)
        parser.call(VERBS[verb], arguments)
    except BrokenPipeError:
        raise
    except (Exception, KeyboardInterrupt) as error:
        if os.environ.get(TRACEBACK):
            raise
        code, line = explain(error, verb)
        if line:
            # torchrun ends the other processes as soon as one has failed, so each says why it
            # fails. An interrupt reaches all, and the first process speaks for them.
            err.quiet = launch.rank > 0 and isinstance(error, Interrupted)
            err.print(f"lord-fast {verb}: {line}")
        return code
    return 0


def _overview() -> str:
    lines = ["usage: lord-fast COMMAND ...", "       lord-fast help COMMAND"]
    names = {id(module): name for name, module in VERBS.items()}
    for title, modules in GROUPS.items():
        lines += ["", title]
        for module in modules:
            name = names[id(module)]
            summary = parser.describe(getattr(module, name.replace("-", "_"))).splitlines()[0]
            lines.append(f"  {name:<16}{summary}")
    return "\n".join(lines)


def _one_line(message: Warning | str, *where: object, **more: object) -> str:
    """A warning without the source line that Python adds."""
    return f"warning: {message}\n"


def _close_pipes() -> None:
    """Discard remaining output, which would make Python print an error at exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            os.dup2(nowhere, stream.fileno())
