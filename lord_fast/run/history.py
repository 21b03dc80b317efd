"""The commands that made a run or a store: history.jsonl in its folder."""

import datetime
import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lord_fast import __version__

FILE = "history.jsonl"


@dataclass(frozen=True)
class Command:
    """A command line of lord-fast.

    Attributes:
        arguments: What followed `lord-fast`.
    """

    arguments: tuple[str, ...]

    def record(self, folder: Path) -> None:
        """Append it to the history of a run or a store, see `record_command`."""
        record_command(folder, self.arguments)

    def __str__(self) -> str:
        """As one types it in a shell."""
        return shlex.join(("lord-fast", *self.arguments))


def record_command(folder: Path, arguments: Sequence[str]) -> None:
    """Append a command line of lord-fast, the version and the time to a folder's history.

    Args:
        folder: A run or a store.
        arguments: What followed `lord-fast` on the command line.
    """
    row = {
        "command": str(Command(tuple(arguments))),
        "version": __version__,
        "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }
    with (folder / FILE).open("a") as stream:
        stream.write(json.dumps(row) + "\n")


def copy_history(source: Path, folder: Path) -> None:
    """Give a folder the history of the one that it was made from, if that has one."""
    if (source / FILE).is_file():
        with (folder / FILE).open("a") as stream:
            stream.write((source / FILE).read_text(errors="replace"))


def read_history(folder: Path) -> list[str]:
    """The command lines that were recorded, oldest first; those that are not whole are left out."""
    file = folder / FILE
    if not file.is_file():
        return []
    commands = []
    for line in file.read_text(errors="replace").splitlines():
        try:
            commands.append(str(json.loads(line)["command"]))
        except (json.JSONDecodeError, KeyError, TypeError):
            continue
    return commands
