"""A trained run as an object: codes and images."""

from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lord_fast.config import EncoderConfig, TrainConfig
from lord_fast.data.decode import Shape
from lord_fast.data.image_files import BATCH
from lord_fast.machine import set_up
from lord_fast.model.build import build_decoder, build_encoders, build_loss, stored_codes
from lord_fast.model.density import Density, Kind, fit_density, sample_training
from lord_fast.model.encoder import Encoders
from lord_fast.model.fit import fit_codes
from lord_fast.model.generator import Decoder
from lord_fast.run import checkpoint
from lord_fast.run.codes import Stage
from lord_fast.run.config import load_config, load_encoder_config

AnyStage = Stage | Literal["auto"]


class Lord:
    """A trained model: the codes of its training images and classes, the encoders, the decoders.

    Each stage has a decoder of its own, since stage 2 fine-tunes that of stage 1 to its encoders.
    Codes that were optimized (by training, `fit` or `sample_codes`) go with the decoder of stage
    `latent`. Codes that the encoders predict go with the decoder of stage `encoders`.

    Attributes:
        config: The run's configuration.
        data: What the run remembers of its store: path, hash, counts, size, channels, crop.
        stage: The latest stage that is loaded, latent or encoders. `decode` takes its codes unless
            told otherwise.
        steps: Training steps of each stage that is loaded.
        decoders: Modulation and generator of each stage that is loaded, in evaluation mode.
        content_codes: float32 [num_images, content_dim], of stage 1, without noise.
        class_codes: float32 [num_classes, class_dim], of stage 1.
        encoders: Content and class encoder; None where stage 2 is not loaded.
    """

    def __init__(self, config: TrainConfig, data: dict[str, Any], device: torch.device):
        self.config, self.data, self.device = config, data, device
        self.stage: Stage = "latent"
        self.steps: dict[Stage, int] = {"latent": 0}
        self.run: Path | None = None
        self.decoders: dict[Stage, Decoder] = {"latent": self._new_decoder()}
        self.content_codes = torch.empty(0, config.model.content_dim, device=device)
        self.class_codes = torch.empty(0, config.model.class_dim, device=device)
        self.encoders: Encoders | None = None
        self._loss_state: dict[str, Tensor] = {}
        self._densities: dict[tuple[str, int], Density] = {}

    @classmethod
    def load(cls, run: Path | str, device: str = "auto", stage: AnyStage = "auto") -> "Lord":
        """Load a run's latest checkpoints; training need not be finished.

        Where the latest is damaged, the whole one before it is loaded and a line on stderr says so.

        Args:
            run: The run's folder.
            device: auto, cpu or cuda.
            stage: latent: stage 1 alone. encoders: stage 2 as well. auto: stage 2 where the run
                has it.

        Raises:
            ValueError: not a run, nothing saved yet, no stage 2 where it is asked for, or a
                checkpoint is damaged or not of the run's configuration.
        """
        run = Path(run)
        config, data = load_config(run / "config.yaml")
        latent = checkpoint.load_latest(run / "checkpoints", "latent")
        if latent is None:
            raise ValueError(f"{run}: no checkpoint yet; train it first")
        encoders = None
        if stage != "latent":
            encoders = checkpoint.load_latest(run / "checkpoints", "encoders")
        if stage == "encoders" and encoders is None:
            raise ValueError(_no_encoders(run))
        lord = cls(config, data, set_up(device, "float32", config.machine.threads).device)
        lord.run = run
        lord._load_latent(latent)
        if encoders is not None:
            lord._load_encoders(encoders, load_encoder_config(run / "encoders.yaml"))
        return lord

    @property
    def step(self) -> int:
        """Training steps of the latest stage that is loaded."""
        return self.steps[self.stage]

    @property
    def shape(self) -> Shape:
        """Size, channels and crop of the images.

        Raises:
            ValueError: the run does not say what was cut out of them.
        """
        if "crop" not in self.data:
            raise ValueError(
                f"{self.run}/config.yaml: does not say what was cut out of its images; copy crop "
                f"from its store's manifest.json to data: (crop: null, or crop: [width, height])"
            )
        crop = self.data["crop"]
        return Shape(self.data["size"], self.data["channels"], crop and tuple(crop))

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
    def decode(self, content: Tensor, class_: Tensor, stage: AnyStage = "auto") -> Tensor:
        """Images of content and class codes.

        Args:
            content: float32 [B, content_dim].
            class_: float32 [B, class_dim].
            stage: Where the codes come from. latent: training, `fit` or `sample_codes`. encoders:
                `encode`. auto: encoders where stage 2 is loaded, else latent.

        Returns:
            float32 [B, channels, size, size] in [0, 1].

        Raises:
            ValueError: `stage` is encoders, and stage 2 is not loaded.
        """
        decoder = self.decoders.get(self.stage if stage == "auto" else stage)
        if decoder is None:
            raise ValueError(_no_encoders(self.run))
        pieces = zip(content.split(BATCH), class_.split(BATCH), strict=True)
        images = [decoder(c.to(self.device), k.to(self.device)) for c, k in pieces]
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
        return self.decode(content, class_.expand(len(content), -1), "encoders")

    def fit(
        self,
        images: Tensor,
        new_class: bool = False,
        steps: int = 300,
        seed: int = 0,
        perceptual_weights: Path | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Codes of images by optimizing them with stage 1 frozen; needs no encoder.

        They are latent codes: `decode(..., stage="latent")`.

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
            images.to(self.device), self.decoders["latent"], reconstruction.to(self.device),
            self.config, (self.content_codes, self.class_codes),
            new_class=new_class, steps=steps, seed=seed,
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
            float32 [n, channels, size, size] in [0, 1], by the decoder of stage 1.

        Raises:
            ValueError: new classes of the training density, which has none.
        """
        content, class_ = self.sample_codes(n, new_classes, density, seed)
        return self.decode(content, class_, "latent")

    def sample_codes(
        self, n: int, new_classes: bool = False, density: Kind = "mixture", seed: int = 0
    ) -> tuple[Tensor, Tensor]:
        """The codes of `sample`: float32 [n, content_dim] and [n, class_dim]."""
        if new_classes and density == "training":
            raise ValueError(
                "--new-classes: --density training knows the classes of training alone; take "
                "--density mixture"
            )
        if density == "mixture":
            content = self.density("content", seed).sample(n, seed)
        else:
            contents = self.content_codes.cpu().numpy()
            content = sample_training(contents, self.config.model.content_std, n, seed)
        if new_classes:
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

    def _load_latent(self, found: checkpoint.Loaded) -> None:
        file, step, state = found
        self.steps["latent"], self._loss_state = step, state["loss"]
        fill(self.decoders["latent"], state["decoder"], file)
        counts = (self.data["num_images"], self.data["num_classes"])
        if counts != tuple(len(state[name]["weight"]) for name in ("content", "class")):
            raise ValueError(f"{file}: of other numbers of images or classes than config.yaml")
        self.content_codes, self.class_codes = stored_codes(
            state, step, self.config, *counts, self.device
        )

    def _load_encoders(self, found: checkpoint.Loaded, config: EncoderConfig) -> None:
        file, step, state = found
        self.stage, self.steps["encoders"] = "encoders", step
        encoders = build_encoders(config, self.config, self.data["size"], self.data["channels"])
        fill(encoders, state["encoders"], file)
        self.encoders = encoders.to(self.device).eval()
        self.decoders["encoders"] = self._new_decoder()
        fill(self.decoders["encoders"], state["decoder"], file)

    def _new_decoder(self) -> Decoder:
        decoder = build_decoder(self.config, self.data["size"], self.data["channels"])
        return decoder.to(self.device).eval()


def fill(network: nn.Module, state: dict[str, Tensor], file: Path) -> None:
    """Load a network's parameters.

    Args:
        network: As its configuration builds it.
        state: Name -> parameter.
        file: What they were read from.

    Raises:
        ValueError: they are of another network.
    """
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{file}: not of the configured networks ({reason[:300]})") from error


def _no_encoders(run: Path | None) -> str:
    return f"{run}: no encoders (stage 2) yet; train them with: lord-fast train-encoders {run}"
