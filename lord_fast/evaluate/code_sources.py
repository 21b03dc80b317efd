"""The sources of the codes that are evaluated, which are training and the encoders."""

from typing import Protocol

import torch
from torch import Tensor

from lord_fast.data.store import ImageStore, as_float
from lord_fast.lord import Lord
from lord_fast.system import INFERENCE_BATCH


class Model(Protocol):
    """Decodes codes, such as a `Lord`."""

    @property
    def step(self) -> int:
        """Number of training steps."""
        ...

    def decode(self, content: Tensor, class_: Tensor) -> Tensor:
        """Return images [B, C, H, W] in [0, 1] for content and class codes."""
        ...


class CodeSource(Protocol):
    """Returns codes of the images of a store.

    Attributes:
        name: Name in metrics.json.
    """

    name: str

    @property
    def lord(self) -> Model:
        """The model that decodes the codes."""
        ...

    def __call__(self, image_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Return content codes [B, content_dim] and class codes [B, class_dim] of images."""
        ...


class LatentCodes:
    """The codes that stage 1 optimized for its training images."""

    name = "latent"

    def __init__(self, lord: Lord, store: ImageStore):
        self.lord, self.store = lord, store

    def __call__(self, image_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Return the content code of each image and the code of its class."""
        content = self.lord.content_codes[image_ids]
        return content, self.lord.class_codes[self.store.class_ids[image_ids]]


class EncoderCodes:
    """The codes that the encoders of stage 2 predict for the images of any store."""

    name = "encoder"

    def __init__(self, lord: Lord, store: ImageStore):
        self.lord, self.store = lord, store

    def __call__(self, image_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Return the codes that the encoders predict from each image."""
        pairs = [
            self.lord.encode(as_float(self.store.images(ids)))
            for ids in image_ids.split(INFERENCE_BATCH)
        ]
        return torch.cat([pair[0] for pair in pairs]), torch.cat([pair[1] for pair in pairs])
