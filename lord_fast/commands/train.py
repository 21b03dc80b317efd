"""lord-fast train."""

from pathlib import Path

import yaml
from rich.console import Console

from lord_fast import __version__, kernels
from lord_fast.config import TrainConfig, check
from lord_fast.data.store import ImageStore
from lord_fast.machine import Machine, set_up_for
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
    end = total_steps(config, store)
    if checkpoint.steps_done(run_path / "checkpoints", "latent") == end:
        console.print(f"{run_path}: stage 1 is finished ({end} steps); nothing to do")
        return
    machine = set_up_for(config)
    store.decode_with(config.decoder, machine.device.type, machine.threads)
    kernels.use(config.kernels, machine.device.type)
    stage = LatentStage(config, store, machine)
    write_run(run_path, config, store)
    console.print(_header(config, store, run_path, machine), highlight=False, markup=False)
    run_stage(stage, run_path, config, console)
    console.print(f"{run_path}: stage 1 done; next: lord-fast evaluate {run_path}")


def _header(config: TrainConfig, store: ImageStore, run_path: Path, machine: Machine) -> str:
    settings = {k: str(v) if isinstance(v, Path) else v for k, v in vars(config).items()}
    shape = f"{store.size} x {store.size} x {store.channels}"
    if store.encoded:
        shape += f", encoded, decoded by {store.describe_decoder()}"
    return "\n".join((
        yaml.safe_dump(settings, sort_keys=False, default_flow_style=None).strip(),
        f"lord-fast {__version__}",
        f"data:    {store.path}: {store.num_images} images of {store.num_classes} classes, {shape}",
        f"device:  {machine.describe()}",
        f"kernels: {kernels.live(machine.device.type)}",
        f"run:     {run_path}",
    ))  # fmt: skip
