from pathlib import Path

import pytest
import torch

from lord_fast.config import PackConfig
from lord_fast.data.glyphs import Glyphs
from lord_fast.data.pack import pack

# Each needs a process of its own: `python -m pytest tests/interpreter`, `... tests/gate`.
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
    """8 classes x 10 typefaces x 2 rotations, 32 px grey; read only."""
    out = tmp_path_factory.mktemp("stores") / "glyphs"
    config = PackConfig(size=32)
    pack(Glyphs(32, 8, rotations=(0, 30)), out, config)
    return out
