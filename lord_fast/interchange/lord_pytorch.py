"""Imports a checkpoint of the published lord-pytorch.

The state dicts are read with `weights_only`. The shapes of the tensors give all dimensions but one.
Only the pickled configuration tells a wide image from a square one. It is not loaded, but its codes
are listed to find the size of the images.
"""

import pickletools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lord_fast.atomic import atomic_folder, file_sha256
from lord_fast.config import EncoderConfig, TrainConfig, replace
from lord_fast.data.store import ImageStore
from lord_fast.lord import fill
from lord_fast.model.build import build_decoder, build_encoders, build_tables
from lord_fast.presets import ENCODER_PRESETS, PRESETS
from lord_fast.run.checkpoint import State
from lord_fast.run.config import MAX_CONFIG_BYTES, save_config, save_encoder_config
from lord_fast.run.folder import write_class_names
from lord_fast.run.segments import Tables
from lord_fast.run.snapshot import save

STEP = 1
"""Step number of an imported checkpoint. The published files do not contain the real one."""

INTEGERS = {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1"}
"""Codes of a pickle that put an integer on its stack."""
SIZES = (32, 64)
"""Image sizes that can be imported. The published generator always has 4 AdaIN layers, which is
lord-fast's number only at these sizes."""

LATENT = {
    **{f"modulation.adain_per_layer.{i}": f"modulation.layers.{i}" for i in range(4)},
    **{f"generator.fc_layers.{2 * i}": f"generator.head.{i}" for i in range(3)},
    **{f"generator.adain_conv_layers.{4 * i + 1}": f"generator.body.{i}" for i in range(4)},
    "generator.last_conv_layers.0": "generator.hidden",
    "generator.last_conv_layers.2": "generator.image",
}
"""Published name of a layer of the modulation or generator -> its name in `Decoder`."""
TABLES = ("content_embedding.embedding.weight", "class_embedding.weight")
"""Published names of the codes of images and classes."""
ENCODER = {
    **{f"conv_layers.{2 * i}": f"convs.{i}" for i in range(5)},
    "fc_layers.0": "hidden.0",
    "fc_layers.2": "hidden.1",
    "fc_layers.4": "last",
}
"""Published name of a layer of an encoder -> its name in `Encoder`."""


def import_published(folder: Path, run: Path, store: ImageStore | None = None) -> "Published":
    """Write a run with the published weights.

    Args:
        folder: With latent.pth, and amortized.pth if stage 2 was trained.
        run: The run's folder, which is created.
        store: The images that the model was trained on, in the same order. With them the run can
            be evaluated and its encoders trained.

    Returns:
        The imported model.

    Raises:
        ValueError: `run` exists, the files are not those of a model that lord-fast's can be, or the
            store does not fit the model.
    """
    if run.exists():
        raise ValueError(f"{run}: exists already; give another --run")
    found = Published(folder, PRESETS["paper"])
    if store is not None:
        found.tie_to(store)
    with atomic_folder(run) as partial:
        save_config(partial / "config.yaml", found.config, found.data)
        if store is not None:
            write_class_names(partial, store.class_names)
        save(partial / "checkpoints", "latent", STEP, found.latent, found.tables())
        if found.encoders is not None and found.encoder_config is not None:
            save_encoder_config(partial / "encoders.yaml", found.encoder_config)
            save(partial / "checkpoints", "encoders", STEP, found.encoders)
    return found


class Published:
    """A published model directory, converted to the state of a run and checked to load.

    Attributes:
        config: Configuration with dimensions from the shapes and the published settings.
        encoder_config: Configuration of stage 2, or None if there is no amortized.pth.
        data: The entry `data` of a run's configuration. Its path of the store is empty until
            `tie_to`.
        is_square: Whether the published configuration says that the images are square. None means
            that it does not tell, so that squares are assumed.
        latent: State of stage 1 without its tables.
        codes: The codes of stage 1, float32, as content [N, D] and class [C, E].
        encoders: State of stage 2, or None if there is no amortized.pth.
    """

    def __init__(self, folder: Path, preset: TrainConfig):
        """Read a directory.

        Args:
            folder: Directory with latent.pth, and amortized.pth if stage 2 was trained.
            preset: The published settings.

        Raises:
            ValueError: A file is missing, is not a state dict or lacks a parameter, or its networks
                cannot be built in lord-fast.
        """
        file = folder / "latent.pth"
        state = _read(file)
        self.latent: State = {
            "decoder": _renamed(file, state, "", LATENT), "loss": {"tap_scale": torch.ones(5)}
        }  # fmt: skip
        decoder = self.latent["decoder"]
        self.codes = content, class_ = tuple(_parameter(file, state, name) for name in TABLES)
        adain_dim = decoder["generator.body.0.weight"].shape[0]
        size = 16 * round((decoder["generator.head.2.weight"].shape[0] / adain_dim) ** 0.5)
        sides = published_sides(folder / "config.pkl")
        self.is_square = None if sides is None else sides[0] == sides[1]
        if sides is not None and sides[0] != sides[1]:
            raise ValueError(
                f"{file}: this model makes images of {sides[0]} x {sides[1]} pixels, and lord-fast "
                f"has only square images, so train it again with lord-fast"
            )
        if size not in SIZES:
            raise ValueError(
                f"{file}: this model makes images of {size} x {size} pixels or images that are not "
                f"square; only square images of 32 and 64 pixels can be imported, so train the "
                f"model again with lord-fast"
            )
        self.config = replace(
            preset, content_dim=content.shape[1], class_dim=class_.shape[1], adain_dim=adain_dim,
            steps=STEP,
        )  # fmt: skip
        self.data: dict[str, Any] = {
            "store": "",
            "sha256": file_sha256(file),
            "num_images": len(content),
            "num_classes": len(class_),
            "size": size,
            "channels": decoder["generator.image.weight"].shape[0],
            "crop": None,
        }
        self._try_decoder(file, decoder)
        self.encoders: State | None = None
        self.encoder_config: EncoderConfig | None = None
        if (folder / "amortized.pth").is_file():
            self._read_encoders(folder / "amortized.pth")

    def tie_to(self, store: ImageStore) -> None:
        """Record a store as the images that the model was trained on.

        Raises:
            ValueError: The store has another number of images or classes, or another size.
        """
        found = store.describe()
        different = [
            f"{name} {found[name]} instead of {self.data[name]}"
            for name in ("num_images", "num_classes", "size", "channels")
            if found[name] != self.data[name]
        ]
        if different:
            raise ValueError(
                f"--store {store.path}: not the images of this model ({', '.join(different)})"
            )
        self.data = found

    def tables(self) -> Tables:
        """Return tables that hold the codes at step `STEP`, without moments."""
        images, classes = map(len, self.codes)
        contents, class_ = build_tables(self.config, images, classes, STEP, torch.device("cpu"))
        content = contents[0]
        for table, codes in zip((content, class_), self.codes, strict=True):
            none = torch.zeros_like(codes)
            table.write_rows(
                torch.arange(len(codes)),
                {
                    "weight": codes, "exp_avg": none, "exp_avg_sq": none,
                    "last_step": torch.full((len(codes),), STEP),
                },
            )  # fmt: skip
        return {"content": {0: content}, "class": {0: class_}}

    def _read_encoders(self, file: Path) -> None:
        state = _read(file)
        encoders = {
            f"{ours}.{name}": tensor
            for ours, theirs in (("content", "content_encoder"), ("class_", "class_encoder"))
            for name, tensor in _renamed(file, state, f"{theirs}.", ENCODER).items()
        }
        decoder = _renamed(file, state, "", LATENT)
        self._try_decoder(file, decoder)
        self.encoders = {"encoders": encoders, "decoder": decoder}
        width = encoders["content.hidden.0.weight"].shape[0]
        self.encoder_config = replace(ENCODER_PRESETS["paper"], encoder_dim=width, steps=STEP)
        shape = (self.data["size"], self.data["channels"])
        counts = (self.data["num_images"], self.data["num_classes"])
        with _prefix_errors(file):
            network = build_encoders(self.encoder_config, self.config, *shape, counts)
        fill(network, encoders, file)

    def _try_decoder(self, file: Path, state: dict[str, Tensor]) -> None:
        """Check that the decoder can be built and loaded as in `Lord.load`."""
        with _prefix_errors(file):
            network = build_decoder(self.config, self.data["size"], self.data["channels"])
        fill(network, state, file)


def published_sides(file: Path) -> tuple[int, int] | None:
    """Return the height and the width of the images from a published configuration.

    It is a pickle. It is not loaded: its codes are listed, and the first three integers that form a
    tuple (height, width, 1 or 3) are taken.

    Args:
        file: config.pkl of a model directory.

    Returns:
        Height and width in pixels, or None if the file is missing, damaged or has no such tuple.
    """
    try:
        if file.stat().st_size > MAX_CONFIG_BYTES:
            return None
        codes = [(code.name, value) for code, value, _ in pickletools.genops(file.read_bytes())]
    except Exception:  # A damaged pickle raises exceptions of any type.
        return None
    numbers: list[int] = []
    for name, value in codes:
        if type(value) is int and name in INTEGERS:
            numbers.append(value)
            continue
        if name in ("TUPLE", "TUPLE3") and len(numbers) >= 3 and numbers[-1] in (1, 3):
            return numbers[-3], numbers[-2]
        numbers = []
    return None


@contextmanager
def _prefix_errors(file: Path) -> Iterator[None]:
    """Add the name of the file to the errors of building a network."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error


def _read(file: Path) -> dict[str, Tensor]:
    if not file.is_file():
        raise ValueError(
            f"{file}: no such file; pass the model directory of lord-pytorch that has latent.pth"
        )
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(f"{file}: not a state dict that can be read safely ({error})") from error
    if not isinstance(state, dict):
        raise ValueError(f"{file}: not a state dict")
    return state


def _renamed(
    file: Path, state: dict[str, Tensor], prefix: str, names: dict[str, str]
) -> dict[str, Tensor]:
    ours = {
        f"{prefix}{published}.{kind}": f"{name}.{kind}"
        for published, name in names.items()
        for kind in ("weight", "bias")
    }
    rooms = tuple({f"{prefix}{published.split('.')[0]}." for published in names})
    found = {name: _parameter(file, state, theirs) for theirs, name in ours.items()}
    more = [name for name in state if name.startswith(rooms) and name not in ours]
    if more:
        raise ValueError(f"{file}: {more[0]} belongs to a layer that lord-fast does not have")
    return found


def _parameter(file: Path, state: dict[str, Tensor], name: str) -> Tensor:
    """Look up a matrix, kernel or bias and convert it to float32."""
    if name not in state:
        raise ValueError(f"{file}: {name} is missing; is it a model of lord-pytorch?")
    if not isinstance(state[name], Tensor) or state[name].ndim < 1 + name.endswith("weight"):
        raise ValueError(f"{file}: {name} is not a parameter of a layer")
    return state[name].float()
