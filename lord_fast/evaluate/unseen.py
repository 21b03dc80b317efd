"""Evaluates the codes of stage 1 on unseen combinations of class and content."""

import numpy as np
import torch
from torch import Tensor

from lord_fast.data.store import ImageStore
from lord_fast.evaluate.code_sources import LatentCodes
from lord_fast.evaluate.draw import draw_images
from lord_fast.evaluate.guesses import Guesses, Wanted, against_truth
from lord_fast.evaluate.images import pixels_of
from lord_fast.evaluate.labels import combinations
from lord_fast.evaluate.lpips import Lpips
from lord_fast.evaluate.transfer import MAX_PAIRS


def transfer_to_unseen(
    trained: LatentCodes, held_out: ImageStore, lpips: Lpips | None, seed: int
) -> dict:
    """Generate held-out images from the codes of training and compare them with the true images.

    The class code is the code of the held-out image's class. The content code is taken from a
    training image of another class with the same content labels.

    Args:
        trained: The codes of training.
        held_out: Images of the same classes that were not part of training.
        lpips: The perceptual distance. With None it is null in the result.
        seed: Seed of the random draws.

    Returns:
        The content of `transfer` of metrics.json, or the reason under `missing` if it cannot be
        measured.

    Raises:
        ValueError: The model was not trained on a class of `held_out`.
    """
    store = trained.store
    names = {name: number for number, name in enumerate(store.class_names)}
    unknown = [name for name in held_out.class_names if name not in names]
    if unknown:
        raise ValueError(
            f"{held_out.path}: not the images that the run was trained on, nor others of its "
            f"classes (it was not trained on class {unknown[0]})"
        )
    if not store.factors:
        return {"missing": "the images have no content labels"}
    numbers = torch.tensor([names[name] for name in held_out.class_names])
    drawn = _draw(store, held_out, numbers, seed)
    if drawn is None:
        return {"missing": "no content label is shared with another class of training"}
    target, content = drawn
    class_ = numbers[held_out.class_ids[target]]
    combination = combinations(store)[0][content.numpy()]
    guesses = Guesses(store, trained, Wanted(content, class_, combination, None), seed)

    def made(positions: Tensor) -> Tensor:
        codes = trained.lord.content_codes[content[positions]]
        return trained.lord.decode(codes, trained.lord.class_codes[class_[positions]]).cpu()

    return against_truth(made, pixels_of(held_out, target), guesses, lpips, seed)


def _draw(
    store: ImageStore, held_out: ImageStore, numbers: Tensor, seed: int
) -> tuple[Tensor, Tensor] | None:
    """Draw at most `MAX_PAIRS` targets and content images, int64 [P] each, or None without any.

    Every held-out image is drawn equally often if it has enough content images.
    """
    rng = np.random.default_rng(seed)
    known, wanted = combinations(store, held_out)
    order = np.argsort(known, kind="stable")
    first = np.searchsorted(known[order], wanted)
    last = np.searchsorted(known[order], wanted, side="right")
    targets = draw_images(held_out, seed).numpy()
    each = max(1, MAX_PAIRS // len(targets))
    pairs: list[tuple[int, int]] = []
    for target in rng.permutation(targets)[:MAX_PAIRS]:
        sources = order[first[target] : last[target]]
        class_id = int(numbers[held_out.class_ids[target]])
        sources = sources[store.class_ids.numpy()[sources] != class_id]
        pairs.extend((target, source) for source in rng.permutation(sources)[:each])
    if not pairs:
        return None
    target, content = torch.from_numpy(rng.permutation(np.array(pairs))).unbind(1)
    return target, content
