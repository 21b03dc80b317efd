"""lord-fast train-encoders."""

from pathlib import Path

from rich.console import Console

from lord_fast.commands.start import header, set_up_stage
from lord_fast.config import EncoderConfig, check, load_config, save_encoder_config
from lord_fast.run import check_encoders, open_store
from lord_fast.train import checkpoint
from lord_fast.train.amortized import EncoderStage
from lord_fast.train.latent import total_steps
from lord_fast.train.loop import run_stage


def run(run_path: Path, config: EncoderConfig, store_path: Path | None = None) -> None:
    """Stage 2 from its last checkpoint, or from the end of stage 1, to its end."""
    console = Console(stderr=True, soft_wrap=True)
    run_config, data = load_config(run_path / "config.yaml")
    check(config)
    check_encoders(run_path, config)
    store = open_store(run_path, data, store_path)
    end, checkpoints = total_steps(config, store.num_images), run_path / "checkpoints"
    if end > 0 and checkpoint.steps_done(checkpoints, "amortized") == end:
        console.print(f"{run_path}: stage 2 is finished ({end} steps); nothing to do")
        return
    latent_step = checkpoint.steps_done(checkpoints, "latent")
    latent_end = total_steps(run_config, store.num_images)
    found = checkpoint.latest(checkpoints, "latent")
    if found is None or latent_step != latent_end:
        raise ValueError(
            f"{run_path}: stage 1 has done {latent_step} of {latent_end} steps; finish it first: "
            f"lord-fast train {store.path} --run {run_path}"
        )
    machine = set_up_stage(config, store)
    latent = checkpoint.load(found)
    stage = EncoderStage(config, run_config, store, *latent, machine)
    save_encoder_config(run_path / "encoders.yaml", config)
    console.print(header(config, store, run_path, machine), highlight=False, markup=False)
    run_stage(stage, run_path, config, console)
    console.print(f"{run_path}: stage 2 done; next: lord-fast evaluate {run_path} --codes encoder")
