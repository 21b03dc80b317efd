"""Where the codes that are measured come from: training, or the encoders."""

from typing import Protocol

import torch
from torch import Tensor

from lord_fast.data.image_files import BATCH
from lord_fast.data.store import ImageStore, as_float
from lord_fast.lord import Lord


class CodeSource(Protocol):
    """Codes of the images of a store.

    Attributes:
        name: As metrics.json says it.
        lord: What decodes them.
    """

    name: str
    lord: Lord

    def __call__(self, image_ids: Tensor) -> tuple[Tensor, Tensor]:
        """int64 [B] -> content [B, content_dim] and class [B, class_dim] codes."""
        ...


class LatentCodes:
    """The codes of stage 1, of the images that it was trained on."""

    name = "latent"

    def __init__(self, lord: Lord, store: ImageStore):
        self.lord, self.store = lord, store

    def __call__(self, image_ids: Tensor) -> tuple[Tensor, Tensor]:
        """int64 [B] -> each image's content code and its class's code."""
        content = self.lord.content_codes[image_ids]
        return content, self.lord.class_codes[self.store.class_ids[image_ids]]


class EncoderCodes:
    """What the encoders of stage 2 see in each image, of any store."""

    name = "encoder"

    def __init__(self, lord: Lord, store: ImageStore):
        self.lord, self.store = lord, store

    def __call__(self, image_ids: Tensor) -> tuple[Tensor, Tensor]:
        """int64 [B] -> the codes predicted from each image alone."""
        pairs = [
            self.lord.encode(as_float(self.store.images(ids))) for ids in image_ids.split(BATCH)
        ]
        return torch.cat([pair[0] for pair in pairs]), torch.cat([pair[1] for pair in pairs])
