"""A codebook of content codes, and the search for the code that generates an image best."""

from typing import Protocol

import torch
from torch import Tensor, nn

NUM_SEEDS = 2**32
"""Number of seeds that scikit-learn takes."""


class Decode(Protocol):
    """Generates images from codes, such as a `Decoder`."""

    def __call__(self, content_code: Tensor, class_code: Tensor) -> Tensor:
        """Map codes [B, content_dim] and [B, class_dim] to images [B, C, H, W] in [0, 1]."""
        ...


def closeness(predicted: Tensor, codes: Tensor) -> Tensor:
    """Return half of the negative squared distances up to a constant of each row.

    The squared length of a prediction is the same for every code and is left out.

    Args:
        predicted: float32 [B, code_dim].
        codes: float32 [N, code_dim].

    Returns:
        float32 [B, N].
    """
    return predicted @ codes.T - codes.square().sum(1) / 2


class Codebook(nn.Module):
    """The centres of k-means clusters of codes (Lloyd, 1982).

    A centre is the mean of codes of several classes, so it hardly tells any of them.

    Args:
        num_codes: Number of centres.
        code_dim: Length of a code.
        num_candidates: Number of codes that `search` decodes, at most `num_codes`.
    """

    codes: Tensor

    def __init__(self, num_codes: int, code_dim: int, num_candidates: int):
        super().__init__()
        self.num_candidates = num_candidates
        self.register_buffer("codes", torch.zeros(num_codes, code_dim))

    def fill(self, codes: Tensor, seed: int) -> None:
        """Cluster codes.

        Args:
            codes: At least as many as there are centres, float32 [N, code_dim].
            seed: Seed of the initial centres.
        """
        # The imports are slow, and stage 1 does not need them.
        from sklearn.cluster import KMeans
        from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

        means = KMeans(len(self.codes), random_state=seed % NUM_SEEDS, n_init=3)
        # The sums depend on the number of threads.
        with threadpool_limits(1):
            found = means.fit(codes.cpu().numpy())
        self.codes.copy_(torch.from_numpy(found.cluster_centers_))

    def forward(self, predicted: Tensor) -> Tensor:
        """Return the nearest code of each predicted code, both float32 [B, code_dim]."""
        return self.nearest(predicted, 1)[:, 0]

    def nearest(self, predicted: Tensor, count: int) -> Tensor:
        """Return the nearest codes of each predicted code, float32 [B, count, code_dim]."""
        with torch.autocast(predicted.device.type, enabled=False):
            return self.codes[closeness(predicted, self.codes).topk(count, 1).indices]

    def search(
        self, predicted: Tensor, class_code: Tensor, images: Tensor, decode: Decode
    ) -> Tensor:
        """Return the code near a prediction that generates the image best.

        The nearest codes are decoded with the class code of the image. The smallest mean squared
        error of the pixels decides (analysis by synthesis).

        Args:
            predicted: float32 [B, code_dim].
            class_code: Class codes of the images, float32 [B, class_dim].
            images: float32 [B, C, H, W] in [0, 1].
            decode: Generates images from codes.

        Returns:
            float32 [B, code_dim].
        """
        candidates = self.nearest(predicted, self.num_candidates)
        errors = torch.stack(
            [
                (decode(code, class_code) - images).square().mean((1, 2, 3))
                for code in candidates.unbind(1)
            ],
            dim=1,
        )
        best = errors.argmin(1)[:, None, None].expand(-1, 1, candidates.shape[2])
        return candidates.gather(1, best)[:, 0]
