import shutil
from pathlib import Path

import pytest
import torch

from lord_fast.cli import main
from lord_fast.data.options import PackConfig
from lord_fast.data.pack import pack
from lord_fast.data.sources.glyphs import Glyphs

# Run each of these folders in its own process, such as `python -m pytest tests/interpreter`.
collect_ignore = ["interpreter", "gate"]
SHARED = Path(__file__).parents[2] / "shared"


@pytest.fixture(scope="session", autouse=True)
def two_threads():
    torch.set_num_threads(2)


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real images and weights that are not part of the project."""
    if not SHARED.is_dir():
        pytest.skip(f"no shared data beside the checkout ({SHARED.name}/)")
    return SHARED


@pytest.fixture(scope="session")
def glyph_store(tmp_path_factory) -> Path:
    """A read-only store of 8 classes in 10 typefaces and 2 rotations, 32 px, grey."""
    out = tmp_path_factory.mktemp("stores") / "glyphs"
    config = PackConfig(size=32)
    pack(Glyphs(32, 8, rotations=(0, 30)), out, config)
    return out


@pytest.fixture(scope="session")
def trained_run(glyph_store, tmp_path_factory) -> Path:
    """A read-only run with a short stage 1 on the glyphs."""
    from tests.test_train import train

    run = tmp_path_factory.mktemp("runs") / "latent"
    flags = ("--steps", "120", "--lr", "3e-3", "--latent-lr", "1e-1", "--threads", "1")
    assert train(glyph_store, run, *flags) == 0
    return run


@pytest.fixture(scope="session")
def short_run(glyph_store, tmp_path_factory) -> Path:
    """A read-only run with a stage 1 of 12 steps and checkpoints at 8 and 12."""
    from tests.test_reliability import SHORT_FLAGS
    from tests.test_train import train

    run = tmp_path_factory.mktemp("runs") / "short"
    assert train(glyph_store, run, *SHORT_FLAGS) == 0
    return run


@pytest.fixture(scope="session")
def encoder_run(trained_run, tmp_path_factory) -> Path:
    """A read-only copy of `trained_run` with a short stage 2."""
    from tests.test_encoders import ENCODER_FLAGS

    run = tmp_path_factory.mktemp("runs") / "encoders"
    shutil.copytree(trained_run, run)
    assert main(["train-encoders", str(run), *ENCODER_FLAGS]) == 0
    return run


@pytest.fixture
def quick(monkeypatch):
    """Evaluate two classes, 50 pairs, 20 samples and no probes, because these take long."""
    room = "lord_fast.evaluate.evaluate"
    monkeypatch.setattr(f"{room}._probe_each", lambda *_: {"leakage": {}, "informativeness": {}})
    monkeypatch.setattr("lord_fast.evaluate.transfer.MAX_PAIRS", 50)
    monkeypatch.setattr("lord_fast.evaluate.draw.MAX_IMAGES", 40)
    monkeypatch.setattr("lord_fast.evaluate.classifier.STEPS", 5)
    monkeypatch.setattr("lord_fast.evaluate.samples.MAX_SAMPLES", 20)
