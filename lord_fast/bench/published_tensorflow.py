"""The training step of the published TensorFlow code, which made the figures of the paper.

It differs from the PyTorch code (`lord_fast.bench.published`) in the loss, the penalty, the slope
of LeakyReLU, the batch and the schedule. TensorFlow computes gradients only of the variables that
are trained, so none are computed of VGG16 or through the target branch. The initial values are
those of the PyTorch code.
"""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from lord_fast.bench.published import PublishedStep
from lord_fast.config import Default
from lord_fast.model.perceptual import INPUTS
from lord_fast.model.schedule import cosine
from lord_fast.train.latent import LatentStage

MIN_LR = 1e-5


class TensorFlowStep(PublishedStep):
    """The published TensorFlow recipe. A call does one step on a batch of float32 images."""

    options: ClassVar[Mapping[str, Any]] = {
        "batch_size": Default(64), "content_decay": 1e-3, "leaky_slope": 0.3,
        "perceptual_input": "caffe",
    }  # fmt: skip

    def adapt(self, stage: LatentStage) -> None:
        """See `PublishedStep.adapt`. The stage has the `options`."""
        self.vgg.requires_grad_(False)
        mean, std = INPUTS["caffe"]
        self.mean = torch.tensor(mean, device=stage.device).view(3, 1, 1)
        self.std = torch.as_tensor(std, device=stage.device)
        epochs = math.ceil(stage.total_steps / stage.steps_per_epoch)
        rates: list[Callable[[int], float]] = [
            partial(_part, cosine(lr, MIN_LR, epochs) / lr, stage.steps_per_epoch)
            for lr in (group["initial_lr"] for group in self.optimizer.param_groups)
        ]
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, rates)

    def loss(
        self, image_ids: Tensor, class_ids: Tensor, images: Tensor, noise: Tensor | None = None
    ) -> Tensor:
        """The mean L1 of the taps plus the penalty on the content codes without noise."""
        generated, _ = self.model(image_ids, class_ids, noise)
        with torch.no_grad():
            wanted = self.vgg((images - self.mean) / self.std)
        pairs = zip(self.vgg((generated - self.mean) / self.std), wanted, strict=True)
        differences = [(got - want).abs().mean() for got, want in pairs]
        penalty = self.model.content_embedding(image_ids).square().sum()
        return torch.stack(differences).mean() + self.content_decay * penalty


def _part(parts: Tensor, steps_per_epoch: int, step: int) -> float:
    """Return the learning rate at a step as a part of that at the start, given those of the epochs.

    The schedule asks once more after its end.
    """
    return float(parts[min(step // steps_per_epoch, len(parts) - 1)])
