"""The command line: one function a verb; torch is imported inside the verbs only."""

import functools
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import OmitArgPrefixes, Positional, arg

from lord_fast import __version__
from lord_fast.config import (
    PRESETS,
    EncoderConfig,
    TrainConfig,
    encoder_defaults,
)
from lord_fast.data.options import PackConfig
from lord_fast.errors import Interrupted
from lord_fast.evaluate.options import EvaluateConfig
from lord_fast.run.config import load_config


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


def split(
    store: Positional[Path],
    train: Positional[Path],
    test: Positional[Path],
    classes: int | None = None,
    images: float | None = None,
    seed: int = 0,
) -> None:
    """Hold out classes, or a fraction of every class's images: two stores from one.

    Args:
        store: A packed store.
        train: The store to train on, made anew.
        test: The store of what is held out, made anew.
        classes: Number of classes to hold out.
        images: Fraction of every class's images to hold out.
        seed: Of the draw.
    """
    from lord_fast.commands.split import run as command

    command(store, train, test, classes, images, seed)


def train(
    store: Positional[Path],
    run: Path,
    config: OmitArgPrefixes[TrainConfig],
    from_step: int | None = None,
) -> None:
    """Stage 1: separate class from content by latent optimization. The same command resumes.

    Args:
        store: A packed store.
        run: The run's folder: configuration, checkpoints, grids, statistics.
        from_step: Go back to the checkpoint of this step on purpose. 0: start anew.
    """
    from lord_fast.commands.train import run as command

    command(store, run, config, from_step)


def train_encoders(
    run: Positional[Path],
    config: OmitArgPrefixes[EncoderConfig],
    store: Path | None = None,
    from_step: int | None = None,
) -> None:
    """Stage 2: encoders that give any image its codes. The same command resumes.

    Args:
        run: A run whose stage 1 is finished.
        store: Where its store is now, if it has moved.
        from_step: Go back to the checkpoint of this step on purpose. 0: start anew.
    """
    from lord_fast.commands.train_encoders import run as command

    command(run, config, store, from_step)


def evaluate(run: Positional[Path], config: OmitArgPrefixes[EvaluateConfig]) -> None:
    """Measure a run: reconstruction, leakage, informativeness, transfer, samples.

    Args:
        run: The run's folder; a metrics*.json is written to it.
    """
    from lord_fast.commands.evaluate import run as command

    command(run, config)


def encode(
    run: Positional[Path], files: Positional[list[Path]], out: Path = Path("codes.npz")
) -> None:
    """Codes of new images by the encoders of stage 2, as an npz file.

    Args:
        run: A run with stage 2.
        files: Images, or folders of images.
        out: Written: names, content [N, content_dim], class_ [N, class_dim].
    """
    from lord_fast.commands.encode import run as command

    command(run, files, out)


def translate(
    run: Positional[Path],
    content: list[Path],
    class_: Annotated[list[Path], arg(name="class")],
    out: Path = Path("grid.png"),
    singles: Path | None = None,
) -> None:
    """The content of some images with the class of others, as a labelled grid.

    Args:
        run: A run with stage 2.
        content: Images, or folders of images, whose content is wanted: the columns.
        class_: Images, or folders of images, whose class is wanted: the rows.
        out: The grid, a PNG.
        singles: A folder that every translated image is written to as well.
    """
    from lord_fast.commands.translate import run as command

    command(run, content, class_, out, singles)


def fit(
    run: Positional[Path],
    files: Positional[list[Path]],
    out: Path = Path("codes.npz"),
    new_class: bool = False,
    steps: int = 300,
    seed: int = 0,
    perceptual_weights: Path | None = None,
) -> None:
    """Codes of new images by optimizing them with the generator frozen; needs no encoder.

    Args:
        run: The run's folder.
        files: Images, or folders of images.
        out: Written: names, content [N, content_dim], class_ [N or 1, class_dim].
        new_class: The images show one class, unseen in training, and get one class code.
        steps: Of the optimization.
        seed: Of its start and noise.
        perceptual_weights: VGG16 weights; default: those of the run.
    """
    from lord_fast.commands.fit import run as command

    command(run, files, out, new_class, steps, seed, perceptual_weights)


def sample(
    run: Positional[Path],
    n: Annotated[int, arg(aliases=["-n"])] = 64,
    out: Path = Path("grid.png"),
    new_classes: bool = False,
    density: Literal["mixture", "training"] = "mixture",
    seed: int = 0,
) -> None:
    """New images: content (and classes) from a density fitted to the codes of training.

    Args:
        run: The run's folder.
        n: Number of images.
        out: A grid of them, a PNG.
        new_classes: Draw class codes from a density too, not from the training classes.
        density: mixture: Gaussians, as many as give held-out codes the highest likelihood;
            training: the baseline, training codes with the noise that training added.
        seed: Of everything that is drawn.
    """
    from lord_fast.commands.sample import run as command

    command(run, n, out, new_classes, density, seed)


def interpolate(
    run: Positional[Path],
    first: Positional[Path],
    second: Positional[Path],
    out: Path = Path("grid.png"),
    steps: int = 8,
) -> None:
    """From one image to another: content changes across the grid, class down.

    Args:
        run: A run with stage 2.
        first: An image.
        second: Another.
        out: The grid, a PNG.
        steps: Its side.
    """
    from lord_fast.commands.interpolate import run as command

    command(run, first, second, out, steps)


def report(run: Positional[Path], store: Path | None = None) -> None:
    """Write RUN/report.html, one page to look at, with everything inside.

    Args:
        run: The run's folder.
        store: Where its store is now, if it has moved.
    """
    from lord_fast.commands.report import run as command

    command(run, store)


def demo(run: Path = Path("runs/demo")) -> None:
    """The whole path on the embedded glyphs: pack, split, both stages, evaluate, report.

    Args:
        run: The run's folder; the stores are made beside it.
    """
    from lord_fast.commands.demo import run as command

    command(run)


def export(run: Positional[Path], out: Path, onnx: bool = True) -> None:
    """A trained run as files that need no lord-fast: safetensors, ONNX, a model card.

    Args:
        run: The run's folder; of stage 2, where it has it.
        out: A folder, made anew.
        onnx: Also write the networks as ONNX, checked against PyTorch (needs the onnx extra).
    """
    from lord_fast.commands.export import run as command

    command(run, out, onnx)


def import_lord(checkpoint: Positional[Path], run: Path) -> None:
    """A published lord-pytorch model directory (latent.pth, amortized.pth) as a run.

    Args:
        checkpoint: The model directory; its pickled configuration is not opened.
        run: The run's folder, made anew.
    """
    from lord_fast.commands.import_lord import run as command

    command(checkpoint, run)


def bench(
    what: Positional[Literal["step", "latent", "data", "train"]] = "step",
    json: Path | None = None,
    plot: Path | None = None,
    batch_size: int = 64,
    size: int = 64,
    adain_dim: int = 256,
    precision: Literal["auto", "float32", "bf16"] = "auto",
    steps: int = 300,
    scaling: bool = True,
    threads: int = 0,
) -> None:
    """Measure on this machine; prints a table.

    Args:
        what: step: a training step of the paper preset at 64 px beside the published one, and over
            the number of images and classes; latent: one step of a table of codes, against
            PyTorch's own and others; data: decoding images, reading stores, and how long a
            training step waits for them; train: the losses of some hundred steps beside the
            published ones.
        json: Also write the figures to this file.
        plot: Also draw them to this file, a PNG.
        batch_size: step, train: images a step.
        size: step, train: their side.
        adain_dim: step, train: width of the generator.
        precision: train: type of the convolutions of ours; auto: as in training.
        steps: train: how many.
        scaling: step: also over the number of images and classes, as far as the memory goes.
        threads: CPU threads; 0: as many as there are cores.
    """
    from lord_fast.commands.bench import run as command

    shape = {"batch": batch_size, "size": size, "adain_dim": adain_dim}
    command(what, json, plot, shape, precision, steps, scaling, threads)


def doctor() -> None:
    """What this machine has, what is missing and how to get it."""
    from lord_fast.commands.doctor import run as command

    command()


# fmt: off
VERBS: dict[str, Callable[..., None]] = {
    function.__name__.replace("_", "-"): function
    for function in (
        demo, pack, split, train, train_encoders, evaluate, encode, translate, fit, sample,
        interpolate, report, export, import_lord, bench, doctor,
    )
}
# fmt: on


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
        if verb == "train-encoders" and not {"-h", "--help"} & set(arguments):
            run = tyro.cli(_run_of, prog=prog, args=arguments)
            function = functools.partial(
                function, config=encoder_defaults(load_config(run / "config.yaml")[0])
            )
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


def _run_of(
    run: Positional[Path],
    config: OmitArgPrefixes[EncoderConfig],
    store: Path | None = None,
    from_step: int | None = None,
) -> Path:
    """The run that train-encoders is called for: its preset gives the flags their defaults."""
    return run


def _preset(arguments: list[str]) -> TrainConfig:
    """The defaults that --preset asks for; tyro checks the value itself."""
    joined = next((a.split("=", 1)[1] for a in arguments if a.startswith("--preset=")), "laptop")
    if "--preset" in arguments[:-1]:
        joined = arguments[arguments.index("--preset") + 1]
    return PRESETS.get(joined, PRESETS["laptop"])
