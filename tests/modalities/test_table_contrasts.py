"""FEX's contrast of tables, beside what it must be of a sum; and what is named FastSHAP there."""

import contextlib
import dataclasses
import io
import json
import shutil

import jax
import numpy as np
import pytest

import fex_jax
from fex_jax import contrast, explain, settings
from fex_jax.evaluation import tables as truth
from fex_jax.host.predictor import host
from fex_jax.training import step

pd = pytest.importorskip("pandas")
SETTINGS = {
    "objective.num_updates": 2, "optimizer.learning_rate": 3e-3, "predictor.overlap": False,
}  # fmt: skip


def linear(rows: int) -> tuple["pd.DataFrame", np.ndarray]:
    """A table, and weights of its columns, the last of which is constant."""
    x = np.random.default_rng(rows).normal(size=(rows, 6)) * [1, 2, 1, 0.5, 3, 1]
    x[:, 5] = 1.0
    return pd.DataFrame(x, columns=list("abcdef")), np.array([1.0, 0.5, -1.0, 2.0, 0.0, 5.0])


@pytest.fixture(scope="module")
def contrasts(tmp_path_factory):
    """An explainer by the contrast of a sum of columns, its folder, and what fitting it said."""
    weights = linear(1)[1]
    f = host(
        lambda x: (lambda p: np.stack([1 - p, p], 1))(1 / (1 + np.exp(-(x.to_numpy() @ weights)))),
        labels=("no", "yes"), input="table",
    )  # fmt: skip
    folder, said = tmp_path_factory.mktemp("contrasts"), io.StringIO()
    with contextlib.redirect_stdout(said):
        found = fex_jax.fit(
            f, linear(130)[0], workdir=folder, preset="contrast", background=30, batch_size=128,
            epochs=140, settings=SETTINGS,
        )  # fmt: skip
    return found, folder, said.getvalue(), f


def test_contrasts_of_a_sum_are_its_parts(contrasts):
    """Breaks if the contrast is of another quantity than it says, or in another unit.

    Of log-odds Σ w_i x_i its optimum is w_i (x_i − mean b_i), less the mean over the columns that
    are not constant: docs/derivations.md.
    """
    explainer, _, said, _ = contrasts
    rows, weights = linear(200)
    found = explainer(rows)
    parts = (weights * (rows - explainer.predictor.reads.background.mean(0))).to_numpy()[:, :5]
    parts = parts - parts.mean(1, keepdims=True)
    given = found.attributions.to_numpy()
    assert (given[:, 5] == 0).all()
    assert np.corrcoef(given[:, :5].ravel(), parts.ravel())[0, 1] > 0.97
    assert abs(np.polyfit(parts.ravel(), given[:, :5].ravel(), 1)[0] - 1) < 0.1
    np.testing.assert_allclose(explainer(rows, "no").attributions, -given)
    odds = rows.to_numpy() @ weights
    np.testing.assert_allclose(found.predictions, odds, atol=1e-3)
    assert found.quantity.startswith("FEX's contrasts of the log-odds of the class; removed")
    assert "The explainer beats Random in deletion and beats it in insertion" in said


def test_an_export_that_says_less_opens(contrasts, tmp_path):
    """Breaks if explainers of tables that were written without a field must be trained again."""
    explainer, folder, _, f = contrasts
    older = shutil.copytree(folder / "export", tmp_path / "older")
    file = older / "predictor" / "black_box.json"
    fields = json.loads(file.read_text())
    assert fields.pop("plain") is False
    file.write_text(json.dumps(fields))
    rows = linear(3)[0]
    given = fex_jax.load(older, f)(rows).attributions
    np.testing.assert_array_equal(given, explainer(rows).attributions)


def test_contrasts_are_no_sum(contrasts, tmp_path):
    """Breaks if what does not add up is shown as if it did, or is lost when it is saved."""
    explainer, folder, _, f = contrasts
    rows = linear(9)[0]
    found = explain.load(folder, f)(rows)
    with pytest.raises(ValueError, match="has no temperature, the unit of maps: train it again"):
        dataclasses.replace(explainer, temperature=None)(rows)
    pd.testing.assert_frame_equal(found.attributions, explainer(rows).attributions)
    assert found.base_values is None and len(found.first(2)) == 2
    message = "is of values that add up to the prediction, and these are FEX's contrasts of"
    with pytest.raises(ValueError, match=f"a shap.Explanation {message}"):
        found.to_shap()
    with pytest.raises(ValueError, match=f"a waterfall {message}"):
        found.waterfall(tmp_path / "waterfall.png", 0)
    rows.to_csv(tmp_path / "table.csv", index=False)
    config = settings.of_tables("contrast")
    config.data.name, config.data.path = "table", str(tmp_path / "table.csv")
    said = truth.evaluate(explainer, config, tmp_path / "eval", ["random", "lime"])
    worth = json.loads((tmp_path / "eval" / "results.json").read_text())
    assert worth["fex"]["deletion"] < worth["random"]["deletion"] and worth["fex"]["rows"] == 1
    assert worth["fex"]["insertion"] > worth["random"]["insertion"] and "deletion" in said
    page = (tmp_path / "eval" / "gallery.html").read_text()
    rows[:3].to_csv(tmp_path / "table.csv", index=False)
    with pytest.raises(ValueError, match="the split test of table has no rows"):
        truth.evaluate(explainer, config, tmp_path / "eval")
    assert page.count("data:image/png") == 2 and "do not add up" in page and "Row 0" not in page


def test_drawn_rows_are_the_background_in_the_mean(contrasts):
    """Breaks if masks asked about with drawn background rows do not have the mean of all rows."""
    explainer, _, _, f = contrasts
    model, inputs = explainer.asking(f).bind(
        {}, explainer.predictor.reads.batch(linear(2)[0].to_numpy())
    )
    masks = np.array([[1, 0, 1, 0, 1, 0], [0, 1, 1, 0, 0, 1]])
    whole = np.asarray(model.predict(model.mask(inputs, masks)))
    keys = jax.random.split(jax.random.key(0), 100)
    some = [np.asarray(model.predict(model.mask(model.drawn(inputs, key), masks))) for key in keys]
    error = np.std(some, 0) / np.sqrt(len(keys))
    assert (np.abs(np.mean(some, 0) - whole) < 4 * error).all() and (error > 0).all()


def test_fastshap_is_the_regression_alone():
    """Breaks if FastSHAP of tables has what it was published without, or another objective."""
    plain, own = settings.of_tables("fastshap"), settings.of_tables()
    assert plain.method == "shapley" and not plain.objective.control and not plain.data.augment
    plain.objective.control = plain.data.augment = True
    assert plain.to_dict() == own.to_dict()


def test_the_map_of_a_drawn_row_is_taken_off(contrasts):
    """Breaks if what a background row adds is another row's or class's, or moves the minimum."""
    explainer, _, _, f = contrasts
    batch = explainer.predictor.reads.batch(linear(2)[0].to_numpy())
    model, inputs = explainer.asking(f).bind({}, batch)
    classes, params = np.array([[1, 0], [0, 1]]), explainer.params
    given = settings.of_tables("contrast"), explainer.network, model, None
    policy = contrast.networks(step.make_networks(*given))["policy"]
    rows = [
        policy(params, (model.against(inputs, np.full((2, 1), row)), None), classes).row
        for row in range(30)
    ]
    np.testing.assert_allclose(np.mean(rows, 0), 0, atol=1e-4)  # in the mean nothing
    own = explainer.network(params).maps(model.view(model.background), np.array([[0, 1]] * 30))
    np.testing.assert_allclose(rows[7] - rows[3], (own[7] - own[3])[classes], atol=1e-4)


def test_a_surrogate_is_asked_while_masks_are(contrasts):
    """Breaks if a contrast of a surrogate learns from f's background instead, which says v(∅).

    Columns are independent, so the conditional parts are those of the sum.
    """
    f, (rows, weights) = contrasts[3], linear(400)
    explainer = fex_jax.fit(
        f, rows, preset="contrast", background="surrogate", batch_size=128, epochs=40,
        settings=SETTINGS | {"predictor.overlap": True},
    )  # fmt: skip
    parts = (weights * (rows - rows.mean())).to_numpy()[:, :5]
    given = explainer(rows).attributions.to_numpy()[:, :5]
    assert np.corrcoef(given.ravel(), (parts - parts.mean(1, keepdims=True)).ravel())[0, 1] > 0.8
    assert len(repr(explainer)) < 2000  # no arrays


def test_what_has_no_contrast_is_refused(contrasts):
    """Breaks if maps that are always 0 are trained, or a preset of networks ends in a KeyError."""
    f, rows = contrasts[3], linear(40)[0]
    with pytest.raises(ValueError, match="a table's only feature has the contrast 0: choose"):
        fex_jax.fit(f, rows, preset="contrast", groups={"all": list("abcdef")}, batch_size=16)
    for preset in ("l2x", "cortx"):
        with pytest.raises(ValueError, match=f"the preset {preset} needs a classifier's network"):
            fex_jax.fit(f, rows, preset=preset)


def test_three_rows_are_compared_with_nothing(contrasts, capsys):
    """Breaks if a fit ends in an error because nothing is held out, after it has trained."""
    found = fex_jax.fit(
        contrasts[3], linear(3)[0], preset="contrast", batch_size=4, epochs=2,
        settings={"objective.num_updates": 2},
    )  # fmt: skip
    assert found(linear(3)[0]).attributions.shape == (3, 6)
    assert "compared with nothing: so few items leave none" in capsys.readouterr().out
