"""Test-time latent optimization, which finds the codes of new images for a frozen generator."""

import torch
from torch import Tensor, nn

from lord_fast.config import TrainConfig
from lord_fast.model.generator import Decoder
from lord_fast.model.schedule import cosine
from lord_fast.progress import Progress, silent

BATCH = 64
START_CLASSES, START_CONTENTS = 16, 64
"""Maximum numbers of training codes that are tried as initial codes."""


def fit_codes(
    images: Tensor,
    decoder: Decoder,
    reconstruction: nn.Module,
    config: TrainConfig,
    trained: tuple[Tensor, Tensor],
    *,
    new_class: bool,
    steps: int,
    seed: int,
    progress: Progress = silent,
) -> tuple[Tensor, Tensor]:
    """Optimize codes with the loss, noise, penalty and learning rates of stage 1.

    Each image starts from the training codes that decode to the nearest image. Up to 16 classes
    and 64 contents, drawn at random, are tried.

    Args:
        images: float32 [N, C, H, W] in [0, 1], on the decoder's device.
        decoder: The decoder of stage 1. Its parameters are frozen and do not change.
        reconstruction: The run's loss.
        config: The run's configuration.
        trained: Content codes [num_images, content_dim] and class codes [num_classes, class_dim]
            of training.
        new_class: Whether the images share one class code.
        steps: Number of Adam steps. Each step uses all images.
        seed: Seed of the initial codes and of the noise.
        progress: Called with the number of steps done and of all.

    Returns:
        Content codes, float32 [N, content_dim], and class codes, float32 [N, class_dim] or, with
        `new_class`, [1, class_dim].
    """
    generator = torch.Generator(images.device).manual_seed(seed)
    for parameter in decoder.parameters():
        parameter.requires_grad_(False)
    content, class_ = _start(images, decoder, trained, new_class, generator)
    content.requires_grad_()
    class_.requires_grad_()
    rates = config.adam
    schedules = [cosine(lr, rates.min_lr, steps) for lr in (rates.latent_lr, rates.class_lr)]
    groups = [{"params": [content]}, {"params": [class_]}]
    adam = torch.optim.Adam(groups, betas=(rates.beta1, rates.beta2), eps=rates.eps)
    for step in range(steps):
        for group, schedule in zip(adam.param_groups, schedules, strict=True):
            group["lr"] = float(schedule[step])
        noise = torch.randn(content.shape, generator=generator, device=content.device)
        for ids in torch.arange(len(images), device=images.device).split(BATCH):
            noisy = content[ids] + config.model.content_std * noise[ids]
            made = decoder(noisy, class_.expand(len(images), -1)[ids])
            loss = reconstruction(made, images[ids])
            loss = loss + config.loss.content_decay * noisy.square().sum(1).mean()
            (loss * len(ids) / len(images)).backward()
        adam.step()
        adam.zero_grad()
        progress(step + 1, steps)
    return content.detach(), class_.detach()


@torch.no_grad()
def _start(
    images: Tensor,
    decoder: Decoder,
    trained: tuple[Tensor, Tensor],
    new_class: bool,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Copies of the training codes whose images are nearest to `images`."""
    contents, classes = (
        codes[torch.randperm(len(codes), generator=generator, device=codes.device)[:most]]
        for codes, most in zip(trained, (START_CONTENTS, START_CLASSES), strict=True)
    )
    distances = torch.stack(  # [classes, images, contents]
        [
            torch.cdist(
                images.flatten(1), decoder(contents, code.expand(len(contents), -1)).flatten(1)
            )
            for code in classes
        ]
    )
    nearest, content = distances.min(2)
    if new_class:
        best = nearest.square().sum(1).argmin()
        return contents[content[best]].clone(), classes[best : best + 1].clone()
    best = nearest.argmin(0)
    picked = content[best, torch.arange(len(images), device=images.device)]
    return contents[picked].clone(), classes[best].clone()
