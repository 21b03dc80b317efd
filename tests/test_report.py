"""Tests of the report, which is one file without requests that works by mouse and keyboard."""

import base64
import html
import io
import json
import re
import shutil
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from lord_fast.cli import main
from lord_fast.data.options import PackConfig
from lord_fast.data.pack import pack
from lord_fast.data.sources.glyphs import Glyphs
from lord_fast.data.store import ImageStore
from lord_fast.report.pictures import POINTS, plane
from lord_fast.report.strips import framed
from lord_fast.run.verdict import MEANINGS, judge
from tests.browser import Browser
from tests.test_cli import fails
from tests.test_train import train


@pytest.fixture(scope="module")
def run(encoder_run, tmp_path_factory):
    run = tmp_path_factory.mktemp("report") / "run"
    shutil.copytree(encoder_run, run)
    for extra in ((), ("--codes", "encoder")):
        assert main(["evaluate", str(run), *extra]) == 0
    assert main(["report", str(run)]) == 0
    return run


def test_points_have_a_name_for_every_label_and_a_picture(tmp_path):
    store = tmp_path / "store"
    pack(Glyphs(32, 2, rotations=tuple(range(0, 60, 2))), store, PackConfig(size=32))
    lord = SimpleNamespace(content_codes=torch.randn(600, 4))
    found = plane(lord, ImageStore(store))
    assert len(found["points"]) == POINTS == len(found["labels"]["rotation"])
    assert [len(found["names"][name]) for name in ("class", "typeface", "rotation")] == [2, 10, 30]
    with opened(found["picture"]) as sheet:
        assert sheet.size == (32 * found["columns"], 32 * POINTS // found["columns"])


def opened(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


def test_gaps_between_images_are_transparent():
    white = torch.ones(1, 8, 8)
    pixels = opened(framed([[None, white], [white, white]], sources=True)).convert("RGBA")
    alpha = np.asarray(pixels)[..., 3]
    assert alpha.max() == 255
    assert (alpha == 255).sum() == 3 * 64
    assert alpha[:8, :8].max() == 0


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("metrics.json", "", "{", "metrics.json: damaged, or of another version"),
        ("metrics.json", "", "[1]", "metrics.json: damaged, or of another version"),
        ("metrics.json", '"ssim"', '"likeness"', "metrics.json: damaged, or of another version"),
        ("stats.jsonl", "", '{"stage": "latent", "st', "stats.jsonl: line "),
        ("stats.jsonl", '"lr"', '"rate"', "stats.jsonl: line 1 is damaged"),
    ],
)
def test_errors_name_damaged_files(run, tmp_path, capsys, name, old, new, message):
    """If `old` is empty, `new` replaces the metrics or is appended to the statistics."""
    broken = tmp_path / "run"
    shutil.copytree(run, broken)
    text = (broken / name).read_text()
    added = new if name == "metrics.json" else text + new
    (broken / name).write_text(text.replace(old, new) if old else added)
    error = fails(capsys, "report", broken)
    assert f"{broken}/{message}" in error
    assert "remove" in error


def test_training_resumes_after_a_truncated_last_line(glyph_store, tmp_path, capsys):
    run = tmp_path / "run"
    assert train(glyph_store, run, "--threads", "1") == 0
    shutil.rmtree(run / "checkpoints" / "latent-000000024")
    stats = run / "stats.jsonl"
    whole = [json.loads(line)["step"] for line in stats.read_text().splitlines()]
    stats.write_text(stats.read_text()[:-40])
    assert train(glyph_store, run, "--threads", "1") == 0
    assert [json.loads(line)["step"] for line in stats.read_text().splitlines()] == whole
    shutil.rmtree(run / "checkpoints" / "latent-000000024")
    stats.write_text("torn\n" + stats.read_text())
    assert train(glyph_store, run, "--threads", "1") == 2
    assert f"{stats}: line 1 is damaged" in capsys.readouterr().err


@pytest.fixture(scope="module")
def report(run):
    return run / "report.html"


@pytest.fixture
def browser(report, tmp_path):
    browser = Browser(tmp_path)
    try:
        browser.open(report.as_uri())
        yield browser
    finally:
        browser.close()


CELLS = "document.querySelectorAll('#swap button').length"


def test_the_file_is_complete_and_small(report, run):
    page = report.read_text()
    assert "{{" not in page
    assert len(page) < 600_000
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)""", page)
    assert not re.findall(r"url\((?!data:|#)", page)
    for expected in (
        "metrics.json", "metrics-encoder.json", "lord-fast train ", "--adain-dim 8", "torch 2.",
        "lord-fast train-encoders ", "encoder_dim: 16",
    ):  # fmt: skip
        assert expected in page
    assert f"lord-fast evaluate {run} --codes encoder\n" in html.unescape(page)


def test_loads_without_errors_or_requests(browser):
    assert browser.run(CELLS) == 8 * 8
    errors = [
        event for event in browser.events
        if event.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded")
        or event.get("method") == "Runtime.consoleAPICalled"
    ]  # fmt: skip
    assert errors == []
    requests = [
        event["params"]["request"]["url"] for event in browser.events
        if event.get("method") == "Network.requestWillBeSent"
    ]  # fmt: skip
    assert [url for url in requests if not url.startswith(("data:", "file:"))] == []
    assert len([url for url in requests if url.startswith("file:")]) == 1


def test_a_click_changes_the_grid(browser):
    before = browser.run("document.getElementById('swap').innerHTML")
    browser.run("document.querySelector('#pick-contents button[aria-pressed=false]').click()")
    assert browser.run(CELLS) == 8 * 9
    browser.run("document.querySelector('#pick-classes button').click()")
    assert browser.run(CELLS) == 7 * 9
    assert browser.run("document.getElementById('swap').innerHTML") != before


def test_a_cell_shows_its_sources_and_the_true_image(browser):
    browser.run("document.querySelectorAll('#swap button')[9].click()")
    captions = browser.run(
        "[...document.querySelectorAll('#detail figcaption')].map(c => c.textContent)"
    )
    assert [caption.split(":")[0].split(",")[0] for caption in captions] == [
        "class", "content", "generated", "true image",
    ]  # fmt: skip


def test_a_cell_can_be_focused_with_the_keyboard(browser):
    browser.run("document.querySelector('#swap button').focus()")
    assert browser.run("document.querySelectorAll('#detail figure').length") == 4
    assert browser.run("[...document.querySelectorAll('#swap button')].every(b => b.tabIndex == 0)")


def test_cells_can_be_ordered_worst_first(browser):
    worst = """(() => {
      const order = document.getElementById('order');
      order.value = 'worst'; order.dispatchEvent(new Event('change'));
      return chosen('classes').map(i =>
        Math.min(...[...shown.contents].map(j => swaps.errors[stage()][i][j] ?? Infinity)));
    })()"""
    found = browser.run(worst)
    assert found == sorted(found)
    assert len(set(found)) > 1


def test_the_grid_can_show_the_codes_of_the_encoders(browser):
    sheet = "getComputedStyle(document.querySelector('#swap button')).backgroundImage"
    before = browser.run(sheet)
    browser.run("byId('stage').value = 'encoders';"
                "byId('stage').dispatchEvent(new Event('change'))")  # fmt: skip
    assert browser.run(CELLS) == 8 * 8
    assert browser.run(sheet) != before


def test_points_are_coloured_by_the_selected_factor_with_a_legend(browser):
    names = "scatter.data.datasets.map(d => d.label)"
    assert len(set(browser.run(names))) == 8
    browser.run("colour.value = 'rotation'; colour.dispatchEvent(new Event('change'))")
    assert browser.run(names) == ["0", "30"]
    assert browser.run("scatter.options.plugins.legend.display")
    assert browser.run("scatter.data.datasets.flatMap(d => d.data).length") == 160
    browser.run("plane.labels.rotation = plane.points.map((p, i) => i % 64);"
                "plane.names.rotation = [...Array(64).keys()]; recolour()")  # fmt: skip
    colours = browser.run("scatter.data.datasets[0].backgroundColor")
    assert {colours[0], colours[63]} == {"hsl(240 70% 50%)", "hsl(0 70% 50%)"}
    assert not browser.run("scatter.options.plugins.legend.display")


def test_pointing_at_a_point_shows_its_image_and_labels(browser):
    at = browser.run("""(() => {
      byId('plane').scrollIntoView();
      const box = byId('plane').getBoundingClientRect();
      const point = scatter.getDatasetMeta(0).data[0];
      return [box.left + point.x, box.top + point.y];
    })()""")
    assert browser.run("byId('tip').hidden")
    browser.send("Input.dispatchMouseEvent", type="mouseMoved", x=at[0], y=at[1])
    for _ in range(50):
        if not browser.run("byId('tip').hidden"):
            break
        time.sleep(0.02)
    text = browser.run("byId('tip').textContent")
    assert re.match(r"class: .\ntypeface: .*\nrotation: (0|30)$", text)
    assert browser.run("byId('tip').querySelectorAll('.tile').length") == 1


def test_the_verdict_is_on_top_and_links_to_its_meaning(browser, run):
    words = "[...document.querySelectorAll('.card .word')].map(w => w.textContent)"
    values = json.loads((run / "metrics-encoder.json").read_text())
    assert browser.run(words) == [card.word for card in judge(values)]
    links = browser.run(
        "[...document.querySelectorAll('.card a')].map(a => document.querySelector(a.hash)?.id)"
    )
    assert links == ["means-" + question.replace(" ", "-") for question in MEANINGS]
    assert browser.run("document.querySelectorAll('.verdicts li').length") == 2


SIZES = {"desktop": (1280, 800), "phone": (390, 844)}


def resize(browser: Browser, size: str, scheme: str = "light") -> None:
    width, height = SIZES[size]
    browser.send(
        "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=2,
        mobile=size == "phone",
    )  # fmt: skip
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.send("Emulation.setEmulatedMedia", features=features)


@pytest.mark.parametrize("size", SIZES)
def test_the_detail_is_in_view_with_the_grid(browser, size):
    resize(browser, size)
    browser.run("document.querySelector('#swap').scrollIntoView()")
    assert browser.run("""(() => {
      const box = byId('detail').getBoundingClientRect();
      return byId('detail').childElementCount === 4 && box.top >= 0 && box.bottom <= innerHeight;
    })()""")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_fits_a_phone_in_light_and_dark(browser, scheme):
    resize(browser, "phone", scheme)
    assert browser.run("document.documentElement.scrollWidth") <= 390
    seen = "[...document.querySelectorAll('table')].filter(t => t.checkVisibility()).length"
    assert browser.run(seen) == 0  # They are folded.
    paper = browser.run("getComputedStyle(document.body).backgroundColor")
    red = int(re.findall(r"\d+", paper)[0])
    assert (red > 128) == (scheme == "light")
    line = browser.run("charts.map(c => c.options.scales.x.grid.color)")
    assert all((int(re.findall(r"\d+", colour)[0]) > 128) == (scheme == "light") for colour in line)
