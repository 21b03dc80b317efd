"""The examples of docs/python.md run, one after the other."""

import re
import shutil
from pathlib import Path

import torch

from lord_fast.data.store import ImageStore, as_float

DOCS = Path(__file__).parents[1] / "docs"


def test_python_examples(encoder_run, glyph_store, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(encoder_run, run)
    examples = re.findall(r"```python\n(.*?)```", (DOCS / "python.md").read_text(), re.DOTALL)
    assert len(examples) >= 8
    names: dict = {"run": run, "images": as_float(ImageStore(glyph_store).images(torch.arange(8)))}
    for example in examples:
        exec(compile(example, "docs/python.md", "exec"), names)
    for name in ("again", "swapped", "one_class", "strip", "rows", "relit", "new", "baseline"):
        assert names[name].shape[1:] == (1, 32, 32)
    assert names["new_class"].shape == (1, 8)
    assert "160 images of 8 classes" in capsys.readouterr().out
