"""Classes: those of a batch against their probabilities, those that people and data name."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fex_jax.targets import choose_classes, class_numbers, match_classes

F = jnp.array([0.1, 0.6, 0.3])
COUNT = 20_000  # four standard errors of a frequency are at most 0.015


@pytest.mark.parametrize(
    "rule, first, second",
    [
        ("argmax", [0, 1, 0], [0, 0, 1]),
        # P(second = k) = Σ_j f_j f_k / (1 − f_j)
        ("sampled", F, [0.1 * (0.6 / 0.4 + 0.3 / 0.7), 0.6 * (0.1 / 0.9 + 0.3 / 0.7), None]),
        ("uniform", [1 / 3] * 3, [1 / 3] * 3),
    ],
)
def test_classes_come_as_often_as_they_should(rule, first, second):
    """Breaks if a class is drawn twice, or another than f says."""
    f = jnp.broadcast_to(F, (COUNT, 3))
    chosen = choose_classes(jax.random.key(0), f, rule, 2)
    assert chosen.shape == (COUNT, 2) and (chosen[:, 0] != chosen[:, 1]).all()
    for column, expected in ((0, first), (1, second)):
        for k, share in enumerate(expected):
            if share is not None:
                np.testing.assert_allclose((chosen[:, column] == k).mean(), share, atol=0.015)


def test_there_are_fewer_classes_than_f_has():
    """Breaks if T > K is an error deep inside, or a class that cannot be is drawn first."""
    f = jnp.array([[0.0, 0.0, 1.0]])
    assert choose_classes(jax.random.key(0), f, "sampled", 10).shape == (1, 2)
    assert choose_classes(jax.random.key(0), f[:, :1], "sampled", 10).shape == (1, 1)
    np.testing.assert_array_equal(choose_classes(jax.random.key(0), f, "sampled", 1), [[2]])


@pytest.mark.parametrize(
    "names, labels, expected",
    [
        (["cat", "ant"], ["ant", "bee", "cat"], [2, 0]),
        (["Golden_Retriever", "t-shirt"], ["T shirt", "golden retriever"], [1, 0]),
        (["cafe\u0301"], ["Caf\u00e9"], [0]),  # as macOS writes it
        (["polish"], ["Polish", "polish"], [1]),  # the exact name comes first
        (["-", "+"], ["+", "-"], [1, 0]),
        (["crane", "cat", "crane"], ["crane", "crane", "cat"], [0, 2, 1]),
        (["Crane", "crane"], ["crane", "Crane"], [1, 0]),
        (["n01", "n02", "n03"], ["ant", "bee", "cat"], None),
        (["cat", "dog"], ["ant", "bee", "cat"], None),
        (["crane"], ["crane", "crane"], None),
        (["cat", "Cat"], ["cat", "dog"], None),
        (["CAT", "cat"], ["cat", "Cat"], None),
    ],
)
def test_data_and_predictor_are_matched_by_name(names, labels, expected):
    """Breaks if other classes pass for the predictor's, or two of one name become one."""
    found = match_classes(names, labels)
    assert (None if found is None else found.tolist()) == expected


def test_by_position_only_where_asked():
    """Breaks if numbers are matched without a word, or where they cannot be."""
    assert match_classes(["n01", "n02"], ["ant", "bee"], "position").tolist() == [0, 1]
    with pytest.raises(ValueError, match="1 classes of the data.*predictor's 2"):
        match_classes(["n01"], ["ant", "bee"], "position")
    with pytest.raises(ValueError, match="choose name or position"):
        match_classes(["n01"], ["ant"], "number")


LABELS = ("crane", "golden retriever", "crane", "dog")


@pytest.mark.parametrize(
    "target, number",
    [("dog", 3), ("Golden_Retriever", 1), (2, 2), (np.int64(2), 2), (np.array(2, np.uint8), 2),
     (jnp.array(2), 2), (np.str_("dog"), 3)],
)  # fmt: skip
def test_targets_are_numbers_or_labels(target, number):
    """Breaks if a way to name a class is refused or read as another class."""
    assert class_numbers(target, 2, LABELS, "images").tolist() == [number, number]


@pytest.mark.parametrize(
    "target, message",
    [
        ("crane", "ambiguous: give one of the numbers 0, 2"),
        ("cat", "'cat' is unknown; classes: crane, golden"),
        (6.9, "neither a class number nor a label"),
        (1.0, "neither"),
        (jnp.array(1.9), "neither"),
        (jnp.array(True), "neither"),
        (np.bool_(True), "neither"),
        (True, "neither"),
        (None, "neither"),
        ([[1, 2], [1, 2]], "neither"),
        (np.ma.masked_array([1, 2], [True, False]), "neither"),
        (4, "4 is out of range; expected 0 to 3"),
        (-1, "-1 is out of range"),
        (10**30, "neither"),
        ([1], "1 targets for 2 images"),
    ],
)
def test_what_names_no_class_is_refused(target, message):
    """Breaks if 6.9 or True is rounded to a class, or one of two cranes is taken."""
    with pytest.raises(ValueError, match=message):
        class_numbers(target, 2, LABELS, "images")
