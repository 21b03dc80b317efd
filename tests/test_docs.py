"""The examples of docs/python.md run, one after the other, and no verb lacks its function."""

import ast
import json
import re
import shutil
import sys
from pathlib import Path

import torch
from PIL import Image

from lord_fast.cli import VERBS
from lord_fast.data.store import ImageStore, as_float
from tests.test_interchange import write_published

DOCS = Path(__file__).parents[1] / "docs"
FUNCTIONS = {
    "pack": ("pack", "verify"),
    "split": ("split_images", "split_classes"),
    "unpack": ("unpack",),
    "train": ("train_latent",),
    "train-encoders": ("train_encoders",),
    "evaluate": ("evaluate_run",),
    "score": ("score",),
    "encode": ("lord.encode", "encode_files"),
    "translate": ("lord.translate", "translate_files"),
    "fit": ("lord.fit", "fit_files"),
    "sample": ("lord.sample", "sample_grid"),
    "interpolate": ("lord.interpolate", "interpolate_files"),
    "decode": ("lord.decode", "decode_files"),
    "report": ("write_report",),
    "export": ("export",),
    "import-lord": ("import_published",),
    "doctor": ("findings",),
}
WITHOUT = {"run", "demo", "seeds", "bench", "ui", "push"}
"""Sequences of other verbs, a verb that measures for minutes, an app, and one that needs a network.
"""


def test_python_examples(encoder_run, glyph_store, tmp_path, capsys, monkeypatch):
    run, published, folder = (tmp_path / name for name in ("run", "published", "photos"))
    shutil.copytree(encoder_run, run)
    published.mkdir()
    folder.mkdir()
    write_published(published)
    for name in ("one", "two"):
        Image.new("L", (40, 50)).save(folder / f"{name}.png")
    monkeypatch.chdir(tmp_path)
    text = (DOCS / "python.md").read_text()
    examples = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert set(FUNCTIONS) == set(VERBS) - WITHOUT
    for functions in FUNCTIONS.values():
        for function in functions:
            assert any(f"{function}(" in example for example in examples), function
    images = as_float(ImageStore(glyph_store).images(torch.arange(8)))
    names: dict = {"run": run, "images": images, "folder": folder, "published": published}
    names["photo"] = folder / "one.png"
    for example in examples:
        exec(compile(example, "docs/python.md", "exec"), names)
    for name in (
        "again", "swapped", "one_class", "named", "of_store", "strip", "rows", "refitted", "relit",
        "new", "baseline",
    ):  # fmt: skip
        assert names[name].shape[1:] == (1, 32, 32)
    assert [content.shape for content, _ in names["codes"]] == [(2, 4)]
    assert names["new_class"].shape == (1, 8)
    assert names["rows_and_columns"] == (2, 2)
    assert names["seen"] + names["held_out"] == names["manifest"]["num_images"] == 200
    assert names["steps"] == len(names["losses"]) == 8
    assert len(names["saves"]) == 1
    for file in (
        "codes.npz",
        "fitted.npz",
        "grid.png",
        "between.png",
        "new.png",
        "swapped.png",
        "decoded.png",
    ):
        assert (tmp_path / file).is_file()
    assert (tmp_path / "new-run" / "report.html") == tmp_path / names["page"]
    assert (tmp_path / "model" / "model.safetensors").is_file()
    assert names["theirs"].encode(torch.rand(1, 3, 64, 64))[1].shape == (1, 10)
    printed = capsys.readouterr()
    assert "160 images of 8 classes" in printed.out
    assert printed.err == ""
    assert re.search(r"^(native|reference)", printed.out, re.MULTILINE)


def test_the_notebook_runs_from_top_to_bottom(tmp_path, monkeypatch):
    """Its cells run in one process, with fewer steps."""
    monkeypatch.chdir(tmp_path)
    cells = json.loads((DOCS / "tutorials" / "letters.ipynb").read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert "steps=3000" in code[0]
    code[0] = code[0].replace("steps=3000", 'steps=4, encoders={"steps": 4}')
    shown: list = []
    monkeypatch.setattr(sys, "displayhook", shown.append)
    names: dict = {}
    for cell in code:
        # As at a prompt, sys.displayhook gets the value of every expression.
        exec(compile(ast.Interactive(ast.parse(cell).body), "letters.ipynb", "single"), names)
    pictures = [value._repr_png_() for value in shown if hasattr(value, "_repr_png_")]
    assert len(pictures) == 7
    assert all(picture.startswith(b"\x89PNG") for picture in pictures)
