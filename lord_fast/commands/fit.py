"""lord-fast fit."""

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional

from lord_fast.bounds import AtLeast, Below, MoreThan
from lord_fast.console import err, progress_bar
from lord_fast.errors import naming


def fit(
    run: Positional[Path],
    files: Positional[list[Path]],
    out: Path = Path("codes.npz"),
    new_class: bool = False,
    steps: Annotated[int, MoreThan(0)] = 300,
    seed: Annotated[int, AtLeast(0), Below(1 << 63)] = 0,
    perceptual_weights: Path | None = None,
) -> None:
    """Optimize the codes of new images and write them.

    This needs only stage 1, whose networks stay unchanged.

    Examples:
        lord-fast fit runs/photos new-photos --out codes.npz
        lord-fast fit runs/photos new-person --new-class

    Args:
        run: The run's folder.
        files: Images, or folders of images.
        out: The npz file to write. It holds the arrays names [N], content [N, content_dim] and
            class_ [N, class_dim], or class_ [1, class_dim] with --new-class.
        new_class: All images show one class that was not in training. They share one class code.
        steps: Number of optimization steps.
        seed: Seed of the initial codes and of the noise.
        perceptual_weights: File of VGG16 weights. Defaults to the weights of the run.
    """
    from lord_fast.apply import fit_files
    from lord_fast.lord import Lord

    lord = Lord.load(run, stage="latent")
    with naming(out), progress_bar("fit") as progress:
        found, psnr = fit_files(
            lord, files, out, new_class, steps, seed, perceptual_weights, progress
        )
    what = "one class code" if new_class else "class codes"
    err.print(f"{out}: {what} and content codes of {len(found)} images, "
              f"reconstruction {psnr:.2f} dB")  # fmt: skip
