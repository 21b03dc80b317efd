"""What torchrun tells the processes that it starts, and how such a process ends. Without torch."""

import os
import sys
from dataclasses import dataclass

STORE = "TORCH_DISABLE_SHARE_RDZV_TCP_STORE"
"""Environment variable that gives each life of the processes a store of their own."""


@dataclass(frozen=True)
class Launch:
    """One of the processes that train together.

    Attributes:
        rank: Number of this process.
        world: Number of all processes.
        local_rank: Number of this process on its machine.
        local_world: Number of processes on this machine.
        by_torchrun: Whether torchrun started it.
    """

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    local_world: int = 1
    by_torchrun: bool = False


def this_launch() -> Launch:
    """Read from the environment how this process was started."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return Launch()
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    rank, world, local_rank, local_world = (int(os.environ[name]) for name in names)
    return Launch(rank, world, local_rank, local_world, by_torchrun=True)


def check_launch(launch: Launch, verb: str, verbs: tuple[str, ...]) -> None:
    """Check that a verb can run in the processes of torchrun.

    Args:
        launch: How this process was started.
        verb: The verb.
        verbs: The verbs that train in several processes.

    Raises:
        ValueError: The verb runs in one process only, or restarted processes would read addresses
            of dead ones from the store of torchrun.
    """
    if not launch.by_torchrun:
        return
    if launch.world > 1 and verb not in verbs:
        raise ValueError(
            f"runs in one process and torchrun started {launch.world}; start it without torchrun "
            f"(only {' and '.join(verbs)} run in several)"
        )
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        raise ValueError(
            f"torchrun shares one store between all lives of its processes, so that restarted ones "
            f"read addresses of dead ones; start it with: {STORE}=1 torchrun ..."
        )


def leave(code: int) -> int:
    """End a process of torchrun at once. Another process gets its exit code back.

    The threads of gloo abort some processes that exit in the usual way, and torchrun would then
    restart a finished run.
    """
    if not this_launch().by_torchrun:
        return code
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
