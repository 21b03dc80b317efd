"""lord-fast train-encoders."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

from lord_fast.config import EncoderConfig
from lord_fast.console import err
from lord_fast.errors import naming
from lord_fast.parser import read
from lord_fast.presets import encoder_defaults
from lord_fast.run.config import load_config
from lord_fast.run.history import Command


def train_encoders(
    command: Command,
    run: Positional[Path],
    config: Annotated[EncoderConfig, arg(name="")],
    store: Path | None = None,
    from_step: int | None = None,
) -> None:
    """Train stage 2, encoders that predict the codes of any image.

    The defaults come from the run's preset. Repeat the command to resume a run.

    Examples:
        lord-fast train-encoders runs/photos
        lord-fast train-encoders runs/photos --epochs 20

    Args:
        run: A run whose stage 1 is finished.
        store: New path of the run's store, if the store has moved.
        from_step: Discard later steps and continue from the checkpoint of this step. 0 starts
            the stage again.
    """
    from lord_fast.train.start import train_encoders as train

    with naming(run):
        steps = train(run, config, store, err, command, from_step)
    if steps is None:
        err.print(f"{run}: stage 2 is finished; nothing to do")
    else:
        err.print(f"{run}: stage 2 is done. Next: lord-fast evaluate {run} --codes encoder")


def defaults(arguments: Sequence[str]) -> dict[str, Any]:
    """Return the configuration for the run's preset and machine settings."""
    found, _ = read(train_encoders, arguments)
    return {"config": encoder_defaults(load_config(found["run"] / "config.yaml")[0])}
