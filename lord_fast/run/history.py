"""The commands that made a run or a store: history.jsonl in its folder."""

import datetime
import json
import shlex
from collections.abc import Sequence
from pathlib import Path

from lord_fast import __version__

FILE = "history.jsonl"


def record_command(folder: Path, arguments: Sequence[str]) -> None:
    """Append a command line of lord-fast, the version and the time to a folder's history.

    Args:
        folder: A run or a store.
        arguments: What followed `lord-fast` on the command line.
    """
    row = {
        "command": shlex.join(("lord-fast", *arguments)),
        "version": __version__,
        "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }
    with (folder / FILE).open("a") as stream:
        stream.write(json.dumps(row) + "\n")


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
