"""The command line: one function a verb; torch is imported inside the verbs only."""

import functools
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import tyro
from tyro.conf import OmitArgPrefixes, Positional

from lord_fast import __version__
from lord_fast.config import PRESETS, PackConfig, TrainConfig
from lord_fast.errors import Interrupted


def pack(
    config: OmitArgPrefixes[PackConfig],
    source: Positional[str | None] = None,
    store: Positional[Path | None] = None,
    verify: Path | None = None,
) -> None:
    """Pack images into a store: a folder, an archive, a data set's files or the embedded glyphs.

    Args:
        config: How.
        source: A folder laid out SOURCE/CLASS/NAME.png, an archive of one, an .npz file, a data
            set's folder or file (see --format), or the word glyphs.
        store: The store's folder, made anew. The same command goes on after an interruption.
        verify: Check this store against its hashes and its source, and pack nothing.
    """
    from lord_fast.commands import pack as command

    if verify is not None:
        command.run_verify(verify)
    elif source is None or store is None:
        raise ValueError("give SOURCE and STORE, or --verify STORE")
    else:
        command.run(source, store, config)


def train(
    store: Positional[Path],
    run: Path,
    config: OmitArgPrefixes[TrainConfig],
) -> None:
    """Stage 1: separate class from content by latent optimization. The same command resumes.

    Args:
        store: A packed store.
        run: The run's folder: configuration, checkpoints, grids, statistics.
    """
    from lord_fast.commands.train import run as command

    command(store, run, config)


def evaluate(
    run: Positional[Path],
    store: Path | None = None,
    perceptual_weights: Path | None = None,
    seed: int = 0,
) -> None:
    """Measure a run: reconstruction, leakage, informativeness, transfer; writes metrics.json.

    Args:
        run: The run's folder.
        store: Where the store is now, if it has moved.
        perceptual_weights: VGG16 weights for the perceptual distance; default: those of the run;
            a run with --loss pyramid has none, and the distance is left out.
        seed: Of every draw and of the probes.
    """
    from lord_fast.commands.evaluate import run as command

    command(run, store, perceptual_weights, seed)


def report(run: Positional[Path]) -> None:
    """Write RUN/report.html, one page to look at, with everything inside.

    Args:
        run: The run's folder.
    """
    from lord_fast.commands.report import run as command

    command(run)


def demo(run: Path = Path("runs/demo")) -> None:
    """The whole path on the embedded glyphs: pack, train, evaluate, report.

    Args:
        run: The run's folder; the store is made beside it.
    """
    from lord_fast.commands.demo import run as command

    command(run)


def bench(what: Positional[Literal["latent", "data"]] = "latent", json: Path | None = None) -> None:
    """Measure on this machine; prints a table.

    Args:
        what: latent: one step of a table of codes, against PyTorch's own and others; data: decoding
            images, reading stores, and how long a training step waits for them.
        json: Also write the figures to this file.
    """
    from lord_fast.commands.bench import run as command

    command(what, json)


def doctor() -> None:
    """What this machine has, what is missing and how to get it."""
    from lord_fast.commands.doctor import run as command

    command()


VERBS: dict[str, Callable[..., None]] = {
    function.__name__: function for function in (demo, pack, train, evaluate, report, bench, doctor)
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb.

    Args:
        arguments: Without the program's name; default: those of the process.

    Returns:
        The exit code: 0 done, 2 usage or bad input, 130 interrupted, 143 terminated.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    verb = arguments[0] if arguments else ""
    if verb in ("-h", "--help"):
        print(_overview())
        return 0
    if verb == "--version":
        print(f"lord-fast {__version__}")
        return 0
    if verb not in VERBS:
        print(f"lord-fast: no command {verb!r}\n{_overview()}", file=sys.stderr)
        return 2
    return _call(verb, arguments[1:])


def _overview() -> str:
    lines = [f"  {name:<16}{(verb.__doc__ or '').splitlines()[0]}" for name, verb in VERBS.items()]
    return "\n".join(("usage: lord-fast COMMAND [-h] ...", "", *lines))


def _call(verb: str, arguments: list[str]) -> int:
    prog = f"lord-fast {verb}"
    function = VERBS[verb]
    if verb == "train":
        function = functools.partial(function, config=_preset(arguments))
    try:
        tyro.cli(function, prog=prog, args=arguments)
    except KeyboardInterrupt:
        return 130
    except Interrupted as error:
        print(f"{prog}: {error}", file=sys.stderr)
        return 128 + error.signum
    except (ValueError, OSError) as error:
        if os.environ.get("LORD_FAST_TRACEBACK"):
            raise
        print(f"{prog}: {error}", file=sys.stderr)
        return 2
    return 0


def _preset(arguments: list[str]) -> TrainConfig:
    """The defaults that --preset asks for; tyro checks the value itself."""
    joined = next((a.split("=", 1)[1] for a in arguments if a.startswith("--preset=")), "laptop")
    if "--preset" in arguments[:-1]:
        joined = arguments[arguments.index("--preset") + 1]
    return PRESETS.get(joined, PRESETS["laptop"])
