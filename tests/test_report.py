"""The report: one file, nothing fetched, no error; it answers to clicks and to the keyboard."""

import re
import shutil

import pytest

from lord_fast.cli import main
from tests.browser import Browser


@pytest.fixture(scope="module")
def run(encoder_run, tmp_path_factory):
    run = tmp_path_factory.mktemp("report") / "run"
    shutil.copytree(encoder_run, run)
    for extra in ((), ("--codes", "encoder")):
        assert main(["evaluate", str(run), *extra]) == 0
    assert main(["report", str(run)]) == 0
    return run


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


def test_the_file_is_whole_and_small(report, run):
    page = report.read_text()
    assert "{{" not in page
    assert len(page) < 600_000
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)""", page)
    assert not re.findall(r"url\((?!data:|#)", page)
    for expected in (
        "metrics.json", "metrics-encoder.json", "lord-fast train ", "--adain-dim 8", "torch 2.",
        f"lord-fast train-encoders {run}", "encoder_dim: 16",
    ):  # fmt: skip
        assert expected in page


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


def test_the_keyboard_reaches_a_cell(browser):
    browser.run("document.querySelector('#swap button').focus()")
    assert browser.run("document.querySelectorAll('#detail figure').length") == 4
    assert browser.run("[...document.querySelectorAll('#swap button')].every(b => b.tabIndex == 0)")


def test_worst_first(browser):
    worst = """(() => {
      const order = document.getElementById('order');
      order.value = 'worst'; order.dispatchEvent(new Event('change'));
      return chosen('classes').map(i =>
        Math.min(...[...shown.contents].map(j => swaps.errors[i][j] ?? Infinity)));
    })()"""
    found = browser.run(worst)
    assert found == sorted(found)
    assert len(set(found)) > 1


def test_points_are_coloured_by_what_is_chosen(browser):
    colours = "[...document.querySelectorAll('#dots circle')].map(c => c.getAttribute('fill'))"
    by_class = browser.run(colours)
    assert len(set(by_class)) == 8
    browser.run("colour.value = 'rotation'; colour.dispatchEvent(new Event('change'))")
    assert len(set(browser.run(colours))) == 2


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_fits_a_phone_in_light_and_dark(browser, scheme):
    browser.send(
        "Emulation.setDeviceMetricsOverride",
        width=390,
        height=844,
        deviceScaleFactor=2,
        mobile=True,
    )
    browser.send(
        "Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}]
    )
    assert browser.run("document.documentElement.scrollWidth") <= 390
    paper = browser.run("getComputedStyle(document.body).backgroundColor")
    red = int(re.findall(r"\d+", paper)[0])
    assert (red > 128) == (scheme == "light")
