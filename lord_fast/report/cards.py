"""Renders the verdict of a run as HTML."""

import html
from collections.abc import Sequence

from lord_fast.run.metrics import Metrics
from lord_fast.run.verdict import MEANINGS, Card


def headline(measured: Sequence[Metrics]) -> Metrics | None:
    """Choose the metrics of the cards on top.

    Encoder codes of held-out images are the hardest test, then encoder codes of training images,
    then codes of stage 1. Metrics that answer only one question are not chosen.
    """
    whole = [metrics for metrics in measured if len(metrics.cards) == len(MEANINGS)]
    return max(whole, key=lambda metrics: (_rank(metrics), metrics.file.name), default=None)


def _rank(metrics: Metrics) -> int:
    if metrics.values["codes"] != "encoder":
        return 0
    return 1 if metrics.file.stem == "metrics-encoder" else 2


def subject(metrics: Metrics) -> str:
    """Say which codes of which images were measured."""
    codes = {
        "latent": "stage 1", "encoder": "encoders", "fit": "classes fitted to a few images",
    }[metrics.values["codes"]]  # fmt: skip
    store = metrics.file.stem.removeprefix("metrics").removeprefix("-encoder").removeprefix("-fit")
    images = f"images of {store[1:]}" if store else "training images"
    return f"{codes}, {images}"


def cards(measured: Sequence[Metrics]) -> str:
    """Render four cards, and below them a line for each metrics*.json."""
    top = headline(measured)
    if top is None:
        asked = [
            Card(question, "not measured", "unknown", "run lord-fast evaluate RUN")
            for question in MEANINGS
        ]
        return f'<div class="cards">{"".join(map(_card, asked))}</div>'
    lines = "".join(
        f"<li><span>{_text(subject(metrics))}</span> {''.join(map(_chip, metrics.cards))}</li>"
        for metrics in measured
    )
    return (
        f'<div class="cards">{"".join(map(_card, top.cards))}</div>'
        f"<p>The cards judge: {_text(subject(top))} ({_text(top.title)}).</p>"
        f'<ul class="verdicts">{lines}</ul>'
    )


def meanings() -> str:
    """Render what each question means, as targets of the links of the cards."""
    return "".join(
        f'<dt id="{_anchor(question)}">{question.capitalize()}?</dt><dd>{_text(text)}</dd>'
        for question, text in MEANINGS.items()
    )


def _card(card: Card) -> str:
    return (
        f'<article class="card {card.grade}"><h3>{card.question.capitalize()}?</h3>'
        f'<p class="word">{_text(card.word)}</p><p>{_text(card.figure)}</p>'
        f'<p class="faint">{_text(card.chance)}</p>'
        f'<a href="#{_anchor(card.question)}">What this means</a></article>'
    )


def _chip(card: Card) -> str:
    title = html.escape(" / ".join(filter(None, (card.figure, card.chance))), quote=True)
    return (
        f'<span class="chip {card.grade}" title="{title}">{card.question}? '
        f"<b>{_text(card.word)}</b></span>"
    )


def _anchor(question: str) -> str:
    return "means-" + question.replace(" ", "-")


def _text(text: str) -> str:
    return html.escape(text)
