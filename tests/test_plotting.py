import numpy as np
import pytest
from PIL import Image

from fex_jax.modalities.images import Explanation
from fex_jax.plotting import comparison, curves, dots, grid, overlay, survival
from fex_jax.probing import Probe
from tests.conftest import peak

FRACTIONS = dict.fromkeys(("positive", "negative"), np.linspace(0, 1, 11))


@pytest.mark.parametrize("level", [0, 128, 255])
def test_colour_is_strongest_at_the_peak(level):
    """Breaks if axes are swapped, the map is flipped, or the peak is lost on black or white."""
    image = np.full((64, 64, 3), level, np.uint8)
    plain = overlay(image, np.zeros((8, 8))).astype(int)
    change = np.abs(overlay(image, peak()).astype(int) - plain).max(axis=-1)
    row, column = np.unravel_index(change.argmax(), change.shape)
    assert (row // 8, column // 8) == (2, 5)
    assert change.max() > 80


def test_no_colour_where_the_attribution_is_zero():
    """Breaks if opacity has a floor, or interpolation rings into places without attribution."""
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    heat = overlay(image, peak())
    assert (np.ptp(heat[40:].astype(int), axis=-1) == 0).all()  # grey: the channels are equal
    np.testing.assert_array_equal(heat[40:], overlay(image, np.zeros((8, 8)))[40:])
    np.testing.assert_array_equal(overlay(image, peak(), alpha=0.0), overlay(image, peak() * 0))


def test_scale_and_offset_of_the_map_do_not_matter():
    """Breaks if the scaling is not per map: attributions differ in size by orders of magnitude."""
    image = np.full((32, 32, 3), 200, np.uint8)
    attribution = np.random.default_rng(0).random((8, 8))
    moved = overlay(image, 1e-4 * attribution - 5e-5).astype(int)
    assert np.abs(moved - overlay(image, attribution)).max() <= 1


def test_lone_pixel_does_not_hide_the_rest_but_lone_patch_counts():
    """Breaks if one outlier sets the scale, or if the outlier rule erases a single patch."""
    image = np.full((224, 224, 3), 128, np.uint8)
    attribution = np.zeros((224, 224))
    attribution[:112] = 1.0
    attribution[200, 200] = 1000.0
    plain = overlay(image, np.zeros((8, 8)))
    assert np.abs(overlay(image, attribution)[50, 50].astype(int) - plain[50, 50]).max() > 80
    patch = 0.01 * np.random.default_rng(0).random((14, 14))
    patch[3, 3] = 1.0
    heat = overlay(image, patch)
    assert np.ptp(heat[56, 56].astype(int)) > 100  # coloured
    assert np.ptp(heat[150:].astype(int), axis=-1).max() < 10  # grey


def test_a_map_flat_but_for_rounding_is_drawn_flat(tmp_path):
    """Breaks if float32 noise around a constant is drawn in full colour."""
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    flat = np.full((8, 8), 0.5, np.float32)
    noise = np.where(np.arange(64).reshape(8, 8) % 3, flat, np.nextafter(flat, np.float32(1)))
    np.testing.assert_array_equal(overlay(image, noise), overlay(image, flat))
    for name, attribution in (("flat", flat), ("noise", noise)):
        comparison(tmp_path / f"{name}.png", image[None], ["a"], {"m": attribution[None]})
    assert (tmp_path / "flat.png").read_bytes() == (tmp_path / "noise.png").read_bytes()


def test_an_image_a_rounding_above_one_is_drawn():
    """Breaks if resizing in floats, which overshoots by a rounding, makes an image unfit."""
    image = np.random.default_rng(0).random((16, 16, 3))
    image[0, 0], image[0, 1] = 1, 0
    beyond = image + np.where(image > 0.5, 1e-6, -1e-6)
    np.testing.assert_array_equal(overlay(image, peak()), overlay(beyond, peak()))


def test_labels_are_no_formulas(tmp_path):
    """Breaks if dollar signs of a label start matplotlib's formulas, which may be no formula."""
    evil = r"$5 \\frac$ \x1b\x00"
    image = np.zeros((1, 16, 16, 3), np.uint8)
    comparison(tmp_path / "maps.png", image, [evil], {evil: peak()[None]})
    curves(tmp_path / "curves.png", {evil: FRACTIONS}, FRACTIONS, title=evil, ylabel=evil)
    dots(tmp_path / "dots.png", {evil: {evil: np.ones(2)}})


def test_float_and_uint8_images_agree():
    """Breaks if one of the two forms is scaled twice."""
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    np.testing.assert_array_equal(overlay(image, peak()), overlay(image / 255, peak()))


@pytest.mark.parametrize(
    ("image", "attribution", "message"),
    [
        (np.zeros((8, 8), np.uint8), peak(), "H, W, 3"),
        (np.zeros((3, 8, 8), np.uint8), peak(), "H, W, 3"),
        (np.zeros((8, 8, 3), np.int64), peak(), "uint8 or float"),
        (np.full((8, 8, 3), 200.0), peak(), r"\[0, 1\]"),
        (np.full((8, 8, 3), np.nan), peak(), r"\[0, 1\]"),
        (np.zeros((8, 8, 3)), peak().ravel(), "h, w"),
        (np.zeros((8, 8, 3)), peak() * np.nan, "NaN"),
    ],
)
def test_overlay_refuses_what_it_would_misread(image, attribution, message):
    """Breaks if a normalised image, flat scores or a NaN are drawn as something plausible."""
    with pytest.raises(ValueError, match=message):
        overlay(image, attribution)


def test_curves_draw_every_method(tmp_path):
    """Breaks if a method is skipped: each of nine has a colour and dash of its own."""
    path = tmp_path / "curves.png"
    flat = {"positive": np.full(11, 0.5), "negative": np.full(11, 0.5)}
    drawn = []
    for count in (1, 2, 9):
        methods = {
            f"m{i}": {name: values * (1 - i / 10) for name, values in flat.items()}
            for i in range(count)
        }
        curves(path, methods, FRACTIONS, title="Test")
        picture = np.asarray(Image.open(path).convert("RGB")).astype(int)
        drawn.append((np.ptp(picture, axis=-1) > 60).sum())  # coloured pixels
    assert 0 < drawn[0] < drawn[1] < drawn[2]


def test_survival_has_a_point_for_each_share(tmp_path):
    """Breaks if the whole input or nothing is left out, or shares of what is kept are drawn."""
    path = tmp_path / "removal.png"
    survival(path, Probe(0.9, 0.1, (0.75, 0.25), (0.9, 0.2)), "blur")
    picture = np.asarray(Image.open(path).convert("RGB")).astype(int)
    blue = (picture[..., 2] - picture[..., 0]) > 120
    blue[:, int(0.7 * blue.shape[1]) :] = False  # the legend
    heights = [np.flatnonzero(column).mean() for column in blue.T if column.any()]
    assert heights[0] == pytest.approx(
        heights[len(heights) // 8], abs=3
    )  # as much of three quarters
    assert heights[-1] - heights[0] > 100  # down to nothing
    steepest = np.argmax(np.diff(heights[5:-5])) / len(heights)
    assert 0.2 < steepest < 0.8


def test_dots_draw_every_run_in_a_row_of_its_own(tmp_path):
    """Breaks if a choice or a run is left out: dots and rows are counted in the picture."""
    path = tmp_path / "dots.png"
    dots(path, {"AUC": {"one": np.array([0.1, 0.4, 0.9]), "two": np.array([0.2, 0.8])}})
    picture = np.asarray(Image.open(path).convert("RGB")).astype(int)
    blue = (picture[..., 2] - picture[..., 0]) > 120
    rows = np.flatnonzero(np.diff(np.r_[False, blue.any(1)].astype(int)) == 1)
    assert len(rows) == 2
    first = blue[rows[0] : rows[1]].any(0)
    assert (np.diff(np.r_[False, first].astype(int)) == 1).sum() == 3


def test_curves_refuse_other_lengths(tmp_path):
    """Breaks if a curve of another protocol is drawn against the wrong fractions."""
    methods = {"FEX": {"positive": np.ones(11), "negative": np.ones(10)}}
    with pytest.raises(ValueError, match="negative curve of FEX"):
        curves(tmp_path / "curves.png", methods, FRACTIONS)
    with pytest.raises(ValueError, match="at least one"):
        curves(tmp_path / "curves.png", {}, FRACTIONS)


def test_comparison_has_a_row_an_image_and_a_column_a_method(tmp_path):
    """Breaks if a method's maps are drawn in another's place: one is bright, one is flat."""
    inputs = np.zeros((2, 64, 64, 3), np.uint8)
    ramp = np.tile(np.linspace(0, 1, 8), (2, 8, 1))
    path = tmp_path / "maps.png"
    comparison(path, inputs, ["a", "b"], {"flat": 0 * ramp, "ramp": ramp})
    drawn = np.asarray(Image.open(path).convert("RGB")).astype(int)
    thirds = [np.ptp(third, -1).max() for third in np.array_split(drawn, 3, axis=1)]
    assert thirds[0] < 10 and thirds[1] < 10 < 100 < thirds[2]  # colour in the last column only


def test_a_grid_has_a_row_a_picture_and_a_column_a_class():
    """Breaks if a map lies over another picture or under another class's name, a label starts a
    formula, or of a result without `top_k` the pictures are taken for classes."""
    pictures = np.stack([np.full((16, 16, 3), level, np.uint8) for level in (0, 255)])
    maps = np.stack([[np.roll(peak(), 2 * i + j, 0) for j in (0, 1)] for i in (0, 1)])
    answers = np.array([[0.25, 0.75], [0.5, 0.5]])
    result = Explanation(
        maps, maps, np.array([[1, 0], [0, 1]]), answers, ("$^$", "b"), pictures, None
    )
    figure = grid(result)
    figure.draw_without_rendering()  # a formula that is none raises here
    rows = np.reshape([axes.get_images()[0].get_array() for axes in figure.axes], (2, 3, 16, 16, 3))
    for i in (0, 1):
        np.testing.assert_array_equal(rows[i, 0], pictures[i])
        for j in (0, 1):
            np.testing.assert_array_equal(rows[i, 1 + j], overlay(pictures[i], maps[i, j]))
    titles = [axes.get_title().replace("\\", "") for axes in figure.axes]
    assert titles == ["", "b (75%)", "$^$ (25%)", "", "$^$ (50%)", "b (50%)"]
    one = grid(result._replace(attributions=maps[:, 1], targets=result.targets[:, 1]))
    assert [axes.get_title() for axes in one.axes[2:]] == ["", "b (50%)"]


def test_a_grid_says_what_it_cannot_draw():
    """Breaks if a result of other things ends deep inside matplotlib."""
    maps = peak()[None]
    bare = Explanation(maps, maps, np.zeros(1, int), np.ones((1, 1)), ("a",))
    for given in (bare, [bare]):
        with pytest.raises(ValueError, match="without pictures; expected what an explainer of pic"):
            grid(given)
