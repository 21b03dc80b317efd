"""A run's folder: made once, checked when it is used again."""

from pathlib import Path
from typing import Any

from lord_fast.config import EncoderConfig, TrainConfig
from lord_fast.run.config import differences, load_config, load_encoder_config, save_config


def check_run(run: Path, config: TrainConfig, data: dict[str, Any]) -> None:
    """Check that a run's folder is new, or is of the same configuration and data.

    Args:
        run: The run's folder.
        config: What is to be trained.
        data: What it would be trained on, see `ImageStore.describe`.

    Raises:
        ValueError: the folder is not a run, or is one of another configuration or store.
    """
    file = run / "config.yaml"
    if file.exists():
        old, trained_on = load_config(file)
        changed = differences(old, config)
        if trained_on["sha256"] != data["sha256"]:
            changed.append(f"store {trained_on['store']} -> {data['store']} (other images)")
        if changed:
            raise ValueError(
                f"{run}: a run of another configuration; give another --run, or remove it. "
                f"Differs: {'; '.join(changed)}"
            )
    elif run.exists() and (not run.is_dir() or any(run.iterdir())):
        raise ValueError(f"{run}: not empty and not a run of lord-fast; give another --run")


def check_weights(run: Path, sha256: str | None) -> None:
    """Check that the perceptual weights are those that a run began with.

    Args:
        run: The run's folder; may be new.
        sha256: Hash of the weights at hand; None: the loss has none.

    Raises:
        ValueError: they are others.
    """
    file = run / "config.yaml"
    if not file.exists():
        return
    began_with = load_config(file)[1].get("perceptual_sha256")
    if began_with is not None and sha256 is not None and began_with != sha256:
        raise ValueError(
            f"{run}: was trained with other perceptual weights (sha256 {began_with[:12]}..., these "
            f"have {sha256[:12]}...); give the same file with --perceptual-weights"
        )


def write_run(run: Path, config: TrainConfig, data: dict[str, Any]) -> None:
    """Make the folder if need be and write config.yaml."""
    run.mkdir(parents=True, exist_ok=True)
    save_config(run / "config.yaml", config, data)


def check_encoders(run: Path, config: EncoderConfig) -> None:
    """Check that a run has no stage 2 yet, or one of the same configuration.

    Raises:
        ValueError: it has one of another configuration.
    """
    file = run / "encoders.yaml"
    if not file.exists():
        return
    changed = differences(load_encoder_config(file), config)
    if changed:
        raise ValueError(
            f"{run}: has encoders of another configuration; repeat its flags, or remove {file} "
            f"and {run / 'checkpoints'}/encoders-*. Differs: {'; '.join(changed)}"
        )
