"""Exports a trained run to files that others can use (safetensors, ONNX, a model card)."""

import contextlib
import json
import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from lord_fast.atomic import atomic_folder, let_others_read, refuse_overlap
from lord_fast.grid import draw, save_png
from lord_fast.interchange.card import PICTURE, card
from lord_fast.lord import Lord
from lord_fast.lord.read import CONFIG, TENSORS
from lord_fast.model.encoder import Encoders
from lord_fast.run.exported import as_exported
from lord_fast.run.folder import write_class_names
from lord_fast.run.tensors import write_tensors

TOLERANCE = 1e-4
"""Maximum difference between the outputs of an ONNX network and of PyTorch."""
LATENT = {"decoder": ["content_codes", "class_codes"]}
ENCODERS = {"encoders_decoder": ["encoders"]}
"""Name of a decoder -> tensors or networks that its codes come from."""
ROWS, COLUMNS = 6, 10
"""Numbers of classes and contents in the picture of the card."""
UNKNOWN = "unknown"
"""The Hub's identifier of a licence that nobody has stated."""


def export(
    lord: Lord, out: Path, onnx: bool, licence: str = UNKNOWN, name: str | None = None
) -> dict[str, float]:
    """Write a folder that `Lord` loads, with a model card, a picture and ONNX networks.

    No file names a path of this machine.

    Args:
        lord: The model to export. The metrics of its run go into the card.
        out: The folder to create.
        onnx: Whether to write the networks as ONNX too.
        licence: Identifier of the licence, such as apache-2.0, for the card.
        name: Title of the card. Defaults to the name of the model's folder.

    Returns:
        Name of each ONNX file -> largest difference to PyTorch over two batch sizes.

    Raises:
        ValueError: `out` exists or overlaps with the run, the ONNX packages are missing, an ONNX
            network differs from PyTorch by more than `TOLERANCE`, or a metrics*.json of the run is
            damaged.
    """
    refuse_overlap(lord.run, out)
    with atomic_folder(out) as partial:
        write_tensors(partial / TENSORS, _tensors(lord))
        decoders = LATENT if lord.encoders is None else LATENT | ENCODERS
        encoder_config = None if lord.encoders is None else lord.encoder_config
        config = as_exported(lord.config, encoder_config, lord.data, lord.steps, decoders)
        (partial / CONFIG).write_text(json.dumps(config, indent=1) + "\n")
        if lord.has_class_names:
            write_class_names(partial, lord.class_names)
        save_png(partial / PICTURE, _picture(lord))
        (partial / "README.md").write_text(card(lord, name or lord.run.resolve().name, licence))
        return {
            file: _onnx(network, inputs, names, partial / file)
            for file, (network, inputs, names) in (_networks(lord) if onnx else {}).items()
        }


def _picture(lord: Lord) -> np.ndarray:
    """Draw classes of training with contents of training, uint8 [height, width, 3]."""
    generator = torch.Generator().manual_seed(0)
    rows, columns = (
        torch.randperm(len(codes), generator=generator)[:most].sort().values
        for codes, most in ((lord.class_codes, ROWS), (lord.content_codes, COLUMNS))
    )
    content = lord.content_codes[columns]
    made = [
        list(lord.decode(content, lord.class_codes[row].expand(len(content), -1), "latent"))
        for row in rows
    ]
    names = [lord.class_names[row] if lord.has_class_names else f"class {row}" for row in rows]
    return draw(made, [f"content {i}" for i in columns.tolist()], names, (), ())


class _ContentEncoder(nn.Module):
    """Maps images [B, C, H, W] in [0, 1] to content codes as `Lord.encode` does."""

    def __init__(self, encoders: Encoders, decoder: nn.Module):
        super().__init__()
        self.encoders, self.decoder = encoders, decoder

    def forward(self, images: Tensor) -> Tensor:
        """Return content codes, float32 [B, content_dim]."""
        return self.encoders(images, self.decoder)[0]


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
    tensors |= {f"loss.{key}": value for key, value in lord.loss_state.items()}
    return tensors | {"content_codes": lord.content_codes, "class_codes": lord.class_codes}


def _networks(lord: Lord) -> dict[str, tuple[nn.Module, tuple[Tensor, ...], list[str]]]:
    """Name of each ONNX file -> network, example inputs, names of the inputs and the output."""
    size, channels, config = lord.data["size"], lord.data["channels"], lord.config
    codes = (torch.randn(2, config.model.content_dim), torch.randn(2, config.model.class_dim))
    names = ["content", "class", "images"]
    found: dict = {"decoder.onnx": (lord.decoders["latent"], codes, names)}
    if lord.encoders is not None:
        images = (torch.rand(2, channels, size, size),)
        decoder = lord.decoders["encoders"]
        content = _ContentEncoder(lord.encoders, decoder)
        found["encoders_decoder.onnx"] = (decoder, codes, names)
        found["content_encoder.onnx"] = (content, images, ["images", "content"])
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
    with _quiet():
        program = torch.onnx.export(
            network, inputs, input_names=names[:-1], output_names=names[-1:],
            dynamic_shapes=tuple({0: "batch"} for _ in inputs), dynamo=True, verbose=False,
        )  # fmt: skip
    assert program is not None
    _forget_paths(program.model)
    program.save(file)
    let_others_read(file)
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    differences, generator = [], torch.Generator().manual_seed(0)
    for count in (1, 5):
        examples = [torch.rand(count, *v.shape[1:], generator=generator) for v in inputs]
        feed = {n: x.numpy() for n, x in zip(names[:-1], examples, strict=True)}
        with torch.no_grad():
            wanted = network(*examples).numpy()
        differences.append(float(np.abs(session.run(None, feed)[0] - wanted).max()))
    if max(differences) > TOLERANCE:
        raise ValueError(f"{file.name}: differs from PyTorch by {max(differences):.1e}")
    return max(differences)


def _forget_paths(model) -> None:
    """Remove the stack traces of tracing, which name files of this machine."""
    for node in model.graph.all_nodes():
        node.metadata_props.clear()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence what torch.onnx and onnxscript log and warn about. Errors are still raised."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with (
            warnings.catch_warnings(),
            open(os.devnull, "w") as nowhere,
            contextlib.redirect_stdout(nowhere),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
