"""What a probe reads where the answer is known: from codes without a leak, and with a planted one.

A leakage figure at chance means something only if the same probe, on the same images, sees a leak
that is there. So each figure stands between two others of the same probe and the same split.
"""

from collections.abc import Sequence

import numpy as np

from lord_fast.evaluate.bootstrap import intervals
from lord_fast.evaluate.probes import PROBES, read, summarize
from lord_fast.evaluate.splits import Split, shared

PLANTED = 0.05
"""How far above chance the planted leak is, for a classifier that knows how it was planted."""
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
    """`probe`, and the same probes on control codes.

    Args:
        codes: float32 [N, D].
        labels: int64 [N], what must not be read from them.
        groups: int64 [N], what the codes may tell: contents if labels are classes, else classes.
        splits: Where to train and to score.
        seed: Of the probes and of the controls.
        pixels: A code of the same length that is known to leak, such as `pixel_code`.

    Returns:
        What `probe` returns, and under `controls`: no_leak (codes permuted among the images of a
        group), planted (the same with a leak, which `oracle` reads) and, with `pixels`, pixel_pca.
        `blind` names the probes whose figure is not surely higher with the planted leak than
        without: they prove nothing.
    """
    clusters = (labels, groups)
    clean = without_leak(codes, labels, groups, seed)
    leaky, oracle = plant(clean, labels, seed)
    right = {
        name: read(codes_, labels, splits, seed)
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
    """The codes, permuted among the images of a group: what is left tells the group alone.

    Where labels do not share groups, all images are one group.
    """
    kept = groups if shared(labels, groups) else np.zeros_like(groups)
    shuffled = np.lexsort((np.random.default_rng(seed).random(len(kept)), kept))
    found = np.empty_like(codes)
    found[np.argsort(kept, kind="stable")] = codes[shuffled]
    return found


def plant(codes: np.ndarray, labels: np.ndarray, seed: int) -> tuple[np.ndarray, float]:
    """Add a random vector of each label to its codes, of such a size that it leaks `PLANTED`.

    Args:
        codes: Without leak, float32 [N, D].
        labels: int64 [N].
        seed: Of the vectors.

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
    """The first `dim` principal components of pixels, float32 [N, dim]: a code that leaks.

    Args:
        images: float32 [N, pixels].
        dim: Length of the code.
        seed: Of the randomized decomposition.
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
    """Over labels alone: contents are shuffled, and the vectors planted are drawn by label."""
    scored = np.concatenate([split.test for split in splits])
    more = np.stack([planted[of].astype(float) - no_leak[of] for of in PROBES], axis=1)
    ends = intervals(more, seed, [labels[scored]])
    return [of for of, (low, _) in zip(PROBES, ends, strict=True) if low <= 0]
