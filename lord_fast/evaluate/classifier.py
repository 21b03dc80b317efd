"""A small convolutional classifier of images, which judges the class of generated images."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from lord_fast.system import INFERENCE_BATCH

STEPS = 250
BATCH = 64
LEARNING_RATE = 3e-3
SHIFT = 2
"""Largest shift of training images in pixels."""


def train_classifier(images: Tensor, labels: Tensor, num_classes: int, seed: int) -> nn.Module:
    """Train a classifier for `STEPS` steps on randomly shifted images.

    Args:
        images: Reduced images, float32 [N, C, side, side] in [0, 1].
        labels: int64 [N].
        num_classes: Number of classes.
        seed: Seed of the weights, the order and the shifts.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _network(images.shape[1], num_classes)
        adam = torch.optim.AdamW(network.parameters(), LEARNING_RATE, weight_decay=0.05)
        schedule = torch.optim.lr_scheduler.OneCycleLR(adam, LEARNING_RATE, STEPS)
        order = torch.cat([torch.randperm(len(images)) for _ in range(_epochs(len(images)))])
        for ids in order[: STEPS * BATCH].split(BATCH):
            loss = functional.cross_entropy(network(_shifted(images[ids])), labels[ids])
            adam.zero_grad()
            loss.backward()
            adam.step()
            schedule.step()
    return network.eval()


@torch.no_grad()
def classify(network: nn.Module, images: Tensor) -> Tensor:
    """Return the predicted class of reduced images [N, C, side, side], int64 [N]."""
    return torch.cat([network(batch).argmax(1) for batch in images.split(INFERENCE_BATCH)])


def _shifted(images: Tensor) -> Tensor:
    """Shift the batch by one random number of pixels, repeating the border."""
    side = images.shape[-1]
    padded = functional.pad(images, (SHIFT,) * 4, mode="replicate")
    top, left = torch.randint(2 * SHIFT + 1, (2,)).tolist()
    return padded[..., top : top + side, left : left + side]


def _epochs(count: int) -> int:
    return -(-STEPS * BATCH // count)


def _network(channels: int, num_classes: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in ((channels, 24), (24, 48), (48, 96)):
        layers += [nn.Conv2d(before, after, 4, stride=2, padding=1, bias=False)]
        layers += [nn.BatchNorm2d(after), nn.ReLU()]
    layers += [nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Dropout(0.3)]
    return nn.Sequential(*layers, nn.Linear(16 * 96, num_classes))
