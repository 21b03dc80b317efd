"""Records the commands that created a run or a store in history.jsonl in its folder."""

import datetime
import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lord_fast import __version__
from lord_fast.seal import seal, unseal

FILE = "history.jsonl"


@dataclass(frozen=True)
class Command:
    """A command line of lord-fast.

    Attributes:
        arguments: The words after `lord-fast`.
    """

    arguments: tuple[str, ...]

    def record(self, folder: Path) -> None:
        """Append this command to the history of a run or a store."""
        record_command(folder, self.arguments)

    def __str__(self) -> str:
        """Return the command as one would type it in a shell."""
        return shlex.join(("lord-fast", *self.arguments))


def record_command(folder: Path, arguments: Sequence[str]) -> None:
    """Append a command, the version of lord-fast and the time to a folder's history.

    Args:
        folder: A run or a store.
        arguments: The words after `lord-fast` on the command line.
    """
    row = {
        "command": str(Command(tuple(arguments))),
        "version": __version__,
        "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }
    with (folder / FILE).open("a") as stream:
        stream.write(json.dumps(seal(row)) + "\n")


def copy_history(source: Path, folder: Path) -> None:
    """Append the history of the folder `source`, if it has one, to the history of `folder`."""
    if (source / FILE).is_file():
        with (folder / FILE).open("a") as stream:
            stream.write((source / FILE).read_text(errors="replace"))


def read_history(folder: Path) -> list[str]:
    """Read the recorded command lines, oldest first. Damaged lines are skipped."""
    file = folder / FILE
    if not file.is_file():
        return []
    commands = []
    for line in file.read_text(errors="replace").splitlines():
        try:
            commands.append(str(unseal(json.loads(line), file)["command"]))
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
    return commands
