"""Tests the words of the verdict, which follow from the figures by the documented rules."""

import copy
from pathlib import Path

import pytest

from lord_fast.run.verdict import MEANINGS, judge

DOCS = Path(__file__).parents[1] / "docs"


def read(accuracy: float, chance: float, low: float, **more) -> dict:
    """The result of a probe. The two other probes are at chance."""
    found = {name: chance for name in ("accuracy", "mlp_accuracy", "centroid_accuracy")}
    intervals = {f"{name}_interval": [0.0, 2 * chance] for name in found}
    found |= {"mlp_accuracy": accuracy, "chance": chance}
    return {**found, **intervals, "mlp_accuracy_interval": [low, 1.0], **more}


def metrics() -> dict:
    return {
        "codes": "latent",
        "reconstruction": {"psnr": 20.0, "ssim": 0.9, "class_mean_psnr": 16.0},
        "leakage": {"class_from_content": read(0.1, 0.1, 0.05)},
        "informativeness": {
            "content_from_content": {"pose": read(0.9, 0.1, 0.8), "light": None},
        },
        "content_labels": {"shared": True},
        "transfer": {
            "psnr": 19.0, "interval": {"psnr": [18.0, 20.0]},
            "class_mean_psnr": 16.0, "copy_content_psnr": 12.0,
            "baselines": {"class_mean": {"psnr": 16.0}, "additive": {"psnr": 17.0}},
        },
    }  # fmt: skip


def changed(path: str, value) -> dict:
    found = metrics()
    *parents, name = path.split("/")
    inner = found
    for parent in parents:
        inner = inner[parent]
    inner[name] = value
    return found


def test_a_good_model():
    cards = judge(metrics())
    assert [card.question for card in cards] == list(MEANINGS)
    assert [card.word for card in cards] == ["yes", "no", "yes", "yes"]
    assert {card.grade for card in cards} == {"good"}
    assert [card.chance for card in cards] == [
        "class mean 16.0 dB", "chance 10.0%", "chance 10.0%", "additive guess 17.0 dB",
    ]  # fmt: skip
    assert "90.0% (MLP)" in cards[2].figure


@pytest.mark.parametrize(
    ("path", "value", "word"),
    [
        ("reconstruction/psnr", 18.9, "partly"),
        ("reconstruction/psnr", 16.9, "no"),
        ("reconstruction/class_mean_psnr", None, "cannot tell"),
        ("leakage/class_from_content", read(0.12, 0.1, 0.11), "no"),
        ("leakage/class_from_content", read(0.2, 0.1, 0.11), "a little"),
        ("leakage/class_from_content", read(0.4, 0.1, 0.11), "yes"),
        ("leakage/class_from_content", read(0.4, 0.1, 0.09), "cannot tell"),
        ("leakage/class_from_content", read(0.12, 0.1, 0.09), "no"),
        ("leakage/class_from_content", read(0.7, 0.5, 0.6), "a little"),  # 20 points
        ("leakage/class_from_seen_content", read(0.4, 0.1, 0.11), "yes"),
        ("leakage/content_from_class", {"pose": read(0.9, 0.1, 0.8)}, "no"),
        (
            "leakage/class_from_content",
            read(0.1, 0.1, 0.05, blind=["accuracy", "mlp_accuracy", "centroid_accuracy"]),
            "cannot tell",
        ),
        ("leakage", {"missing": "fewer than two classes"}, "not measured"),
        ("informativeness/content_from_content/light", read(0.3, 0.1, 0.2), "partly"),
        ("informativeness/content_from_content/light", read(0.3, 0.1, 0.1), "no"),
        ("informativeness/content_from_content", {}, "not measured"),
        ("transfer/interval", {"psnr": [16.9, 20.0]}, "partly"),
        ("transfer/psnr", 15.9, "no"),
        ("transfer", None, "not measured"),
        ("content_labels", {"shared": False}, "cannot tell"),
    ],
)
def test_each_answer(path, value, word):
    values = changed(path, value)
    if path == "transfer/psnr":
        values["transfer"]["interval"] = {"psnr": [15.0, 16.5]}
    good = judge(metrics())
    cards = judge(values)
    topic = {"reconstruction": 0, "leakage": 1, "informativeness": 2}.get(path.split("/")[0], 3)
    assert cards[topic].word == word
    others = [card for i, card in enumerate(cards) if i != topic]
    assert others == [card for i, card in enumerate(good) if i != topic]


def test_metrics_of_one_question_get_one_card():
    transfer = copy.deepcopy(metrics()["transfer"])
    (card,) = judge({"codes": "latent", "unseen_combinations": transfer})
    assert (card.question, card.word) == ("transfers", "yes")
    fitted = {
        "psnr": 15.0, "interval": {"psnr": [14.5, 15.5]}, "shots_mean_psnr": 14.0,
        "copy_content_psnr": 12.0,
    }  # fmt: skip
    (card,) = judge({"codes": "fit", "new_classes": fitted})
    assert (card.word, card.chance) == ("yes", "mean of the shots 14.0 dB")


def test_the_docs_hold_the_same_rules():
    text = " ".join((DOCS / "metrics.md").read_text().split())
    for meaning in MEANINGS.values():
        assert meaning in text
