"""Greedy search, against loops in Python."""

import jax.numpy as jnp
import numpy as np

from fex_jax.attributions.greedy import greedy


def test_equals_a_loop_over_sets(game):
    """Breaks if a feature is chosen twice, for another input, or by another score."""
    model, inputs, targets = game(5)
    scores = np.asarray(greedy(model, inputs, targets, chunk=7))

    def worth(row: int, kept: set[int]) -> float:
        mask = np.isin(np.arange(5), list(kept))
        both = jnp.stack([inputs[row] * mask, inputs[row] * ~mask])
        first, second = np.asarray(model.predict(both))[:, targets[row]]
        return first - second

    for row in range(len(targets)):
        chosen: list[int] = []
        while len(chosen) < 5:
            left = [i for i in range(5) if i not in chosen]
            chosen.append(max(left, key=lambda i: worth(row, {*chosen, i})))
        np.testing.assert_array_equal(np.argsort(-scores[row]), chosen)


def test_features_that_are_not_there_have_no_place(padded):
    """Breaks if padding is put in order, or changes the order of a short input's features."""
    sizes = [5, 3, 2, 4, 1]
    (model, inputs, targets), alone = padded(5, sizes)
    scores = np.asarray(greedy(model, inputs, targets))
    for row, (count, one) in enumerate(zip(sizes, alone, strict=True)):
        np.testing.assert_array_equal(scores[row, :count], greedy(*one)[0] + 5 - count)
        assert not scores[row, count:].any()
