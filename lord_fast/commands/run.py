"""lord-fast run: other verbs in turn, from a folder of photos to a report."""

from collections import Counter
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional

from lord_fast.bounds import AtLeast, MoreThan
from lord_fast.commands import evaluate, pack, report, train, train_encoders
from lord_fast.config import Preset, TrainConfig, encoder_defaults
from lord_fast.console import err
from lord_fast.parser import Step, call_in_turn, read

BAD_SHARE = 0.1
"""Share of the photos that may be broken where --max-bad does not say how many."""
FEW = 5
"""Photos of each class that were tried with good swaps, see docs/start.md."""


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
    """Go from a folder of photos to a report: pack, train, train-encoders, evaluate, report.

    The same command continues after an interruption.

    Examples:
        lord-fast run photos
        lord-fast run photos --run runs/friends --loss pyramid

    Args:
        photos: A folder laid out PHOTOS/CLASS/NAME.jpg, or an archive of one.
        run: The run's folder. Without it runs/NAME, after the photos. The store is made beside it.
        size: Side of the packed images in pixels.
        preset: Defaults of both stages, see lord-fast train --help.
        loss: vgg16 or pyramid, which needs no weights. Without it what the preset has.
        perceptual_weights: File of VGG16 weights. Without it they are downloaded once.
        steps: Steps of stage 1. Without it they come from the number of photos.
        threads: CPU threads. 0: one for each core.
        max_bad: Broken photos to leave out. They are named. Without it a tenth of the photos.
    """
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
    """Count the photos of each class, say so, and refuse what cannot be separated.

    Args:
        photos: The folder.

    Returns:
        How many there are.

    Raises:
        ValueError: there is one class only, or a class has one photo.
    """
    from lord_fast.data.options import PackConfig
    from lord_fast.data.sources import open_source

    counts = Counter(record.class_name for record in open_source(str(photos), PackConfig()))
    names = sorted(counts)
    if len(names) < 2:
        raise ValueError(
            f"{photos}: one class only ({names[0]}). LORD separates what differs between classes "
            f"from what varies inside them. Add a second folder, with {FEW} photos or more"
        )
    alone = [name for name in names if counts[name] < 2]
    if alone:
        raise ValueError(
            f"{photos}: one photo only in {_some(alone)}, so that nothing varies inside the class. "
            f"Add photos, best {FEW} or more, or take the folder away"
        )
    total, fewest = sum(counts.values()), min(counts.values())
    each = f"{fewest}" if fewest == max(counts.values()) else f"{fewest}-{max(counts.values())}"
    err.print(f"photos: {total} in {len(names)} classes of {each}: {_some(names)}")
    if fewest < FEW:
        few = [name for name in names if counts[name] < FEW]
        err.print(f"note: {_some(few)}: fewer than {FEW} photos. Expect swaps that mix things up")
    return total


def check_store(photos: Path, store: Path, run: Path, count: int, size: int) -> None:
    """Refuse to go on with a store of another number of photos, or of another size.

    Args:
        photos: The folder.
        store: What was packed of it.
        run: The run's folder.
        count: Photos that the folder has now.
        size: Side of the images that is wanted, in pixels.

    Raises:
        ValueError: the store is of others.
    """
    from lord_fast.data.store import ImageStore

    packed = ImageStore(store)
    before = packed.num_images + len((store / "left_out.jsonl").read_text().splitlines())
    again = f"Give another --run, or remove {store} and {run} to begin again"
    if before != count:
        raise ValueError(
            f"{store}: packed when {photos} had {before} photos, and now it has {count}. {again}"
        )
    if packed.size != size:
        raise ValueError(f"--size {size}: {store} holds {packed.size} px images. {again}")


def config_of(training: tuple[str, ...]) -> TrainConfig:
    """The configuration that a command line of train makes."""
    values, _ = read(train.train, training[1:], train.defaults(training[1:]))
    return values["config"]


def announce(run: Path, store: Path, config: TrainConfig) -> None:
    """Say what was chosen and what it will cost; nothing where training has begun.

    Raises:
        ValueError: a stage is not possible with these options and photos.
    """
    from lord_fast.run.folder import has_begun
    from lord_fast.train.estimate import estimate

    if has_begun(run, "latent"):
        return
    err.print("measuring a few steps of both stages ...")
    plan = estimate(store, config, encoder_defaults(config))
    err.print(f"chosen:   preset {config.preset}, loss {config.loss.loss}, {plan.length}")
    err.print(f"cost:     {plan}")
    err.print(f"pictures: {run / 'grids'}, the first within a minute")


def after_packing(run: Path, training: tuple[str, ...]) -> list[Step]:
    """The verbs that follow pack, as one would type them."""
    return [
        (train, training),
        (train_encoders, ("train-encoders", run)),
        (evaluate, ("evaluate", run)),
        (evaluate, ("evaluate", run, "--codes", "encoder")),
        (report, ("report", run)),
    ]


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
