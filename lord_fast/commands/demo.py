"""lord-fast demo runs other verbs in turn on the embedded glyphs."""

from pathlib import Path

from lord_fast.commands import evaluate, pack, report, split, train, train_encoders
from lord_fast.parser import Step, call_in_turn

HELD_OUT = 0.1
"""Fraction of each class's images that are held out from training."""


def demo(run: Path = Path("runs/demo")) -> None:
    """Try lord-fast on embedded glyphs, from packing to a report.

    Repeat the command to continue after an interruption.

    Examples:
        lord-fast demo

    Args:
        run: The run's folder. The stores are created next to it.
    """
    call_in_turn(sequence(run))


def sequence(run: Path) -> list[Step]:
    """Return the verbs of the demo and their command lines.

    Args:
        run: The run's folder. Stores that exist already are not created again.
    """
    store, trained, held_out = (
        run.with_name(f"{run.name}-{part}") for part in ("store", "train", "heldout")
    )
    steps: list[Step] = []
    if not store.exists():
        steps.append((pack, ("pack", "glyphs", store, "--size", 32)))
    if not held_out.exists():
        steps.append((split, ("split", store, trained, held_out, "--images", HELD_OUT)))
    return [
        *steps,
        (train, ("train", trained, "--run", run, "--preset", "demo")),
        (train_encoders, ("train-encoders", run)),
        (evaluate, ("evaluate", run)),
        (evaluate, ("evaluate", run, "--store", held_out)),
        (evaluate, ("evaluate", run, "--codes", "encoder", "--store", held_out)),
        (report, ("report", run)),
    ]
