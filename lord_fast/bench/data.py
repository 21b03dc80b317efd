"""Benchmarks of decoding, of reading a store and of the time that a step waits for its images."""

import functools
import itertools
import mmap
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from lord_fast.bench.measure import Case, Row, measure, rows_of
from lord_fast.config import TrainConfig, replace
from lord_fast.data.decode import Decoder, DecoderName, PillowDecoder, Shape
from lord_fast.data.decode.dali import DaliDecoder, DaliUnavailableError
from lord_fast.data.options import PackConfig
from lord_fast.data.pack import pack
from lord_fast.data.sources import open_source
from lord_fast.data.store import ImageStore
from lord_fast.data.writer import data_file
from lord_fast.machine import Machine, synchronize
from lord_fast.train.latent import LatentStage

BATCH, SIZE = 64, 64
WIDTH, HEIGHT = 178, 218
"""Size of CelebA's aligned images in pixels."""
CLASSES, IMAGES = 16, 64
ROUNDS = 8
STEPS = 12
_worker: Decoder | None = None


def decode_rows(folder: Path, machine: Machine) -> list[Row]:
    """Time every available decoder on a batch of JPEG files in memory."""
    files = [file.read_bytes() for file in sorted(folder.rglob("*.jpg"))]
    batches = itertools.cycle([files[i : i + BATCH] for i in range(0, len(files), BATCH)])
    group = f"decode {WIDTH} x {HEIGHT} JPEG to {SIZE} x {SIZE}, B={BATCH}"
    with _decoders(machine) as contenders:
        cases = [
            Case(group, name, {"B": BATCH}, functools.partial(_next, work, batches))
            for name, work in contenders.items()
        ]
        return rows_of(cases, measure(cases, ROUNDS, machine.device))


@contextmanager
def _decoders(machine: Machine) -> Iterator[dict[str, Callable[[list[bytes]], object]]]:
    """Yield name -> function that decodes a batch. Pillow on one thread is the base."""
    shape, threads = Shape(SIZE, 3), machine.threads
    with ExitStack() as stack:
        # Forking is unsafe because this process has threads.
        context = multiprocessing.get_context("spawn")
        pool = stack.enter_context(ProcessPoolExecutor(threads, context, _start, (shape,)))
        found: dict[str, Callable[[list[bytes]], object]] = {
            "Pillow": PillowDecoder(shape).decode,
            f"Pillow, {threads} threads": PillowDecoder(shape, threads).decode,
            f"Pillow, {threads} processes": lambda files: list(
                pool.map(_decode, files, chunksize=-(-BATCH // threads))
            ),
        }
        for device in ("cpu", "cuda") if machine.device.type == "cuda" else ("cpu",):
            try:
                decoder = DaliDecoder(shape, threads, device)
                name = "mixed" if device == "cuda" else f"CPU, {threads} threads"
                found[f"DALI, {name}"] = decoder.batch
            except DaliUnavailableError:
                pass  # the table then has no row for DALI
        yield found


def _start(shape: Shape) -> None:
    global _worker
    _worker = PillowDecoder(shape)


def _decode(file: bytes):
    assert _worker is not None
    return _worker.decode([file])[0]


def read_rows(stores: dict[str, ImageStore], machine: Machine) -> list[Row]:
    """Time a batch of random images from each kind of store, from memory and from disk."""
    group = f"read a batch from a store, B={BATCH}"
    cases = []
    for name, store in stores.items():
        for cold in (False, True)[: 1 + hasattr(os, "posix_fadvise")]:  # Linux drops its cache
            cases.append(
                Case(
                    group,
                    f"{name}, {'from disk' if cold else 'in memory'}",
                    {"B": BATCH},
                    functools.partial(_read, store, cold),
                )
            )
    return rows_of(cases, measure(cases, ROUNDS, machine.device))


def _read(store: ImageStore, cold: bool) -> Callable[[], object]:
    image_ids = torch.randint(store.num_images, (BATCH,))
    if cold:
        _forget(store)
    return lambda: store.images(image_ids)


def _forget(store: ImageStore) -> None:
    """Evict a store from the page cache. Mapped pages must be released first."""
    store._data._mmap.madvise(mmap.MADV_DONTNEED)  # type: ignore[attr-defined]
    descriptor = os.open(data_file(store.path, store.encoded), os.O_RDONLY)
    os.fsync(descriptor)  # pages that are not yet written would stay in the cache
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def idle_rows(stores: dict[str, ImageStore], machine: Machine) -> list[Row]:
    """Time a step of stage 1 and how long it waits for its images.

    `ratio_to_base` of the second row is the inverse of the share of the step spent waiting.
    """
    found = []
    for name, store in stores.items():
        config = replace(TrainConfig(), loss="pyramid", batch_size=BATCH)
        stage = LatentStage(config, store, machine)
        steps: list[float] = []
        waits: list[float] = []
        for step in range(2 + STEPS):
            before, start = stage.loader.waited, time.perf_counter()
            stage.step(step)
            synchronize(machine.device)
            if step >= 2:
                steps.append(time.perf_counter() - start)
                waits.append(stage.loader.waited - before)
        group, params = f"training step, {name} store, B={BATCH}", {"B": BATCH}
        cases = [Case(group, case, params, _nothing) for case in ("step", "waiting for images")]
        found += rows_of(cases, [steps, waits])
    return found


def all_rows(machine: Machine) -> list[Row]:
    """Run all measurements on generated images in a temporary folder."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_images(folder / "images")
        stores = pack_stores(folder)
        return [
            *decode_rows(folder / "images", machine),
            *read_rows(stores, machine),
            *idle_rows(stores, machine),
        ]


def write_images(folder: Path) -> None:
    """Write smooth random JPEG files of CelebA's size into class folders."""
    rng = np.random.default_rng(0)
    for class_id in range(CLASSES):
        (folder / str(class_id)).mkdir(parents=True)
        for i in range(IMAGES):
            coarse = Image.fromarray(rng.integers(0, 256, (28, 23, 3), dtype=np.uint8))
            image = coarse.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
            image.save(folder / str(class_id) / f"{i}.jpg", quality=90)


def pack_stores(folder: Path) -> dict[str, ImageStore]:
    """Pack the images into a decoded store and into an encoded store for each available decoder."""
    stores = {}
    kinds: tuple[tuple[str, bool, DecoderName], ...] = (
        ("decoded", False, "pillow"),
        ("encoded (Pillow)", True, "pillow"),
        ("encoded (DALI)", True, "dali"),
    )
    for name, encoded, decoder in kinds:
        config = PackConfig(size=SIZE, encoded=encoded, decoder=decoder)
        try:
            pack(open_source(str(folder / "images"), config), folder / name, config)
        except ValueError as error:
            if decoder != "dali" or "--decoder dali" not in str(error):
                raise
            continue
        stores[name] = ImageStore(folder / name)
        stores[name].decode_with("auto", "cuda" if torch.cuda.is_available() else "cpu")
    return stores


def _next(
    work: Callable[[list[bytes]], object], batches: Iterator[list[bytes]]
) -> Callable[[], object]:
    return functools.partial(work, next(batches))


def _nothing() -> Callable[[], object]:
    return lambda: None
