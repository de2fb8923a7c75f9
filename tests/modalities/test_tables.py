"""`fex_jax.fit` of a table, and explaining rows with what it returns."""

import json
import runpy

import numpy as np
import pytest

import fex_jax
from fex_jax import cli, explain, feeding, settings, sharing
from fex_jax.data import tables
from fex_jax.evaluation import tables as truth
from fex_jax.evaluation import true_values
from fex_jax.host import HostError, black_box
from fex_jax.host.estimator import estimator
from fex_jax.host.predictor import host
from fex_jax.models.policy import functional_policy
from tests.conftest import random_params

pd = pytest.importorskip("pandas")


def table(rows: int) -> "pd.DataFrame":
    """Numbers with gaps, a category, a flag, a constant, a column twice, and one-hot codes."""
    rng = np.random.default_rng(rows)
    size, town = rng.normal(size=rows), rng.integers(3, size=rows)
    gaps = np.where(rng.random(rows) < 0.2, np.nan, rng.normal(size=rows))
    return pd.DataFrame(
        {
            "size": size, "age": gaps, "again": size, "kind": rng.choice(["a", "b", "c"], rows),
            "flag": rng.random(rows) < 0.5, "one": 1,
            "town_x": town == 0, "town_y": town == 1, "town_z": town == 2,
        },
        index=[f"row {i}" for i in range(rows)],
    )  # fmt: skip


def price(frame) -> np.ndarray:
    """A function of data frames, with an interaction; in hundreds, as of prices."""
    kind = frame["kind"].map({"a": 0.0, "b": 1.0, "c": -2.0}).astype(float)
    own = 2 * frame["size"] + frame["age"].fillna(1.5) + kind + 3 * frame["town_y"]
    return 100 * (own + frame["size"] * frame["flag"] + frame["again"]).to_numpy() + 500


F = host(price, labels=("price",), input="table", output="value")
SETTINGS = {"objective.num_updates": 2, "optimizer.learning_rate": 3e-3}


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """An explainer, its folder, and what fitting it said."""
    import contextlib
    import io

    folder, said = tmp_path_factory.mktemp("run"), io.StringIO()
    with contextlib.redirect_stdout(said):
        found = fex_jax.fit(
            F, table(300), workdir=folder, background=30, batch_size=128, epochs=45,
            settings=SETTINGS,
        )  # fmt: skip
    return found, folder, said.getvalue()


def test_values_are_near_exact_ones(fitted):
    """Breaks if the explainer does not learn Shapley values, or its report is not of them."""
    explainer, _, said = fitted
    assert "300 rows: 292 to train on, 8 held out" in said
    assert "held-out rows, beside exact ones: r = 0.9" in said
    assert "removed features have the values of 30 background rows, in the mean" in said
    rows = explainer.predictor.reads.columns.encode(table(301)[:6])
    found = truth.measure(explainer, rows)
    assert found.exact and found.features == 7 and found.correlation > 0.96 and found.error < 0.06


def test_values_add_up(fitted):
    """Breaks if a row's values do not lead from the base value to what f says, in f's own units."""
    explainer, _, _ = fitted
    rows = table(50)
    found = explainer(rows, batch_size=32)
    names = ["size", "age", "again", "kind", "flag", "one", "town"]
    assert list(found.attributions.columns) == names
    assert found.attributions.index.equals(rows.index)
    np.testing.assert_allclose(found.predictions, price(rows), rtol=1e-4)
    added = found.base_values + found.attributions.sum(axis=1)
    np.testing.assert_allclose(added, price(rows), rtol=1e-3)
    assert (found.attributions["one"] == 0).all()  # constant: exactly nothing
    assert found.data["town"].iloc[0].startswith("town_")


def test_any_order_any_number_of_rows(fitted):
    """Breaks if columns are taken by their place, or a row's values depend on its batch."""
    explainer, _, _ = fitted
    rows = table(9)
    whole = explainer(rows).attributions
    shuffled = rows[rows.columns[::-1]].assign(other="x")
    pd.testing.assert_frame_equal(explainer(shuffled).attributions, whole)
    one = explainer(rows[4:5]).attributions
    np.testing.assert_allclose(one, whole[4:5], rtol=1e-3, atol=0.05)
    none = explainer(rows[:0])
    assert len(none) == 0 and list(none.attributions.columns) == list(whole.columns)
    with pytest.raises(ValueError, match="'kind' has 'd' in row 0, which was not there"):
        explainer(rows.assign(kind="d"))
    with pytest.raises(ValueError, match="'flag' has 2 in row 0, which was not there"):
        explainer(rows.assign(flag=2))
    with pytest.raises(ValueError, match="lacks the column 'age'"):
        explainer(rows.drop(columns="age"))


def test_it_has_a_card_and_no_job(fitted):
    """Breaks if a table's explainer cannot be shared, or a job takes it for one of files."""
    explainer, _, _ = fitted
    card = sharing.card(explainer, "me/prices")
    assert "says which 7 columns the classifier's answer" in card and "explainer(table)" in card
    pytest.importorskip("pyarrow")
    from fex_jax.batch.rows import Rows

    with pytest.raises(ValueError, match="is of tables: call it in Python, fex_jax.load"):
        Rows(explainer)


def test_what_there_is_of_pictures_and_texts_only(fitted):
    """Breaks if an option, the server or a warm-up of pictures ends inside for tables."""
    explainer = fitted[0]
    with pytest.raises(TypeError, match="an explainer of tables takes table, .*; got refine, top"):
        explainer(table(3), refine=10, top_k=2)
    with pytest.raises(ValueError, match="warmup .* explainer of tables compiles at its first"):
        explainer.warmup([1])
    pytest.importorskip("starlette")
    from fex_jax.serve import application

    with pytest.raises(ValueError, match="explainers of pictures and texts are served"):
        application(explainer)


def test_other_methods_of_rows(fitted):
    """Breaks if a method's values of rows are in other units, or of other features, than exact.

    Or if those that do not add up are drawn as a sum.
    """
    explainer, _, _ = fitted
    rows, reads = table(3), explainer.predictor.reads
    exact, _ = true_values.of_row(explainer, reads.columns.encode(rows))
    found = fex_jax.attribute("kernel_shap", explainer, rows, num_queries=200)  # all coalitions
    np.testing.assert_allclose(found.attributions, exact[:, 0], atol=0.02)
    assert found.quantity.startswith("kernel_shap of the predicted value; removed features have")
    total = found.base_values + found.attributions.sum(axis=1)
    np.testing.assert_allclose(total, found.predictions, rtol=1e-4)
    alone = price(rows) - [
        np.mean([price(rows[i : i + 1].assign(size=size)) for size in reads.background[:, 0]])
        for i in range(3)
    ]  # in the place of `size`, the first column
    found = fex_jax.attribute("occlusion", explainer, rows)
    np.testing.assert_allclose(found.attributions["size"], alone, rtol=1e-3, atol=0.02)
    with pytest.raises(ValueError, match="a waterfall is of values that add up .* occlusion of"):
        found.waterfall("waterfall.png", 0)
    assert len(fex_jax.attribute("random", explainer, rows[:0])) == 0
    with pytest.raises(ValueError, match="takes tables: give an explainer of fex_jax.fit"):
        fex_jax.attribute("lime", F, rows)
    with pytest.raises(ValueError, match="evaluate compares maps of images and texts: of tables"):
        fex_jax.evaluate("lime", explainer, rows)
    with pytest.raises(ValueError, match="rise has no option|unexpected|got an unexpected"):
        fex_jax.attribute("rise", explainer, rows, queries=2)


def test_methods_beside_true_values(fitted, tmp_path):
    """Breaks if eval.py compares methods with other rows' values, or leaves them out."""
    table(40).to_csv(tmp_path / "table.csv", index=False)
    config = settings.of_tables()
    config.data.name, config.data.path = "table", str(tmp_path / "table.csv")
    config.attributions.kernel_shap.num_queries = 200  # all coalitions
    said = truth.evaluate(fitted[0], config, tmp_path / "eval", ["random", "kernel_shap"])
    found = json.loads((tmp_path / "eval" / "results.json").read_text())
    assert list(found) == ["shapley", "random", "kernel_shap"] and "gallery:" in said
    assert found["kernel_shap"]["correlation"] > 0.9999 > found["shapley"]["correlation"] > 0.9
    assert abs(found["random"]["correlation"]) < 0.5 and found["random"]["rows"] == 8
    with pytest.raises(ValueError, match="rollout looks inside the classifier"):
        truth.evaluate(fitted[0], config, tmp_path / "eval", ["rollout"])


def test_train_ends_with_what_values_are_worth(fitted, tmp_path, capsys):
    """Breaks if train.py leaves a table's explainer without a word of how right it is."""
    table(40).to_csv(tmp_path / "table.csv", index=False)
    config = settings.of_tables()
    config.data.name, config.data.path = "table", str(tmp_path / "table.csv")
    runpy.run_path("train.py")["_say_worth"](config, fitted[1], F)
    assert "On 8 held-out rows, beside exact ones: r = 0.9" in capsys.readouterr().out


def test_a_run_is_opened_again(fitted, capsys):
    """Breaks if what is saved explains otherwise, or f's absence is no sentence."""
    explainer, folder, _ = fitted
    rows = table(5)
    again = explain.load(folder, F)
    pd.testing.assert_frame_equal(again(rows).attributions, explainer(rows).attributions)
    assert again(rows).quantity == explainer(rows).quantity
    with pytest.raises(HostError, match="is not at hand: open the explainer with"):
        explain.load(folder)(rows)
    file = folder / "export" / "predictor" / "black_box.json"
    content = file.read_text()
    file.write_text(content.replace('"features": [', '"features": [["twice", [0]], ', 1))
    with pytest.raises(ValueError, match="the features are of another table than"):
        explain.load(folder)
    file.write_text(content)


def test_shap_and_pictures(fitted, tmp_path):
    """Breaks if shap's plots cannot take the values, or a picture cannot be drawn."""
    found = fitted[0](table(20))
    as_shap = pytest.importorskip("shap").Explanation
    theirs = found.to_shap()
    assert isinstance(theirs, as_shap) and theirs.values.shape == (20, 7)
    np.testing.assert_array_equal(theirs.base_values, found.base_values)
    found.bar(tmp_path / "bar.png")
    found.beeswarm(tmp_path / "beeswarm.png", most=3)
    with pytest.raises(IndexError, match="row 20 of 20; expected 0 to 19"):
        found.waterfall(tmp_path / "waterfall.png", 20)
    page = truth.write(tmp_path, found, "Prices", truth.compare(*[np.eye(3)] * 3, "x")).read_text()
    assert page.count("data:image/png") == 8 and "Row row 5" in page
    assert all((tmp_path / f"{name}.png").stat().st_size > 5000 for name in ("bar", "beeswarm"))


@pytest.mark.parametrize(
    "predictor, options, message",
    [
        (F, {"preset": "paper"}, "answers with output='value', and the presets paper"),
        (F, {"preset": "cortx"}, "the preset cortx needs a classifier.s network, and of tables"),
        (F, {"unit": "log-odds"}, "table.unit is 'log-odds'; of probabilities choose"),
        (F, {"queries": 100}, "training takes up to [0-9,]+ queries, 200 of them to know the back"),
        (F, {"background": 0}, "table.background is 0; expected an integer from 1"),
        (F, {"groups": {"g": ["x"]}}, "group 'g' names the column 'x'"),
        (F, {"background": table(2)[:0]}, "the background has no rows"),
        (lambda: host(price, labels=("p",), input=(3,), output="value"), {},
         "takes 3 columns, and the table has 9"),
        (lambda: host(lambda x: x.oops, labels=("p",), input="table", output="value"), {},
         "the black box failed when asked about 100 inputs: AttributeError"),
    ],
)  # fmt: skip
def test_what_cannot_be_fitted(predictor, options, message):
    """Breaks if a wrong option or function ends in another error than a sentence."""
    f = predictor() if callable(predictor) and not hasattr(predictor, "labels") else predictor
    with pytest.raises((ValueError, HostError), match=message):
        fex_jax.fit(f, table(120), **options)


@pytest.mark.parametrize("copies, age", [(1, 0.0), (20, 0.0), (20, np.nan)])
def test_rows_that_are_all_the_same(copies, age):
    """Breaks if a table of which nothing can be learned ends in a division by zero."""
    with pytest.raises(ValueError, match="all rows of the table are the same"):
        fex_jax.fit(F, pd.concat([table(1).assign(age=age)] * copies))


def test_a_fixed_baseline_and_two_classes():
    """Breaks if a baseline's values are not differences to it, or classes are no mirror images.

    That holds of any network: this one has learned nothing.
    """
    from sklearn.linear_model import LogisticRegression

    x = table(100)[["size", "one"]].assign(more=np.linspace(-1, 1, 100))
    model = LogisticRegression().fit(x, x["more"] + x["size"] > 0)
    baseline = pd.DataFrame({"size": [0.0], "one": [1], "more": [0.0]})
    f, source = estimator(model), tables.open_table(x, background=baseline)
    backbone, _, reads = black_box.kind_of(f).policy(settings.of_tables(), f, source)
    reads = reads.with_answers(black_box.of(f).ask, source)
    params = random_params(functional_policy(backbone, 2)[0])
    box = black_box.of(f, reads=reads)
    explainer = explain.Explainer(box, backbone, params, method="shapley")
    found, other = explainer(x[:4]), explainer(x[:4], "False")
    assert "log-odds of the class; removed features have the values of a fixed" in found.quantity
    np.testing.assert_allclose(found.base_values, model.decision_function(baseline)[0], atol=1e-4)
    np.testing.assert_allclose(found.attributions, -other.attributions)
    np.testing.assert_allclose(found.predictions, model.decision_function(x[:4]), atol=1e-4)
    added = found.base_values + found.attributions.sum(axis=1)
    np.testing.assert_allclose(added, found.predictions)


def test_a_command_line_shows_no_table(fitted, tmp_path, capsys):
    """Breaks if `fex-jax explain` of a file of rows says that the file is no table."""
    table(20).to_csv(tmp_path / "rows.csv")
    assert cli.main(["explain", str(fitted[1]), str(tmp_path / "rows.csv")]) == 1
    said = capsys.readouterr().err
    assert "an explainer of tables is called in Python: fex_jax.load(…)(table)" in said


def test_a_model_gets_its_own_columns_in_its_own_order():
    """Breaks if f reads one column for another, or columns that it does not take are features."""
    from sklearn.linear_model import Ridge

    x = table(100)[["size", "age"]].fillna(0.0)
    model = Ridge().fit(x, x["size"] - 2 * x["age"])
    shown = x[["age", "size"]].assign(bought=pd.Timestamp("2020"))
    box = black_box.of(estimator(model))
    for given in shown, x.to_numpy():
        source = feeding.open_data(box, given)[0]
        assert source.columns.names == ["size", "age"]
        _, _, reads = black_box.kind_of(box.f).policy(settings.of_tables(), box.f, source)
        found = reads.ask_all(box.ask, reads.columns.encode(shown))
        np.testing.assert_allclose(found[:, 0], model.predict(x), atol=1e-5)
    with pytest.raises(ValueError, match="the array has 3 columns; expected 2"):
        feeding.open_data(box, np.eye(3))
