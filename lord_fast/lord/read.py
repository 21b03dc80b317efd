"""Reads a trained model from a run's folder or from an exported folder."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from lord_fast.config import EncoderConfig, TrainConfig
from lord_fast.model.build import stored_codes
from lord_fast.run import checkpoint
from lord_fast.run.codes import Stage
from lord_fast.run.config import load_config, load_encoder_config
from lord_fast.run.exported import read_exported_config
from lord_fast.run.folder import read_class_names

AnyStage = Stage | Literal["auto"]
CONFIG, TENSORS = "config.json", "model.safetensors"
"""The files of an exported model that are read."""


@dataclass(frozen=True)
class Trained:
    """A trained model as it was read, before its networks are built.

    Attributes:
        folder: The run's folder, or the exported folder.
        config: The configuration of stage 1.
        data: The description of the store, see `ImageStore.describe`.
        class_names: Name of each class, or None if they are only in the store.
        steps: Number of training steps of each stage.
        files: The file or folder of each stage's tensors, for error messages.
        decoders: Parameters of each stage's decoder.
        codes: Content codes, float32 [num_images, content_dim], and class codes, float32
            [num_classes, class_dim].
        loss: State of the reconstruction loss.
        encoder_config: The configuration of stage 2, or None without stage 2.
        encoders: Parameters of the encoders. Empty without stage 2.
    """

    folder: Path
    config: TrainConfig
    data: dict[str, Any]
    class_names: list[str] | None
    steps: dict[Stage, int]
    files: dict[Stage, Path]
    decoders: dict[Stage, dict[str, Tensor]]
    codes: tuple[Tensor, Tensor]
    loss: dict[str, Tensor]
    encoder_config: EncoderConfig | None
    encoders: dict[str, Tensor]


def read_trained(folder: Path, stage: AnyStage, device: torch.device) -> Trained:
    """Read a run or an exported model.

    Args:
        folder: The folder.
        stage: `latent` reads only stage 1, `encoders` both, and `auto` stage 2 if it is there.
        device: Device of the codes.

    Raises:
        ValueError: The folder is neither, a file is damaged, or a requested stage is missing.
    """
    is_exported = (folder / CONFIG).is_file() and not (folder / "config.yaml").exists()
    found = read_exported(folder, stage) if is_exported else read_run(folder, stage, device)
    if stage == "encoders" and found.encoder_config is None:
        raise ValueError(no_encoders(folder))
    return found


def read_run(run: Path, stage: AnyStage, device: torch.device) -> Trained:
    """Read the latest checkpoints of a run, see `read_trained`."""
    config, data = load_config(run / "config.yaml")
    latent = checkpoint.load_latest(run / "checkpoints", "latent")
    if latent is None:
        raise ValueError(f"{run}: no checkpoint yet; train it first")
    counts = (data["num_images"], data["num_classes"])
    tables, sizes = latent.tables, config.model
    if counts != tuple(sum(tables[name].rows) for name in ("content", "class")):
        raise ValueError(
            f"{latent.path}: its numbers of images and classes differ from config.yaml"
        )
    if (sizes.content_dim, sizes.class_dim) != (tables["content"].dim, tables["class"].dim):
        raise ValueError(f"{latent.path}: its lengths of codes differ from config.yaml")
    encoders = None
    if stage != "latent":
        encoders = checkpoint.load_latest(run / "checkpoints", "encoders")
    found: dict[Stage, checkpoint.Loaded] = {"latent": latent}
    if encoders is not None:
        found["encoders"] = encoders
    return Trained(
        folder=run, config=config, data=data, class_names=read_class_names(run),
        steps={name: each.step for name, each in found.items()},
        files={name: each.path for name, each in found.items()},
        decoders={name: each.state["decoder"] for name, each in found.items()},
        codes=stored_codes(tables, latent.step, config, *counts, device),
        loss=latent.state["loss"],
        encoder_config=load_encoder_config(run / "encoders.yaml") if encoders else None,
        encoders=encoders.state["encoders"] if encoders else {},
    )  # fmt: skip


def read_exported(folder: Path, stage: AnyStage) -> Trained:
    """Read a folder of `lord-fast export`, see `read_trained`."""
    config, encoder_config, data, steps = read_exported_config(folder / CONFIG)
    file = folder / TENSORS
    try:
        tensors = load_file(file)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{file}: cannot be read ({error})") from error
    rooms: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        room, _, rest = name.partition(".")
        rooms.setdefault(room, {})[rest] = tensor
    missing = {"decoder", "content_codes", "class_codes"} - set(rooms)
    if missing:
        raise ValueError(f"{file}: {', '.join(sorted(missing))} missing; export the run again")
    decoders: dict[Stage, dict[str, Tensor]] = {"latent": rooms["decoder"]}
    if stage == "latent":
        encoder_config, steps = None, {"latent": steps["latent"]}
    if encoder_config is not None:
        decoders["encoders"] = rooms.get("encoders_decoder", {})
    return Trained(
        folder=folder, config=config, data=data, class_names=read_class_names(folder),
        steps=steps, files=dict.fromkeys(decoders, file), decoders=decoders,
        codes=(rooms["content_codes"][""], rooms["class_codes"][""]), loss=rooms.get("loss", {}),
        encoder_config=encoder_config, encoders=rooms.get("encoders", {}),
    )  # fmt: skip


def fill(network: nn.Module, state: dict[str, Tensor], file: Path) -> None:
    """Load a network's parameters.

    Args:
        network: The network, as built from the configuration.
        state: Parameter name -> tensor.
        file: The file that the parameters were read from, for the error message.

    Raises:
        ValueError: The parameters belong to another network.
    """
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{file}: does not fit the configured networks ({reason[:300]})"
        ) from error


def no_encoders(folder: Path) -> str:
    """Say that a model has no stage 2."""
    return (
        f"{folder}: no encoders (stage 2) yet; train them with: lord-fast train-encoders {folder}"
    )
