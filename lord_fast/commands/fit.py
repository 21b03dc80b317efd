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
    out: Path = Path("fitted.npz"),
    new_class: bool = False,
    steps: Annotated[int, MoreThan(0)] = 300,
    seed: Annotated[int, AtLeast(0), Below(1 << 63)] = 0,
    perceptual_weights: Path | None = None,
    overwrite: bool = False,
) -> None:
    """Optimize the codes of new images and write them.

    This needs only stage 1, whose networks stay unchanged.

    Examples:
        lord-fast fit runs/photos new-photos --out fitted.npz
        lord-fast fit runs/photos new-person --new-class --out new-person.png

    Args:
        run: The run's folder, or an exported model.
        files: Images, or folders of images.
        out: The file to write. An npz file holds the arrays names [N], content [N, content_dim],
            class_ [N, class_dim] (or [1, class_dim] with --new-class) and stage. A .png or .jpg
            file shows the images above their reconstructions and, with --new-class, the new class
            with contents of training.
        new_class: All images show one class that was not in training. They share one class code.
        steps: Number of optimization steps.
        seed: Seed of the initial codes and of the noise.
        perceptual_weights: File of VGG16 weights. Defaults to the weights of the run.
        overwrite: Replace an existing file.
    """
    from lord_fast.apply import fit_files
    from lord_fast.apply.process import open_model

    lord = open_model(run, "latent")
    with naming(out), progress_bar("fit") as progress:
        found, psnr = fit_files(
            lord, files, out, new_class, steps, seed, perceptual_weights, progress, overwrite
        )
    what = "one class code" if new_class else "class codes"
    err.print(f"{out}: {what} and content codes of {len(found)} images, "
              f"reconstruction {psnr:.2f} dB")  # fmt: skip
