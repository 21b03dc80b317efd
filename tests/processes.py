"""Runs lord-fast in several processes, as torchrun starts them, but forked from one that has torch.

A process that imports torch takes seconds to start. These processes take a fraction of a second.
"""

import multiprocessing
import os
import socket
import sys
import time
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import NamedTuple

from tests import mutations_of_groups

_fork = multiprocessing.get_context("forkserver")
_fork.set_forkserver_preload(["tests.preload"])


class Crew(NamedTuple):
    """Processes that train together, and the file that each writes to."""

    processes: list[ForkServerProcess]
    logs: list[Path]

    def wait(self, seconds: float = 300) -> list[int | None]:
        """Wait for all processes. Return their exit codes, None for one that is still running."""
        end = time.monotonic() + seconds
        for process in self.processes:
            process.join(max(end - time.monotonic(), 0))
        return [process.exitcode for process in self.processes]

    def texts(self) -> list[str]:
        """What each process printed."""
        return [log.read_text() for log in self.logs]

    def kill(self) -> None:
        """End all processes."""
        for process in self.processes:
            process.kill()


def start(world: int, arguments: list, folder: Path, mutation: str = "") -> Crew:
    """Start `lord-fast ARGUMENTS` in `world` processes.

    Args:
        world: Number of processes. One process is started without the variables of torchrun.
        arguments: The words after lord-fast.
        folder: Folder for what the processes print.
        mutation: Name of a function of `mutations_of_groups` that is called in every process.
    """
    folder.mkdir(parents=True, exist_ok=True)
    port, crew = _free_port(), Crew([], [])
    for rank in range(world):
        variables = {
            "RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world,
            "MASTER_ADDR": "localhost", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "test",
        } if world > 1 else {}  # fmt: skip
        log = folder / f"{time.monotonic_ns()}-{rank}.log"
        words = [str(word) for word in arguments]
        environment = {name: str(value) for name, value in variables.items()}
        process = _fork.Process(target=_main, args=(words, environment, log, mutation))
        process.start()
        crew.processes.append(process)
        crew.logs.append(log)
    return crew


def run(world: int, arguments: list, folder: Path, mutation: str = "") -> list[str]:
    """Run `lord-fast ARGUMENTS` in `world` processes that must end well. Return what they print."""
    crew = start(world, arguments, folder, mutation)
    codes = crew.wait()
    if codes != [0] * world:
        crew.kill()
        raise AssertionError(f"exit codes {codes}: {crew.texts()}")
    return crew.texts()


def _main(words: list[str], environment: dict[str, str], log: Path, mutation: str) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT, 0o666)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.environ.update(environment)
    from lord_fast.cli import main

    if mutation:
        getattr(mutations_of_groups, mutation)()
    code = main(words)
    sys.stdout.flush()
    os._exit(code)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("localhost", 0))
        return found.getsockname()[1]
