"""Our own parsers as functions of bytes: what the property tests and the fuzzer call.

Each returns, or raises a ValueError (OSError for the system's own words). Anything else is a fault.
"""

import atexit
import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from lord_fast.data.manifest import read_manifest
from lord_fast.data.options import PackConfig
from lord_fast.data.pack import _crop
from lord_fast.data.sources.glyphs import Glyphs
from lord_fast.data.sources.labels import Stem
from lord_fast.data.sources.mnist import IMAGES, LABELS, read_idx
from lord_fast.data.sources.npz import NpzFile
from lord_fast.data.sources.smallnorb import Matrix
from lord_fast.data.store import ImageStore
from lord_fast.run import checkpoint, history, metrics, stats
from lord_fast.run.config import load_config, load_encoder_config

Parser = Callable[[bytes], object]
FOLDER = Path(tempfile.mkdtemp(prefix="parsers-"))
"""Files to read; in memory where the machine has /dev/shm and TMPDIR says so."""
atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)


def of_file(name: str, read: Callable[[Path], object]) -> Parser:
    """A parser of a file as one of its bytes."""
    path = FOLDER / name
    path.parent.mkdir(parents=True, exist_ok=True)

    def parse(data: bytes) -> object:
        path.write_bytes(data)
        return read(path)

    return parse


def in_store(read: Callable[[Path], object]) -> Callable[[Path], object]:
    """A reader of a store, given its manifest."""
    return lambda file: read(file.parent)


def sealed(data: bytes) -> bytes:
    """A manifest or state.json with a right hash, so that what lies behind it is reached."""
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        return data
    if not isinstance(content, dict):
        return data
    for key, sort in (("manifest_sha256", False), ("checksum", True)):
        if key in content:
            del content[key]
            text = json.dumps(content, sort_keys=sort)
            content[key] = hashlib.sha256(text.encode()).hexdigest()
    return json.dumps(content).encode()


def text(data: bytes) -> str:
    """Any bytes as a command line's text."""
    return data.decode(errors="surrogateescape")


CHECKPOINT = "latent-000000012"
PARSERS: dict[str, Parser] = {
    "idx": of_file("idx/train-images-idx3-ubyte", lambda f: read_idx(f, IMAGES)),
    "idx labels": of_file("idx/train-labels-idx1-ubyte", lambda f: read_idx(f, LABELS)),
    "idx.gz": of_file("idx/train-images-idx3-ubyte.gz", lambda f: read_idx(f, IMAGES)),
    "npz": of_file("npz/a.npz", lambda f: [record.name for record in NpzFile(f)]),
    "norb": of_file("norb/dat.mat", lambda f: Matrix(f).all()),
    "manifest": of_file("store/manifest.json", in_store(read_manifest)),
    "sealed manifest": lambda data: PARSERS["open store"](sealed(data)),
    "open store": of_file("store/manifest.json", in_store(ImageStore)),
    "state.json": of_file(f"{CHECKPOINT}/state.json", in_store(checkpoint.load)),
    "sealed state.json": lambda data: PARSERS["state.json"](sealed(data)),
    "config.yaml": of_file("run/config.yaml", load_config),
    "encoders.yaml": of_file("run/encoders.yaml", load_encoder_config),
    "stats.jsonl": of_file("run/stats.jsonl", stats.read_stats),
    "history.jsonl": of_file("run/history.jsonl", in_store(history.read_history)),
    "metrics.json": of_file("run/metrics.json", in_store(metrics.read_metrics)),
    "crop": lambda data: _crop(Glyphs(8), PackConfig(crop=text(data))),
    "content pattern": lambda data: Stem(text(data)),
}


def run(name: str, data: bytes) -> object:
    """What a parser makes of bytes; None where it refuses them in the right way.

    Raises:
        Exception: a fault of the parser.
    """
    try:
        return PARSERS[name](data)
    except (ValueError, OSError) as error:
        if not str(error):
            raise AssertionError("an error without words") from error
        return None
