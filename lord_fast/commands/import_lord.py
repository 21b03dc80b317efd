"""lord-fast import-lord."""

from pathlib import Path

from tyro.conf import Positional

from lord_fast.console import err
from lord_fast.errors import naming
from lord_fast.run.history import Command

LEAST_GAIN = 1.0
"""Decibels by which codes of the right images beat shuffled ones. Less looks like another order."""


def import_lord(
    command: Command, checkpoint: Positional[Path], run: Path, store: Path | None = None
) -> None:
    """Turn a published lord-pytorch model into a run.

    Examples:
        lord-fast import-lord lord-pytorch/model --run runs/theirs
        lord-fast import-lord lord-pytorch/model --run runs/theirs --store their-store

    Args:
        checkpoint: The model directory with latent.pth and amortized.pth. Its pickled
            configuration is not loaded.
        run: The run's folder to create.
        store: The packed images that the model was trained on, in the same order. They are needed
            to evaluate the model, to report on it and to train its encoders.
    """
    from lord_fast.data.store import ImageStore
    from lord_fast.interchange.lord_pytorch import import_published

    images = None if store is None else ImageStore(store)
    with naming(run):
        found = import_published(checkpoint, run, images)
        command.record(run)
    data, stages = found.data, "stage 1" if found.encoders is None else "both stages"
    err.print(
        f"{run}: {stages} of a model of {data['num_images']} images, {data['num_classes']} "
        f"classes, {data['size']} x {data['size']} x {data['channels']}"
    )
    if found.is_square is None:
        err.print(
            f"{checkpoint / 'config.pkl'}: does not tell the size of the images; they are taken to "
            f"be square"
        )
    if images is not None:
        from lord_fast.interchange.order import order_of

        own, other = order_of(run, images)
        err.print(f"{store}: reconstruction {own:.2f} dB, and {other:.2f} dB with shuffled codes")
        if own < other + LEAST_GAIN:
            err.print(
                f"warning: the images of {store} do not look like those of the model. Are they in "
                f"the order of training?"
            )
