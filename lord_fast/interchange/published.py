"""A checkpoint of the published lord-pytorch as a run of lord-fast.

Its state dicts are read with `weights_only`; its pickled configuration is never opened: the shapes
give the dimensions.
"""

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lord_fast.config import ENCODER_PRESETS, EncoderConfig, TrainConfig
from lord_fast.train.checkpoint import State, sha256

STEP = 1
"""What an imported checkpoint says of its steps: the published files do not."""

LATENT = {
    **{f"modulation.adain_per_layer.{i}": f"modulation.layers.{i}" for i in range(4)},
    **{f"generator.fc_layers.{2 * i}": f"generator.head.{i}" for i in range(3)},
    **{f"generator.adain_conv_layers.{4 * i + 1}": f"generator.body.{i}" for i in range(4)},
    "generator.last_conv_layers.0": "generator.hidden",
    "generator.last_conv_layers.2": "generator.image",
}
"""Published name of a layer of modulation or generator -> its name in `Decoder`."""
ENCODER = {
    **{f"conv_layers.{2 * i}": f"convs.{i}" for i in range(5)},
    "fc_layers.0": "hidden.0",
    "fc_layers.2": "hidden.1",
    "fc_layers.4": "code",
}
"""The same for an encoder."""


class Published:
    """What a published model directory holds, in lord-fast's terms.

    Attributes:
        config: Dimensions from the shapes, everything else as published.
        encoder_config: The same of stage 2; None where there is no amortized.pth.
        data: As a run remembers its store; there is none.
        latent: State of stage 1.
        amortized: State of stage 2, or None.
    """

    def __init__(self, folder: Path, preset: TrainConfig):
        """Read a directory.

        Args:
            folder: With latent.pth, and amortized.pth if stage 2 was trained.
            preset: The published settings.

        Raises:
            ValueError: files are missing, are no state dicts, or lack a parameter.
        """
        file = folder / "latent.pth"
        state = _read(file)
        self.latent = _latent_state(file, state)
        decoder = self.latent["decoder"]
        content, class_ = (self.latent[n]["weight"] for n in ("content", "class"))
        adain_dim = decoder["generator.body.0.weight"].shape[0]
        start = round((decoder["generator.head.2.weight"].shape[0] / adain_dim) ** 0.5)
        self.config = dataclasses.replace(
            preset, content_dim=content.shape[1], class_dim=class_.shape[1], adain_dim=adain_dim,
            steps=STEP,
        )  # fmt: skip
        self.data: dict[str, Any] = {
            "store": "",
            "sha256": sha256(file),
            "num_images": len(content),
            "num_classes": len(class_),
            "size": 16 * start,
            "channels": decoder["generator.image.weight"].shape[0],
        }
        self.amortized: State | None = None
        self.encoder_config: EncoderConfig | None = None
        if (folder / "amortized.pth").is_file():
            self._read_encoders(folder / "amortized.pth")

    def _read_encoders(self, file: Path) -> None:
        state = _read(file)
        encoders = {
            f"{ours}.{name}": tensor
            for ours, theirs in (("content", "content_encoder"), ("class_", "class_encoder"))
            for name, tensor in _renamed(file, state, f"{theirs}.", ENCODER).items()
        }
        decoder = _renamed(file, state, "", LATENT)
        self.amortized = {"encoders": encoders, "decoder": decoder}
        width = encoders["content.hidden.0.weight"].shape[0]
        self.encoder_config = dataclasses.replace(
            ENCODER_PRESETS["paper"], encoder_dim=width, steps=STEP
        )


def _read(file: Path) -> dict[str, Tensor]:
    if not file.is_file():
        raise ValueError(
            f"{file}: no such file; name the model directory of lord-pytorch, with latent.pth"
        )
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(f"{file}: not a state dict that can be read safely ({error})") from error
    if not isinstance(state, dict):
        raise ValueError(f"{file}: not a state dict")
    return state


def _latent_state(file: Path, state: dict[str, Tensor]) -> State:
    tables = {"content": "content_embedding.embedding.weight", "class": "class_embedding.weight"}
    missing = [name for name in tables.values() if name not in state]
    if missing:
        raise ValueError(f"{file}: {missing[0]} is missing; is it a model of lord-pytorch?")
    return {
        "decoder": _renamed(file, state, "", LATENT),
        "loss": {"tap_scale": torch.ones(5)},
        **{name: _table(state[theirs].float()) for name, theirs in tables.items()},
    }


def _renamed(
    file: Path, state: dict[str, Tensor], prefix: str, names: dict[str, str]
) -> dict[str, Tensor]:
    out = {}
    for theirs, ours in names.items():
        for kind in ("weight", "bias"):
            name = f"{prefix}{theirs}.{kind}"
            if name not in state:
                raise ValueError(f"{file}: {name} is missing; is it a model of lord-pytorch?")
            out[f"{ours}.{kind}"] = state[name].float()
    return out


def _table(weight: Tensor) -> dict[str, Tensor]:
    """A table of codes that no step will change."""
    return {
        "weight": weight,
        "exp_avg": torch.zeros_like(weight),
        "exp_avg_sq": torch.zeros_like(weight),
        "last_step": torch.full((len(weight),), STEP, dtype=torch.int64),
    }
