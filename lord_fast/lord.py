"""A trained run as an object that turns images into codes and codes into images."""

import warnings
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from lord_fast.config import EncoderConfig, TrainConfig
from lord_fast.data.decode import Shape
from lord_fast.data.store import open_store
from lord_fast.machine import set_up
from lord_fast.model.build import build_decoder, build_encoders, build_loss, stored_codes
from lord_fast.model.density import Density, Kind, fit_density, sample_training
from lord_fast.model.encoder import Encoders
from lord_fast.model.fit import fit_codes
from lord_fast.model.generator import Decoder
from lord_fast.progress import Progress, silent
from lord_fast.run import checkpoint
from lord_fast.run.codes import Stage
from lord_fast.run.config import load_config, load_encoder_config
from lord_fast.system import INFERENCE_BATCH

AnyStage = Stage | Literal["auto"]


class Lord:
    """A trained model with the codes of its training images and classes, its encoders and decoders.

    Each stage has its own decoder, because stage 2 fine-tunes the decoder of stage 1 together with
    the encoders. Codes from training, `fit` or `sample_codes` belong to the decoder of stage
    `latent`. Codes that the encoders predict belong to the decoder of stage `encoders`.

    Attributes:
        config: The run's configuration.
        data: The store's path, hash, counts, size, channels and crop, as the run recorded them.
        stage: The latest stage that is loaded, latent or encoders. It is the default of `decode`.
        steps: Number of training steps of each loaded stage.
        decoders: Modulation and generator of each loaded stage, in evaluation mode.
        content_codes: Content codes of stage 1 without noise, float32 [num_images, content_dim].
        class_codes: Class codes of stage 1, float32 [num_classes, class_dim].
        encoders: Content and class encoder, or None if stage 2 is not loaded.
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
        """Load a run's latest checkpoints, also while training is unfinished.

        If the latest is damaged, the previous undamaged one is loaded and a line on stderr says so.

        Args:
            run: The run's folder.
            device: auto, cpu, cuda or mps.
            stage: `latent` loads only stage 1. `encoders` loads both stages. `auto` loads stage 2
                if the run has it.

        Raises:
            ValueError: The folder is not a run, it has no checkpoint of a requested stage, or a
                checkpoint is damaged or does not match the run's configuration.
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
        """Number of training steps of the latest stage that is loaded."""
        return self.steps[self.stage]

    @property
    def shape(self) -> Shape:
        """Size, channels and crop of the images.

        Raises:
            ValueError: The run does not record how its images were cropped.
        """
        if "crop" not in self.data:
            raise ValueError(
                f"{self.run}/config.yaml: does not record how its images were cropped; copy crop "
                f"from its store's manifest.json to data: (crop: null, or crop: [width, height])"
            )
        crop = self.data["crop"]
        return Shape(self.data["size"], self.data["channels"], crop and tuple(crop))

    @torch.no_grad()
    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Predict content and class codes of images with the encoders of stage 2.

        Args:
            images: float [B, channels, size, size] in [0, 1].

        Returns:
            Content codes, float32 [B, content_dim], and class codes, float32 [B, class_dim].

        Raises:
            ValueError: Stage 2 is not loaded, or the images do not fit the model.
        """
        if self.encoders is None:
            raise ValueError(_no_encoders(self.run))
        self.check_images(images)
        pairs = [self.encoders(batch.to(self.device)) for batch in images.split(INFERENCE_BATCH)]
        return torch.cat([pair[0] for pair in pairs]), torch.cat([pair[1] for pair in pairs])

    @torch.no_grad()
    def decode(self, content: Tensor, class_: Tensor, stage: AnyStage = "auto") -> Tensor:
        """Generate images from content and class codes.

        Args:
            content: float32 [B, content_dim].
            class_: float32 [B, class_dim].
            stage: The stage that the codes come from. Use `latent` for codes from training, `fit`
                or `sample_codes`, and `encoders` for codes from `encode`. `auto` means `encoders`
                if stage 2 is loaded and `latent` otherwise.

        Returns:
            float32 [B, channels, size, size] in [0, 1].

        Raises:
            ValueError: `stage` is `encoders`, and stage 2 is not loaded.
        """
        decoder = self.decoders.get(self.stage if stage == "auto" else stage)
        if decoder is None:
            raise ValueError(_no_encoders(self.run))
        pieces = zip(content.split(INFERENCE_BATCH), class_.split(INFERENCE_BATCH), strict=True)
        images = [decoder(c.to(self.device), k.to(self.device)) for c, k in pieces]
        return torch.cat(images)

    def translate(self, content_images: Tensor, class_images: Tensor) -> Tensor:
        """Combine the content of some images with the class of others.

        Args:
            content_images: float [B, channels, size, size] in [0, 1].
            class_images: float [B, channels, size, size] in [0, 1], or one image [1, ...] that
                gives the class of all.

        Returns:
            float32 [B, channels, size, size] in [0, 1].

        Raises:
            ValueError: Stage 2 is not loaded, or the images do not fit the model.
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
        progress: Progress = silent,
    ) -> tuple[Tensor, Tensor]:
        """Optimize the codes of images while the networks of stage 1 stay frozen.

        This needs no encoder. Decode the codes with `decode(..., stage="latent")`.

        Args:
            images: float [N, channels, size, size] in [0, 1].
            new_class: All images show one class that was not in training. They share one class
                code.
            steps: Number of optimization steps.
            seed: Seed of the initial codes and of the noise.
            perceptual_weights: File with VGG16 weights. Defaults to the weights of the run.
            progress: Called with the number of steps done and the number of all.

        Returns:
            Content codes, float32 [N, content_dim], and class codes, float32 [N, class_dim] or,
            with `new_class`, [1, class_dim].

        Raises:
            ValueError: The images do not fit the model, or the weights cannot be loaded.
        """
        self.check_images(images)
        reconstruction = build_loss(self.config, perceptual_weights)
        reconstruction.load_state_dict(self._loss_state)
        return fit_codes(
            images.to(self.device), self.decoders["latent"], reconstruction.to(self.device),
            self.config, (self.content_codes, self.class_codes),
            new_class=new_class, steps=steps, seed=seed, progress=progress,
        )  # fmt: skip

    def sample(
        self,
        n: int,
        new_classes: bool = False,
        density: Kind = "mixture",
        seed: int = 0,
    ) -> Tensor:
        """Generate new images with content codes drawn from a density of the training codes.

        Args:
            n: Number of images.
            new_classes: Draw class codes from a density too, instead of from the training classes.
            density: `mixture` is a Gaussian mixture selected by held-out likelihood. `training` is
                the baseline, which draws training codes and adds the noise of training.
            seed: Seed of all random draws.

        Returns:
            Images from the decoder of stage 1, float32 [n, channels, size, size] in [0, 1].

        Raises:
            ValueError: `new_classes` is set with the density `training`, which has no new classes.
        """
        content, class_ = self.sample_codes(n, new_classes, density, seed)
        return self.decode(content, class_, "latent")

    def sample_codes(
        self, n: int, new_classes: bool = False, density: Kind = "mixture", seed: int = 0
    ) -> tuple[Tensor, Tensor]:
        """Draw the codes of `sample`, float32 [n, content_dim] and [n, class_dim]."""
        if new_classes and density == "training":
            raise ValueError(
                "--new-classes: --density training has only the classes of training; use "
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

    def density(
        self, of: Literal["content", "class"], seed: int, progress: Progress = silent
    ) -> Density:
        """The Gaussian mixture of the training codes. The first call fits it.

        Args:
            of: content or class.
            seed: Seed of the folds and of every fit.
            progress: Called with the number of mixtures tried and the number of all.
        """
        if (of, seed) not in self._densities:
            codes = self.content_codes if of == "content" else self.class_codes
            groups = self._contents() if of == "content" else None
            self._densities[of, seed] = fit_density(codes.cpu().numpy(), seed, groups, progress)
        return self._densities[of, seed]

    def _contents(self) -> np.ndarray | None:
        """Return the content of each training image as a number, for the folds of a density.

        The result is None if the store has no content labels. It is also None if the store cannot
        be opened, which a warning says.
        """
        if self.run is None:
            return None
        try:
            store = open_store(self.run, self.data)
        except ValueError as error:
            warnings.warn(
                f"{error}; the density is chosen with single images held out", stacklevel=2
            )
            return None
        if not store.factors:
            return None
        return np.unique(store.content_ids.numpy(), axis=0, return_inverse=True)[1].reshape(-1)

    def interpolate(self, first: Tensor, second: Tensor, steps: int) -> Tensor:
        """Codes at equal distances on the line from one code to another, both included.

        Args:
            first: A content or a class code, float32 [dim].
            second: A code of the same kind, float32 [dim].
            steps: Number of codes, at least 2.

        Returns:
            float32 [steps, dim].
        """
        return torch.lerp(first, second, torch.linspace(0, 1, steps, device=first.device)[:, None])

    def check_images(self, images: Tensor) -> None:
        """Check that images fit the model.

        Raises:
            ValueError: The images have another shape, an integer type or values outside [0, 1].
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
        file, step, state, tables = found
        self.steps["latent"], self._loss_state = step, state["loss"]
        fill(self.decoders["latent"], state["decoder"], file)
        counts = (self.data["num_images"], self.data["num_classes"])
        if counts != tuple(sum(tables[name].rows) for name in ("content", "class")):
            raise ValueError(f"{file}: its numbers of images and classes differ from config.yaml")
        sizes = self.config.model
        if (sizes.content_dim, sizes.class_dim) != (tables["content"].dim, tables["class"].dim):
            raise ValueError(f"{file}: its lengths of codes differ from config.yaml")
        self.content_codes, self.class_codes = stored_codes(
            tables, step, self.config, *counts, self.device
        )

    def _load_encoders(self, found: checkpoint.Loaded, config: EncoderConfig) -> None:
        file, step, state, _ = found
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
        network: The network, as built from the configuration.
        state: Parameter name -> tensor.
        file: The file that the parameters were read from, for the error message.

    Raises:
        ValueError: The parameters belong to another network.
    """
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{file}: does not fit the configured networks ({reason[:300]})"
        ) from error


def _no_encoders(run: Path | None) -> str:
    return f"{run}: no encoders (stage 2) yet; train them with: lord-fast train-encoders {run}"
