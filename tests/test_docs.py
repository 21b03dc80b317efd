"""The examples of docs/python.md run, one after the other, and no verb lacks one."""

import re
import shutil
from pathlib import Path

import torch
from PIL import Image

from lord_fast.cli import VERBS
from lord_fast.data.store import ImageStore, as_float
from tests.test_interchange import write_published

DOCS = Path(__file__).parents[1] / "docs"
OF_LORD = {"encode", "translate", "fit", "sample", "interpolate"}
WITHOUT = {"demo", "bench", "doctor"}
"""Verbs for a terminal: they print, and return nothing to go on with."""


def test_python_examples(encoder_run, glyph_store, tmp_path, capsys, monkeypatch):
    run, published, folder = (tmp_path / name for name in ("run", "published", "photos"))
    shutil.copytree(encoder_run, run)
    published.mkdir()
    folder.mkdir()
    write_published(published)
    Image.new("L", (40, 50)).save(folder / "one.png")
    monkeypatch.chdir(tmp_path)
    examples = re.findall(r"```python\n(.*?)```", (DOCS / "python.md").read_text(), re.DOTALL)
    for verb in set(VERBS) - WITHOUT:
        name = verb.replace("-", "_")
        called = f"lord.{name}(" if verb in OF_LORD else f"{name}.run("
        assert any(called in example for example in examples), verb
    images = as_float(ImageStore(glyph_store).images(torch.arange(8)))
    names: dict = {"run": run, "images": images, "folder": folder, "published": published}
    for example in examples:
        exec(compile(example, "docs/python.md", "exec"), names)
    for name in (
        "again", "swapped", "one_class", "strip", "rows", "refitted", "relit", "new", "baseline",
    ):  # fmt: skip
        assert names[name].shape[1:] == (1, 32, 32)
    assert [content.shape for content, _ in names["codes"]] == [(1, 4)]
    assert names["new_class"].shape == (1, 8)
    assert "160 images of 8 classes" in capsys.readouterr().out
    assert (tmp_path / "new-run" / "report.html").is_file()
    assert (tmp_path / "model" / "model.safetensors").is_file()
    assert names["theirs"].encode(torch.rand(1, 3, 64, 64))[1].shape == (1, 10)
