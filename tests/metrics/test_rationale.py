"""Rationale metrics, against cases computed by hand."""

import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.metrics

from fex_jax.metrics import rationale

SCORES = [np.array([0.1, 0.9, 0.5, 0.5]), np.array([3.0, 2.0])]
MARKED = [np.array([False, True, False, True]), np.array([False, True])]


def test_token_f1_by_hand():
    """Breaks if precision and recall are of other counts, or ties are not broken by position."""
    # Top 1: words 1 and 0 → hits 1, 0. Top 2: {1, 2}, {0, 1} → 1, 1. Top 5: all → 2, 1.
    f1 = rationale.token_f1(rationale.token_counts(SCORES, MARKED, top=(1, 2, 5)))
    np.testing.assert_allclose(
        f1.macro, [(2 / 3 + 0) / 2, (2 / 4 + 2 / 3) / 2, (4 / 6 + 2 / 3) / 2]
    )
    np.testing.assert_allclose(f1.micro, [2 * 1 / (2 + 3), 2 * 2 / (4 + 3), 2 * 3 / (6 + 3)])
    assert rationale.token_counts(SCORES, MARKED).shape == (2, 16, 3)


def test_a_text_without_rationale_counts_as_zero():
    """Breaks by dividing by zero on the review that nobody marked."""
    counts = rationale.token_counts(SCORES, [MARKED[0], np.zeros(2, bool)], top=(1,))
    np.testing.assert_allclose(rationale.token_f1(counts).macro, [(2 / 3 + 0) / 2])


def test_average_precision_is_sklearns():
    """Breaks if ties are broken by position, or words beyond the window tie with another text's."""
    rng = np.random.default_rng(0)
    scores = [rng.normal(size=n) for n in (12, 5, 30)]
    scores[0][8:] = -np.inf  # words that no feature touches
    scores[2] = np.round(scores[2])
    marked = [rng.random(n) < 0.4 for n in (12, 5, 30)]
    marked[0][10] = True
    found = rationale.token_average_precision(scores, marked)
    expected = [
        sklearn.metrics.average_precision_score(marks, np.nan_to_num(values))
        for marks, values in zip(marked, scores, strict=True)
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_average_precision_leaves_out_what_has_no_order():
    """Breaks if a text marked nowhere, or everywhere, counts 0 or 1 in the mean."""
    marked = [MARKED[0], np.zeros(2, bool), np.ones(2, bool), np.ones(1, bool), np.zeros(0, bool)]
    scores = [SCORES[0], SCORES[1], SCORES[1], np.ones(1), np.zeros(0)]
    found = rationale.token_average_precision(scores, marked)
    # Word 1 first: 1/2 · 1/1; then words 2 and 3 together: 1/2 · 2/3.
    assert found[0] == pytest.approx(1 / 2 + 1 / 3)
    assert found.mean() == np.mean(found) == found[0]
    assert found.mask.tolist() == [False, True, True, True, True]
    assert np.isnan(np.asarray(found)[1:]).all()


def test_texts_without_words_count_as_zero():
    """Breaks by dividing by zero where no text has a word."""
    empty = [np.zeros(0)]
    f1 = rationale.token_f1(rationale.token_counts(empty, [np.zeros(0, bool)], top=(1, 5)))
    np.testing.assert_array_equal([f1.micro, f1.macro], np.zeros((2, 2)))


def test_words_and_rationales_must_have_the_same_length():
    """Breaks if scores of tokens are compared with marks of words."""
    for metric in rationale.token_counts, rationale.token_average_precision:
        with pytest.raises(ValueError, match=r"text 1: scores \(3,\) for a rationale \(2,\)"):
            metric([SCORES[0], np.zeros(3)], MARKED)
        with pytest.raises(ValueError, match="0 scored texts"):
            metric([], [])
        with pytest.raises(ValueError, match="text 0: scores must be numbers, got NaN"):
            metric([np.array([0, np.nan])], [MARKED[1]])


def test_word_scores_by_hand():
    """Breaks if pieces go to the wrong word, or words beyond the window seem unimportant only."""
    text = "a  well-made film\n, truly"
    spans = np.array([[0, 1], [3, 7], [7, 8], [8, 12], [13, 17], [18, 19]])
    values = rationale.word_scores(np.array([1.0, 2, 9, 3, -4, 5]), spans, text)
    np.testing.assert_array_equal(values, [1, 9, -4, 5, -np.inf])
    joined = rationale.word_scores(np.array([7.0]), np.array([[0, 12]]), text)
    np.testing.assert_array_equal(joined, [7, 7] + [-np.inf] * 3)


# f keeps class 1 likely while feature 0 is there, and a little less without feature 2.
INPUTS = {"x": jnp.ones((2, 4))}
SCORE = jnp.array([[4.0, 1.0, 2.0, 3.0], [0.5, 9.0, 0.1, 9.0]])
VALID = jnp.array([[1, 1, 1, 1], [1, 0, 1, 0]], bool)


def predict(inputs):
    one = 0.1 + 0.6 * inputs["x"][:, 0] + 0.2 * inputs["x"][:, 2]
    return jnp.stack([1 - one, one], -1)


def mask(inputs, m):
    return {"x": jnp.where(m, inputs["x"], 0)}


def test_erasure_by_hand():
    """Breaks if keeping and removing are exchanged, or padding is among the top features."""
    targets = jnp.array([1, 1])
    result = rationale.erasure(predict, mask, INPUTS, SCORE, targets, VALID, percent=(1, 50, 75))
    # Text 0 of 4 features: top 1 {0}, 2 {0, 3}, 3 {0, 3, 2}. Text 1 of 2: 1 {0}, 1 {0}, 2 {0, 2}.
    np.testing.assert_allclose(
        result.comprehensiveness, [[0.6, 0.6, 0.8], [0.6, 0.6, 0.8]], atol=1e-6
    )
    np.testing.assert_allclose(result.sufficiency, [[0.2, 0.2, 0], [0.2, 0.2, 0]], atol=1e-6)
    assert rationale.erasure(predict, mask, INPUTS, SCORE, targets).sufficiency.shape == (2, 5)


def test_shares_of_features_round_as_written():
    """Breaks if float rounding makes 6 of 10 % of 50 features."""
    inputs, scores = {"x": jnp.ones((1, 50))}, jnp.arange(50.0, 0, -1)[None]

    def count(inputs):
        return jnp.stack([0 * inputs["x"].sum(-1), inputs["x"].sum(-1)], -1)

    result = rationale.erasure(count, mask, inputs, scores, jnp.array([1]))
    np.testing.assert_array_equal(result.comprehensiveness[0], [1, 3, 5, 10, 25])


def test_insertion_by_hand():
    """Breaks if features are inserted from the wrong end, or F1 is not the mean over classes."""
    predicted = rationale.insertion_predictions(
        predict, mask, INPUTS, -SCORE, VALID, top=(0, 1, 3, 4)
    )
    # Least important first. Text 0: {}, {1}, {1, 2, 3}, all; text 1: {}, {2}, both, both.
    np.testing.assert_array_equal(predicted, [[0, 0, 0, 1], [0, 0, 1, 1]])
    f1 = rationale.insertion_f1(predicted, np.array([1, 1]))
    np.testing.assert_allclose(f1.micro, [0, 0, 0.5, 1])
    np.testing.assert_allclose(f1.macro, [0, 0, (0 + 2 / 3) / 2, 1])
    both = rationale.insertion_f1(np.array([[0], [1], [1]]), np.array([0, 0, 1]))
    np.testing.assert_allclose(both.macro, [2 / 3])
    for wrong in np.zeros(3), np.zeros((2, 1)):
        with pytest.raises(ValueError, match=r"predicted must be \[B, S\]"):
            rationale.insertion_f1(wrong, np.zeros(3))


def test_insertion_f1_is_sklearns():
    """Breaks if macro F1 divides by classes that are neither there nor predicted at a step.

    Classes 3 and 4 alone, all right, are 1; a stray prediction of class 9 is one class more.
    """
    rng = np.random.default_rng(0)
    labels = rng.choice([3, 4, 7], size=60)
    predicted = np.stack([labels, np.where(labels == 3, 9, labels), rng.choice([3, 5], 60)], 1)
    found = rationale.insertion_f1(predicted, labels)
    for step, guess in enumerate(predicted.T):
        expected = sklearn.metrics.f1_score(labels, guess, average="macro")
        assert found.macro[step] == pytest.approx(expected)
    assert found.macro[0] == 1
