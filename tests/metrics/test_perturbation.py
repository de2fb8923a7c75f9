import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fex_jax.metrics import (
    AUTHORS,
    CHEFER,
    FEX,
    area,
    areas,
    image_features,
    perturbation_curves,
    ranks,
    upsample,
)


def keep(inputs: jax.Array, m: jax.Array) -> jax.Array:
    return jnp.where(m, inputs, 0.0)


def share(inputs: jax.Array) -> jax.Array:
    """Two classes: the probability of class 0 is the sum of the features left."""
    total = inputs.sum(axis=-1)
    return jnp.stack([total, 1 - total], axis=-1)


# Ten features that sum to 1, the largest first, so k removed features leave a known probability.
FEATURES = jnp.array([[0.31, 0.2, 0.15, 0.1, 0.08, 0.06, 0.05, 0.03, 0.015, 0.005]])
CLASS_0 = jnp.array([0])


def test_curves_of_a_linear_predictor():
    """Breaks if directions are swapped, a step is off by one, or correctness is not the argmax."""
    curves = perturbation_curves(share, keep, FEATURES, FEATURES, CLASS_0, CLASS_0, FEX)
    removed = jnp.concatenate([jnp.zeros(1), FEATURES[0].cumsum()])
    positive = 1 - removed
    negative = jnp.concatenate([jnp.zeros(1), FEATURES[0, ::-1].cumsum()])
    np.testing.assert_allclose(curves.positive.probability[0], positive, atol=1e-6)
    np.testing.assert_allclose(curves.negative.probability[0], 1 - negative, atol=1e-6)
    # The class is right while more than a half is left: 0.69, then 0.49; and 0.51, then 0.31.
    assert curves.positive.correct[0].tolist() == [1, 1] + [0] * 9
    assert curves.negative.correct[0].tolist() == [1] * 9 + [0, 0]
    # Insertion is the negative curve read backwards: the top k kept, k = 0..10.
    np.testing.assert_allclose(curves.negative.probability[0, ::-1], removed, atol=1e-6)


def test_a_label_is_unchanged_on_its_side_of_one_half():
    """Breaks if a label among others that do not exclude it is judged by their argmax."""

    def left(inputs: jax.Array) -> jax.Array:
        total = inputs.sum(axis=-1)
        return jnp.stack([total, jnp.ones_like(total)], axis=-1)

    inputs = jnp.concatenate([FEATURES, FEATURES / 3])  # label 0 has 1, and 1/3
    none = jnp.zeros(2, int)
    curves = perturbation_curves(left, keep, inputs, inputs, none, none, FEX, output="sigmoid")
    assert curves.positive.correct.tolist() == [[1, 1] + [0] * 9, [1] * 11]
    assert curves.negative.correct.tolist() == [[1] * 9 + [0, 0], [1] * 11]
    # A label that is known to be true has to have one half.
    known = dataclasses.replace(FEX, reference="label")
    curves = perturbation_curves(left, keep, inputs, inputs, none, none, known, output="sigmoid")
    assert curves.positive.correct.tolist() == [[1, 1] + [0] * 9, [0] * 11]


def test_areas_by_hand():
    """Breaks if the trapezoid's ends are weighted fully, or insertion and deletion are swapped."""
    curves = perturbation_curves(share, keep, FEATURES, FEATURES, CLASS_0, CLASS_0, FEX)
    result = areas(curves, FEX)
    # Correct at nine points 0.1 apart, then a fall to 0: eight full strips and a half one.
    assert result["negative_auc"][0] == pytest.approx(0.85)
    assert result["positive_auc"][0] == pytest.approx(0.15)
    # Σ of the kept share after k = 0..10 removals, both ends halved, times 0.1.
    kept = 1 - np.concatenate([[0], np.cumsum(FEATURES[0])])
    expected = 0.1 * (kept.sum() - (kept[0] + kept[-1]) / 2)
    assert result["deletion"][0] == pytest.approx(expected, abs=1e-6)
    assert result["insertion"][0] == pytest.approx(1 - expected, abs=1e-6)
    assert {name: values.shape for name, values in result.items()} == dict.fromkeys(
        ("positive_auc", "negative_auc", "insertion", "deletion"), (1,)
    )


def test_chefer_stops_at_ninety_percent():
    """Breaks if the blank input is included or the area is rescaled to [0, 1]."""
    curves = perturbation_curves(share, keep, FEATURES, FEATURES, CLASS_0, CLASS_0, CHEFER)
    assert curves.positive.correct.shape == (1, 10)
    assert area(jnp.ones((1, 10)), CHEFER)[0] == pytest.approx(0.9)
    np.testing.assert_allclose(curves.positive.probability[0, -1], 0.005, atol=1e-6)


def test_authors_negative_starts_from_the_blank_input():
    """Breaks if the negative curve starts clean, or the plain mean becomes a trapezoid."""
    curves = perturbation_curves(share, keep, FEATURES, FEATURES, CLASS_0, CLASS_0, AUTHORS)
    top = np.concatenate([[0], np.cumsum(FEATURES[0])])[:10]
    np.testing.assert_allclose(curves.positive.probability[0], 1 - top, atol=1e-6)
    np.testing.assert_allclose(curves.negative.probability[0], top, atol=1e-6)
    assert areas(curves, AUTHORS)["insertion"][0] == pytest.approx(top.mean(), abs=1e-6)
    assert AUTHORS.negative_fractions[0] == 1.0 and AUTHORS.fractions[0] == 0.0


@pytest.mark.parametrize(
    ("protocol", "size", "expected"),
    [
        (FEX, 4, [0, 0, 1, 1, 2, 2, 2, 3, 3, 4, 4]),  # 0.4 -> 0, 0.8 -> 1, 1.6 -> 2, 2.8 -> 3
        (FEX, 5, [0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]),  # every half goes up
        (AUTHORS, 4, [0, 1, 1, 2, 2, 2, 3, 3, 4, 4]),
        (AUTHORS, 10, list(range(10))),  # in floats, ceil(0.1 · 10 · 3) would be 4
        # int(base_size * step) of a tenth, two, … of 224 × 224: 5017.6 -> 5017, 10035.2 -> 10035.
        (CHEFER, 50176, [0, 5017, 10035, 15052, 20070, 25088, 30105, 35123, 40140, 45158]),
        (CHEFER, 90, list(range(0, 90, 9))),  # in floats, int(90 · 0.7) would be 62
    ],
)
def test_rounding(protocol, size, expected):
    """Breaks if halves round to even, a part of a pixel counts, or floats enter the counts."""
    assert protocol.counts(jnp.asarray(size)).tolist() == expected


def test_authors_counts_equal_their_formula():
    """Breaks if exact integers depart from ceil(0.1 N i) in floats at the sizes in use."""
    for size in (64, 196):
        formula = [int(np.ceil(0.1 * size * i)) for i in range(10)]
        assert AUTHORS.counts(jnp.asarray(size)).tolist() == formula


def test_ranks_break_ties_by_position():
    """Breaks if the sort is unstable, ascending, or reversed among equals."""
    scores = jnp.array([[1.0, 3.0, 1.0, 3.0, 2.0], [0.0, 0.0, -0.0, 0.0, 0.0]])
    assert ranks(scores).tolist() == [[3, 0, 4, 1, 2], [0, 1, 2, 3, 4]]
    many = np.random.default_rng(0).integers(0, 3, size=1000).astype(np.float32)
    expected = np.argsort(np.argsort(-many, kind="stable"))
    assert ranks(jnp.asarray(many)[None])[0].tolist() == expected.tolist()


def test_padding_and_nan_rank_last():
    """Breaks if padding ties with a feature whose score is -inf, or NaN goes behind padding."""
    scores = jnp.array([[9.0, -jnp.inf, jnp.nan, 2.0]])
    valid = jnp.array([[False, True, True, True]])
    assert ranks(scores, valid).tolist() == [[3, 1, 2, 0]]
    assert ranks(scores).tolist() == [[0, 2, 3, 1]]


def test_nan_scores_give_nan_curves():
    """Breaks if a map that is not one gets a plausible curve; its neighbour keeps its own."""
    inputs, zeros = jnp.tile(FEATURES, (2, 1)), jnp.zeros(2, int)
    scores = inputs.at[0, 3].set(jnp.nan)
    curves = perturbation_curves(share, keep, inputs, scores, zeros, zeros)
    for direction in curves:
        for values in direction:
            assert jnp.isnan(values[0]).all() and jnp.isfinite(values[1]).all()


def test_wrong_order_is_worse():
    """Breaks if scores are ignored: an inverted map must swap deletion and insertion."""
    right = perturbation_curves(share, keep, FEATURES, FEATURES, CLASS_0, CLASS_0)
    wrong = perturbation_curves(share, keep, FEATURES, -FEATURES, CLASS_0, CLASS_0)
    np.testing.assert_array_equal(right.positive.probability, wrong.negative.probability)
    assert areas(right, FEX)["deletion"][0] < areas(wrong, FEX)["deletion"][0]


def test_target_and_reference_are_separate():
    """Breaks if the followed probability and the class that counts as correct are confused."""
    curves = perturbation_curves(share, keep, FEATURES, FEATURES, jnp.array([1]), CLASS_0)
    assert curves.positive.correct[0, 0] == 1
    np.testing.assert_allclose(curves.positive.probability[0, [0, -1]], [0.0, 1.0], atol=1e-6)


def test_padding_is_kept_and_not_counted():
    """Breaks if padding is ranked, removed, or enters the fractions of its input.

    Padding is large here, so that removing it, or counting it, would show at once.
    """
    inputs = jnp.array([[0.5, 0.3, 9.0, 0.2], [0.1, 0.2, 0.3, 0.4]])
    valid = jnp.array([[True, True, False, True], [True] * 4])

    def predict(x: jax.Array) -> jax.Array:
        return x.sum(axis=-1, keepdims=True)

    both = jnp.zeros(2, int)
    curves = perturbation_curves(predict, keep, inputs, inputs, both, both, FEX, valid)
    # 3 features: 0 0 1 1 1 2 2 2 2 3 3 removed.
    expected = np.array([1, 1, 0.5, 0.5, 0.5, 0.2, 0.2, 0.2, 0.2, 0, 0]) + 9
    np.testing.assert_allclose(curves.positive.probability[0], expected, rtol=1e-6)
    alone = perturbation_curves(predict, keep, inputs[1:], inputs[1:], both[1:], both[1:], FEX)
    np.testing.assert_array_equal(curves.negative.probability[1], alone.negative.probability[0])


def test_jitted_with_parameters_and_one_batch_at_a_time():
    """Breaks if the curves need concrete values, or if the steps are stacked into one batch."""
    batch = jnp.tile(FEATURES, (3, 1))
    shapes = []

    @jax.jit
    def run(scale: jax.Array) -> jax.Array:
        def predict(x: jax.Array) -> jax.Array:
            shapes.append(x.shape)
            return share(scale * x)

        zeros = jnp.zeros(3, int)
        return perturbation_curves(predict, keep, batch, batch, zeros, zeros).positive.probability

    np.testing.assert_allclose(run(0.5)[:, 0], 0.5, rtol=1e-6)
    assert set(shapes) == {(3, 10)}


def test_patch_features_remove_whole_patches():
    """Breaks if patches are not row-major, or the grid is transposed."""
    images = jnp.ones((1, 4, 6, 3))
    scores = jnp.arange(6.0)[None]
    mask, unchanged = image_features(FEX, scores, (2, 3), (4, 6), jnp.full(3, -2.0))
    assert unchanged is scores
    m = jnp.array([[1, 1, 0, 1, 1, 1]])
    expected = np.ones((4, 6))
    expected[:2, 4:] = 0  # the third patch: first row, last column
    np.testing.assert_array_equal(mask(images, m)[0, :, :, 1], expected)


def test_pixel_features_are_black():
    """Breaks if the fill is grey, if channels share one value, or if pixels are not upsampled."""
    black = jnp.array([-2.1, -2.0, -1.8])
    scores = jnp.array([[0.0, 1.0, 0.0, 1.0]])
    mask, pixels = image_features(CHEFER, scores, (2, 2), (4, 4), black)
    # Weights of bilinear upsampling by two: centres at -1/4, 1/4, 3/4, 5/4, clamped at the edges.
    np.testing.assert_allclose(pixels.reshape(4, 4), np.tile([0, 0.25, 0.75, 1], (4, 1)))
    removed = mask(jnp.ones((1, 4, 4, 3)), jnp.arange(16)[None] > 0)
    np.testing.assert_allclose(removed[0, 0, 0], black)
    np.testing.assert_allclose(removed[0, 0, 1:], 1.0)


def test_upsampling_equals_torch():
    """Breaks if the corners are aligned or the edges weighted otherwise than in the protocol."""
    torch = pytest.importorskip("torch")
    maps = np.random.default_rng(0).normal(size=(3, 7, 5)).astype(np.float32)
    for size in ((14, 10), (112, 80), (23, 31)):
        expected = torch.nn.functional.interpolate(
            torch.from_numpy(maps)[:, None], size=size, mode="bilinear", align_corners=False
        )[:, 0]
        np.testing.assert_allclose(upsample(jnp.asarray(maps), size), expected, atol=1e-5)


def test_wrong_shapes_are_refused():
    """Breaks if misfitting arrays are broadcast in silence."""
    with pytest.raises(ValueError, match="targets"):
        perturbation_curves(share, keep, FEATURES, FEATURES, jnp.zeros((1, 1), int), CLASS_0)
    with pytest.raises(ValueError, match="scores"):
        perturbation_curves(share, keep, FEATURES, FEATURES[0], CLASS_0, CLASS_0)
    with pytest.raises(ValueError, match="scores"):
        image_features(FEX, jnp.zeros((1, 5)), (2, 2), (4, 4), jnp.zeros(3))
    with pytest.raises(ValueError, match="divide"):
        image_features(FEX, jnp.zeros((1, 4)), (2, 2), (5, 4), jnp.zeros(3))
    with pytest.raises(ValueError, match="steps"):
        area(jnp.zeros((2, 10)), FEX)
