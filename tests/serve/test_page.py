"""The page in headless Chromium, on a desk and on a phone; skipped where there is no browser."""

import shutil

import pytest

from fex_jax import explain

pytest.importorskip("uvicorn")
pytest.importorskip("starlette")
playwright = pytest.importorskip("playwright.sync_api")

from fex_jax.serve import Limits  # noqa: E402
from tests.serve.serving import served  # noqa: E402

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


@pytest.mark.parametrize("width", [1200, 390])
def test_a_picture_is_explained_in_the_browser(browser, address, width):
    """Breaks if the page needs another host or raises an error; if a class that is clicked, a
    second one or a share that is removed is not shown; or if it is wider than a phone."""
    page = browser.new_page(viewport={"width": width, "height": 844})
    wrong, asked = [], []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.append(message.text))
    page.on("request", lambda request: asked.append(request.url))
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
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert not wrong
    assert all(url.startswith((address, "data:")) for url in asked)
    page.set_input_files("#file", "README.md")
    page.locator("#problem", has_text="cannot be read as an image").wait_for()
    page.close()


def pixels(maps):
    return maps.first.evaluate("canvas => canvas.toDataURL()")
