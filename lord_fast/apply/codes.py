"""Applies a trained model to image files, for the verbs encode, translate, fit and others."""

import math
from collections.abc import Sequence
from pathlib import Path

import torch

from lord_fast.data.image_files import list_images, read_batches, read_images
from lord_fast.grid import label, save_png, tile, to_pixels
from lord_fast.lord import Lord
from lord_fast.model.density import Kind
from lord_fast.progress import Progress, silent
from lord_fast.run.codes import save_codes


def encode_files(lord: Lord, paths: Sequence[Path], out: Path) -> list[Path]:
    """Encode images with the encoders of stage 2 and write their codes.

    Args:
        lord: A model with stage 2.
        paths: Images, or folders of images.
        out: The file to write, see `lord_fast.run.codes.save_codes`.

    Returns:
        The image files, in the order of their codes.

    Raises:
        ValueError: The model has no stage 2, or an image cannot be read.
    """
    files = list_images(paths)
    pairs = [
        [part.cpu() for part in lord.encode(images)] for images in read_batches(files, lord.shape)
    ]
    content, class_ = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    save_codes(out, "encoders", files, content.numpy(), class_.numpy())
    return files


def translate_files(
    lord: Lord,
    content: Sequence[Path],
    class_: Sequence[Path],
    out: Path,
    singles: Path | None = None,
) -> tuple[int, int]:
    """Write a labelled grid that combines the class of each row with the content of each column.

    Args:
        lord: A model with stage 2.
        content: Images, or folders of images, that give the columns their content.
        class_: Images, or folders of images, that give the rows their class.
        out: The PNG file to write.
        singles: A folder for the translated images as single files.

    Returns:
        The number of rows and the number of columns.

    Raises:
        ValueError: The model has no stage 2, or an image cannot be read.
    """
    columns, rows = list_images(content), list_images(class_)
    above, left = read_images(columns, lord.shape), read_images(rows, lord.shape)
    made = [lord.translate(above, image[None]).cpu() for image in left]
    cells = [[image, *images] for image, images in zip(left, made, strict=True)]
    names = ([file.stem for file in columns], [file.stem for file in rows])
    save_png(out, label(tile([[None, *above], *cells]), lord.data["size"], *names))
    if singles is not None:
        for i, (row, images) in enumerate(zip(rows, made, strict=True)):
            for j, (column, image) in enumerate(zip(columns, images, strict=True)):
                name = f"{i:03d}-{row.stem}--{j:03d}-{column.stem}.png"
                save_png(singles / name, to_pixels(image))
    return len(rows), len(columns)


def fit_files(
    lord: Lord,
    paths: Sequence[Path],
    out: Path,
    new_class: bool = False,
    steps: int = 300,
    seed: int = 0,
    perceptual_weights: Path | None = None,
    progress: Progress = silent,
) -> tuple[list[Path], float]:
    """Optimize the codes of images with `Lord.fit` and write them.

    Args:
        lord: A trained model.
        paths: Images, or folders of images.
        out: The file to write, see `lord_fast.run.codes.save_codes`.
        new_class: All images show one class that was not in training.
        steps: Number of optimization steps.
        seed: Seed of the initial codes and of the noise.
        perceptual_weights: File with VGG16 weights. Defaults to the weights of the run.
        progress: Called with the number of finished steps and of all steps.

    Returns:
        The image files in the order of their codes, and the PSNR of the reconstructions in dB.

    Raises:
        ValueError: An image or the weights cannot be read.
    """
    files = list_images(paths)
    images = read_images(files, lord.shape)
    content, class_ = lord.fit(images, new_class, steps, seed, perceptual_weights, progress)
    save_codes(out, "latent", files, content.cpu().numpy(), class_.cpu().numpy())
    made = lord.decode(content, class_.expand(len(content), -1), "latent").cpu()
    return files, -10 * (made - images).square().mean().log10().item()


def sample_grid(
    lord: Lord,
    n: int,
    out: Path,
    new_classes: bool = False,
    density: Kind = "mixture",
    seed: int = 0,
    progress: Progress = silent,
) -> None:
    """Generate new images with `Lord.sample` and write them as a grid.

    Args:
        lord: A trained model.
        n: Number of images.
        out: The PNG file to write.
        new_classes: Whether to draw new class codes as well.
        density: mixture or training.
        seed: Seed of the random draws.
        progress: Called with the number of tried mixtures and of all mixtures.

    Raises:
        ValueError: New classes are requested from the training density, which has none.
    """
    if density == "mixture":  # takes longest, and is kept
        lord.density("content", seed, progress)
    images = list(lord.sample(n, new_classes, density, seed).cpu())
    columns = math.ceil(math.sqrt(n))
    padded = [*images, *[None] * (-n % columns)]
    save_png(out, tile([padded[i : i + columns] for i in range(0, n, columns)], sources=False))


def interpolate_files(lord: Lord, first: Path, second: Path, out: Path, steps: int = 8) -> None:
    """Write a grid of images that interpolate between two images.

    The content changes from left to right and the class from top to bottom.

    Args:
        lord: A model with stage 2.
        first: The image at the upper left.
        second: The image at the lower right.
        out: The PNG file to write.
        steps: Number of rows and of columns, at least 2.

    Raises:
        ValueError: The model has no stage 2, or the paths are not two images.
    """
    files = list_images([first, second])
    if len(files) != 2:
        raise ValueError(f"{first} {second}: name two images, not folders of several")
    content, class_ = lord.encode(read_images(files, lord.shape))
    contents = lord.interpolate(content[0], content[1], steps)
    classes = lord.interpolate(class_[0], class_[1], steps)
    made = lord.decode(contents.repeat(steps, 1), classes.repeat_interleave(steps, 0), "encoders")
    rows = [list(row) for row in torch.stack(made.cpu().split(steps))]
    save_png(out, tile(rows, sources=False))
