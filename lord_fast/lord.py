"""A trained run as an object: codes and images."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lord_fast.build import build_decoder, build_tables
from lord_fast.config import TrainConfig, load_config
from lord_fast.machine import set_up
from lord_fast.train import checkpoint

BATCH = 256


class Lord:
    """A trained model: the decoder and the codes of its training images and classes.

    Attributes:
        config: The run's configuration.
        data: What the run remembers of its store: path, hash, counts, size, channels.
        step: Training steps behind it.
        decoder: Modulation and generator, in evaluation mode.
        content_codes: float32 [num_images, content_dim], without noise.
        class_codes: float32 [num_classes, class_dim].
    """

    def __init__(self, config: TrainConfig, data: dict[str, Any], device: torch.device):
        self.config, self.data, self.device, self.step = config, data, device, 0
        self.decoder = build_decoder(config, data["size"], data["channels"]).to(device).eval()
        self.content_codes = torch.empty(0, config.content_dim, device=device)
        self.class_codes = torch.empty(0, config.class_dim, device=device)

    @classmethod
    def load(cls, run: Path | str, device: str = "auto") -> "Lord":
        """Load a run's latest checkpoint; training need not be finished.

        Args:
            run: The run's folder.
            device: auto, cpu or cuda.

        Raises:
            ValueError: not a run, nothing saved yet, or the checkpoint is damaged.
        """
        run = Path(run)
        config, data = load_config(run / "config.yaml")
        found = checkpoint.latest(run / "checkpoints", "latent")
        if found is None:
            raise ValueError(f"{run}: no checkpoint yet; train it first")
        lord = cls(config, data, set_up(device, "float32", config.threads).device)
        lord.step, state = checkpoint.load(found)
        lord.decoder.load_state_dict(state["decoder"])
        lord._load_tables(state)
        return lord

    @torch.no_grad()
    def decode(self, content: Tensor, class_: Tensor) -> Tensor:
        """Images of content and class codes.

        Args:
            content: float32 [B, content_dim].
            class_: float32 [B, class_dim].

        Returns:
            float32 [B, channels, size, size] in [0, 1].
        """
        pieces = zip(content.split(BATCH), class_.split(BATCH), strict=True)
        images = [self.decoder(c.to(self.device), k.to(self.device)) for c, k in pieces]
        return torch.cat(images)

    def _load_tables(self, state: checkpoint.State) -> None:
        shape = (self.data["num_images"], self.data["num_classes"])
        steps = self.config.steps or (
            self.config.epochs * (self.data["num_images"] // self.config.batch_size)
        )
        content, class_ = build_tables(self.config, *shape, steps, self.device)
        content.load_state_dict(state["content"])
        class_.load_state_dict(state["class"])
        self.content_codes, self.class_codes = content.codes(self.step), class_.codes(self.step)
