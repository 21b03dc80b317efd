"""lord-fast sample."""

from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from lord_fast.bounds import AtLeast, Below, MoreThan
from lord_fast.console import err
from lord_fast.errors import naming


def sample(
    run: Positional[Path],
    n: Annotated[int, MoreThan(0), Below(100_001), arg(aliases=["-n"])] = 64,
    out: Path = Path("grid.png"),
    new_classes: bool = False,
    density: Literal["mixture", "training"] = "mixture",
    seed: Annotated[int, AtLeast(0), Below(1 << 63)] = 0,
) -> None:
    """Draw new images from a density of the codes of training.

    Examples:
        lord-fast sample runs/photos -n 64 --out new.png
        lord-fast sample runs/photos --new-classes

    Args:
        run: The run's folder.
        n: Number of images.
        out: The grid to write, a PNG.
        new_classes: Draw new class codes too. Without it the classes are those of training.
        density: mixture: Gaussians, as many as give held-out codes the highest likelihood.
            training: the baseline, which is the codes of training with the noise of training.
        seed: Seed of everything that is drawn.
    """
    from lord_fast.apply import sample_grid
    from lord_fast.lord import Lord

    lord = Lord.load(run, stage="latent")
    with naming(out):
        sample_grid(lord, n, out, new_classes, density, seed)
    if density == "mixture":
        err.print(f"contents: {lord.density('content', seed).describe()}")
    err.print(f"{out}: {n} images of {'new classes' if new_classes else 'classes of training'}")
