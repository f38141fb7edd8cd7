"""The page in a real browser: it plays, obeys the keyboard, asks for nothing, fits a telephone."""

import csv

import numpy as np
import pytest
import torch
from browser import PROGRAMS, Browser, find_chromium
from trainer_data import CONTEXT, PREDICT, make_data, mmtrain, stored, tiny_options

from trainer import load_model

pytestmark = pytest.mark.skipif(
    find_chromium() is None, reason=f"no {' or '.join(PROGRAMS)} on the PATH"
)

NUM_FRAMES = CONTEXT + PREDICT
FIRST = "document.querySelector('.player')"
PLACE = f"Number({FIRST}.dataset.frame)"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("browser")
    make_data(root / "data", fields=("canvas=30x34", "frames=8"))
    mmtrain("fit", root / "data", "--run", root / "run", *tiny_options("steps=2"))
    mmtrain("evaluate", root / "run", root / "data")
    mmtrain("report", root / "run", "-o", root / "page.html")
    return root


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture
def page(browser, folder):
    """Open the page as somebody who likes motion sees it, on a large screen."""
    emulate(browser, 1280)
    browser.open(f"file://{folder}/page.html")
    browser.wait_for(f"{PLACE} > 0")
    return browser


def emulate(browser, width, *, scheme="light", motion="no-preference"):
    features = {"prefers-color-scheme": scheme, "prefers-reduced-motion": motion}
    named = [{"name": name, "value": value} for name, value in features.items()]
    browser.call("Emulation.setEmulatedMedia", features=named)
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.call("Emulation.setDeviceMetricsOverride", **size)


def after_ms(milliseconds, expression):
    return f"new Promise((done) => setTimeout(() => done({expression}), {milliseconds}))"


def test_nothing_goes_wrong_and_nothing_is_asked_for(page):
    page.evaluate(after_ms(300, 0))
    asked = [params["request"]["url"] for name, params in page.events if "WillBeSent" in name[-22:]]
    assert [url for url in asked if not url.startswith("data:")] == [page.evaluate("location.href")]
    complaints = [
        params
        for name, params in page.events
        if name in ("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled")
    ]
    assert complaints == []
    loaded = "[...document.images].every((one) => one.complete && one.naturalWidth > 0)"
    assert page.evaluate(loaded)


def test_animations_play_at_once_and_go_round(page):
    first = page.evaluate(PLACE)
    page.wait_for(f"{PLACE} !== {first}")
    page.evaluate("document.querySelectorAll('.player')[0].querySelector('.time').textContent")
    page.wait_for(f"{PLACE} === {NUM_FRAMES}")
    page.wait_for(f"{PLACE} === 1")
    playing = "[...document.querySelectorAll('.player')].every((one) => one.dataset.frame)"
    assert page.evaluate(playing)


def test_keys_pause_step_and_play(page):
    page.evaluate(f"{FIRST}.focus()")
    page.press(" ")
    place = page.evaluate(PLACE)
    assert page.evaluate(after_ms(500, PLACE)) == place
    page.press("ArrowRight")
    assert page.evaluate(PLACE) == place % NUM_FRAMES + 1
    page.press("ArrowLeft")
    page.press("ArrowLeft")
    assert page.evaluate(PLACE) == (place - 2) % NUM_FRAMES + 1
    page.evaluate(f"{FIRST}.querySelector('input').focus()")  # whose own arrows would move it too
    page.press("ArrowRight")
    assert page.evaluate(PLACE) == place
    page.press(" ")
    page.wait_for(f"{PLACE} !== {place}")


def test_buttons_and_slider_do_the_same(page):
    click = f"{FIRST}.querySelectorAll('button')[%d].click()"
    page.evaluate(click % 1)
    place = page.evaluate(PLACE)
    page.evaluate(click % 2)
    assert page.evaluate(PLACE) == place % NUM_FRAMES + 1
    page.evaluate(click % 0)
    assert page.evaluate(PLACE) == place
    slide = f"slider = {FIRST}.querySelector('input'), slider.value = 6"
    page.evaluate(f"{slide}, slider.dispatchEvent(new Event('input'))")
    assert page.evaluate(PLACE) == 6
    value = page.evaluate(f"{FIRST}.querySelector('input').getAttribute('aria-valuetext')")
    assert value == f"frame 6 of {NUM_FRAMES}, after it"


def test_each_panel_of_the_best_shows_the_pixels_of_its_frame(page, folder):
    with (folder / "run" / "evaluation" / "sequences.csv").open() as file:
        best = min(csv.DictReader(file), key=lambda row: float(row["prediction_mse"]))
    index = int(best["index"])
    clip = stored(folder / "data", "test")[index : index + 1, :NUM_FRAMES]
    context = torch.from_numpy(clip[:, :CONTEXT])
    model = load_model(folder / "run", "cpu")
    said = torch.cat([model.reconstruct(context), model.generate(context, PREDICT)], 1)
    said = said.clamp(0, 1).mul(255).round().byte().numpy()
    black = np.zeros_like(clip[0, 0])
    page.evaluate(f"{FIRST}.querySelectorAll('button')[1].click()")
    for frame in (1, CONTEXT, CONTEXT + 1, NUM_FRAMES):
        page.evaluate(
            f"slider = {FIRST}.querySelector('input'), slider.value = {frame}, "
            "slider.dispatchEvent(new Event('input'))"
        )
        shown = page.evaluate(
            f"[...{FIRST}.querySelectorAll('canvas')].map((one) => Array.from(one.getContext('2d')"
            ".getImageData(0, 0, 34, 30).data.filter((_, place) => place % 4 === 0)))"
        )
        is_seen, t = frame <= CONTEXT, frame - 1
        truth, model_says = clip[0, t], said[0, t]
        wanted = [truth, truth, model_says, black] if is_seen else [black, truth, black, model_says]
        np.testing.assert_array_equal(np.reshape(shown, (4, 30, 34)), wanted)
        dimmed = f"[...{FIRST}.querySelectorAll('.panel')].map((one) => one.matches('.off'))"
        assert page.evaluate(dimmed) == [not is_seen, False, not is_seen, is_seen]


def test_nothing_moves_for_those_who_do_not_want_it(browser, folder):
    emulate(browser, 1280, motion="reduce")
    browser.open(f"file://{folder}/page.html")
    browser.wait_for(f"{PLACE} > 0")
    assert browser.evaluate(after_ms(500, PLACE)) == 1
    browser.evaluate(f"{FIRST}.querySelectorAll('button')[1].click()")
    browser.wait_for(f"{PLACE} > 1")


@pytest.mark.parametrize("width", [360, 1280])
def test_the_page_never_scrolls_sideways(browser, folder, width):
    emulate(browser, width)
    browser.open(f"file://{folder}/page.html")
    browser.wait_for(f"{PLACE} > 0")
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.evaluate("innerWidth") == width


def test_a_dark_page_is_dark_and_its_text_light(browser, folder):
    emulate(browser, 1280, scheme="dark")
    browser.open(f"file://{folder}/page.html")
    color = "getComputedStyle(document.body).%s.match(/\\d+/g).map(Number)"
    assert max(browser.evaluate(color % "backgroundColor")) < 64
    assert min(browser.evaluate(color % "color")) > 192


def test_pictures_have_words_and_headings_an_order(page):
    wordless = "[...document.images].filter((one) => one.alt.length < 20).length"
    assert page.evaluate(wordless) == 0
    nameless = "[...document.querySelectorAll('canvas, button, input')].filter((one) => "
    nameless += "!(one.getAttribute('aria-label') || one.textContent)).length"
    assert page.evaluate(nameless) == 0
    levels = page.evaluate(
        "[...document.querySelectorAll('h1,h2,h3,h4,h5,h6')].map((h) => +h.tagName[1])"
    )
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert max(np.diff(levels)) == 1
