"""lord-fast train."""

from pathlib import Path

from lord_fast.config import TrainConfig
from lord_fast.console import err
from lord_fast.run.checkpoint import steps_done
from lord_fast.train.start import train_latent


def run(
    store_path: Path, run_path: Path, config: TrainConfig, from_step: int | None = None
) -> None:
    """Stage 1 from its last checkpoint, or from its start, to its end."""
    if train_latent(store_path, run_path, config, err, from_step) is None:
        steps = steps_done(run_path / "checkpoints", "latent")
        err.print(f"{run_path}: stage 1 is finished ({steps} steps); nothing to do")
    else:
        err.print(f"{run_path}: stage 1 done; next: lord-fast evaluate {run_path}")
