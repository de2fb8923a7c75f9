"""Draws docs/serving*.png: the page of `fex-jax serve` in headless Chromium.

pip install playwright  # and Debian's chromium
python -m fex_jax serve models/digits_fex &
python -m fex_jax serve runs/demo_text --port=8001 &  # of `make demo-text`
python scripts/screenshot.py
"""

import argparse
import pathlib
import shutil

from playwright.sync_api import Page, sync_playwright

DOCS = pathlib.Path(__file__).resolve().parent.parent / "docs"
TEXT = "The cast is superb and the plot is never dull, but the ending is weak."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", default="http://127.0.0.1:8000")
    parser.add_argument("--texts", default="http://127.0.0.1:8001")
    given = parser.parse_args()
    with sync_playwright() as started:
        browser = started.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        for name, width, address in (
            ("serving", 1040, given.pictures),
            ("serving_phone", 390, given.pictures),
            ("serving_text", 1040, given.texts),
        ):
            page = browser.new_page(viewport={"width": width, "height": 700})
            page.goto(address)
            page.wait_for_selector("body[data-state=ready]")
            if address == given.pictures:
                page.set_input_files("#file", DOCS / "scene.png")
                compare(page, 1)
            else:
                page.fill("#text", TEXT)
                compare(page, 0)
            page.screenshot(path=DOCS / f"{name}.png", full_page=True)
        browser.close()


def compare(page: Page, one: int) -> None:
    """Shows two classes, with a tenth of one's patches or words removed."""
    page.wait_for_selector("body[data-state=done]")
    page.check("#compare")
    page.locator("article").nth(1).wait_for()
    shown = page.locator("article").nth(one)
    shown.locator(".going input").fill("1")
    shown.locator(".says", has_text="with everything").wait_for()


if __name__ == "__main__":
    main()
