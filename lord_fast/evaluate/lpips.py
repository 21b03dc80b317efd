"""LPIPS (Zhang et al., 2018) with lord-fast's VGG16 weights."""

from pathlib import Path

import torch
import torchmetrics.functional.image as metrics_of_images
from torch import Tensor, nn

from lord_fast.model.perceptual import VGG16

TAPS = ("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3")
EPS = 1e-8


class Lpips(nn.Module):
    """Distance of images in VGG16 features, which are normalized over the channels.

    The heads weight the channels. They were learned from human judgements for torchvision's
    IMAGENET1K_V1 weights and do not apply to other weights. With the Caffe weights all channels
    therefore have the same weight, which the paper calls the uncalibrated network.

    Attributes:
        name: `lpips` with the learned heads, `lpips_equal_heads` without them.
    """

    def __init__(self, weights: dict[str, Tensor], vgg_input: str):
        """Create the network.

        Args:
            weights: Weights from `load_weights`.
            vgg_input: The input that the weights expect. LPIPS always normalizes its input, so
                `unit` is treated like `imagenet`.
        """
        super().__init__()
        self.vgg = VGG16(weights, TAPS, "imagenet" if vgg_input == "unit" else vgg_input)
        learnt = vgg_input != "caffe"
        self.name = "lpips" if learnt else "lpips_equal_heads"
        for tap, head in enumerate(_heads() if learnt else [torch.ones(1)] * len(TAPS)):
            self.register_buffer(f"head_{tap}", head.view(-1, 1, 1))

    @torch.no_grad()
    def forward(self, images: Tensor, targets: Tensor) -> Tensor:
        """Compute distances of images [B, 1 or 3, H, W] in [0, 1]. Returns [B] on the CPU."""
        device = self.vgg.mean.device
        pairs = zip(self.vgg(images.to(device)), self.vgg(targets.to(device)), strict=True)
        total = torch.zeros(len(images), device=device)
        for tap, (got, want) in enumerate(pairs):
            weighed = getattr(self, f"head_{tap}") * (_unit(got) - _unit(want)).square()
            total += weighed.sum(1).mean((1, 2))
        return total.cpu()


def _unit(features: Tensor) -> Tensor:
    return features / (EPS + features.square().sum(1, keepdim=True)).sqrt()


def _heads() -> list[Tensor]:
    """Load the learned channel weights of each tap, which torchmetrics ships."""
    file = Path(metrics_of_images.__file__).parent / "lpips_models" / "vgg.pth"
    state = torch.load(file, map_location="cpu", weights_only=True)
    return [state[f"lin{tap}.model.1.weight"].flatten() for tap in range(len(TAPS))]
