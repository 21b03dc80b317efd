"""The published training step, without any optimization.

It runs eagerly on float32 images and over contiguous memory. Both tables are nn.Embedding with
dense gradients and dense Adam. VGG16 is not frozen and the target branch keeps its graph, so
gradients of the VGG16 weights are computed through both branches although nothing uses them. This
code was written from the description of the method. It is the oracle of the tests and the base of
every ratio.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lord_fast.data.store import as_float
from lord_fast.kernels import reference
from lord_fast.model.build import build_vgg
from lord_fast.model.perceptual import CONVOLUTIONS, POOLS
from lord_fast.train.latent import LatentStage

TAPS = (3, 8, 13, 22, 30)
"""Layer numbers in torchvision's `features` whose outputs are compared, see `PublishedVGG`."""
OURS = "lord-fast"


class PublishedModel(nn.Module):
    """The embeddings, modulation and generator of the published code, for 64 px images.

    The slope of LeakyReLU is that of the PyTorch code by default. The TensorFlow code has 0.3.
    """

    def __init__(
        self,
        num_images: int,
        num_classes: int,
        *,
        content_dim: int = 128,
        class_dim: int = 256,
        adain_dim: int = 256,
        size: int = 64,
        channels: int = 3,
        content_std: float = 1.0,
        leaky_slope: float = 0.01,
    ):
        super().__init__()
        self.content_std, self.start, self.adain_dim = content_std, size // 16, adain_dim
        self.leaky_slope = leaky_slope
        self.content_embedding = nn.Embedding(num_images, content_dim)
        self.class_embedding = nn.Embedding(num_classes, class_dim)
        for table in (self.content_embedding, self.class_embedding):
            nn.init.uniform_(table.weight, -0.05, 0.05)
        self.adain = nn.ModuleList(nn.Linear(class_dim, 2 * adain_dim) for _ in range(4))
        pixels = self.start**2
        self.fc = nn.Sequential(
            nn.Linear(content_dim, pixels * (adain_dim // 8)), nn.LeakyReLU(leaky_slope),
            nn.Linear(pixels * (adain_dim // 8), pixels * (adain_dim // 4)),
            nn.LeakyReLU(leaky_slope),
            nn.Linear(pixels * (adain_dim // 4), pixels * adain_dim), nn.LeakyReLU(leaky_slope),
        )  # fmt: skip
        self.convs = nn.ModuleList(nn.Conv2d(adain_dim, adain_dim, 3, padding=1) for _ in range(4))
        self.last = nn.Sequential(
            nn.Conv2d(adain_dim, adain_dim // 4, 5, padding=2), nn.LeakyReLU(leaky_slope),
            nn.Conv2d(adain_dim // 4, channels, 7, padding=3), nn.Sigmoid(),
        )  # fmt: skip

    def layers(self) -> list[nn.Module]:
        """All layers with parameters except the embeddings, in the order of `layers_of`."""
        return [*self.adain, *list(self.fc)[::2], *self.convs, *list(self.last)[:3:2]]

    def forward(
        self, image_ids: Tensor, class_ids: Tensor, noise: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Generate the images of a batch. Returns the images and the noisy content codes."""
        code = self.content_embedding(image_ids)
        noise = torch.randn_like(code) if noise is None else noise
        code = code + self.content_std * noise
        return self.generate(code, self.class_embedding(class_ids)), code

    def generate(self, code: Tensor, class_code: Tensor) -> Tensor:
        """Generate images [B, channels, size, size] from content and class codes."""
        x = self.fc(code).view(len(code), self.adain_dim, self.start, self.start)
        for conv, linear in zip(self.convs, self.adain, strict=True):
            x = F.leaky_relu(conv(F.interpolate(x, scale_factor=2)), self.leaky_slope)
            bias, scale = linear(class_code).view(len(code), -1, 2, 1, 1).unbind(2)
            mean = x.mean((2, 3), keepdim=True)
            var = x.var((2, 3), unbiased=False, keepdim=True)
            x = scale * (x - mean) / torch.sqrt(var + 1e-5) + bias
        return self.last(x)


class PublishedVGG(nn.Module):
    """VGG16 features with torchvision's numbering. The parameters require gradients."""

    def __init__(self, weights: dict[str, Tensor], taps: Sequence[int] = TAPS):
        super().__init__()
        self.taps = taps
        layers: list[nn.Module] = []
        for n in range(taps[-1] + 1):
            if n in CONVOLUTIONS:
                layers.append(nn.Conv2d(*CONVOLUTIONS[n], 3, padding=1))
            else:
                layers.append(nn.MaxPool2d(2) if n in POOLS else nn.ReLU(inplace=True))
        self.features = nn.Sequential(*layers)
        self.load_state_dict(weights)

    def forward(self, images: Tensor) -> list[Tensor]:
        """The tapped feature maps of RGB images in [0, 1], not normalised."""
        taps = []
        for n, layer in enumerate(self.features):
            images = layer(images)
            if n in self.taps:
                taps.append(images)
        return taps


class PublishedStep:
    """Model, loss, optimizer and schedule. A call does one step on a batch of float32 images.

    Attributes:
        options: Options of the `paper` preset that the recipe changes.
    """

    options: ClassVar[Mapping[str, Any]] = {}
    schedule: torch.optim.lr_scheduler.LRScheduler

    def __init__(
        self,
        model: PublishedModel,
        vgg: PublishedVGG,
        total_steps: int,
        content_decay: float = 1e-4,
    ):
        self.model, self.vgg, self.content_decay = model, vgg, content_decay
        tables = (*model.content_embedding.parameters(), *model.class_embedding.parameters())
        networks = [p for p in model.parameters() if all(p is not table for table in tables)]
        self.optimizer = torch.optim.Adam(
            [{"params": networks, "lr": 3e-4}, {"params": tables, "lr": 3e-3}], betas=(0.5, 0.999)
        )
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
            self.optimizer, total_steps, eta_min=1e-5
        )

    @classmethod
    def like(cls, stage: LatentStage) -> "PublishedStep":
        """Build the published step with the current parameters of a stage of --preset paper."""
        config, store = stage.config, stage.store
        model = PublishedModel(
            store.num_images, store.num_classes, content_dim=config.model.content_dim,
            class_dim=config.model.class_dim, adain_dim=config.model.adain_dim, size=store.size,
            content_std=config.model.content_std, leaky_slope=config.model.leaky_slope,
        )  # fmt: skip
        model.content_embedding.weight.data.copy_(stage.contents[0].state.weight)
        model.class_embedding.weight.data.copy_(stage.class_.state.weight)
        for ours, theirs in zip(layers_of(stage), model.layers(), strict=True):
            theirs.load_state_dict(ours.state_dict())
        kinds = ("weight", "bias")
        # The stage's own copy may be rounded to bf16.
        vgg = build_vgg(config, config.loss.perceptual_weights)
        weights = {
            f"features.{n}.{k}": getattr(vgg, f"features_{n}_{k}")
            for n in CONVOLUTIONS
            if n <= vgg.taps[-1]
            for k in kinds
        }
        step = cls(
            model.to(stage.device),
            PublishedVGG(weights, vgg.taps).to(stage.device),
            stage.total_steps,
            config.loss.content_decay,
        )
        step.adapt(stage)
        return step

    def adapt(self, stage: LatentStage) -> None:
        """Adapt a new step to the recipe of another published code."""

    def loss(
        self, image_ids: Tensor, class_ids: Tensor, images: Tensor, noise: Tensor | None = None
    ) -> Tensor:
        """Pixel L1 plus the unscaled L1 of every tap plus the penalty on the noisy content code."""
        generated, code = self.model(image_ids, class_ids, noise)
        loss = (generated - images).abs().mean()
        for got, want in zip(self.vgg(generated), self.vgg(images), strict=True):
            loss = loss + (got - want).abs().mean()
        return loss + self.content_decay * code.square().sum(1).mean()

    def __call__(
        self, image_ids: Tensor, class_ids: Tensor, images: Tensor, noise: Tensor | None = None
    ) -> Tensor:
        """Do one step and return its loss."""
        loss = self.loss(image_ids, class_ids, images, noise)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.schedule.step()
        return loss.detach()


def layers_of(stage: LatentStage) -> list[nn.Module]:
    """All layers of the decoder with parameters, in the order of `PublishedModel.layers`."""
    generator, modulation = stage.decoder.generator, stage.decoder.modulation
    return [
        *modulation.layers, *generator.head, *generator.body, generator.hidden, generator.image,
    ]  # fmt: skip


def batch_of(stage: LatentStage, step: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The image ids, class ids, uint8 images and noise that the stage uses at `step`."""
    ids = stage.sampler.image_ids(step)
    noise = reference.noise(
        ids, stage.config.model.content_dim, torch.tensor(step), stage.config.seed
    )
    return ids, stage.store.class_ids[ids], stage.store.images(ids), noise


@dataclass
class Curves:
    """The training curves of lord-fast and of published steps.

    Attributes:
        losses: Name -> loss of every step.
        seconds: Name -> total time of all steps.
    """

    losses: dict[str, list[float]]
    seconds: dict[str, float]

    def add(self, name: str, step: Callable[[], Tensor]) -> None:
        """Do a step and record its loss and time."""
        start = time.perf_counter()
        self.losses[name].append(float(step()))
        self.seconds[name] += time.perf_counter() - start

    def difference(self, name: str, base: str) -> float:
        """The largest relative difference between the losses of `name` and `base` at one step."""
        pairs = zip(self.losses[name], self.losses[base], strict=True)
        return max(abs(a - b) / abs(b) for a, b in pairs)

    def drift(self, name: str, base: str, steps: int = 50) -> float:
        """The relative difference between the mean losses of the last `steps` steps."""
        ours, theirs = (fmean(self.losses[which][-steps:]) for which in (name, base))
        return abs(ours - theirs) / abs(theirs)


def curves(stage: LatentStage, others: dict[str, PublishedStep], steps: int) -> Curves:
    """Train a stage and published steps in turn on the same batches with the same noise.

    Args:
        stage: lord-fast's stage 1.
        others: Name -> published step, see `PublishedStep.like`.
        steps: Number of steps.
    """
    found = Curves({name: [] for name in (OURS, *others)}, dict.fromkeys((OURS, *others), 0.0))
    for step in range(steps):
        ids, classes, pixels, noise = (t.to(stage.device) for t in batch_of(stage, step))
        found.add(OURS, partial(_our_loss, stage, step))
        for name, other in others.items():
            dtype = next(other.model.parameters()).dtype
            images = as_float(pixels).to(dtype)
            found.add(name, partial(other, ids, classes, images, noise.to(dtype)))
    return found


def _our_loss(stage: LatentStage, step: int) -> Tensor:
    return stage.step(step)["loss"]
