"""How long the page of `fex-jax serve` takes, in headless Chromium on the same cores.

    pip install playwright  # and Debian's chromium
    python benchmarks/page.py --texts=runs/demo_text

The page itself takes the time, from a picture that is read, a text after which typing has paused,
or a class that is clicked, to the map that is drawn. `--write` keeps the table in
docs/results/page.json.
"""

import json
import pathlib
import shutil
import sys
from collections.abc import Callable

import numpy as np
from absl import app, flags
from playwright.sync_api import Page, sync_playwright

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.load import pictures, served  # noqa: E402
from fex_jax import reviews  # noqa: E402

CLASS = "#list li:nth-child(7) button"  # the page has the first four classes' maps already


def took(page: Page, do: Callable[[], None]) -> float:
    """Milliseconds from what is done on the page to its map, as the page says."""
    page.evaluate("delete document.body.dataset.took")
    do()
    page.wait_for_selector("body[data-took]")
    return float(page.evaluate("document.body.dataset.took"))


def row(name: str, times: list[float]) -> dict:
    """Of all times but the first two, in which the server compiles."""
    p50, p99 = np.percentile(times[2:], [50, 99]).tolist()
    return {"On the page": name, "Times": len(times) - 2, "p50 ms": p50, "p99 ms": p99}


def of_pictures(page: Page, count: int) -> list[dict]:
    """Scenes of the digits' explainer, and a class of each."""
    given, clicked = [], []
    for content in pictures(count):
        file = {"name": "scene.png", "mimeType": "image/png", "buffer": content}
        given.append(took(page, lambda file=file: page.set_input_files("#file", file)))
        clicked.append(took(page, lambda: page.click(CLASS)))
    return [row("a picture, 64 px", given), row("another class of it", clicked)]


def of_texts(page: Page, count: int) -> list[dict]:
    """Short reviews."""
    texts = [reviews.write(0, "test", index).text for index in range(count)]
    given = [took(page, lambda text=text: page.fill("#text", text)) for text in texts]
    return [row("a text of some thirty words", given)]


def main(_: list[str]) -> None:
    given, rows = flags.FLAGS, []
    asked = {"models/digits_fex": of_pictures} | ({given.texts: of_texts} if given.texts else {})
    with sync_playwright() as started:
        browser = started.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        for explainer, measure in asked.items():
            with served(explainer) as address:
                page = browser.new_page()
                page.goto(f"http://{address}")
                page.wait_for_selector("body[data-state=ready]")
                rows += measure(page, 2 + given.times)
        browser.close()
    for one in rows:
        print(one)
    if given.write:
        path = ROOT / "docs" / "results" / "page.json"
        path.write_text(json.dumps({"rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    flags.DEFINE_integer("times", 200, "Pictures, and texts.")
    flags.DEFINE_string("texts", "", "Also an explainer of texts, as `make demo-text` trains.")
    flags.DEFINE_bool("write", False, "Write docs/results/page.json.")
    app.run(main)
