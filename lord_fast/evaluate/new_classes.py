"""Evaluates classes that were held out from training.

A class code is fitted to a few images of a new class and combined with contents of training.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lord_fast.data.store import ImageStore, as_float
from lord_fast.evaluate.images import ImageMetrics, compare, pixels_of, psnr, summary
from lord_fast.evaluate.labels import content_names
from lord_fast.evaluate.lpips import Lpips
from lord_fast.lord import Lord
from lord_fast.progress import Parts, Progress, silent


@dataclass(frozen=True)
class Targets:
    """Images of new classes whose content label occurs in training.

    Attributes:
        shots: Images of each class for the fit of its code, int64 [classes, shots].
        target: True images of the new classes' store, none of which is a shot, int64 [P].
        class_: Class of each target, int64 [P].
        shot: One of the shots of this class, int64 [P].
        content: An image of the training store with the same content, int64 [P].
    """

    shots: Tensor
    target: Tensor
    class_: Tensor
    shot: Tensor
    content: Tensor


def draw_targets(held_out: ImageStore, trained: ImageStore, shots: int, seed: int) -> Targets:
    """Draw the shots of each class, and a training image for each other image of the class.

    Args:
        held_out: Images of the new classes.
        trained: The training images.
        shots: Number of shots of each class.
        seed: Seed of the random draws.

    Raises:
        ValueError: A class has at most `shots` images, or no content label of the new classes
            occurs in training.
    """
    rng = np.random.default_rng(seed)
    by_label: dict[tuple, list[int]] = {}
    for image, labels in enumerate(content_names(trained)):
        by_label.setdefault(labels, []).append(image)
    wanted = content_names(held_out)
    drawn, rows = [], []
    class_ids = held_out.class_ids.numpy()
    ends = np.bincount(class_ids, minlength=held_out.num_classes).cumsum()
    for class_id, of_class in enumerate(np.split(class_ids.argsort(kind="stable"), ends[:-1])):
        members = rng.permutation(of_class)
        if len(members) <= shots:
            name = held_out.class_names[class_id]
            raise ValueError(
                f"--shots {shots}: {held_out.path} has {len(members)} images of {name}"
            )
        drawn.append(members[:shots])
        for image in members[shots:]:
            if wanted[image] and wanted[image] in by_label:
                content = rng.choice(by_label[wanted[image]])
                rows.append((image, class_id, rng.choice(drawn[-1]), content))
    if not rows:
        raise ValueError(f"{held_out.path}: shares no content label with {trained.path}")
    columns = torch.from_numpy(np.array(rows, dtype=np.int64)).unbind(1)
    return Targets(torch.from_numpy(np.stack(drawn)), *columns)


def _fitted_codes(
    latent: Lord,
    shots: list[Tensor],
    steps: int,
    seed: int,
    weights: Path | None,
    progress: Progress,
) -> Tensor:
    """Fit a class code to the images of each class, float32 [classes, class_dim]."""
    part = Parts(progress, len(shots))
    return torch.cat(
        [part(latent.fit(batch, True, steps, seed, weights)[1].cpu()) for batch in shots]
    )


def evaluate_new_classes(
    latent: Lord,
    encoder: Lord | None,
    stores: tuple[ImageStore, ImageStore],
    lpips: Lpips | None,
    *,
    shots: int,
    steps: int,
    seed: int,
    perceptual_weights: Path | None,
    progress: Progress = silent,
) -> dict:
    """Fit a code to a few images of each new class and combine it with contents of training.

    Args:
        latent: A model with stage 1.
        encoder: A model with stage 2, whose class codes are measured for comparison, or None.
        stores: The store of the new classes, and the store of training.
        lpips: The perceptual distance. With None it is null in the result.
        shots: Number of images of each class for the fit.
        steps: Number of optimization steps of each fit.
        seed: Seed of the random draws.
        perceptual_weights: VGG16 weights for the fit. Defaults to those of the run.
        progress: Called with the number of fitted classes and of all classes.
    """
    held_out, trained = stores
    drawn = draw_targets(held_out, trained, shots, seed)
    images = [as_float(held_out.images(ids)) for ids in drawn.shots]
    codes = _fitted_codes(latent, images, steps, seed, perceptual_weights, progress)
    means = torch.stack([batch.mean(0) for batch in images])
    targets, contents = (
        pixels_of(store, ids) for store, ids in ((held_out, drawn.target), (trained, drawn.content))
    )

    def fitted(positions: Tensor) -> Tensor:
        content = latent.content_codes[drawn.content[positions]]
        return latent.decode(content, codes[drawn.class_[positions]]).cpu()

    def encoded(positions: Tensor) -> Tensor:
        assert encoder is not None
        return encoder.translate(
            contents(positions), as_float(held_out.images(drawn.shot[positions]))
        ).cpu()

    def encoded_mean(positions: Tensor) -> Tensor:
        """Take the class from all shots, like the fit does, by averaging their class codes."""
        assert encoder is not None
        classes = torch.stack([encoder.encode_class(batch).mean(0) for batch in images])
        content, _ = encoder.encode(contents(positions))
        return encoder.decode(content, classes[drawn.class_[positions]], "encoders").cpu()

    def measured(made, features: Lpips | None) -> ImageMetrics:
        return compare(made, targets, len(drawn.target), features)

    return {
        "classes": held_out.num_classes,
        "shots": shots,
        "fit_steps": steps,
        "pairs": len(drawn.target),
        **summary(measured(fitted, lpips), seed),
        "encoder_one_image": None if encoder is None else summary(measured(encoded, lpips), seed),
        "encoder_shots_mean": (
            None if encoder is None else summary(measured(encoded_mean, lpips), seed)
        ),
        "shots_mean_psnr": psnr(measured(lambda positions: means[drawn.class_[positions]], None)),
        "copy_content_psnr": psnr(measured(contents, None)),
    }
