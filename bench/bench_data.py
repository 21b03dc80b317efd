"""Times decoding and reading with pytest-benchmark.

    python -m pytest bench/bench_data.py --benchmark-only --benchmark-group-by=group

pytest-benchmark times the cases one after the other. Quote ratios from `lord-fast bench data`,
where the cases take turns. It also shows how long a training step waits for its images.
"""

import itertools

import pytest
import torch

from lord_fast.bench import data
from lord_fast.data.decode import PillowDecoder, Shape
from lord_fast.data.decode.dali import DaliDecoder, DaliUnavailableError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    data.write_images(root / "images")
    return root


@pytest.fixture(scope="module")
def stores(folder):
    return data.pack_stores(folder)


@pytest.mark.parametrize("name", ["pillow", "dali"])
def test_decode(benchmark, folder, name):
    shape = Shape(data.SIZE, 3)
    try:
        decoder = PillowDecoder(shape) if name == "pillow" else DaliDecoder(shape, 2)
    except DaliUnavailableError as error:
        pytest.skip(f"DALI: {error}")
    files = [file.read_bytes() for file in sorted(folder.rglob("*.jpg"))]
    batches = itertools.cycle([files[i : i + data.BATCH] for i in range(0, 512, data.BATCH)])
    benchmark.group = "decode"
    benchmark.pedantic(decoder.decode, setup=lambda: ((next(batches),), {}), rounds=8)


@pytest.mark.parametrize("name", ["decoded", "encoded (Pillow)", "encoded (DALI)"])
def test_read(benchmark, stores, name):
    if name not in stores:
        pytest.skip("DALI does not work here")
    store = stores[name]
    benchmark.group = "read"
    benchmark.pedantic(
        store.images,
        setup=lambda: ((torch.randint(store.num_images, (data.BATCH,)),), {}),
        rounds=8,
    )
