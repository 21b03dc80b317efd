"""A trained run as an object that turns images into codes and codes into images."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from lord_fast.config import Preset
from lord_fast.console import err
from lord_fast.images import Images
from lord_fast.lord.hub import download
from lord_fast.lord.inputs import AnyImages
from lord_fast.lord.networks import TrainedModel
from lord_fast.lord.read import AnyStage
from lord_fast.lord.sources import Finder, Kind, Source, joint_stage
from lord_fast.lord.training import train_model
from lord_fast.machine import ieee_float32
from lord_fast.model.build import build_loss
from lord_fast.model.density import Density, fit_density, sample_training
from lord_fast.model.density import Kind as DensityKind
from lord_fast.model.fit import fit_codes
from lord_fast.progress import Progress, silent


class Lord(TrainedModel):
    """A trained model that people and other rooms use. See `TrainedModel` for its attributes."""

    def __init__(self, model: Path | str, device: str = "auto", stage: AnyStage = "auto"):
        """Load a trained model, see `TrainedModel`."""
        super().__init__(model, device, stage)
        self._finder = Finder(self)
        self._densities: dict[tuple[str, int], Density] = {}

    @classmethod
    def load(cls, model: Path | str, device: str = "auto", stage: AnyStage = "auto") -> "Lord":
        """Load a trained model. `Lord.load(model)` is the same as `Lord(model)`."""
        return cls(model, device, stage)

    @classmethod
    def from_pretrained(
        cls,
        name: str,
        revision: str | None = None,
        device: str = "auto",
        stage: AnyStage = "auto",
    ) -> "Lord":
        """Download a model from the Hugging Face Hub and load it.

        Args:
            name: USER/MODEL. A local folder is not looked at.
            revision: A branch, a tag or a commit. Defaults to the newest.
            device: auto, cpu, cuda or mps.
            stage: See `Lord`.

        Raises:
            ValueError: The Hub has no such model, or the hub extra is not installed.
        """
        return cls(download(name, revision), device, stage)

    @classmethod
    def train(
        cls,
        images: Path | str,
        run: Path | str | None = None,
        *,
        size: int = 64,
        preset: Preset = "laptop",
        encoders: Mapping[str, Any] | None = MappingProxyType({}),
        device: Literal["auto", "cpu", "cuda", "mps"] = "auto",
        quiet: bool = False,
        **options: Any,
    ) -> "Lord":
        """Train both stages on images and load the result. The same call resumes.

        Unlike loading, training sets the number of threads of this process.

        Args:
            images: A folder of files CLASS/NAME.png, an archive of such a folder, or a packed
                store.
            run: The run's folder. Defaults to runs/NAME, where NAME is that of the images. A store
                is packed next to it.
            size: Side of the packed images in pixels.
            preset: Selects the defaults of both stages.
            encoders: Options of stage 2 by name. None trains no encoders.
            device: Device to train on.
            quiet: Whether to print nothing. By default the progress goes to stderr.
            options: Options of stage 1 by name, such as `steps=1000`. See `lord-fast train --help`.

        Raises:
            ValueError: The images cannot be packed, an option is wrong, or the run has another
                configuration.
            Interrupted: The process received a signal. Training was saved.
        """
        console = Console(quiet=True) if quiet else err
        given = None if run is None else Path(run)
        changes = {"device": device, **options}
        done = train_model(Path(images), given, size, preset, encoders, console, changes)
        return cls(done, device)

    def find(self, asked: Any, kind: Kind) -> list[Source]:
        """Return the codes that images, names or files of codes stand for.

        Args:
            asked: What to find, see `lord_fast.lord.sources.Finder.find`.
            kind: content or class.

        Raises:
            ValueError: Nothing has this name, or an image cannot be read.
        """
        return self._finder.find(asked, kind)

    def translate(self, content: Any, class_: Any) -> Images:
        """Combine the content of some images with the class of others.

        Args:
            content: Images: paths, Pillow images, arrays, or a tensor float
                [B, channels, size, size] in [0, 1]. Names and numbers stand for images of the
                store, see `find`.
            class_: As many images, or one for all. The name of a class stands for the class.

        Returns:
            float32 [B, channels, size, size] in [0, 1].

        Raises:
            ValueError: Images need stage 2 and it is not loaded, they do not fit the model, or
                nothing has a given name.
        """
        contents, classes = self.find(content, "content"), self.find(class_, "class")
        if len(classes) not in (1, len(contents)):
            raise ValueError(
                f"{len(contents)} contents and {len(classes)} classes: give one class for all, or "
                f"one for each content"
            )
        codes = torch.stack([each.code.to(self.device) for each in classes])
        return self.decode(
            torch.stack([each.code.to(self.device) for each in contents]),
            codes.expand(len(contents), -1), joint_stage([*contents, *classes]),
        )  # fmt: skip

    def fit(
        self,
        images: AnyImages,
        new_class: bool = False,
        steps: int = 300,
        seed: int = 0,
        perceptual_weights: Path | None = None,
        progress: Progress = silent,
    ) -> tuple[Tensor, Tensor]:
        """Optimize the codes of images while the networks of stage 1 stay frozen.

        This needs no encoder. Decode the codes with `decode(..., stage="latent")`.

        Args:
            images: Paths, Pillow images, arrays, or a tensor float [N, channels, size, size] in
                [0, 1].
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
        batch = self.as_images(images)
        reconstruction = build_loss(self.config, perceptual_weights)
        reconstruction.load_state_dict(self.loss_state)
        with ieee_float32(self.device):
            return fit_codes(
                batch.to(self.device), self.decoders["latent"], reconstruction.to(self.device),
                self.config, (self.content_codes, self.class_codes),
                new_class=new_class, steps=steps, seed=seed, progress=progress,
            )  # fmt: skip

    def sample(
        self,
        n: int,
        new_classes: bool = False,
        density: DensityKind = "mixture",
        seed: int = 0,
    ) -> Images:
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
        self, n: int, new_classes: bool = False, density: DensityKind = "mixture", seed: int = 0
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

        The result is None without content labels, and if the store cannot be opened.
        """
        store = self.open_store()
        if store is None or not store.factors:
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
