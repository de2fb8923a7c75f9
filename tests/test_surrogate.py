"""The conditional value function, beside expectations worked out by enumeration."""

import itertools
import math

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import fex_jax
from fex_jax import explain, shapley

pd = pytest.importorskip("pandas")

# Three dependent variables: b is like a, c speaks of b. All cells and their probabilities.
CELLS = np.array(list(itertools.product(range(2), range(3), range(2))), float)
P = np.array([
    (0.6, 0.4)[int(a)] * (0.8 if b == a else 0.1) * (0.75 if c == (b == 1) else 0.25)
    for a, b, c in CELLS
])  # fmt: skip


def price(x: np.ndarray) -> np.ndarray:
    return 100 * (x[:, 0] + 2 * (x[:, 1] == 1) * x[:, 2] + (x[:, 1] == 2))


def expected(x, known) -> float:
    """E[price | x_S], by its definition."""
    weights = P * (CELLS[:, list(known)] == x[list(known)]).all(1)
    return float(weights @ price(CELLS) / weights.sum())


def shapley_values(x) -> list[float]:
    """By its definition, of `expected`."""
    found = []
    for i in range(3):
        rest = [j for j in range(3) if j != i]
        sets = itertools.chain.from_iterable(itertools.combinations(rest, k) for k in range(3))
        found.append(sum(
            math.factorial(len(s)) * math.factorial(2 - len(s)) / 6
            * (expected(x, (*s, i)) - expected(x, s)) for s in sets
        ))  # fmt: skip
    return found


TABLE = pd.DataFrame(CELLS, columns=["a", "b", "c"])


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A surrogate of rows drawn from the cells, an explainer after one batch, and its folder."""
    rows = CELLS[np.random.default_rng(0).choice(len(CELLS), 2000, p=P)]
    f = fex_jax.host(
        lambda t: price(t.to_numpy()), labels=("price",), input="table", output="value", digest="p"
    )
    folder = tmp_path_factory.mktemp("run")
    frame = pd.DataFrame(rows, columns=["a", "b", "c"])
    options = {"batch_size": 8, "epochs": 0.002, "settings": {"objective.num_updates": 1}}
    return fex_jax.fit(f, frame, background="surrogate", workdir=folder, **options), folder, f


def bound(explainer):
    """f and the surrogate as training asks them, and the cells."""
    reads = explainer.predictor.reads
    return *explainer.bind({}, reads.batch(CELLS)), reads


def test_values_are_conditional(fitted):
    """Breaks if v(S) is the marginal mean, or which features are known is mixed up."""
    model, inputs, reads = bound(fitted[0])
    exact = np.array([shapley_values(x) for x in CELLS])
    found = shapley.exact(model, inputs)[:, 0] * reads.scale
    assert np.corrcoef(found.ravel(), exact.ravel())[0, 1] > 0.995
    assert np.abs(found - exact).max() < 0.06 * np.ptp(exact)


def test_training_asks_for_differences_to_nothing(fitted):
    """Breaks if what an explainer learns from is not v(S) − v(∅), or coalitions are others'."""
    model, inputs, reads = bound(fitted[0])
    play = jax.jit(lambda key: shapley.play(model, inputs, key, shapley.Objective(num_masks=6)))
    game = play(jax.random.key(0))
    for row in range(0, len(CELLS), 3):
        for mask, worth in zip(game.coalitions[row], game.worth[row, 0], strict=True):
            wanted = expected(CELLS[row], np.flatnonzero(mask)) - P @ price(CELLS)
            assert float(worth) * reads.scale[0] == pytest.approx(wanted, abs=15)
    wanted = price(CELLS) - reads.base
    np.testing.assert_allclose(game.full[:, 0] * reads.scale, wanted, rtol=1e-3, atol=0.01)


def test_explanations_add_up_to_what_f_says(fitted):
    """Breaks if whole rows are asked of the surrogate, or the base value is not the mean."""
    explainer, _, _ = fitted
    found = explainer(TABLE)
    assert found.base_values[0] == pytest.approx(P @ price(CELLS), rel=0.03)
    np.testing.assert_allclose(found.predictions, price(CELLS), rtol=1e-4, atol=0.01)
    added = found.base_values + found.attributions.sum(axis=1)
    np.testing.assert_allclose(added, price(CELLS), rtol=1e-3, atol=0.1)
    assert "a surrogate says the mean where others are kept" in found.quantity


def test_f_is_asked_about_whole_rows_alone(fitted):
    """Breaks if a coalition reaches f, where a surrogate answers."""
    reads, asked = fitted[0].predictor.reads, []

    def f(_, __, make):
        asked.append(make(slice(None)))
        return price(asked[-1].to_numpy())[:, None]

    masks = np.array([[True] * 3, [True, False, True], [False] * 3])
    drawn = np.zeros((3, 0), np.int32)
    found = reads.ask(f, None, reads.batch(CELLS[:3]).bits, masks, drawn)
    assert [len(one) for one in asked] == [1] and found[2, 0] == 0


def test_a_run_is_opened_again(fitted):
    """Breaks if the surrogate is lost or another, or files of another shape are taken for it."""
    explainer, folder, f = fitted
    again = explain.load(folder, f)
    pd.testing.assert_frame_equal(again(TABLE).attributions, explainer(TABLE).attributions)
    masks = np.tile([True, False, False], (len(CELLS), 1))
    answers = [
        np.asarray(model.predict(model.mask(inputs, masks)))
        for model, inputs, _ in (bound(again), bound(explainer))
    ]
    np.testing.assert_array_equal(*answers)
    assert answers[0].std() > 0.1
    file = folder / "export" / "predictor" / "rows.safetensors"
    content = load_file(file)
    save_file(content | {"surrogate.norm.bias": np.zeros(3, np.float32)}, file)
    with pytest.raises(ValueError, match="rows.safetensors is of another table"):
        explain.load(folder)


def test_wrong_removal():
    """Breaks if a removal of pictures is taken for one of tables."""
    f = fex_jax.host(price, labels=("price",), input=(3,), output="value")
    with pytest.raises(ValueError, match="removal.kind is 'blur'; of tables choose background or"):
        fex_jax.fit(f, CELLS, settings={"removal.kind": "blur"})
