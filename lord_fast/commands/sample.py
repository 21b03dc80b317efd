"""lord-fast sample."""

from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from lord_fast.bounds import AtLeast, Below, MoreThan
from lord_fast.console import err, progress_bar
from lord_fast.errors import naming


def sample(
    run: Positional[Path],
    n: Annotated[int, MoreThan(0), Below(100_001), arg(aliases=["-n"])] = 64,
    out: Path = Path("samples.png"),
    new_classes: bool = False,
    density: Literal["mixture", "training"] = "mixture",
    seed: Annotated[int, AtLeast(0), Below(1 << 31)] = 0,
    overwrite: bool = False,
) -> None:
    """Generate new images from a density of the codes.

    Examples:
        lord-fast sample runs/photos -n 64 --out new.png
        lord-fast sample runs/photos --new-classes

    Args:
        run: The run's folder, or an exported model.
        n: Number of images.
        out: The file to write, a .png or .jpg picture or an npz file of codes.
        new_classes: Also draw new class codes. By default the classes are those of training.
        density: Density to draw codes from. mixture fits Gaussians to the codes and chooses their
            number by the likelihood of held-out codes. training is a baseline that adds the noise
            of training to the codes of training.
        seed: Seed of the random draws.
        overwrite: Replace an existing file.
    """
    from lord_fast.apply import sample_grid
    from lord_fast.apply.process import open_model

    lord = open_model(run, "latent")
    with naming(out), progress_bar("density of codes") as progress:
        sample_grid(lord, n, out, new_classes, density, seed, progress, overwrite)
    if density == "mixture":
        err.print(f"content density: {lord.density('content', seed).describe()}")
    err.print(f"{out}: {n} images of {'new classes' if new_classes else 'training classes'}")
