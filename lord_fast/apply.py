"""A trained model applied to image files: what the verbs encode, translate, fit and so on write."""

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
    """Write the codes of images by the encoders of stage 2.

    Args:
        lord: With stage 2.
        paths: Images, or folders of images.
        out: The file of codes, see `lord_fast.run.codes.save_codes`.

    Returns:
        The images, in the order of their codes.

    Raises:
        ValueError: there is no stage 2, or an image cannot be read.
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
    """Write a labelled grid: a row has the class of an image, a column the content of another.

    Args:
        lord: With stage 2.
        content: Images, or folders of images: the columns.
        class_: Images, or folders of images: the rows.
        out: The grid, a PNG.
        singles: A folder that every translated image is written to as well.

    Returns:
        The number of rows and of columns.

    Raises:
        ValueError: there is no stage 2, or an image cannot be read.
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
    """Write the codes of images, optimized with stage 1 frozen.

    Args:
        lord: With stage 1.
        paths: Images, or folders of images.
        out: The file of codes, see `lord_fast.run.codes.save_codes`.
        new_class: See `Lord.fit`, as for what follows.
        steps: Of the optimization.
        seed: Of its start and noise.
        perceptual_weights: VGG16 weights.
        progress: Is told of the steps.

    Returns:
        The images in the order of their codes, and the PSNR of their reconstruction in dB.

    Raises:
        ValueError: an image or the weights cannot be read.
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
    """Write a grid of new images.

    Args:
        lord: With stage 1.
        n: Number of images.
        out: The grid, a PNG.
        new_classes: See `Lord.sample`, as for what follows.
        density: mixture or training.
        seed: Of everything that is drawn.
        progress: Is told of the mixtures that are tried.

    Raises:
        ValueError: new classes of the training density, which has none.
    """
    if density == "mixture":  # takes longest, and is kept
        lord.density("content", seed, progress)
    images = list(lord.sample(n, new_classes, density, seed).cpu())
    columns = math.ceil(math.sqrt(n))
    padded = [*images, *[None] * (-n % columns)]
    save_png(out, tile([padded[i : i + columns] for i in range(0, n, columns)], sources=False))


def interpolate_files(lord: Lord, first: Path, second: Path, out: Path, steps: int = 8) -> None:
    """Write a grid: content goes from one image to the other across, class down.

    Args:
        lord: With stage 2.
        first: An image.
        second: An image.
        out: The grid, a PNG.
        steps: Images in a row and in a column, at least 2.

    Raises:
        ValueError: there is no stage 2, or the paths are not two images.
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
