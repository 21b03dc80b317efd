"""Exports a trained run to files that do not need lord-fast (safetensors, ONNX, a model card)."""

import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from lord_fast import __version__
from lord_fast.atomic import atomic_folder, refuse_overlap
from lord_fast.lord import Lord
from lord_fast.run.codes import Stage
from lord_fast.run.config import as_plain
from lord_fast.run.metrics import Metrics, read_metrics
from lord_fast.run.tensors import write_tensors

TOLERANCE = 1e-4
"""Maximum difference between the outputs of an ONNX network and of PyTorch."""
LATENT = {"decoder": ["content_codes", "class_codes"]}
ENCODERS = {"encoders_decoder": ["encoders"]}
"""Name of a decoder -> tensors or networks that its codes come from."""


def export(lord: Lord, run: Path, out: Path, onnx: bool) -> dict[str, float]:
    """Write a folder with model.safetensors, config.json, README.md and ONNX networks.

    Args:
        lord: The model to export.
        run: The folder of its run, which has the metrics for the model card.
        out: The folder to create.
        onnx: Whether to write the networks as ONNX too.

    Returns:
        Name of each ONNX file -> largest difference to PyTorch over two batch sizes.

    Raises:
        ValueError: `out` exists or overlaps with the run, the ONNX packages are missing, an ONNX
            network differs from PyTorch by more than `TOLERANCE`, or a metrics*.json of the run is
            damaged.
    """
    refuse_overlap(run, out)
    with atomic_folder(out) as partial:
        write_tensors(partial / "model.safetensors", _tensors(lord))
        decoders = LATENT if lord.encoders is None else LATENT | ENCODERS
        config = {
            **as_plain(lord.config), "data": lord.data, "steps": lord.steps, "decoders": decoders,
        }  # fmt: skip
        (partial / "config.json").write_text(json.dumps(config, indent=1) + "\n")
        (partial / "README.md").write_text(_card(lord, run))
        return {
            file: _onnx(network, inputs, names, partial / file)
            for file, (network, inputs, names) in (_networks(lord) if onnx else {}).items()
        }


def _tensors(lord: Lord) -> dict[str, Tensor]:
    networks = {
        "decoder": lord.decoders["latent"], "encoders": lord.encoders,
        "encoders_decoder": lord.decoders.get("encoders"),
    }  # fmt: skip
    tensors = {
        f"{name}.{key}": value
        for name, network in networks.items()
        if network is not None
        for key, value in network.state_dict().items()
    }
    tensors |= {"content_codes": lord.content_codes, "class_codes": lord.class_codes}
    return tensors


def _networks(lord: Lord) -> dict[str, tuple[nn.Module, tuple[Tensor, ...], list[str]]]:
    """Name of each ONNX file -> network, example inputs, names of the inputs and the output."""
    size, channels, config = lord.data["size"], lord.data["channels"], lord.config
    codes = (torch.randn(2, config.model.content_dim), torch.randn(2, config.model.class_dim))
    names = ["content", "class", "images"]
    found: dict = {"decoder.onnx": (lord.decoders["latent"], codes, names)}
    if lord.encoders is not None:
        images = (torch.rand(2, channels, size, size),)
        found["encoders_decoder.onnx"] = (lord.decoders["encoders"], codes, names)
        found["content_encoder.onnx"] = (lord.encoders.content, images, ["images", "content"])
        found["class_encoder.onnx"] = (lord.encoders.class_, images, ["images", "class"])
    return found


def _onnx(network: nn.Module, inputs: tuple[Tensor, ...], names: list[str], file: Path) -> float:
    try:
        import onnxruntime
        import onnxscript  # noqa: F401 (torch.onnx needs it)
    except ImportError as error:
        raise ValueError(
            f"ONNX: the package {error.name} is missing; pip install 'lord-fast[onnx]', or use "
            f"--no-onnx"
        ) from error
    network = network.cpu().eval()
    program = torch.onnx.export(
        network, inputs, input_names=names[:-1], output_names=names[-1:],
        dynamic_shapes=tuple({0: "batch"} for _ in inputs), dynamo=True, verbose=False,
    )  # fmt: skip
    assert program is not None
    program.save(file)
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    differences = []
    for count in (1, 5):
        examples = [torch.rand(count, *value.shape[1:]) for value in inputs]
        feed = {n: x.numpy() for n, x in zip(names[:-1], examples, strict=True)}
        with torch.no_grad():
            wanted = network(*examples).numpy()
        differences.append(float(np.abs(session.run(None, feed)[0] - wanted).max()))
    if max(differences) > TOLERANCE:
        raise ValueError(f"{file.name}: differs from PyTorch by {max(differences):.1e}")
    return max(differences)


def _card(lord: Lord, run: Path) -> str:
    data = lord.data
    lines = [
        "---", "library_name: lord-fast", "tags: [disentanglement, lord]", "---", "",
        f"# {run.resolve().name}", "",
        "A LORD model (Gabbay & Hoshen, ICLR 2020) represents an image by a class code and a "
        "content code.",
        f"This one was trained on {data['num_images']} images of {data['num_classes']} classes, "
        f"{data['size']} x {data['size']} x {data['channels']}, and exported by lord-fast "
        f"{__version__}.", "",
        "| in `model.safetensors` and as `.onnx` | description |", "|---|---|",
        "| `content_codes`, `class_codes` | the codes of the training images and classes |",
        f"| `decoder` | the decoder of these codes, from stage 1 ({lord.steps['latent']} steps) |",
    ]  # fmt: skip
    if lord.encoders is not None:
        lines += [
            "| `encoders` (`content_encoder`, `class_encoder`) | predict the codes of an image |",
            f"| `encoders_decoder` | the decoder of the encoders' codes, from stage 2 "
            f"({lord.steps['encoders']} steps) |",
        ]
    lines += [
        "", "Use codes only with their own decoder. Images are float32 [B, C, H, W] in [0, 1]. "
        "The networks take any batch size. `config.json` is the run's configuration.",
        "",
    ]  # fmt: skip
    for metrics in read_metrics(run):
        if _is_of(metrics, lord):
            lines += [
                f"## {metrics.file.stem}: {metrics.title}",
                "",
                "| metric | value | baseline |",
            ]
            lines += ["|---|---|---|", *(f"| {' | '.join(row)} |" for row in metrics.rows), ""]
    return "\n".join(lines)


def _is_of(metrics: Metrics, lord: Lord) -> bool:
    """Whether metrics belong to the exported checkpoint and not to an earlier one."""
    stage: Stage = "encoders" if metrics.values["codes"] == "encoder" else "latent"
    return metrics.values["step"] == lord.steps.get(stage)
