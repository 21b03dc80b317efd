"""lord-fast bench."""

from typing import Annotated

from tyro.conf import Positional, arg

from lord_fast.bench.options import BenchConfig, What
from lord_fast.console import err, out


def bench(
    config: Annotated[BenchConfig, arg(name="")],
    what: Annotated[Positional[What], arg(metavar="[step|latent|data|train]")] = "step",
) -> None:
    """Measure on this machine and print a table.

    Examples:
        lord-fast bench step --no-scaling --json step.json
        lord-fast bench latent --threads 2

    Args:
        what: step: a training step of the paper preset at 64 px beside the published one, and
            over the number of images and classes. latent: one step of a table of codes beside
            other optimizers. data: decoding images, reading stores, and how long a training step
            waits for them. train: the losses of some hundred steps beside the published ones.
    """
    from lord_fast.bench.measure import table
    from lord_fast.bench.run import run_bench

    out.print(table(run_bench(what, config, err.print)))
