"""Superpixels, and masks of one's own: what is removed, and whose the score is."""

import pickle

import numpy as np
import pytest

import fex_jax
from fex_jax import host
from fex_jax.removal import Removal

PICTURES = np.zeros((2, 24, 24, 3), np.uint8)
PICTURES[:, :, 12:] = 200  # a bright half
PICTURES[1] = PICTURES[1, :, ::-1]
RNG = np.random.default_rng(7)
QUADRANTS = np.arange(2).repeat(12)[:, None] * 2 + np.arange(2).repeat(12)


def corner(pictures: np.ndarray) -> np.ndarray:
    """How bright the upper left quarter is, and the rest."""
    bright = pictures[:, :12, :12].mean((1, 2, 3)) / 255
    return np.stack([bright, 1 - bright], -1)


def test_given_segments_by_hand():
    """Breaks if a pixel gets another segment's score, or what is removed shows something else."""
    black = Removal("fill", (1, 1), fill=0.0)
    segments = np.stack([QUADRANTS, QUADRANTS])
    cut = host.Superpixels(segments=segments, softness=0.0, removal=black)
    found = fex_jax.attribute("occlusion", corner, PICTURES, targets=0, features=cut)
    assert found.attributions.shape == (2, 24, 24)
    expected = np.zeros((2, 24, 24))
    expected[1, :12, :12] = 200 / 255  # the other's corner is black already
    np.testing.assert_allclose(found.attributions, expected, atol=1e-6)


def test_superpixels_follow_the_picture():
    """Breaks if SLIC's segments are not those that f is asked about, or numbers differ in size."""
    pytest.importorskip("skimage")
    pictures = np.random.default_rng(0).integers(0, 40, PICTURES.shape).astype(np.uint8) + PICTURES
    cut = host.Superpixels(8, softness=0.0, removal=Removal("fill", (1, 1), fill=0.0))
    segments = cut.of(pictures)
    whole = [set(np.unique(one)) for one in segments]
    assert all(4 <= len(one) <= 12 for one in whole)
    found = fex_jax.attribute("lime", corner, pictures, features=cut, targets=[0, "class 0"])
    for scores, segment in zip(found.attributions, segments, strict=True):
        assert all(np.ptp(scores[segment == number]) == 0 for number in np.unique(segment))
        assert np.isfinite(scores).all()
    scores = found.attributions[1]
    assert scores[:8, :8].mean() > 4 * np.abs(scores[16:]).mean()


def test_an_explainer_of_superpixels_by_hand():
    """Breaks if a map's mean over a superpixel is of other pixels, another class or another map."""
    explainer = fex_jax.load("models/digits_fex")
    pictures = np.random.default_rng(3).integers(0, 255, (2, 64, 64, 3), np.uint8)
    stripes = np.stack([np.arange(64).repeat(64).reshape(64, 64) // 8 * 3 + 1] * 2)
    stripes[1] = stripes[0].T
    given = {"top_k": 2, "features": host.Superpixels(segments=stripes)}
    found = fex_jax.attribute("fex", explainer, pictures, **given)
    plain = explainer(pictures, top_k=2, resolution="pixel").attributions
    rows = plain[0].reshape(2, 8, 8, 64).mean((2, 3))  # [k, stripes]
    np.testing.assert_allclose(found.attributions[0][:, ::8, 5], rows, rtol=1e-5)
    columns = plain[1].reshape(2, 64, 8, 8).mean((1, 3))
    np.testing.assert_allclose(found.attributions[1][:, 5, 7::8], columns, rtol=1e-5)
    assert np.ptp(found.attributions[0], -1).max() == 0
    with pytest.raises(ValueError, match="of its own maps: .* for lime"):
        fex_jax.attribute("lime", explainer, pictures, features=given["features"])


def test_an_explainer_by_its_folder_and_as_the_method():
    """Breaks if superpixels need the explainer in the predictor's place, opened."""
    stripes = np.arange(64).repeat(64).reshape(1, 64, 64) // 8
    given = {"things": ["docs/scene.png"], "features": host.Superpixels(segments=stripes)}
    explainer = fex_jax.load("models/digits_fex")
    wanted = fex_jax.attribute("fex", explainer, **given).attributions
    for method, predictor in (("fex", "models/digits_fex"), (explainer, "models/digits_vit")):
        found = fex_jax.attribute(method, predictor, **given).attributions
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"things": ["docs/scene.png", "none.png"]}, r"image 1 \(none.png\): there is no"),
        ({"features": host.OwnMask(lambda things, _: things, 3)}, "Superpixels .* got OwnMask for"),
        ({"features": 64}, "features is 64; expected fex_jax.host.Superpixels or"),
        ({"resolution": "patch"}, "resolution is 'patch'; maps of superpixels have a value"),
        ({"fill": 3.0}, "fill is 3.0, but the explainer was trained with"),
        ({"features": host.Superpixels(segments=[[[1, 2], [3]]])}, "segments are object"),
    ],
)
def test_what_an_explainer_refuses(changes, message):
    """Breaks if another picture is named, or what does not apply is left out silently."""
    given = {"things": ["docs/scene.png"], "features": host.Superpixels(8)}
    with pytest.raises(ValueError, match=message):
        fex_jax.attribute("fex", "models/digits_fex", **given | changes)


def test_parts_of_any_array_by_hand():
    """Breaks if a mask function gets other things or masks than it is told.

    f is linear in the sums of four blocks of a series, so that each block's Shapley value is its
    own sum, which KernelSHAP finds exactly by asking about all 16 coalitions.
    """
    series = np.random.default_rng(1).normal(size=(3, 12))
    weights = np.array([1.0, -2.0, 0.5, 3.0])

    def mask(things: np.ndarray, kept: np.ndarray) -> np.ndarray:
        return things * kept.repeat(3, -1)

    def call(things: np.ndarray) -> np.ndarray:
        return (things.reshape(-1, 4, 3).sum(-1) @ weights)[:, None]

    f = host.host(call, labels=["sum"], input=(12,), output="value")
    options = {"features": host.OwnMask(mask, 4), "num_queries": 64}
    found = fex_jax.attribute("kernel_shap", f, series, **options)
    expected = weights * series.reshape(3, 4, 3).sum(-1)
    np.testing.assert_allclose(found.attributions, expected, atol=1e-4)


def blocks(things: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Without rows of [B, 4, 3]."""
    return things * kept[..., None]


def test_arrays_of_any_form():
    """Breaks if a function or a host predictor with features takes pictures or vectors alone."""
    things = np.random.default_rng(2).normal(size=(2, 4, 3))

    def call(things: np.ndarray) -> np.ndarray:
        p = 1 / (1 + np.exp(-things.sum((1, 2))))
        return np.stack([1 - p, p], -1)

    given = {"features": host.OwnMask(blocks, 4), "targets": 1}
    f = host.host(call, labels=["no", "yes"], input=(4, 3), features=given["features"])
    found = fex_jax.attribute("occlusion", f, things, **given).attributions
    np.testing.assert_array_equal(found, fex_jax.attribute("occlusion", call, things, **given)[0])
    gone = [call(things * (np.arange(4) != i)[:, None])[:, 1] for i in range(4)]
    np.testing.assert_allclose(found, call(things)[:, 1:] - np.stack(gone, 1), atol=1e-6)


def test_another_function_is_told_apart():
    """Breaks if answers about what one function removes are taken for another's."""
    one = host.OwnMask(blocks, 4).removal((4, 3))
    assert one == host.OwnMask(lambda x, kept: np.where(kept[..., None], x, 0), 4).removal((4, 3))
    others = [
        lambda x, kept: x * kept[:, ::-1, None],
        lambda x, kept: x * kept.all(-1)[:, None, None],
    ]
    assert all(host.OwnMask(other, 4).removal((4, 3)) != one for other in others)


@pytest.mark.parametrize(
    "mask, message",
    [
        (lambda x, kept: x, "changes nothing where no feature is kept"),
        (lambda x, kept: x + 1, "changes things of which every feature is kept"),
        (lambda x, kept: x[:, :2], r"mask gives float32\[4, 2, 3\] of float32\[4, 4, 3\]"),
        (lambda x, kept: x.astype(object), r"mask gives object\[4, 4, 3\] of"),
        (lambda x, kept: x * kept, r"failed .* kept bool\[4, 4\]: ValueError: operands"),
        (lambda x, kept: np.where(kept[..., None], x, x.mean(0)), "in a batch and alone"),
        (lambda x, kept: x + RNG.random() * ~kept[..., None], "no other thing and no chance"),
    ],
)
def test_what_a_mask_must_do(mask, message):
    """Breaks if a function that cannot be explained by is found when queries are spent."""
    things = np.random.default_rng(0).normal(size=(4, 4, 3)).astype(np.float32)
    with pytest.raises(host.HostError, match=message):
        own = host.OwnMask(mask, 4)
        own.check(things)
        own.removal((4, 3))


def test_a_host_predictor_goes_to_another_process():
    """Breaks if what counts the calls of one process keeps it from being sent to another."""
    f = host.host(corner, labels=("a", "b"), input=(24, 24, 3), threads=2)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(f))(PICTURES), f(PICTURES))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"method": "rollout"}, "rollout looks inside the classifier"),
        ({"predictor": "models/digits_vit"}, "are for functions and what fex_jax.host makes"),
        ({"features": host.Superpixels(segments=QUADRANTS)}, r"segments are int64\[24, 24\]"),
        ({"features": host.OwnMask(lambda things, _: things[0], 3)}, "wanted the same form"),
        ({"num_query": 3}, "occlusion: .*num_query"),
        ({"targets": [0]}, "1 targets for 2 things"),
        ({"features": 64}, "features is 64; expected fex_jax.host.Superpixels or"),
        ({"things": ["docs/scene.png"]}, "gets as they are: read files first; got list of <U14"),
    ],
)
def test_what_is_refused(changes, message):
    """Breaks if a wrong argument ends deep inside."""
    given = {"method": "occlusion", "predictor": corner, "things": PICTURES}
    given["features"] = host.Superpixels(segments=np.stack([QUADRANTS, QUADRANTS]))
    with pytest.raises(ValueError, match=message):
        fex_jax.attribute(**given | changes)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: host.OwnMask(3, 3), "mask is 3"),
        (lambda: host.OwnMask(len, 0), "num_features is 0"),
        (
            lambda: host.host(corner, labels=["a", "b"], input=(4, 3)),
            "input is \\(4, 3\\); give .* feat",
        ),
        (
            lambda: host.host(corner, labels=["a", "b"], input=(4,), features=3),
            "features are 3 of input",
        ),
        (lambda: host.Superpixels(1), "count is 1"),
        (lambda: host.Superpixels(softness=-1), "softness is -1"),
        (lambda: host.Superpixels(compactness=0), "compactness is 0"),
    ],
)
def test_what_cannot_be(make, message):
    """Breaks if a wrong number is found only when f is asked."""
    with pytest.raises(ValueError, match=message):
        make()
