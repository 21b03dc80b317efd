"""Writes the model card of an exported model."""

import json

import yaml

from lord_fast import __version__
from lord_fast.lord import Lord
from lord_fast.run.codes import Stage
from lord_fast.run.metrics import Metrics, read_metrics

PICTURE = "swaps.png"
MOST_NAMES = 100
"""Largest number of class names that the card lists. class_names.json has all."""


def card(lord: Lord, name: str, licence: str) -> str:
    """Return the text of README.md.

    Args:
        lord: The exported model.
        name: Title of the card. USER/MODEL is the name on the Hub.
        licence: Identifier of the licence, such as apache-2.0 or unknown.

    Raises:
        ValueError: A metrics*.json of the run is damaged.
    """
    parts = [_head(licence), _about(lord, name), _use(lord, name), _files(lord)]
    return "\n\n".join([*parts, *_classes(lord), *_metrics(lord)]) + "\n"


def _head(licence: str) -> str:
    values = {
        "license": licence,
        "library_name": "lord-fast",
        "pipeline_tag": "image-to-image",
        "tags": ["lord-fast", "lord", "disentanglement"],
    }
    return f"---\n{yaml.safe_dump(values, sort_keys=False)}---"


def _about(lord: Lord, name: str) -> str:
    data = lord.data
    return (
        f"# {name}\n\n"
        f"A LORD model ([Gabbay & Hoshen, ICLR 2020](https://arxiv.org/abs/1906.11796)) represents "
        f"an image by a class code and a content code. This one was trained on "
        f"{data['num_images']} images of {data['num_classes']} classes, {data['size']} x "
        f"{data['size']} x {data['channels']}, and exported by lord-fast {__version__}.\n\n"
        f"![classes with contents]({PICTURE})\n\n"
        f"Every row has one class of training, and every column one content of training. All "
        f"images in this picture are generated."
    )


def _use(lord: Lord, name: str) -> str:
    word = json.dumps(lord.class_names[0]) if lord.has_class_names else "0"
    picture = '"photo.png"' if lord.encoders is not None else "0"
    given = (
        "The content of a photo with a class of training"
        if lord.encoders is not None
        else "The content of training image 0 with a class of training"
    )
    swap = (
        f'lord.translate({picture}, class_={word}).save("translated.png")'
        if lord.has_class_names
        else 'lord.decode(lord.content_codes[:1], lord.class_codes[:1]).save("decoded.png")'
    )
    return (
        f"## Use\n\n```python\nfrom lord_fast import Lord\n\n"
        f"lord = Lord({json.dumps(name)})  # or the path of this folder\n"
        f'{swap}\nlord.sample(16).save("samples.png")\n```\n\n{given}, and '
        f"new images."
    )


def _files(lord: Lord) -> str:
    lines = [
        "## Files", "",
        "| in `model.safetensors` and as `.onnx` | description |", "|---|---|",
        "| `content_codes`, `class_codes` | the codes of the training images and classes |",
        f"| `decoder` | the decoder of these codes, from stage 1 ({lord.steps['latent']} steps) |",
    ]  # fmt: skip
    if lord.encoders is not None:
        lines += [
            "| `encoders` (`content_encoder`, `class_encoder`) | predict the codes of an image. "
            "`content_encoder.onnx` also holds the decoder if the run has a codebook |",
            f"| `encoders_decoder` | the decoder of the encoders' codes, from stage 2 "
            f"({lord.steps['encoders']} steps) |",
        ]
    lines += [
        "", "Use codes only with their own decoder. Images are float32 [B, C, H, W] in [0, 1]. The "
        "networks take any batch size. `config.json` is the configuration, and `class_names.json` "
        "names the rows of `class_codes`.",
    ]  # fmt: skip
    return "\n".join(lines)


def _classes(lord: Lord) -> list[str]:
    if not lord.has_class_names:
        return []
    names = lord.class_names
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return [f"## Classes\n\n{', '.join(f'`{name}`' for name in names[:MOST_NAMES])}{more}"]


def _metrics(lord: Lord) -> list[str]:
    return [
        "\n".join((
            f"## {metrics.file.stem}: {metrics.title}", "", "| metric | value | baseline |",
            "|---|---|---|", *(f"| {' | '.join(map(_cell, row))} |" for row in metrics.rows),
        ))
        for metrics in read_metrics(lord.run)
        if _is_of(metrics, lord)
    ]  # fmt: skip


def _is_of(metrics: Metrics, lord: Lord) -> bool:
    """Whether metrics belong to the exported checkpoint and not to an earlier one."""
    stage: Stage = "encoders" if metrics.values["codes"] == "encoder" else "latent"
    return metrics.values["step"] == lord.steps.get(stage)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
