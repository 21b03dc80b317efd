"""Finds codes of image files with the encoders or by fitting, and decodes files of codes."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lord_fast.apply.out import check_out, combinations, strips, write
from lord_fast.data.image_files import list_images, read_batches, read_images
from lord_fast.data.names import short_names
from lord_fast.grid import draw
from lord_fast.lord import Lord
from lord_fast.lord.sources import Kind, Source, joint_stage, row_of
from lord_fast.progress import Progress, silent
from lord_fast.run.codes import Codes, file_names, load_codes

CONTENTS = 8
"""Number of contents of training that a new class is shown with."""


def encode_files(
    lord: Lord, paths: Sequence[Path], out: Path, overwrite: bool = False
) -> list[Path]:
    """Encode images with the encoders of stage 2 and write their codes.

    Args:
        lord: A model with stage 2.
        paths: Images, or folders of images.
        out: The file to write. An npz file gets the codes, see `lord_fast.run.codes.Codes`. A
            picture shows the images above their reconstructions.
        overwrite: Whether to replace an existing file.

    Returns:
        The image files, in the order of their codes.

    Raises:
        ValueError: The model has no stage 2, an image cannot be read, or `out` exists.
    """
    check_out(out, overwrite)
    files = list_images(paths)
    pairs = [
        [part.cpu() for part in lord.encode(images)] for images in read_batches(files, lord.shape)
    ]
    content, class_ = (torch.cat(parts) for parts in zip(*pairs, strict=True))

    def picture() -> np.ndarray:
        made = lord.decode(content, class_, "encoders").cpu()
        images = read_images(files, lord.shape)
        return strips([list(images), list(made)], short_names(files), ["image", "decoded"])

    codes = Codes("encoders", file_names(files), content.numpy(), class_.numpy())
    write(out, codes, picture)
    return files


def fit_files(
    lord: Lord,
    paths: Sequence[Path],
    out: Path,
    new_class: bool = False,
    steps: int = 300,
    seed: int = 0,
    perceptual_weights: Path | None = None,
    progress: Progress = silent,
    overwrite: bool = False,
) -> tuple[list[Path], float]:
    """Optimize the codes of images with `Lord.fit` and write them.

    Args:
        lord: A trained model.
        paths: Images, or folders of images.
        out: The file to write. An npz file gets the codes, see `lord_fast.run.codes.Codes`. A
            picture shows the images above their reconstructions and, with `new_class`, the new
            class with contents of training.
        new_class: All images show one class that was not in training.
        steps: Number of optimization steps.
        seed: Seed of the initial codes and of the noise.
        perceptual_weights: File with VGG16 weights. Defaults to the weights of the run.
        progress: Called with the number of finished steps and of all steps.
        overwrite: Whether to replace an existing file.

    Returns:
        The image files in the order of their codes, and the PSNR of the reconstructions in dB.

    Raises:
        ValueError: An image or the weights cannot be read, or `out` exists.
    """
    check_out(out, overwrite)
    files = list_images(paths)
    images = read_images(files, lord.shape)
    content, class_ = lord.fit(images, new_class, steps, seed, perceptual_weights, progress)
    made = lord.decode(content, class_.expand(len(content), -1), "latent").cpu()

    def picture() -> np.ndarray:
        if new_class:
            return _new_class(lord, images, made, short_names(files), class_)
        return strips([list(images), list(made)], short_names(files), ["image", "fitted"])

    codes = Codes("latent", file_names(files), content.cpu().numpy(), class_.cpu().numpy())
    write(out, codes, picture)
    return files, -10 * (made - images).square().mean().log10().item()


def _new_class(
    lord: Lord, images: Tensor, made: Tensor, names: list[str], class_: Tensor
) -> np.ndarray:
    """Draw images and their reconstructions, and beside them the class with other contents."""
    order = torch.randperm(len(lord.content_codes), generator=torch.Generator().manual_seed(0))
    contents = [lord.find(int(i), "content")[0] for i in order[:CONTENTS]]
    codes = torch.stack([each.code for each in contents])
    others = lord.decode(codes, class_.expand(len(codes), -1), "latent").cpu()
    above: list[Tensor | None] = [*images, *(each.image for each in contents)]
    below: list[Tensor | None] = [*made, *others]
    labels = [*names, *(each.name for each in contents)]
    return draw([above, below], labels, ["image", "new class"], (), (len(images),))


def decode_files(
    lord: Lord,
    codes: Path,
    out: Path,
    content: Sequence[str] = (),
    class_: Sequence[str] = (),
    overwrite: bool = False,
) -> tuple[int, int]:
    """Decode a file of codes and write a picture.

    Without `content` and `class_`, every content is decoded with its own class. Otherwise the
    picture shows all combinations.

    Args:
        lord: A trained model.
        codes: An npz file of `encode`, `fit` and others.
        out: The picture to write.
        content: Names or numbers of codes in the file, or anything that `Lord.find` finds. Defaults
            to all contents of the file.
        class_: The same for classes. Defaults to all classes of the file.
        overwrite: Whether to replace an existing file.

    Returns:
        The number of rows and of columns, or 1 and the number of images.

    Raises:
        ValueError: The file holds no codes of this model, nothing has a given name, or `out`
            exists.
    """
    check_out(out, overwrite, codes=False)
    found = load_codes(codes)
    lord.check_codes(codes, found)
    if not content and not class_:
        contents, own = (torch.from_numpy(part) for part in (found.content, found.class_))
        made = lord.decode(contents, own.expand(len(contents), -1), found.stage).cpu()
        names = short_names([Path(name) for name in found.names])
        write(out, None, lambda: strips([list(made)], names, [""]))
        return 1, len(made)
    columns = _chosen(lord, codes, found, content, "content")
    rows = _chosen(lord, codes, found, class_, "class")
    made_rows = combine(lord, columns, rows)
    write(out, None, lambda: combinations(columns, rows, made_rows, None))
    return len(rows), len(columns)


def combine(
    lord: Lord, contents: Sequence[Source], classes: Sequence[Source]
) -> list[list[Tensor]]:
    """Decode every class with every content. Return images [C, H, W] by class and content."""
    stage = joint_stage([*contents, *classes])
    codes = torch.stack([each.code.cpu() for each in contents])
    return [
        list(lord.decode(codes, each.code.cpu().expand(len(codes), -1), stage).cpu())
        for each in classes
    ]


def _chosen(lord: Lord, file: Path, codes: Codes, asked: Sequence[str], kind: Kind) -> list[Source]:
    """Return codes of the file, or what else the words stand for."""
    if not asked:
        return lord.find(file, kind)
    found: list[Source] = []
    for word in asked:
        try:
            row = row_of(file, codes, word)
        except ValueError:
            found += lord.find(word, kind)
        else:
            found += lord.find(f"{file}:{row}", kind)
    return found
