"""lord-fast train."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

from lord_fast.config import Preset, Recipe, TrainConfig
from lord_fast.console import err
from lord_fast.errors import naming
from lord_fast.parser import read
from lord_fast.presets import train_defaults
from lord_fast.run.history import Command


def train(
    command: Command,
    store: Positional[Path],
    run: Path,
    config: Annotated[TrainConfig, arg(name="")],
    from_step: int | None = None,
    file: Annotated[Path | None, arg(name="config")] = None,
) -> None:
    """Train stage 1, which separates class from content.

    Repeat the command to resume an interrupted run.

    Examples:
        lord-fast train store --run runs/photos
        lord-fast train store --run runs/photos --preset paper --batch-size 64

    Args:
        store: A packed store.
        run: The run's folder. The configuration, checkpoints, grids and statistics are written to
            it.
        from_step: Discard later steps and continue from the checkpoint of this step. 0 starts
            the stage again.
        file: A YAML file of options, such as the config.yaml of another run. Flags override it.
    """
    from lord_fast.run.checkpoint import steps_done
    from lord_fast.train.start import train_latent

    with naming(run):
        steps = train_latent(store, run, config, err, command, from_step)
    if steps is None:
        done = steps_done(run / "checkpoints", "latent")
        err.print(f"{run}: stage 1 is finished ({done} steps); nothing to do")
    else:
        err.print(f"{run}: stage 1 is done. Next: lord-fast evaluate {run}")


def defaults(arguments: Sequence[str]) -> dict[str, Any]:
    """Return the configuration of --preset, --recipe and --config."""

    def train(
        preset: Preset | None = None, recipe: Recipe | None = None, config: Path | None = None
    ) -> None:
        """Parse only these flags."""

    found, _ = read(train, arguments, partly=True)
    if found["config"] is None:
        return {"config": train_defaults(found["preset"] or "laptop", found["recipe"])}
    from lord_fast.run.config import options_from

    return {"config": options_from(found["config"], found["preset"], found["recipe"])}
