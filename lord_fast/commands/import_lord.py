"""lord-fast import-lord."""

from pathlib import Path

from tyro.conf import Positional

from lord_fast.console import err
from lord_fast.errors import naming
from lord_fast.run.history import Command


def import_lord(command: Command, checkpoint: Positional[Path], run: Path) -> None:
    """Turn a published lord-pytorch model into a run.

    Examples:
        lord-fast import-lord lord-pytorch/model --run runs/theirs

    Args:
        checkpoint: The model directory with latent.pth and amortized.pth. Its pickled
            configuration is not opened.
        run: The run's folder to create.
    """
    from lord_fast.interchange.lord_pytorch import import_published

    with naming(run):
        found = import_published(checkpoint, run)
        command.record(run)
    data, stages = found.data, "stage 1" if found.encoders is None else "both stages"
    err.print(
        f"{run}: {stages} of a model of {data['num_images']} images, {data['num_classes']} "
        f"classes, {data['size']} x {data['size']} x {data['channels']}"
    )
