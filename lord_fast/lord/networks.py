"""The networks and codes of a trained model, which turn images into codes and codes into images."""

import warnings
from pathlib import Path

import torch
from torch import Tensor

from lord_fast.data.decode import Shape
from lord_fast.data.store import ImageStore, open_store
from lord_fast.images import Images
from lord_fast.lord.hub import locate
from lord_fast.lord.inputs import AnyImages, as_images
from lord_fast.lord.read import AnyStage, fill, no_encoders, read_trained
from lord_fast.machine import choose_device, ieee_float32
from lord_fast.model.build import build_decoder, build_encoders
from lord_fast.model.encoder import Encoders
from lord_fast.model.generator import Decoder
from lord_fast.run.codes import Codes, Stage
from lord_fast.system import INFERENCE_BATCH


class TrainedModel:
    """A trained model with the codes of its training images and classes, its encoders and decoders.

    Each stage has its own decoder, because with a reconstruction weight above 0 stage 2 fine-tunes
    the decoder together with the encoders. Codes from training, `fit` or `sample_codes` belong to
    the decoder of stage `latent`. Codes that the encoders predict belong to the decoder of stage
    `encoders`.

    Attributes:
        run: The folder that the model was loaded from.
        config: The configuration of stage 1.
        data: The store's path, hash, counts, size, channels and crop, as the run recorded them.
        stage: The latest stage that is loaded, latent or encoders. It is the default of `decode`.
        steps: Number of training steps of each loaded stage.
        decoders: Modulation and generator of each loaded stage, in evaluation mode.
        content_codes: Content codes of stage 1 without noise, float32 [num_images, content_dim].
        class_codes: Class codes of stage 1, float32 [num_classes, class_dim].
        encoders: Content and class encoder, or None if stage 2 is not loaded.
        encoder_config: The configuration of stage 2, or None if stage 2 is not loaded.
        loss_state: State of the reconstruction loss of stage 1.
    """

    def __init__(self, model: Path | str, device: str = "auto", stage: AnyStage = "auto"):
        """Load a trained model. Nothing else in this process changes.

        A run loads its latest checkpoints, also while training is unfinished. If the latest is
        damaged, the previous undamaged one is loaded and a line on stderr says so.

        Args:
            model: A run's folder, a folder of `lord-fast export`, or the name USER/MODEL of a model
                on the Hugging Face Hub if there is no such folder.
            device: auto, cpu, cuda or mps.
            stage: `latent` loads only stage 1. `encoders` loads both stages. `auto` loads stage 2
                if the model has it.

        Raises:
            ValueError: The folder is no model, it has no checkpoint of a requested stage, or a file
                is damaged or does not match the configuration.
        """
        self.device = torch.device(choose_device(device))
        found = read_trained(locate(model), stage, self.device)
        self.run, self.config, self.data, self.steps = (
            found.folder, found.config, found.data, found.steps
        )  # fmt: skip
        self.encoder_config = found.encoder_config
        self.stage: Stage = "latent" if stage == "latent" or not found.encoders else "encoders"
        self.content_codes, self.class_codes = (codes.to(self.device) for codes in found.codes)
        self.decoders: dict[Stage, Decoder] = {}
        for name, state in found.decoders.items():
            self.decoders[name] = self._new_decoder()
            fill(self.decoders[name], state, found.files[name])
        self.encoders: Encoders | None = None
        if self.stage == "encoders" and found.encoder_config is not None:
            shape = (self.data["size"], self.data["channels"])
            counts = (self.data["num_images"], self.data["num_classes"])
            encoders = build_encoders(found.encoder_config, self.config, *shape, counts)
            fill(encoders, found.encoders, found.files["encoders"])
            self.encoders = encoders.to(self.device).eval()
        self.loss_state = found.loss
        self._class_names = found.class_names
        self._store: ImageStore | None = None
        self._has_looked = False

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

    @property
    def class_names(self) -> list[str]:
        """Name of each class, in the order of `class_codes`.

        Raises:
            ValueError: An older version trained the run and its store is gone, or a published model
                was imported without its store.
        """
        if self._class_names is None:
            self._class_names = open_store(self.run, self.data).class_names
        return self._class_names

    @property
    def has_class_names(self) -> bool:
        """Whether `class_names` are known."""
        return self._class_names is not None or self.open_store() is not None

    def open_store(self) -> ImageStore | None:
        """Open the store of the run. The result is None if the model is not in its run's folder.

        It is also None if the store is gone or has changed, which a warning says.
        """
        if not self._has_looked and self.data["store"]:
            self._has_looked = True
            try:
                self._store = open_store(self.run, self.data)
            except ValueError as error:
                warnings.warn(f"{error}; the images of training are not used", stacklevel=3)
        return self._store

    def as_images(self, images: AnyImages) -> Tensor:
        """Return images as one batch that fits the model, float [B, channels, size, size].

        Args:
            images: Paths, Pillow images, arrays or a tensor, see `lord_fast.lord.inputs.as_images`.

        Raises:
            ValueError: An image cannot be read, or a tensor does not fit the model.
        """
        # A tensor needs no crop, which old runs do not record.
        batch = images if isinstance(images, Tensor) else as_images(images, self.shape)
        self.check_images(batch)
        return batch

    @torch.no_grad()
    def encode(self, images: AnyImages) -> tuple[Tensor, Tensor]:
        """Predict content and class codes of images with the encoders of stage 2.

        Args:
            images: Paths, Pillow images, arrays, or a tensor float [B, channels, size, size] in
                [0, 1].

        Returns:
            Content codes, float32 [B, content_dim], and class codes, float32 [B, class_dim].

        Raises:
            ValueError: Stage 2 is not loaded, or the images do not fit the model.
        """
        encoders, batches = self._to_encode(images)
        decoder = self.decoders["encoders"]
        with ieee_float32(self.device):
            pairs = [encoders(batch.to(self.device), decoder) for batch in batches]
        return torch.cat([pair[0] for pair in pairs]), torch.cat([pair[1] for pair in pairs])

    @torch.no_grad()
    def encode_class(self, images: AnyImages) -> Tensor:
        """Predict only class codes, which takes no search of a codebook of contents. See `encode`.

        Returns:
            Class codes, float32 [B, class_dim].
        """
        encoders, batches = self._to_encode(images)
        with ieee_float32(self.device):
            return torch.cat([encoders.class_(batch.to(self.device)) for batch in batches])

    @torch.no_grad()
    def decode(self, content: Tensor, class_: Tensor, stage: AnyStage = "auto") -> Images:
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
            raise ValueError(no_encoders(self.run))
        pieces = zip(content.split(INFERENCE_BATCH), class_.split(INFERENCE_BATCH), strict=True)
        with ieee_float32(self.device):
            images = [decoder(c.to(self.device), k.to(self.device)) for c, k in pieces]
        return Images.of(torch.cat(images))

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

    def check_codes(self, file: Path, codes: Codes) -> None:
        """Check that the codes of a file have the dimensions of this model.

        Raises:
            ValueError: They belong to another model.
        """
        sizes = self.config.model
        found, wanted = (
            (codes.content.shape[1], codes.class_.shape[1]),
            (sizes.content_dim, sizes.class_dim),
        )
        if found != wanted:
            raise ValueError(
                f"{file}: codes of another model, with {found[0]} content and {found[1]} class "
                f"values instead of {wanted[0]} and {wanted[1]}"
            )

    def _to_encode(self, images: AnyImages) -> tuple[Encoders, tuple[Tensor, ...]]:
        if self.encoders is None:
            raise ValueError(no_encoders(self.run))
        return self.encoders, self.as_images(images).split(INFERENCE_BATCH)

    def _new_decoder(self) -> Decoder:
        decoder = build_decoder(self.config, self.data["size"], self.data["channels"])
        return decoder.to(self.device).eval()
