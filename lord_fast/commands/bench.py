"""lord-fast bench."""

from typing import Annotated

from tyro.conf import Positional, arg

from lord_fast.bench.options import BenchConfig, What
from lord_fast.console import err, out


def bench(
    config: Annotated[BenchConfig, arg(name="")],
    what: Annotated[Positional[What], arg(metavar="[step|latent|data|train|quality]")] = "step",
) -> None:
    """Run a benchmark on this machine and print a table.

    Examples:
        lord-fast bench step --no-scaling --json step.json
        lord-fast bench latent --threads 2
        lord-fast bench quality --seconds 3600 --seeds 3 --plot quality.png

    Args:
        what: What to measure. step compares a training step of the paper preset at 64 px with the
            published code, measures it for several numbers of images and classes, and compares the
            fused AdaIN with the plain one. latent compares one step of a table of codes with other
            optimizers. data measures decoding, reading stores, and how long a training step waits
            for images. train compares the losses of some hundred steps with those of the published
            code. quality trains the published recipe and presets for the same time, and shows when
            each reaches the quality of the published recipe's end.
    """
    from lord_fast.bench.measure import table
    from lord_fast.bench.run import run_bench

    out.print(table(run_bench(what, config, err.print)))
