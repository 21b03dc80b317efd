"""Reads and writes config.json, the configuration of an exported model.

It has every option of stage 1 at the top level, as config.yaml does. The options of stage 2 stand
under `encoder_options`. No option names a file or a setting of the machine of training.
"""

import json
from pathlib import Path
from typing import Any

from lord_fast import __version__
from lord_fast.config import EncoderConfig, MachineConfig, TrainConfig, options, replace
from lord_fast.run.codes import Stage
from lord_fast.run.config import AnyStage, as_plain, check_data, from_plain

MORE = ("library", "version", "encoder_options", "data", "steps", "decoders")
"""Keys of config.json that are no options of stage 1. `steps` holds the steps of each stage."""


def as_exported(
    config: TrainConfig,
    encoder_config: EncoderConfig | None,
    data: dict[str, Any],
    steps: dict[Stage, int],
    decoders: dict[str, list[str]],
) -> dict[str, Any]:
    """Return the content of config.json.

    Args:
        config: The configuration of stage 1.
        encoder_config: The configuration of stage 2, or None without stage 2.
        data: The description of the store. Its path is left out.
        steps: Number of training steps of each stage.
        decoders: Name of each decoder -> names of the tensors or networks that its codes are from.
    """
    return {
        "library": "lord-fast",
        "version": __version__,
        **as_plain(_portable(config)),
        "encoder_options": None if encoder_config is None else as_plain(_portable(encoder_config)),
        "data": {**data, "store": ""},
        "steps": steps,
        "decoders": decoders,
    }


def read_exported_config(
    path: Path,
) -> tuple[TrainConfig, EncoderConfig | None, dict[str, Any], dict[Stage, int]]:
    """Read a config.json.

    Returns:
        The configurations of both stages, the description of the store, and the number of steps of
        each stage. The configuration of stage 2 is None without stage 2.

    Raises:
        ValueError: The file is damaged or was not written by `lord-fast export`.
    """
    try:
        values = json.loads(path.read_text())
        more = {name: values.pop(name) for name in MORE}
        if more["library"] != "lord-fast" or type(more["steps"]["latent"]) is not int:
            raise KeyError("library")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path}: not the configuration of a model that this lord-fast exported ({error!r}); "
            f"export the run again"
        ) from error
    check_data(path, more["data"])
    config = from_plain(path, {**values, "steps": more["steps"]["latent"]}, TrainConfig())
    of_encoders = more["encoder_options"]
    encoder_config = None if of_encoders is None else from_plain(path, of_encoders, EncoderConfig())
    return config, encoder_config, more["data"], more["steps"]


def _portable(config: AnyStage) -> AnyStage:
    """Replace the settings of the machine of training by their defaults, except the precision."""
    settings = options(MachineConfig())
    del settings["precision"]
    return replace(config, perceptual_weights=None, **settings)
