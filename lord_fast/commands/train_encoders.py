"""lord-fast train-encoders."""

from pathlib import Path

from lord_fast.config import EncoderConfig
from lord_fast.console import err
from lord_fast.train.start import train_encoders


def run(
    run_path: Path,
    config: EncoderConfig,
    store_path: Path | None = None,
    from_step: int | None = None,
) -> None:
    """Stage 2 from its last checkpoint, or from the end of stage 1, to its end."""
    if train_encoders(run_path, config, store_path, err, from_step) is None:
        err.print(f"{run_path}: stage 2 is finished; nothing to do")
    else:
        err.print(f"{run_path}: stage 2 done; next: lord-fast evaluate {run_path} --codes encoder")
