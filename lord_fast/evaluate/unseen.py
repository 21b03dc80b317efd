"""Stage-1 codes on combinations of class and content that training did not hold."""

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
    """Images held out, made of the codes of training, against the true ones.

    The class code is that of the held-out image's class. The content code is that of an image of
    another class in training with the same content labels. The model never saw the true image.

    Args:
        trained: The codes of training.
        held_out: Images that were not trained on, of the same classes.
        lpips: The perceptual distance; None: it is left out.
        seed: Of every draw.

    Returns:
        What `transfer` of metrics.json holds, or under `missing` why it cannot be measured.

    Raises:
        ValueError: a class of `held_out` was not trained on.
    """
    store = trained.store
    names = {name: number for number, name in enumerate(store.class_names)}
    unknown = [name for name in held_out.class_names if name not in names]
    if unknown:
        raise ValueError(
            f"{held_out.path}: not the images that the run was trained on, nor others of its "
            f"classes: it was not trained on class {unknown[0]}"
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
    """Targets and their content images, int64 [P] each, at most `MAX_PAIRS`; None: there are none.

    Every held-out image comes as often as any other, as far as it has content images.
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
