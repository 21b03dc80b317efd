"""lord-fast fit."""

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional

from lord_fast.bounds import AtLeast, Below, MoreThan
from lord_fast.console import err
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
    """Write the codes of images, by optimization with stage 1.

    Examples:
        lord-fast fit runs/photos new-photos --out codes.npz
        lord-fast fit runs/photos new-person --new-class

    Args:
        run: The run's folder.
        files: Images, or folders of images.
        out: The file to write: names, content [N, content_dim], class_ [N or 1, class_dim].
        new_class: The images show one class, unseen in training, and share one class code.
        steps: Steps of the optimization.
        seed: Seed of its start and its noise.
        perceptual_weights: File of VGG16 weights. Without it those of the run.
    """
    from lord_fast.apply import fit_files
    from lord_fast.lord import Lord

    with naming(out):
        found, psnr = fit_files(
            Lord.load(run, stage="latent"), files, out, new_class, steps, seed, perceptual_weights
        )
    what = "one class code" if new_class else "as many class codes"
    err.print(f"{out}: content codes of {len(found)} images and {what}; "
              f"reconstruction {psnr:.2f} dB")  # fmt: skip
