"""Draws docs/serving.png: the page of `fex-jax serve` in headless Chromium.

pip install playwright  # and Debian's chromium
python -m fex_jax serve models/digits_fex &
python scripts/screenshot.py
"""

import argparse
import pathlib
import shutil

from playwright.sync_api import sync_playwright

DOCS = pathlib.Path(__file__).resolve().parent.parent / "docs"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--address", default="http://127.0.0.1:8000")
    parser.add_argument("--output", type=pathlib.Path, default=DOCS / "serving.png")
    given = parser.parse_args()
    with sync_playwright() as started:
        browser = started.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        page = browser.new_page(viewport={"width": 1040, "height": 700})
        page.goto(given.address)
        page.wait_for_selector("body[data-state=ready]")
        page.set_input_files("#file", DOCS / "scene.png")
        page.wait_for_selector("body[data-state=done]")
        page.check("#compare")
        page.locator("article").nth(1).wait_for()
        page.locator("article").nth(1).locator(".going input").fill("1")
        page.locator(".says", has_text="with everything").wait_for()
        page.screenshot(path=given.output, full_page=True)
        browser.close()


if __name__ == "__main__":
    main()
