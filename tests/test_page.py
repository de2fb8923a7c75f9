import base64
import html.parser
import io
import re

import numpy as np
import pytest
from PIL import Image

from fex_jax.page import PLOT, ClassMap, GalleryItem, gallery
from tests.conftest import peak

FRACTIONS = dict.fromkeys(("positive", "negative"), np.linspace(0, 1, 11))


def item(label: str = "cat", size: int = 64, **changes) -> GalleryItem:
    fields = {
        "image": np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8),
        "label": label,
        "classes": (ClassMap(label, 0.9, peak()), ClassMap("dog", 0.05, peak().T)),
        "positive": np.linspace(0.9, 0, 11),
        "negative": np.linspace(0.9, 0.1, 11),
    }
    return GalleryItem(**{**fields, **changes})


def write(path, items, **changes) -> str:
    arguments = {"fractions": FRACTIONS, "title": "Gallery", "facts": {}, "results": {}}
    gallery(path, items, **{**arguments, **changes})
    return path.read_text(encoding="utf-8")


def images(page: str) -> list[Image.Image]:
    sources = re.findall(r'src="data:image/webp;base64,([^"]+)"', page)
    return [Image.open(io.BytesIO(base64.b64decode(source))) for source in sources]


class Page(html.parser.HTMLParser):
    """The tags and the visible text of a page."""

    def __init__(self, page: str):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def test_gallery_escapes_every_text(tmp_path):
    """Breaks if autoescaping is lost: a label is data and must never become markup."""
    evil = '<b class="x">cat</b><script>alert(1)</script>"'
    page = Page(
        write(
            tmp_path / "gallery.html",
            [item(evil)],
            title=evil,
            facts={evil: evil},
            results={evil: {evil: evil}},
        )
    )
    assert not {"b", "script"} & {tag for tag, _ in page.tags}
    assert page.text.count(evil) >= 8
    assert any(attrs.get("alt") == f"Input image, {evil}" for _, attrs in page.tags)


def test_gallery_shows_control_characters_as_text(tmp_path):
    """Breaks if a label's control characters or half a surrogate pair reach the page."""
    evil = "a\x1b[2J\x00\u202eb\ud800"
    shown = {evil: evil}
    page = write(tmp_path / "g.html", [item(evil)], title=evil, facts=shown, results={evil: shown})
    assert not set(page) & set("\x1b\x00\u202e\ud800")
    assert page.count(r"a\x1b[2J\x00\u202eb\ud800") >= 8


def test_gallery_needs_no_other_file(tmp_path):
    """Breaks if a font, script or image is linked: the page must open offline."""
    page = write(tmp_path / "gallery.html", [item(), item(size=300)], facts={"Seed": "0"})
    written = re.sub(r"base64,[A-Za-z0-9+/=]+", "", page)
    assert not re.search(r"https?:|//|@import|url\(|<link|<script", written)
    assert [path.name for path in tmp_path.iterdir()] == ["gallery.html"]
    sources = [attrs["src"] for tag, attrs in Page(page).tags if tag == "img"]
    assert len(sources) == 1 + 2 * 3  # the legend, and an input and two maps for each item
    assert all(source.startswith("data:") for source in sources)


def test_gallery_describes_every_picture(tmp_path):
    """Breaks if a picture has no text for those who cannot see it."""
    page = Page(write(tmp_path / "gallery.html", [item()]))
    assert all(attrs["alt"] for tag, attrs in page.tags if tag == "img")
    charts = [attrs for tag, attrs in page.tags if tag == "svg" and "aria-hidden" not in attrs]
    assert [attrs["role"] for attrs in charts] == ["img"]
    # Linear curves from 0.9: to 0 and to 0.1, so 0.45 and 0.50 half-way.
    assert all(value in charts[0]["aria-label"] for value in ("0.90", "0.45", "0.50"))


def test_small_images_stay_sharp(tmp_path):
    """Breaks if a small input is blurred or compressed, or its heat map keeps its coarse grid."""
    small = item(size=64)
    _, shown, heat, _ = images(write(tmp_path / "gallery.html", [small]))
    np.testing.assert_array_equal(np.asarray(shown), small.image)  # scaled by the browser
    assert heat.size == (256, 256)
    assert 'class="pixelated"' in write(tmp_path / "gallery.html", [small])
    assert 'class="pixelated"' not in write(tmp_path / "gallery.html", [item(size=300)])


def test_results_table_shows_missing_metrics(tmp_path):
    """Breaks if the columns shift when a method lacks a metric of another."""
    results = {"FEX": {"AUC": "0.32 ± 0.01"}, "RISE": {"AUC": "0.50", "mIoU": "0.30"}}
    page = write(tmp_path / "gallery.html", [item()], results=results)
    cells = re.findall(r"<td>(.*?)</td>", page)
    assert cells == ["0.32 <small>± 0.01</small>", "–", "0.50", "0.30"]


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([], "at least one item"),
        ([item(positive=np.ones(10))], "positive curve"),
        ([item(negative=np.full(11, np.nan))], "negative curve"),
        ([item(classes=())], "class"),
        ([item(image=np.zeros((64, 64)))], "H, W, 3"),
    ],
)
def test_gallery_refuses_unfit_items(tmp_path, items, message):
    """Breaks if a half-written gallery is left behind, or the error names no culprit."""
    with pytest.raises(ValueError, match=message):
        write(tmp_path / "gallery.html", items)
    assert not list(tmp_path.iterdir())


def test_a_map_flat_but_for_rounding_is_drawn_flat(tmp_path):
    """Breaks if float32 noise around a constant is drawn in full colour."""
    flat = np.full((8, 8), 0.3, np.float32)
    noise = np.nextafter(flat, np.where(peak() > 0, 1, 0).astype(np.float32))
    pages = [
        write(tmp_path / "page.html", [item(classes=(ClassMap("cat", 0.9, attribution),))])
        for attribution in (flat, noise)
    ]
    assert pages[0] == pages[1]


def test_a_value_is_no_share_of_anything(tmp_path):
    """Breaks if a regression's 250 is shown as 25000 %, or its curve leaves the axes."""
    low, high = np.linspace(250, -50, 11), np.linspace(250, 0, 11)
    shown = item(classes=(ClassMap("size", 250.0, peak()),), positive=low, negative=high)
    page = Page(write(tmp_path / "gallery.html", [shown], quantity="Value"))
    assert "value 250" in page.text and "25000" not in page.text and "Value of size" in page.text
    (points,) = [tag["points"] for _, tag in page.tags if tag.get("class") == "negative"][:1]
    left, top, width, height = PLOT
    heights = [float(pair.split(",")[1]) for pair in points.split()]
    assert heights[0] == top and heights[-1] == pytest.approx(top + height * 250 / 300, abs=0.1)
    assert f">{-50}<" in (tmp_path / "gallery.html").read_text()
