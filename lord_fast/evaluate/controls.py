"""Controls of leakage, which apply the same probes to codes with a known amount of leakage.

Leakage at chance level is only meaningful if the same probe detects a real leak in the same images.
Each result is therefore reported with two controls that use the same probe and the same split. One
has no leakage and the other has a planted leak.
"""

from collections.abc import Sequence

import numpy as np

from lord_fast.evaluate.bootstrap import intervals
from lord_fast.evaluate.probes import PROBES, read, summarize
from lord_fast.evaluate.splits import Split, shared

PLANTED = 0.05
"""Accuracy above chance of a classifier that knows how the leak was planted."""
HALVINGS = 20
RIDGE = 1e-3


def leakage(
    codes: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    splits: Sequence[Split],
    seed: int,
    pixels: np.ndarray | None = None,
) -> dict:
    """Measure leakage with `probe`, and apply the same probes to control codes.

    Args:
        codes: float32 [N, D].
        labels: The labels that should not be predictable from the codes, int64 [N].
        groups: What the codes may reveal, int64 [N]. These are contents if the labels are classes,
            and classes otherwise.
        splits: Images to train the probes on and to score them on.
        seed: Seed of the probes and of the controls.
        pixels: Codes of the same length that are known to leak, such as `pixel_code`.

    Returns:
        The result of `probe` with two more keys. `controls` holds the accuracies for no_leak
        (codes permuted within groups), planted (the same codes with a planted leak, and `oracle`,
        the accuracy that is possible) and pixel_pca (only with `pixels`). `blind` names the probes
        that do not detect the planted leak significantly. Their leakage proves nothing.
    """
    clusters = (labels, groups)
    clean = without_leak(codes, labels, groups, seed)
    leaky, oracle = plant(clean, labels, seed)
    right = {
        name: read(codes_, labels, splits, seed, groups)
        for name, codes_ in (
            ("codes", codes), ("no_leak", clean), ("planted", leaky),
            *((("pixel_pca", pixels),) if pixels is not None else ()),
        )
    }  # fmt: skip
    found = summarize(right.pop("codes"), labels, splits, seed, clusters)
    controls: dict[str, dict] = {
        name: {of: float(values.mean()) for of, values in each.items()}
        for name, each in right.items()
    }
    controls["planted"]["oracle"] = oracle
    blind = _blind(right["planted"], right["no_leak"], splits, labels, seed)
    return {**found, "controls": controls, "blind": blind}


def without_leak(
    codes: np.ndarray, labels: np.ndarray, groups: np.ndarray, seed: int
) -> np.ndarray:
    """Permute the codes within groups, so that they reveal the group but not the label.

    If labels do not share groups, the codes of all images are permuted.
    """
    kept = groups if shared(labels, groups) else np.zeros_like(groups)
    shuffled = np.lexsort((np.random.default_rng(seed).random(len(kept)), kept))
    found = np.empty_like(codes)
    found[np.argsort(kept, kind="stable")] = codes[shuffled]
    return found


def plant(codes: np.ndarray, labels: np.ndarray, seed: int) -> tuple[np.ndarray, float]:
    """Plant a leak in codes by adding a random vector for each label.

    The length of the vectors is chosen so that the accuracy is `PLANTED` above chance.

    Args:
        codes: Codes without leakage, float32 [N, D].
        labels: int64 [N].
        seed: Seed of the vectors.

    Returns:
        The codes, and the accuracy of a linear classifier that knows the vectors and the
        covariance of the codes.
    """
    _, numbers, counts = np.unique(labels, return_inverse=True, return_counts=True)
    rng = np.random.default_rng(seed)
    scale = np.where(codes.std(0) > 0, codes.std(0), 1.0)
    vectors = scale * rng.standard_normal((len(counts), codes.shape[1]))
    covariance = np.cov(codes.T).reshape(len(scale), -1) + RIDGE * np.diag(scale**2)
    projected = np.linalg.solve(covariance, vectors.T)
    centred, norms = codes - codes.mean(0), (vectors * projected.T).sum(1)
    fixed, own = centred @ projected, vectors @ projected

    def oracle(size: float) -> float:
        scores = fixed + size * own[numbers] - size / 2 * norms
        return float((scores.argmax(1) == numbers).mean())

    wanted = counts.max() / len(labels) + PLANTED
    low, high = 0.0, 10.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if oracle(middle) >= wanted else (middle, high)
    return (codes + high * vectors[numbers]).astype(codes.dtype), oracle(high)


def pixel_code(images: np.ndarray, dim: int, seed: int) -> np.ndarray:
    """Compute the first `dim` principal components of pixels, which are codes that leak.

    Args:
        images: float32 [N, pixels]. Large images should be reduced, see `read_reduced`.
        dim: Length of the codes.
        seed: Seed of the randomized decomposition.

    Returns:
        float32 [N, dim].
    """
    from sklearn.decomposition import PCA

    dim = min(dim, *images.shape)
    return PCA(dim, svd_solver="randomized", random_state=seed).fit_transform(images)


def _blind(
    planted: dict[str, np.ndarray],
    no_leak: dict[str, np.ndarray],
    splits: Sequence[Split],
    labels: np.ndarray,
    seed: int,
) -> list[str]:
    """Name the probes that do not detect the planted leak significantly.

    The intervals are clustered only by label, because the contents of the codes are shuffled and
    the planted vectors depend only on the label.
    """
    scored = np.concatenate([split.test for split in splits])
    more = np.stack([planted[of].astype(float) - no_leak[of] for of in PROBES], axis=1)
    ends = intervals(more, seed, [labels[scored]])
    return [of for of, (low, _) in zip(PROBES, ends, strict=True) if low <= 0]
