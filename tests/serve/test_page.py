"""The page in headless Chromium, on a desk and on a phone; skipped where there is no browser."""

import shutil

import pytest

from fex_jax import explain

pytest.importorskip("uvicorn")
pytest.importorskip("starlette")
playwright = pytest.importorskip("playwright.sync_api")

from fex_jax.serve import Limits  # noqa: E402
from tests import commands  # noqa: E402
from tests.serve.serving import served, text_explainer  # noqa: E402

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DONE = "body[data-state=done]"


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("there is no Chromium")
    with playwright.sync_playwright() as started:
        launched = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def address():
    explainer = explain.load("models/digits_fex")
    with served(explainer, Limits(batch=1)) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def texts_address():
    with served(text_explainer(), Limits(batch=1)) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(params=[1200, 390])
def page(request, browser):
    """A page as wide as a desk's or a phone's; no script of it may fail, warn or ask elsewhere."""
    width = request.param
    opened = browser.new_page(viewport={"width": width, "height": 844})
    wrong, asked = [], []
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on("console", lambda message: wrong.append(message.text))
    opened.on("request", lambda request: asked.append(request.url))
    yield opened
    assert opened.evaluate("document.documentElement.scrollWidth") <= width
    refused = "status of 400"  # Chromium's own word on a file that the server cannot read
    assert [words for words in wrong if refused not in words] == []
    assert all(url.startswith((opened.url, "data:")) for url in asked)
    opened.close()


def test_a_picture_is_explained_in_the_browser(page, address):
    """Breaks if the page needs another host or raises an error; if a class that is clicked, a
    second one or a share that is removed is not shown; or if it is wider than a phone."""
    page.goto(address)
    page.wait_for_selector("body[data-state=ready]")
    page.set_input_files("#file", "docs/scene.png")
    page.wait_for_selector(DONE)
    title, maps = page.locator("article h3"), page.locator("article canvas")
    assert title.all_inner_texts() == ["6"]
    first = pixels(maps)
    page.click("#list li:nth-child(7) button")  # a class whose map is not there yet
    page.wait_for_selector(DONE)
    clicked = page.locator("#list li:nth-child(7) .name").inner_text()
    assert title.all_inner_texts() == [clicked] != ["6"]
    assert pixels(maps) != first
    page.click("#list li:nth-child(1) button")
    page.wait_for_selector(DONE)
    assert pixels(maps) == first
    page.fill("#opacity", "0")
    plain = pixels(maps)
    assert plain != first
    page.check("#compare")
    page.locator("article").nth(1).wait_for()
    assert title.all_inner_texts() == ["6", "8"]
    says = page.locator("article").first.locator(".says")
    assert says.inner_text() == "The classifier says 78\u00a0%"
    page.locator("article").first.locator(".going input").fill("2")
    says.filter(has_text="with everything 78").wait_for()
    assert pixels(maps) != plain


def test_a_picture_that_is_dropped_is_explained(page, address):
    """Breaks if the browser opens the file itself, or the place to drop it does not light up; or if
    a file that is no picture leaves the page without a word."""
    page.goto(address)
    page.wait_for_selector("body[data-state=ready]")
    box, devtools = page.locator("#drop").bounding_box(), page.context.new_cdp_session(page)
    place = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}

    def drag(file, *kinds):
        """As a hand drags a file of the desktop over the page."""
        data = {"items": [], "files": [str(commands.ROOT / file)], "dragOperationsMask": 1}
        for kind in kinds:
            devtools.send("Input.dispatchDragEvent", {"type": kind, "data": data, **place})

    drag("docs/scene.png", "dragEnter", "dragOver")
    page.wait_for_selector("#drop.over")
    drag("docs/scene.png", "drop")
    page.wait_for_selector(DONE)
    assert page.locator("article h3").all_inner_texts() == ["6"]
    assert page.locator("#drop.over").count() == 0
    drag("README.md", "dragEnter", "dragOver", "drop")
    page.locator("#problem", has_text="cannot be read as an image").wait_for()
    assert page.url.startswith(address)


def test_a_text_is_explained_in_the_browser(page, texts_address):
    """Breaks if what is typed is not what is shown; if a class that is clicked, a second one or the
    words that are removed are not shown; or if a long word makes the page wider than a phone."""
    written = "A good plot , a " + "long" * 40 + " movie !"
    page.goto(texts_address)
    page.wait_for_selector("body[data-state=ready]")
    page.locator("#text").press_sequentially(written)
    page.wait_for_selector(DONE)
    shown, title = page.locator("article .map"), page.locator("article h3")
    page.locator("article .map", has_text="movie !").wait_for()
    assert shown.inner_text() == written
    names = page.locator("#list .name").all_inner_texts()
    assert sorted(names) == ["class 0", "class 1", "class 2"]
    assert title.all_inner_texts() == names[:1]
    first = shown.inner_html()
    page.click("#list li:nth-child(3) button")
    page.wait_for_selector(DONE)
    assert title.all_inner_texts() == names[2:]
    assert shown.inner_html() != first
    page.check("#compare")
    page.locator("article").nth(1).wait_for()
    assert title.all_inner_texts() == [names[2], names[0]]
    second = page.locator("article").nth(1)
    second.locator(".going input").fill("5")
    second.locator(".says", has_text="with everything").wait_for()
    assert second.locator("mark.removed").count() == round(0.5 * second.locator("mark").count())
    assert page.locator("article").first.locator("mark.removed").count() == 0


def pixels(maps):
    return maps.first.evaluate("canvas => canvas.toDataURL()")
