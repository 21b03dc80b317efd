"""Judges the metrics of a run by four questions, for the terminal and the report."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

Grade = Literal["good", "fair", "bad", "unknown"]
PROBE_NAMES = {"accuracy": "linear", "mlp_accuracy": "MLP", "centroid_accuracy": "centroids"}
"""Maps the key of an accuracy to the name of the probe."""
GUESSES = {
    "class_mean": "class mean", "copy_content": "content image unchanged",
    "additive": "additive guess", "retrieval": "retrieval",
}  # fmt: skip
"""Maps the key of a baseline of transfer to its name."""
CLEAR_GAIN, SMALL_GAIN = 3.0, 1.0
"""Gains over the class mean in dB. A gain of 3 dB halves the squared error."""
NEAR_CHANCE, FEW_CHANCES = 1.5, 3.0
"""Factors of chance below which leakage is none or little."""
NEAR_POINTS, FEW_POINTS = 0.1, 0.3
"""The same as differences to chance. They matter if chance is high."""
MOST_OF_IT = 0.5
"""Fraction of the way from chance to 100 % from which content counts as held."""

MEANINGS = {
    "recognisable": (
        "The codes of an image are decoded, and the result is compared with the image. The chance "
        "is the mean of the other images of the class. The answer is yes if the PSNR is at least 3 "
        "dB higher, which halves the squared error, and partly if it is at least 1 dB higher."
    ),
    "leaks": (
        "A classifier tries to read the class from the content code. It should not do better than "
        "chance. The figure is that of the best of all probes. The answer is no if it is at most "
        "1.5 times chance and 10 points above it. It is a little up to 3 times chance and 30 "
        "points above it. There is no answer if a higher figure is not significantly above chance, "
        "because there are too few images, or if no probe detects a planted leak."
    ),
    "holds content": (
        "A classifier tries to read the content label from the content code, and should succeed. "
        "With several labels the figure is that of the worst. The answer is yes from half of the "
        "way between chance and 100 %, and partly if the figure is significantly above chance."
    ),
    "transfers": (
        "The class of one image is combined with the content of another, and the result is "
        "compared with the true image of both. The chance is the best of several guesses that use "
        "no generator. The answer is yes if the whole 95 % interval is above it, and partly if the "
        "figure is above the class mean and above the unchanged content image."
    ),
}
"""What each question means. docs/metrics.md holds the same text."""


@dataclass(frozen=True)
class Card:
    """The answer to one question.

    Attributes:
        question: A key of `MEANINGS`.
        word: The answer in a word or two.
        grade: Whether the answer is good.
        figure: The value that it rests on, or the reason why there is none.
        chance: The value that a model without skill has, or an empty string.
    """

    question: str
    word: str
    grade: Grade
    figure: str
    chance: str = ""


def judge(values: dict[str, Any]) -> list[Card]:
    """Answer the questions that a metrics*.json answers, in the order of `MEANINGS`.

    Args:
        values: The content of the file. Metrics of held-out combinations and of new classes answer
            only the last question.
    """
    if values.get("new_classes"):
        return [_transfers(values["new_classes"], values)]
    if "unseen_combinations" in values:
        return [_transfers(values["unseen_combinations"], values)]
    answers: tuple[Callable[[dict], Card], ...] = (
        _recognisable, _leaks, _holds_content, lambda v: _transfers(v["transfer"], v),
    )  # fmt: skip
    return [answer(values) for answer in answers]


def _recognisable(values: dict) -> Card:
    found = values["reconstruction"]
    figure = f"{found['psnr']:.1f} dB, SSIM {found['ssim']:.2f}"
    mean = found.get("class_mean_psnr")
    if mean is None:
        return Card("recognisable", "cannot tell", "unknown", figure, "no class mean was measured")
    gain = found["psnr"] - mean
    word, grade = _graded(gain >= CLEAR_GAIN, gain >= SMALL_GAIN)
    return Card("recognisable", word, grade, figure, f"class mean {mean:.1f} dB")


def _leaks(values: dict) -> Card:
    found = values["leakage"]
    read = [r for name, r in found.items() if name.startswith("class_from") and "chance" in r]
    if not read:
        return Card("leaks", "not measured", "unknown", found.get("missing", "no probe ran"))
    above, probe, worst = max(
        ((r[of] - r["chance"], of, r) for r in read for of in PROBE_NAMES if of in r),
        key=lambda entry: entry[0],
    )
    accuracy, chance = worst[probe], worst["chance"]
    figure = f"class read from content {accuracy:.1%} ({PROBE_NAMES[probe]})"
    shown = f"chance {chance:.1%}"
    significant = worst[f"{probe}_interval"][0] > chance
    if not significant and len(worst.get("blind", ())) == len(PROBE_NAMES):
        return Card("leaks", "cannot tell", "unknown", figure, f"{shown}; all probes are blind")
    if accuracy <= NEAR_CHANCE * chance and above <= NEAR_POINTS:
        return Card("leaks", "no", "good", figure, shown)
    if not significant:
        return Card("leaks", "cannot tell", "unknown", figure, f"{shown}; too few images to tell")
    if accuracy <= FEW_CHANCES * chance and above <= FEW_POINTS:
        return Card("leaks", "a little", "fair", figure, shown)
    return Card("leaks", "yes", "bad", figure, shown)


def _holds_content(values: dict) -> Card:
    factors = values["informativeness"].get("content_from_content", {})
    best = []
    for name, read in factors.items():
        if read is not None and "chance" in read:
            probe = max((of for of in PROBE_NAMES if of in read), key=lambda of: read[of])
            share = (read[probe] - read["chance"]) / max(1e-9, 1 - read["chance"])
            best.append((share, name, probe, read))
    if not best:
        why = "too few images of a content label" if factors else "no content labels"
        return Card("holds content", "not measured", "unknown", why)
    share, name, probe, read = min(best, key=lambda entry: entry[0])
    word, grade = _graded(share >= MOST_OF_IT, read[f"{probe}_interval"][0] > read["chance"])
    figure = f"{name} read from content {read[probe]:.1%} ({PROBE_NAMES[probe]})"
    return Card("holds content", word, grade, figure, f"chance {read['chance']:.1%}")


def _transfers(found: dict | None, values: dict) -> Card:
    if found is None or "missing" in found:
        why = "no two classes share a content label" if found is None else found["missing"]
        return Card("transfers", "not measured", "unknown", why)
    figure = f"{found['psnr']:.1f} dB"
    guesses = {GUESSES[k]: v["psnr"] for k, v in found.get("baselines", {}).items()}
    own = {
        GUESSES.get(name, "mean of the shots"): found[f"{name}_psnr"]
        for name in ("class_mean", "shots_mean", "copy_content")
        if f"{name}_psnr" in found
    }
    guesses |= own
    best = max(guesses, key=lambda name: guesses[name])
    chance = f"{best} {guesses[best]:.1f} dB"
    labels = values.get("content_labels")
    if labels is not None and not labels["shared"]:
        why = "; content labels differ between classes"
        return Card("transfers", "cannot tell", "unknown", figure, chance + why)
    clear = found["interval"]["psnr"][0] > guesses[best]
    word, grade = _graded(clear, found["psnr"] > max(own.values()))
    return Card("transfers", word, grade, figure, chance)


def _graded(clear: bool, some: bool) -> tuple[str, Grade]:
    if clear:
        return "yes", "good"
    return ("partly", "fair") if some else ("no", "bad")
