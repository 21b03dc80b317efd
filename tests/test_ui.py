"""Tests the app of lord-fast ui, its model without Gradio and its page in a browser."""

import importlib.util
import runpy
import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lord_fast.data.store import ImageStore
from lord_fast.lord import Lord
from lord_fast.ui.model import CONTENTS, DIRECTIONS, Model, picture
from tests.browser import Browser
from tests.test_cli import fails

DOCS = Path(__file__).parents[1] / "docs"
HAS_GRADIO = importlib.util.find_spec("gradio") is not None
needs_gradio = pytest.mark.skipif(not HAS_GRADIO, reason="needs the ui extra")


@pytest.fixture(scope="module")
def lord(encoder_run) -> Lord:
    return Lord.load(encoder_run, device="cpu")


@pytest.fixture
def photos(glyph_store, tmp_path) -> list[Path]:
    images = ImageStore(glyph_store).images(torch.tensor([0, 21, 40, 41])).permute(0, 2, 3, 1)
    files = [tmp_path / f"{i}.png" for i in range(len(images))]
    for file, image in zip(files, images, strict=True):
        Image.fromarray(image[..., 0].numpy()).save(file)
    return files


def small(found: Image.Image) -> np.ndarray:
    return np.asarray(found.resize((32, 32), Image.Resampling.NEAREST))[..., 0].astype(int)


def test_a_picture_is_enlarged_without_blur():
    image = torch.rand(1, 32, 32)
    found = picture(image)
    assert found.size == (256, 256)
    assert np.abs(small(found) - (image[0] * 255).numpy()).max() <= 1


def test_swaps_take_content_and_class_from_the_right_photo(lord, photos, glyph_store):
    model = Model(lord)
    images = ImageStore(glyph_store).images(torch.tensor([0, 21])) / 255
    wanted = lord.translate(images[:1], images[1:])[0, 0]
    found = small(model.swap(photos[0], photos[1]))
    assert np.abs(found - (wanted * 255).numpy()).max() <= 1
    assert np.abs(found - small(model.swap(photos[1], photos[0]))).max() > 5


def test_directions_are_the_principal_ones(lord):
    model = Model(lord)
    codes = lord.content_codes
    assert len(model.directions) == min(DIRECTIONS, codes.shape[1])
    lengths = model.directions.norm(dim=1)
    assert torch.equal(lengths, lengths.sort(descending=True).values)
    along = (codes - codes.mean(0)) @ (model.directions[0] / lengths[0])
    assert along.std() == pytest.approx(float(lengths[0]), rel=1e-4)
    code = lord.class_codes[3]
    mean = small(model.move(code, [0] * len(lengths)))
    assert np.abs(mean - small(model.class_pictures()[3])).max() <= 1
    assert np.abs(mean - small(model.move(code, [2.5, *[0] * (len(lengths) - 1)]))).max() > 5


def test_a_new_class_is_fitted_and_shown(lord, photos, monkeypatch):
    model, seen = Model(lord), []
    code = torch.ones(lord.class_codes.shape[1])
    monkeypatch.setattr(
        lord, "fit", lambda images, new_class, progress: (seen.append(images), code[None])
    )
    assert torch.equal(model.fit_class(photos[2:]), code)
    assert seen[0].shape == (2, 1, 32, 32)
    assert len(model.in_contents(code)) == CONTENTS


def test_a_missing_gradio_is_said(encoder_run, capsys, monkeypatch):
    monkeypatch.setattr("lord_fast.ui.app.importlib.util.find_spec", lambda name: None)
    assert "pip install 'lord-fast[ui]'" in fails(capsys, "ui", encoder_run)


@pytest.fixture
def app(encoder_run, lord, tmp_path):
    """The address of the app, which another thread serves."""
    from lord_fast.ui.app import build, serve

    found: list[str] = []
    app = build(lord, "glyphs")
    serving = threading.Thread(
        target=serve, args=(app, "127.0.0.1", 0, False, found.append), daemon=True
    )
    serving.start()
    while not found and serving.is_alive():
        time.sleep(0.05)
    yield found[0]
    app.close()


class Page(Browser):
    """A browser with the app."""

    def until(self, script: str, seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while not self.run(script):
            assert time.monotonic() < end, script
            time.sleep(0.1)

    def tab(self, name: str) -> None:
        self.run(
            f"[...document.querySelectorAll('button[role=tab]')]"
            f".find(tab => tab.textContent.trim() === '{name}').click()"
        )

    def drop(self, inside: str, files: list[Path]) -> None:
        self.until(f"!!document.querySelector('{inside} input[type=file]')")
        root = self.send("DOM.getDocument")["root"]["nodeId"]
        found = self.send("DOM.querySelector", nodeId=root, selector=f"{inside} input[type=file]")
        self.send("DOM.setFileInputFiles", nodeId=found["nodeId"], files=[str(f) for f in files])

    def wait_for_photos(self, count: int) -> None:
        names = "document.querySelector('#photos').textContent.split('.png').length - 1"
        self.until(f"{names} === {count}")

    def picture(self, inside: str, but: str = "") -> str:
        self.until(f"![null, undefined, '{but}'].includes({self.source(inside)})")
        return self.run(self.source(inside))

    def source(self, inside: str) -> str:
        return f"document.querySelector('{inside} img')?.src"


@needs_gradio
def test_the_app_in_a_browser(app, photos, tmp_path):
    page = Page(tmp_path / "browser")
    try:
        page.open(app)
        page.until("document.querySelectorAll('button[role=tab]').length === 3")
        page.drop("#content", [photos[0]])
        page.drop("#class", [photos[1]])
        page.picture("#swapped")

        page.tab("Explore")
        page.until("document.querySelectorAll('#classes button img').length >= 8")
        mean = page.picture("#moved")
        page.run("document.querySelectorAll('#classes button img')[3].closest('button').click()")
        other = page.picture("#moved", but=mean)
        page.run("""(() => {
          const slider = document.querySelector('#direction0 input[type=range]');
          slider.value = 2.5;
          for (const name of ['input', 'change'])
            slider.dispatchEvent(new Event(name, { bubbles: true }));
        })()""")
        page.picture("#moved", but=other)

        page.tab("New class")
        page.drop("#photos", photos[2:])
        page.wait_for_photos(2)
        page.run("document.querySelector('#fit').click()")
        page.until(f"document.querySelectorAll('#fitted img').length >= {CONTENTS}", 200)
        errors = [e for e in page.events if e.get("method") == "Runtime.exceptionThrown"]
        assert errors == []
    finally:
        page.close()


@needs_gradio
def test_a_photo_that_cannot_be_read_is_said_on_the_page(app, photos, tmp_path):
    photos[0].write_bytes(b"no photo")
    page = Page(tmp_path / "browser")
    try:
        page.open(app)
        page.until("document.querySelectorAll('button[role=tab]').length === 3")
        page.tab("New class")
        page.drop("#photos", photos[:1])
        page.wait_for_photos(1)
        page.run("document.querySelector('#fit').click()")
        page.until("document.body.textContent.includes('not an image that Pillow reads')")
    finally:
        page.close()


@needs_gradio
def test_the_space_needs_no_store(encoder_run, tmp_path, monkeypatch):
    for name in ("config.yaml", "encoders.yaml", "checkpoints"):
        copy = shutil.copytree if (encoder_run / name).is_dir() else shutil.copy
        (tmp_path / "model").mkdir(exist_ok=True)
        copy(encoder_run / name, tmp_path / "model" / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("lord_fast.data.store.ImageStore.__init__", None)
    space = runpy.run_path(str(DOCS / "space" / "app.py"), run_name="space")
    assert space["app"].title == "LORD: class and content"
    assert "lord-fast[ui" in (DOCS / "space" / "requirements.txt").read_text()
