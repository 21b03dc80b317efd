"""lord-fast run calls other verbs in turn, from a folder of photos to a report."""

from collections import Counter
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional

from lord_fast.bounds import AtLeast, MoreThan
from lord_fast.commands import evaluate, pack, report, train, train_encoders
from lord_fast.config import Preset, TrainConfig
from lord_fast.console import err
from lord_fast.parser import Step, call_in_turn, read
from lord_fast.presets import encoder_defaults

BAD_SHARE = 0.1
"""Fraction of the photos that may be broken if --max-bad is not given."""
FEW = 5
"""Smallest number of photos per class that gave good swaps, see docs/start.md."""


def run(
    photos: Positional[Path],
    run: Path | None = None,
    size: Annotated[int, MoreThan(0)] = 64,
    preset: Preset = "laptop",
    loss: Literal["vgg16", "pyramid"] | None = None,
    perceptual_weights: Path | None = None,
    steps: Annotated[int, MoreThan(0)] | None = None,
    threads: Annotated[int, AtLeast(0)] = 0,
    max_bad: Annotated[int, AtLeast(0)] | None = None,
) -> None:
    """Go from a folder of photos to a report.

    It runs pack, train, train-encoders, evaluate and report.

    Repeat the command to continue after an interruption.

    Examples:
        lord-fast run photos
        lord-fast run photos --run runs/friends --loss pyramid

    Args:
        photos: A folder with files PHOTOS/CLASS/NAME.jpg, or an archive of such a folder.
        run: The run's folder. Defaults to runs/NAME, where NAME is the name of the photos' folder.
            The store is created next to it.
        size: Side of the packed images in pixels.
        preset: Selects the defaults of both stages, see lord-fast train --help.
        loss: Reconstruction loss. vgg16 compares VGG16 features, and pyramid needs no weights.
            Defaults to the loss of the preset.
        perceptual_weights: File of VGG16 weights. By default they are downloaded once.
        steps: Number of steps of stage 1. By default it depends on the number of photos.
        threads: Number of CPU threads. 0 uses one for each core.
        max_bad: Number of broken photos to tolerate. They are left out and listed. Defaults to a
            tenth of the photos.
    """
    from lord_fast.data.again import check_store
    from lord_fast.train.start import check_weights_of

    run = run or Path("runs") / photos.resolve().name.split(".")[0]
    store = run.with_name(f"{run.name}-store")
    count = check_photos(photos)
    if store.exists():
        check_store(photos, store, run, count, size)
    given = {
        "--preset": preset if preset != "laptop" else None, "--loss": loss,
        "--perceptual-weights": perceptual_weights, "--steps": steps, "--threads": threads or None,
    }  # fmt: skip
    flags = [word for name, value in given.items() if value is not None for word in (name, value)]
    training = tuple(map(str, ("train", store, "--run", run, *flags)))
    config = config_of(training)
    check_weights_of(config)
    if not store.exists():
        allowed = max(1, int(BAD_SHARE * count)) if max_bad is None else max_bad
        call_in_turn([(pack, ("pack", photos, store, "--size", size, "--max-bad", allowed))])
    announce(run, store, config)
    call_in_turn(after_packing(run, training))


def check_photos(photos: Path) -> int:
    """Count and print the photos of each class, and check that LORD can separate them.

    Args:
        photos: The folder.

    Returns:
        The number of photos.

    Raises:
        ValueError: There is only one class, or a class has only one photo.
    """
    from lord_fast.data.options import PackConfig
    from lord_fast.data.sources import open_source

    counts = Counter(record.class_name for record in open_source(str(photos), PackConfig()))
    names = sorted(counts)
    if len(names) < 2:
        raise ValueError(
            f"{photos}: one class only ({names[0]}). LORD separates what differs between classes "
            f"from what varies within a class. Add a second folder with {FEW} photos or more"
        )
    alone = [name for name in names if counts[name] < 2]
    if alone:
        raise ValueError(
            f"{photos}: one photo only in {_some(alone)}, so nothing varies within the class. Add "
            f"photos, preferably {FEW} or more per class, or remove the folder"
        )
    total, fewest = sum(counts.values()), min(counts.values())
    each = f"{fewest}" if fewest == max(counts.values()) else f"{fewest}-{max(counts.values())}"
    err.print(f"photos: {total} in {len(names)} classes of {each}: {_some(names)}")
    if fewest < FEW:
        few = [name for name in names if counts[name] < FEW]
        err.print(f"note: {_some(few)}: fewer than {FEW} photos, so expect swaps of low quality")
    return total


def config_of(training: tuple[str, ...]) -> TrainConfig:
    """Return the configuration of a command line of train."""
    values, _ = read(train.train, training[1:], train.defaults(training[1:]))
    return values["config"]


def announce(run: Path, store: Path, config: TrainConfig) -> None:
    """Print the chosen settings and their estimated cost, unless training has already started.

    Raises:
        ValueError: A stage cannot run with these options and photos.
    """
    from lord_fast.run.folder import has_begun
    from lord_fast.train.estimate import estimate

    if has_begun(run, "latent"):
        return
    err.print("measuring a few steps of both stages ...")
    plan = estimate(store, config, encoder_defaults(config))
    err.print(f"chosen:   preset {config.preset}, loss {config.loss.loss}, {plan.length}")
    err.print(f"cost:     {plan}")
    err.print(f"pictures: {run / 'grids'} (the first after less than a minute)")


def after_packing(run: Path, training: tuple[str, ...]) -> list[Step]:
    """Return the verbs after pack and their command lines."""
    return [
        (train, training),
        (train_encoders, ("train-encoders", run)),
        (evaluate, ("evaluate", run)),
        (evaluate, ("evaluate", run, "--codes", "encoder")),
        (report, ("report", run)),
    ]


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
