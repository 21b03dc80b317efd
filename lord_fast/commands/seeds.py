"""lord-fast seeds runs other verbs in turn for several seeds."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from lord_fast.bounds import AtLeast
from lord_fast.commands import evaluate, train, train_encoders
from lord_fast.config import TrainConfig
from lord_fast.console import err, out
from lord_fast.parser import Step, call_in_turn, read
from lord_fast.run.history import Command
from lord_fast.run.seeds import FILE, SHOWN, Summary, folders, save_seeds

defaults = train.defaults


def seeds(
    command: Command,
    store: Positional[Path],
    run: Path,
    config: Annotated[TrainConfig, arg(name="")],
    seeds: Annotated[int, AtLeast(2)] = 3,
    held_out: Path | None = None,
    file: Annotated[Path | None, arg(name="config")] = None,
) -> None:
    """Train and evaluate with several seeds, and print the spread.

    It runs train, train-encoders and evaluate for each seed.

    Repeat the command to continue after an interruption.

    Examples:
        lord-fast seeds store --run runs/photos --seeds 3
        lord-fast seeds train --run runs/photos --held-out heldout --preset paper

    Args:
        store: A packed store.
        run: The folder of all runs, which are RUN/seed-0, RUN/seed-1 and so on. The summary is
            written to RUN/seeds.json.
        seeds: Number of seeds. They are 0, 1 and so on.
        held_out: Also evaluate on this store of images that were held out from training.
        file: A YAML file of options, such as the config.yaml of another run. Flags override it.
    """
    words = command.arguments[1:]
    if any(word == "--seed" or word.startswith("--seed=") for word in words):
        raise ValueError(f"--seed: the seeds are 0 to {seeds - 1}; leave the flag out")
    training = _training(words)
    for seed, folder in enumerate(folders(run, seeds)):
        call_in_turn(sequence(training, folder, seed, held_out))
    _print(save_seeds(run, seeds, _files(store, held_out)), run, seeds)


def _training(words: Sequence[str]) -> list[str]:
    """Return the words that are for train, which are all but the flags of this verb."""

    def seeds(run: Path | None = None, seeds: int = 0, held_out: Path | None = None) -> None:
        """Parse only these flags."""

    return read(seeds, words, partly=True)[1]


def sequence(training: Sequence[str], run: Path, seed: int, held_out: Path | None) -> list[Step]:
    """Return the verbs of one seed and their command lines.

    Args:
        training: The store and the flags of train, without --run and --seed.
        run: The folder of the seed's run.
        seed: The seed of both stages.
        held_out: Store of held-out images, or None.
    """
    stores = [(), *([("--store", held_out)] if held_out is not None else [])]
    return [
        (train, ("train", *training, "--run", run, "--seed", seed)),
        (train_encoders, ("train-encoders", run, "--seed", seed)),
        *(
            (evaluate, ("evaluate", run, *codes, *store))
            for codes in ((), ("--codes", "encoder"))
            for store in stores
        ),
    ]


def _files(store: Path, held_out: Path | None) -> list[str]:
    """Return the names of the files of metrics that `sequence` writes into each run."""
    from lord_fast.data.store import ImageStore
    from lord_fast.evaluate.run import file_name

    stores: list[ImageStore | None] = [None]
    if held_out is not None and ImageStore(held_out).sha256 != ImageStore(store).sha256:
        stores.append(ImageStore(held_out))
    return [file_name(codes, other) for codes in ("latent", "encoder") for other in stores]


def _print(summary: Summary, run: Path, seeds: int) -> None:
    from rich.table import Table

    columns = ("file", "metric", "mean", "std", *(f"seed {seed}" for seed in range(seeds)))
    table = Table(*columns, title=f"{run}: {seeds} seeds")
    for file, metrics in summary.items():
        for name in filter(metrics.get, SHOWN):
            found = metrics[name]
            figures = (found["mean"], found["std"], *found["values"])
            table.add_row(file, name, *(f"{figure:.3f}" for figure in figures))
    out.print(table)
    err.print(f"wrote every metric to {run / FILE}; docs/metrics.md explains them")
