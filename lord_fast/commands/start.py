"""What train and train-encoders do before their first step."""

from pathlib import Path

import yaml

from lord_fast import __version__, kernels
from lord_fast.config import LoopConfig, as_plain
from lord_fast.data.store import ImageStore
from lord_fast.machine import Machine, set_up_for


def set_up_stage(config: LoopConfig, store: ImageStore) -> Machine:
    """The machine, the store's decoder and place, and the kernels that a configuration names.

    Raises:
        ValueError: one of them is not to be had.
    """
    machine = set_up_for(config)
    store.decode_with(config.decoder, machine.device.type, machine.threads)
    store.place(config.store_device, machine.device)
    kernels.use(config.kernels, machine.device.type)
    return machine


def header(config: LoopConfig, store: ImageStore, run_path: Path, machine: Machine) -> str:
    """Configuration, data, device, live kernels and output folder, a line or more each."""
    shape = f"{store.size} x {store.size} x {store.channels}"
    if store.encoded:
        shape += f", encoded, decoded by {store.describe_decoder()}"
    shape += f", on {store.placed}" if store.placed != "disk" else ""
    return "\n".join((
        yaml.safe_dump(as_plain(config), sort_keys=False, default_flow_style=None).strip(),
        f"lord-fast {__version__}",
        f"data:    {store.path}: {store.num_images} images of {store.num_classes} classes, {shape}",
        f"device:  {machine.describe()}",
        f"kernels: {kernels.live(machine.device.type)}",
        f"run:     {run_path}",
    ))  # fmt: skip
