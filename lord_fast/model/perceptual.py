"""VGG16 features, the reconstruction loss based on them, and a loss that needs no weights."""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lord_fast.download import download

CONVOLUTIONS = {
    0: (3, 64), 2: (64, 64),
    5: (64, 128), 7: (128, 128),
    10: (128, 256), 12: (256, 256), 14: (256, 256),
    17: (256, 512), 19: (512, 512), 21: (512, 512),
    24: (512, 512), 26: (512, 512), 28: (512, 512),
}  # fmt: skip
"""Layer number in torchvision's `features` -> (in, out) channels of each 3x3 convolution."""
POOLS = (4, 9, 16, 23, 30)
TAPS = {
    "relu1_2": 3, "relu2_2": 8, "relu3_2": 13, "relu3_3": 15, "relu4_3": 22, "relu5_3": 29,
    "pool5": 30,
}  # fmt: skip
"""Name of a tap -> number of the layer whose output it is."""

INPUTS = {
    "caffe": ((0.48502, 0.45796, 0.40760), 1 / 255),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "unit": ((0.0, 0.0, 0.0), 1.0),
}
"""Name -> (mean, std) of the RGB input in [0, 1]. `unit` does not normalise, as published LORD."""
URLS = {
    "caffe": "https://download.pytorch.org/models/vgg16_features-amdegroot-88682ab5.pth",
    "imagenet": "https://download.pytorch.org/models/vgg16-397923af.pth",
    "unit": "https://download.pytorch.org/models/vgg16-397923af.pth",
}
"""Name of an input -> URL of its weights. Its SHA-256 begins with the digits in the name."""
HASHES = {
    "vgg16-397923af.pth": "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
}
"""Name of a file of weights -> its whole SHA-256, where it is known."""

PYRAMID_LEVELS = 4
SCALE_IMAGES = 1024
"""Number of images that the tap normalisation is measured on."""


def load_weights(path: Path | None, vgg_input: str) -> dict[str, Tensor]:
    """Load the weights of the 13 convolutions of VGG16.

    Args:
        path: A safetensors file, or a torch state dict that is read with `weights_only`. It must
            use torchvision's names (`features.N.weight`). None downloads the weights for
            `vgg_input` once and verifies their hash.
        vgg_input: A key of `INPUTS`.

    Returns:
        float32 tensors `features.N.weight` and `features.N.bias`.

    Raises:
        ValueError: The file is missing, cannot be read or lacks a layer, or the download failed.
    """
    state = _download(URLS[vgg_input]) if path is None else _read(path)
    needed = [f"features.{n}.{kind}" for n in CONVOLUTIONS for kind in ("weight", "bias")]
    missing = [name for name in needed if name not in state]
    if missing:
        raise ValueError(
            f"--perceptual-weights {path}: is not VGG16 with torchvision's names, {missing[0]} is "
            f"missing"
        )
    for n, (inputs, outputs) in CONVOLUTIONS.items():
        shape = tuple(state[f"features.{n}.weight"].shape)
        if shape != (outputs, inputs, 3, 3):
            raise ValueError(
                f"--perceptual-weights {path}: features.{n}.weight has shape {shape}, "
                f"VGG16 has {(outputs, inputs, 3, 3)}"
            )
    return {name: state[name].float() for name in needed}


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise ValueError(f"--perceptual-weights {path}: no such file")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(
            f"--perceptual-weights {path}: neither safetensors nor a torch state dict ({error})"
        ) from error


def _download(url: str) -> dict[str, Tensor]:
    name = os.path.basename(url)
    file = Path(torch.hub.get_dir(), "checkpoints", name)
    sha256 = HASHES.get(name, Path(name).stem.rpartition("-")[2])
    try:
        return _read(download(url, file, sha256))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"the VGG16 weights could not be downloaded from {url} ({error}); pass a file with "
            f"--perceptual-weights FILE, put the file at {file}, or use --loss pyramid, which "
            f"needs no weights"
        ) from error


def _format_of(tensor: Tensor) -> torch.memory_format:
    return torch.channels_last if tensor.ndim == 4 else torch.contiguous_format


class VGG16(nn.Module):
    """Frozen VGG16 features (Simonyan & Zisserman, 2015) at chosen taps.

    Args:
        weights: The weights from `load_weights`.
        taps: Keys of `TAPS`.
        vgg_input: Key of `INPUTS`. It is the normalisation that the weights were trained with.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, weights: dict[str, Tensor], taps: tuple[str, ...], vgg_input: str):
        super().__init__()
        self._sha256 = ""
        self.taps = sorted(TAPS[tap] for tap in taps)
        self.layers = [n for n in sorted((*CONVOLUTIONS, *POOLS)) if n <= self.taps[-1]]
        for name, tensor in weights.items():
            if int(name.split(".")[1]) <= self.taps[-1]:
                tensor = tensor.contiguous(memory_format=_format_of(tensor))
                self.register_buffer(name.replace(".", "_"), tensor, persistent=False)
        mean, std = INPUTS[vgg_input]
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.as_tensor(std).view(-1, 1, 1), persistent=False)

    def sha256(self) -> str:
        """The SHA-256 of the weights that are used, as float32, in order of buffer names."""
        if self._sha256:
            return self._sha256
        digest = hashlib.sha256()
        for name, tensor in sorted(self.named_buffers()):
            if name.startswith("features_"):
                digest.update(tensor.float().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def keep_in(self, dtype: torch.dtype) -> None:
        """Keep the weights in the dtype of the convolutions.

        Autocast would cast the frozen weights from float32 in both passes of every step. It rounds
        them to the same values.
        """
        self._sha256 = self.sha256()
        for name, tensor in self.named_buffers():
            if name.startswith("features_"):
                setattr(self, name, tensor.to(dtype))

    def feature_bytes(self, size: int, dtype: torch.dtype) -> int:
        """The bytes of the features of one image of `size` x `size` pixels in a dtype."""
        elements, channels = 0, 3
        for n in self.layers:
            size = size // 2 if n in POOLS else size
            channels = channels if n in POOLS else CONVOLUTIONS[n][1]
            if n in self.taps or n + 1 in self.taps:
                elements += channels * size**2
        return elements * dtype.itemsize

    def forward(self, images: Tensor) -> list[Tensor]:
        """The feature maps of each tap for images [B, 1 or 3, H, W] in [0, 1], in layer order."""
        x = (images.expand(-1, 3, -1, -1) - self.mean) / self.std
        features = []
        for n in self.layers:
            if n in POOLS:
                x = F.max_pool2d(x, 2)
            else:
                weight, bias = (getattr(self, f"features_{n}_{k}") for k in ("weight", "bias"))
                x = F.relu(F.conv2d(x, weight, bias, padding=1))
            if n in self.taps or n + 1 in self.taps:
                features.append(x)
        return features


def _mean(values: Tensor) -> Tensor:
    """The mean in at least float32. bfloat16 would keep 8 bits of it."""
    return values.mean(dtype=torch.promote_types(values.dtype, torch.float32))


class PerceptualLoss(nn.Module):
    """Pixel L1 plus the mean absolute difference of VGG16 features at several taps.

    With `normalized` scaling each tap is divided by its mean absolute activation on the training
    images. The balance of the terms then does not depend on the scale of the weights or of the
    images. With `raw` scaling the loss is the published sum.

    Args:
        vgg: The network that computes the features.
        pixel_weight: Weight of the pixel L1.
        perceptual_weight: Weight of every tap.
    """

    tap_scale: Tensor

    def __init__(self, vgg: VGG16, pixel_weight: float, perceptual_weight: float):
        super().__init__()
        self.vgg = vgg
        self.pixel_weight = pixel_weight
        self.perceptual_weight = perceptual_weight
        self.register_buffer("tap_scale", torch.ones(len(vgg.taps)))

    @torch.no_grad()
    def measure_scale(self, batches: Iterable[Tensor]) -> None:
        """Set the scale of every tap to its mean absolute activation over `batches` of images."""
        sums = [
            torch.stack([_mean(feature.abs()) for feature in self.vgg(images)]).cpu().double()
            for images in batches
        ]
        self.tap_scale.copy_(torch.stack(sums).mean(0).to(self.tap_scale.dtype))

    def forward(
        self, images: Tensor, targets: Tensor, wanted: list[Tensor] | None = None
    ) -> Tensor:
        """The scalar loss. No gradient flows to the targets.

        Args:
            images: Generated images, [B, C, H, W] in [0, 1].
            targets: Target images, [B, C, H, W] in [0, 1].
            wanted: Features of the targets. None computes them.
        """
        if wanted is None:
            with torch.no_grad():
                wanted = self.vgg(targets)
        loss = self.pixel_weight * (images - targets).abs().mean()
        for got, want, scale in zip(self.vgg(images), wanted, self.tap_scale, strict=True):
            loss = loss + self.perceptual_weight * _mean((got - want).abs()) / scale
        return loss


class PyramidLoss(nn.Module):
    """The sum of L1 over four scales of the image, each half the size of the previous one."""

    def forward(self, images: Tensor, targets: Tensor, wanted: None = None) -> Tensor:
        """The scalar loss of images and targets, both [B, C, H, W] in [0, 1].

        `wanted` is ignored. It gives both losses the same signature.
        """
        difference = images - targets
        loss = difference.abs().mean()
        for _ in range(PYRAMID_LEVELS - 1):
            difference = F.avg_pool2d(difference, 2)
            loss = loss + difference.abs().mean()
        return loss
