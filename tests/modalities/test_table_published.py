"""The published objectives of FEX on tables: what masks are worth, and what λ is said to be."""

import contextlib
import io
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB

import fex_jax
from fex_jax import explain, ppo, predictors, published, settings
from fex_jax.data import tables
from fex_jax.evaluation import tables as evaluation
from fex_jax.host import black_box
from fex_jax.host.estimator import estimator
from fex_jax.training import step

pd = pytest.importorskip("pandas")


def frame(rows: int) -> "pd.DataFrame":
    """A table whose last column is constant."""
    x = np.random.default_rng(rows).normal(size=(rows, 5)) * [1, 2, 1, 0.5, 0]
    return pd.DataFrame(x, columns=list("abcde"))


def of_three(rows: "pd.DataFrame") -> np.ndarray:
    """Classes 0, 1 and 2."""
    return (rows["a"] > 0).astype(int) + (rows["b"] > rows["c"]).astype(int)


@pytest.mark.parametrize("preset", ["paper", "authors"])
def test_masks_are_worth_probabilities(preset):
    """Breaks if a mask of a row is not worth f_y / K_m (Eq. 9), or the authors' N f_y / (K_m + 1).

    f_y is the mean over background rows of what scikit-learn's model says, asked here by itself.
    """
    x = frame(60)
    model = LogisticRegression().fit(x, of_three(x))
    f, config = estimator(model), settings.of_tables(preset)
    source = tables.open_table(x, background=x[:7])
    reads = black_box.kind_of(f).policy(config, f, source)[2]
    reads = reads.with_answers(black_box.of(f).ask, source)
    box = black_box.of(f, reads=reads)
    rows = frame(6).to_numpy()
    bound, inputs = box.bind({}, reads.batch(rows))
    objective = step.make_objective(config, predictors.output(box))
    assert (bound.output, objective.output) == ("softmax", "softmax")

    def policy(given, targets):
        flat = jnp.zeros((*targets.shape, 5)) - 1.0  # some masks keep nothing
        return ppo.PolicyOutput(flat, jnp.zeros((6, 3)), jnp.zeros(targets.shape))

    given = bound.predict, bound.mask, policy, inputs, jax.random.key(3), objective
    found, _ = published.play(*given)

    said = model.predict_proba(frame(6))
    np.testing.assert_allclose(found.probabilities, said, atol=1e-6)
    kept = np.asarray(found.masks)
    assert kept.shape == (6, 5, 5) and (kept.sum(-1) == 0).any() and (kept.sum(-1) > 1).any()
    for row, masks, scores in zip(rows, kept, np.asarray(found.scores), strict=True):
        y = model.predict_proba(pd.DataFrame([row], columns=list("abcde")))[0].argmax()
        for mask, score in zip(masks, scores[0], strict=True):
            mixed = np.where(mask, row, x[:7].to_numpy())
            answer = model.predict_proba(pd.DataFrame(mixed, columns=list("abcde")))[:, y].mean()
            worth = answer / max(mask.sum(), 1) * mask.any()
            if preset == "authors":
                worth = 5 * answer / (mask.sum() + 1)
            np.testing.assert_allclose(score, worth, atol=1e-5)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """An explainer of two classes that only b tells apart, its folder, and what fitting it said."""
    x = frame(400)
    model = GaussianNB().fit(x.assign(e=np.arange(400) % 2), x["b"] > 0)
    folder, said = tmp_path_factory.mktemp("published"), io.StringIO()
    with contextlib.redirect_stdout(said):
        found = fex_jax.fit(
            model, x, workdir=folder, preset="paper", background=20, batch_size=128, epochs=12,
            settings={"objective.num_updates": 2, "log_every": 20, "optimizer.learning_rate": 5e-3},
        )  # fmt: skip
    return found, folder, said.getvalue(), model


def test_lambda_is_the_probability_of_a_column(fitted):
    """Breaks if λ is no probability, of another class than the predicted one, or learns nothing."""
    explainer, _, said, model = fitted
    rows = frame(50)
    found = explainer(rows)
    values, p = found.attributions.to_numpy(), model.predict_proba(rows)
    assert values.shape == (50, 5) and (values >= 0).all() and (values <= 1).all()
    assert (values[:, 4] == 0).all() and found.attributions.mean().idxmax() == "b"
    np.testing.assert_array_equal(found.targets, p.argmax(1))
    np.testing.assert_allclose(found.predictions, p.max(1), atol=1e-6)
    other = explainer(rows, 0)  # a map of its own, no mirror image
    np.testing.assert_allclose(other.predictions, p[:, 0], atol=1e-6)
    same = found.targets == 0
    np.testing.assert_allclose(other.attributions[same], values[same], atol=1e-6)
    assert found.quantity.startswith("FEX's λ of the probability of the class; removed features")
    assert "each is the probability that a mask keeps the column" in found.quantity
    assert "On 8 held-out items (positive AUC: lower is better; negative: higher)" in said


def test_lambda_is_no_sum_and_is_kept(fitted, tmp_path):
    """Breaks if λ is drawn as a sum, lost when it is saved, or measured as another quantity."""
    explainer, folder, _, model = fitted
    rows = frame(130)
    found = explain.load(folder, estimator(model))(rows)
    pd.testing.assert_frame_equal(found.attributions, explainer(rows).attributions)
    message = "is of values that add up to the prediction, and these are FEX's λ of the prob"
    with pytest.raises(ValueError, match=f"a shap.Explanation {message}"):
        found.to_shap()
    with pytest.raises(ValueError, match=f"a waterfall {message}"):
        found.waterfall(tmp_path / "waterfall.png", 0)
    config = settings.of_tables("paper")
    rows.to_csv(tmp_path / "table.csv", index=False)
    config.data.name, config.data.path = "table", str(tmp_path / "table.csv")
    evaluation.evaluate(explainer, config, tmp_path / "eval", ["random"])
    worth = json.loads((tmp_path / "eval" / "results.json").read_text())
    # Probabilities; which is lower after so short a training depends on how a CPU rounds.
    assert all(0 < worth[name]["deletion"] < 1 for name in ("fex", "random"))
    page = (tmp_path / "eval" / "gallery.html").read_text()
    assert page.count("data:image/png") == 2 and "FEX&#39;s λ" in page


@pytest.mark.parametrize("unit", ["log-odds", "value"])
def test_another_unit_is_refused(unit, fitted):
    """Breaks if what is no probability is divided by the number of columns."""
    with pytest.raises(ValueError, match=f"table.unit is '{unit}'.* choose .*probability"):
        fex_jax.fit(fitted[3], frame(100), preset="authors", unit=unit, batch_size=64)
