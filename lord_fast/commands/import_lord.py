"""lord-fast import-lord."""

from pathlib import Path

from rich.console import Console

from lord_fast.config import PRESETS
from lord_fast.interchange.lord_pytorch import STEP, Published
from lord_fast.run import checkpoint
from lord_fast.run.config import save_config, save_encoder_config


def run(folder: Path, run_path: Path) -> None:
    """Write a run with the published weights."""
    if run_path.exists():
        raise ValueError(f"{run_path}: exists already; give another --run")
    found = Published(folder, PRESETS["paper"])
    run_path.mkdir(parents=True)
    save_config(run_path / "config.yaml", found.config, found.data)
    checkpoint.save(run_path / "checkpoints", "latent", STEP, found.latent)
    stages = "stage 1"
    if found.encoders is not None and found.encoder_config is not None:
        save_encoder_config(run_path / "encoders.yaml", found.encoder_config)
        checkpoint.save(run_path / "checkpoints", "encoders", STEP, found.encoders)
        stages = "both stages"
    data = found.data
    Console(stderr=True, soft_wrap=True).print(
        f"{run_path}: {stages} of a model of {data['num_images']} images, {data['num_classes']} "
        f"classes, {data['size']} x {data['size']} x {data['channels']}"
    )
