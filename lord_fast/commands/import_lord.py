"""lord-fast import-lord."""

from pathlib import Path

from rich.console import Console

from lord_fast.atomic import atomic_folder
from lord_fast.config import PRESETS
from lord_fast.interchange.lord_pytorch import STEP, Published
from lord_fast.run import checkpoint
from lord_fast.run.config import save_config, save_encoder_config


def run(folder: Path, run_path: Path) -> None:
    """Write a run with the published weights."""
    if run_path.exists():
        raise ValueError(f"{run_path}: exists already; give another --run")
    found = Published(folder, PRESETS["paper"])
    stages = "stage 1"
    with atomic_folder(run_path) as partial:
        save_config(partial / "config.yaml", found.config, found.data)
        checkpoint.save(partial / "checkpoints", "latent", STEP, found.latent)
        if found.encoders is not None and found.encoder_config is not None:
            save_encoder_config(partial / "encoders.yaml", found.encoder_config)
            checkpoint.save(partial / "checkpoints", "encoders", STEP, found.encoders)
            stages = "both stages"
    data = found.data
    Console(stderr=True, soft_wrap=True).print(
        f"{run_path}: {stages} of a model of {data['num_images']} images, {data['num_classes']} "
        f"classes, {data['size']} x {data['size']} x {data['channels']}"
    )
