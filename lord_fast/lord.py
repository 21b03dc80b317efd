"""A trained run as an object: codes and images."""

from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from lord_fast.build import build_decoder, build_encoders, build_loss
from lord_fast.config import TrainConfig, load_config, load_encoder_config
from lord_fast.density import Density, Kind, fit_density, sample_training
from lord_fast.machine import set_up
from lord_fast.model.encoder import Encoders
from lord_fast.train import checkpoint
from lord_fast.train.amortized import codes_of
from lord_fast.train.fit import fit_codes

BATCH = 256

Codes = Literal["auto", "latent", "encoder"]


class Lord:
    """A trained model: the decoder, the codes of its training images and classes, the encoders.

    Attributes:
        config: The run's configuration.
        data: What the run remembers of its store: path, hash, counts, size, channels.
        codes: Whose codes the decoder goes with: latent (it is stage 1's) or encoder (stage 2's).
        step: Training steps behind it, of that stage.
        decoder: Modulation and generator, in evaluation mode.
        content_codes: float32 [num_images, content_dim], of stage 1, without noise.
        class_codes: float32 [num_classes, class_dim], of stage 1.
        encoders: Content and class encoder; None where `codes` is latent.
    """

    def __init__(self, config: TrainConfig, data: dict[str, Any], device: torch.device):
        self.config, self.data, self.device, self.step = config, data, device, 0
        self.codes: str = "latent"
        self.run: Path | None = None
        self.decoder = build_decoder(config, data["size"], data["channels"]).to(device).eval()
        self.content_codes = torch.empty(0, config.content_dim, device=device)
        self.class_codes = torch.empty(0, config.class_dim, device=device)
        self.encoders: Encoders | None = None
        self._loss_state: dict[str, Tensor] = {}
        self._densities: dict[tuple[str, int], Density] = {}

    @classmethod
    def load(cls, run: Path | str, device: str = "auto", codes: Codes = "auto") -> "Lord":
        """Load a run's latest checkpoints; training need not be finished.

        Stage 2 fine-tunes the decoder to its encoders. Codes that were optimized (those of stage
        1, those of `fit`) belong with the decoder of stage 1.

        Args:
            run: The run's folder.
            device: auto, cpu or cuda.
            codes: latent: the decoder of stage 1; encoder: that of stage 2, and the encoders;
                auto: encoder where the run has stage 2.

        Raises:
            ValueError: not a run, nothing saved yet, no stage 2 where it is asked for, or a
                checkpoint is damaged.
        """
        run = Path(run)
        config, data = load_config(run / "config.yaml")
        latent = checkpoint.latest(run / "checkpoints", "latent")
        amortized = checkpoint.latest(run / "checkpoints", "amortized")
        if latent is None:
            raise ValueError(f"{run}: no checkpoint yet; train it first")
        if codes == "encoder" and amortized is None:
            raise ValueError(_no_encoders(run))
        lord = cls(config, data, set_up(device, "float32", config.threads).device)
        lord.run = run
        lord._load_latent(*checkpoint.load(latent))
        if codes != "latent" and amortized is not None:
            lord._load_amortized(run, *checkpoint.load(amortized))
        return lord

    @torch.no_grad()
    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Content and class codes of images, by the encoders of stage 2.

        Args:
            images: float [B, channels, size, size] in [0, 1].

        Returns:
            float32 [B, content_dim] and [B, class_dim].

        Raises:
            ValueError: the run has no stage 2, or the images have another shape.
        """
        if self.encoders is None:
            raise ValueError(_no_encoders(self.run))
        self.check_images(images)
        pairs = [self.encoders(batch.to(self.device)) for batch in images.split(BATCH)]
        return torch.cat([pair[0] for pair in pairs]), torch.cat([pair[1] for pair in pairs])

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

    def translate(self, content_images: Tensor, class_images: Tensor) -> Tensor:
        """Images with the content of some and the class of others.

        Args:
            content_images: float [B, channels, size, size] in [0, 1].
            class_images: The same number, or one for all.

        Returns:
            float32 [B, channels, size, size] in [0, 1].

        Raises:
            ValueError: the run has no stage 2, or the images have another shape.
        """
        content, _ = self.encode(content_images)
        _, class_ = self.encode(class_images)
        return self.decode(content, class_.expand(len(content), -1))

    def fit(
        self,
        images: Tensor,
        new_class: bool = False,
        steps: int = 300,
        seed: int = 0,
        perceptual_weights: Path | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Codes of images by optimizing them with the generator frozen; needs no encoder.

        Args:
            images: float [N, channels, size, size] in [0, 1].
            new_class: The images show one class, unseen in training, and get one class code.
            steps: Of the optimization.
            seed: Of its start and noise.
            perceptual_weights: VGG16 weights; default: those of the run.

        Returns:
            float32 [N, content_dim], and [N, class_dim] or, with `new_class`, [1, class_dim].

        Raises:
            ValueError: images of another shape, or the weights cannot be had.
        """
        self.check_images(images)
        reconstruction = build_loss(self.config, perceptual_weights)
        reconstruction.load_state_dict(self._loss_state)
        return fit_codes(
            images.to(self.device), self.decoder, reconstruction.to(self.device), self.config,
            (self.content_codes, self.class_codes), new_class=new_class, steps=steps, seed=seed,
        )  # fmt: skip

    def sample(
        self,
        n: int,
        new_classes: bool = False,
        density: Kind = "mixture",
        seed: int = 0,
    ) -> Tensor:
        """New images: content codes from a density fitted to those of training.

        Args:
            n: Number of images.
            new_classes: Draw class codes from a density too, not from the training classes.
            density: mixture (Gaussians, chosen by held-out likelihood) or training (the baseline:
                training codes with the noise that training added).
            seed: Of everything that is drawn.

        Returns:
            float32 [n, channels, size, size] in [0, 1].
        """
        content, class_ = self.sample_codes(n, new_classes, density, seed)
        return self.decode(content, class_)

    def sample_codes(
        self, n: int, new_classes: bool = False, density: Kind = "mixture", seed: int = 0
    ) -> tuple[Tensor, Tensor]:
        """The codes of `sample`: float32 [n, content_dim] and [n, class_dim]."""
        if density == "mixture":
            content = self.density("content", seed).sample(n, seed)
        else:
            contents = self.content_codes.cpu().numpy()
            content = sample_training(contents, self.config.content_std, n, seed)
        if new_classes and density == "mixture":
            class_ = self.density("class", seed + 1).sample(n, seed + 1)
        else:
            class_ = sample_training(self.class_codes.cpu().numpy(), 0.0, n, seed + 1)
        return torch.from_numpy(content), torch.from_numpy(class_)

    def density(self, of: Literal["content", "class"], seed: int) -> Density:
        """The mixture of the codes of training, fitted when it is first asked for.

        Args:
            of: content or class.
            seed: Of the folds and the start of every fit.
        """
        if (of, seed) not in self._densities:
            codes = self.content_codes if of == "content" else self.class_codes
            self._densities[of, seed] = fit_density(codes.cpu().numpy(), seed)
        return self._densities[of, seed]

    def interpolate(self, first: Tensor, second: Tensor, steps: int) -> Tensor:
        """Codes on the line from one to another, ends included.

        Args:
            first: float32 [dim], a content or a class code.
            second: float32 [dim].
            steps: Number of codes, at least 2.

        Returns:
            float32 [steps, dim].
        """
        return torch.lerp(first, second, torch.linspace(0, 1, steps, device=first.device)[:, None])

    def check_images(self, images: Tensor) -> None:
        """Refuse images that the model was not made for.

        Raises:
            ValueError: another shape, an integer type, or values outside [0, 1].
        """
        size, channels = self.data["size"], self.data["channels"]
        if images.ndim != 4 or tuple(images.shape[1:]) != (channels, size, size):
            raise ValueError(
                f"images of shape {list(images.shape)}: this model takes "
                f"[B, {channels}, {size}, {size}]"
            )
        if not images.is_floating_point() or not 0 <= images.min() <= images.max() <= 1:
            raise ValueError("images must be float and in [0, 1]; divide uint8 by 255")

    def _load_latent(self, step: int, state: checkpoint.State) -> None:
        self.step, self._loss_state = step, state["loss"]
        self.decoder.load_state_dict(state["decoder"])
        counts = (self.data["num_images"], self.data["num_classes"])
        self.content_codes, self.class_codes = codes_of(
            state, step, self.config, *counts, self.device
        )

    def _load_amortized(self, run: Path, step: int, state: checkpoint.State) -> None:
        self.codes, self.step = "encoder", step
        self.decoder.load_state_dict(state["decoder"])
        config = load_encoder_config(run / "encoders.yaml")
        encoders = build_encoders(config, self.config, self.data["size"], self.data["channels"])
        encoders.load_state_dict(state["encoders"])
        self.encoders = encoders.to(self.device).eval()


def _no_encoders(run: Path | None) -> str:
    return f"{run}: no encoders (stage 2) yet; train them with: lord-fast train-encoders {run}"
