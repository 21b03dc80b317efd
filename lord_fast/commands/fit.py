"""lord-fast fit."""

from pathlib import Path

from rich.console import Console

from lord_fast.data.image_files import list_images, read_images
from lord_fast.lord import Lord
from lord_fast.run.codes import save_codes


def run(
    run_path: Path,
    paths: list[Path],
    out: Path,
    new_class: bool,
    steps: int,
    seed: int,
    weights: Path | None,
) -> None:
    """Optimize the codes of images with the generator of stage 1 frozen, and write them."""
    if steps < 1:
        raise ValueError(f"--steps {steps}: must be positive")
    lord = Lord.load(run_path, stage="latent")
    files = list_images(paths)
    images = read_images(files, lord.shape)
    content, class_ = lord.fit(images, new_class, steps, seed, weights)
    save_codes(out, "latent", files, content.cpu().numpy(), class_.cpu().numpy())
    made = lord.decode(content, class_.expand(len(content), -1)).cpu()
    psnr = -10 * (made - images).square().mean().log10().item()
    what = "one class code" if new_class else "as many class codes"
    Console(stderr=True, soft_wrap=True).print(
        f"{out}: content codes of {len(files)} images and {what}; reconstruction {psnr:.2f} dB"
    )
