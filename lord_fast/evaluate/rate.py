"""The information that content codes can carry, beside what the labels need."""

import numpy as np
from scipy.stats import entropy


def content_rate(
    content: np.ndarray, classes: np.ndarray, contents: np.ndarray, std: float
) -> dict | None:
    """Bound the information that a decoder can read from noisy content codes, in bits.

    Each dimension is a channel with Gaussian noise. The capacity of such a channel at the signal's
    variance is log2(1 + variance / noise variance) / 2 (Cover & Thomas, 2006, equation 9.16). The
    sum over dimensions bounds the information of the code about the image. A code with far more
    bits than the contents need has room for the class.

    Args:
        content: Content codes without noise, float32 [N, content_dim].
        classes: Class of each image, int64 [N].
        contents: Combination of content labels of each image as one number, int64 [N]. Without
            labels it is the same for all images.
        std: Standard deviation of the noise in training (`--content-std`).

    Returns:
        `bits`, and `needed` to tell `what` apart: the entropy of the content labels, or without
        labels that of the images within their classes. None without noise, where the information
        has no bound.
    """
    if not std:
        return None
    variances = content.astype(np.float64).var(0)
    labelled = contents.min() != contents.max()
    needed = _entropy(contents) if labelled else np.log2(len(classes)) - _entropy(classes)
    return {
        "bits": float(np.log2(1 + variances / std**2).sum() / 2),
        "needed": float(needed),
        "what": "content labels" if labelled else "images of a class",
    }


def _entropy(labels: np.ndarray) -> float:
    """The entropy of labels in bits."""
    return entropy(np.unique(labels, return_counts=True)[1], base=2)
