"""What the app does with a model. It needs no Gradio."""

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from sklearn.decomposition import PCA
from torch import Tensor

from lord_fast.data.image_files import read_images
from lord_fast.grid import to_pixels
from lord_fast.lord import Lord
from lord_fast.progress import Progress, silent

DIRECTIONS = 6
MOST_CLASSES = 200
"""Largest number of classes to choose from by their pictures."""
SHOWN_SIDE = 256
"""Smaller images are enlarged to about this side in pixels."""
CONTENTS = 8
"""Number of contents in which a new class is shown."""


class Model:
    """A model with the principal directions of its content codes.

    It needs neither the store nor the images of training. The picture of a class is generated from
    its code and the mean content.

    Args:
        lord: A trained model.

    Attributes:
        directions: Principal directions of the content codes, one standard deviation long, float32
            [at most DIRECTIONS, content_dim].
        mean: Mean content code, float32 [content_dim].
    """

    def __init__(self, lord: Lord):
        self.lord = lord
        codes = lord.content_codes.cpu()
        self.mean = codes.mean(0)
        pca = PCA(min(DIRECTIONS, *codes.shape)).fit(codes.numpy())
        lengths = torch.from_numpy(pca.explained_variance_).sqrt()
        self.directions = (torch.from_numpy(pca.components_) * lengths[:, None]).float()

    @property
    def can_encode(self) -> bool:
        """Whether the model has the encoders of stage 2."""
        return self.lord.encoders is not None

    def class_pictures(self) -> list[Image.Image]:
        """Generate a picture of each class, of at most MOST_CLASSES."""
        codes = self.lord.class_codes[:MOST_CLASSES]
        return self._pictures(self.mean.expand(len(codes), -1), codes)

    def swap(self, content: Path, class_: Path) -> Image.Image:
        """Generate an image with the content of one photo and the class of another.

        Raises:
            ValueError: The model has no encoders, or a photo cannot be read.
        """
        images = read_images([content, class_], self.lord.shape)
        return picture(self.lord.translate(images[:1], images[1:])[0])

    def move(self, class_code: Tensor, steps: Sequence[float]) -> Image.Image:
        """Generate an image of a class with a content beside the mean.

        Args:
            class_code: float32 [class_dim].
            steps: Distance to the mean along each direction in standard deviations.
        """
        content = self.mean + torch.tensor(steps, dtype=torch.float32) @ self.directions
        return self._pictures(content[None], class_code[None])[0]

    def fit_class(self, photos: Sequence[Path], progress: Progress = silent) -> Tensor:
        """Fit the code of a class to a few photos of it, float32 [class_dim].

        Raises:
            ValueError: A photo or the perceptual weights cannot be read.
        """
        images = read_images(list(photos), self.lord.shape)
        return self.lord.fit(images, new_class=True, progress=progress)[1][0].cpu()

    def in_contents(self, class_code: Tensor) -> list[Image.Image]:
        """Generate images of a class with some contents of training."""
        codes = self.lord.content_codes.cpu()
        ids = torch.linspace(0, len(codes) - 1, min(CONTENTS, len(codes))).long()
        return self._pictures(codes[ids], class_code.expand(len(ids), -1))

    def _pictures(self, content: Tensor, class_: Tensor) -> list[Image.Image]:
        return [picture(image) for image in self.lord.decode(content, class_, "latent")]


def picture(image: Tensor) -> Image.Image:
    """Convert an image [C, H, W] in [0, 1], enlarged if it is small."""
    found = Image.fromarray(to_pixels(image))
    scale = max(1, SHOWN_SIDE // found.width)
    return found.resize((found.width * scale, found.height * scale), Image.Resampling.NEAREST)
