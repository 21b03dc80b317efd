"""lord-fast train."""

from pathlib import Path

from rich.console import Console

from lord_fast.commands.start import header, set_up_stage
from lord_fast.config import TrainConfig, check
from lord_fast.data.store import ImageStore
from lord_fast.run import check_run, write_run
from lord_fast.train import checkpoint
from lord_fast.train.latent import LatentStage, total_steps
from lord_fast.train.loop import run_stage


def run(store_path: Path, run_path: Path, config: TrainConfig) -> None:
    """Stage 1 from its last checkpoint, or from its start, to its end."""
    console = Console(stderr=True, soft_wrap=True)
    store = ImageStore(store_path)
    check_run(run_path, config, store)
    check(config)
    end = total_steps(config, store.num_images)
    if checkpoint.steps_done(run_path / "checkpoints", "latent") == end:
        console.print(f"{run_path}: stage 1 is finished ({end} steps); nothing to do")
        return
    machine = set_up_stage(config, store)
    stage = LatentStage(config, store, machine)
    write_run(run_path, config, store)
    console.print(header(config, store, run_path, machine), highlight=False, markup=False)
    run_stage(stage, run_path, config, console)
    console.print(f"{run_path}: stage 1 done; next: lord-fast evaluate {run_path}")
