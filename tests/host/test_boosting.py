"""Gradient boosting of other libraries as black boxes of tables, where they are installed."""

import numpy as np
import pytest

from fex_jax import settings, shapley
from fex_jax.data import tables
from fex_jax.host import black_box
from fex_jax.host.estimator import estimator

pd = pytest.importorskip("pandas")
RNG = np.random.default_rng(0)
X = pd.DataFrame(
    {
        "a": RNG.normal(size=300),
        "b": np.where(RNG.random(300) < 0.2, np.nan, RNG.normal(size=300)),
        "kind": pd.Categorical(RNG.choice(list("xyz"), 300)),
        "flag": RNG.random(300) < 0.5,
    }
)
Y = (X["a"] + (X["kind"] == "y") + X["flag"] > 0.7).to_numpy()


def bound(model, frame):
    """f of a fitted model, its first rows as inputs, and how they are read."""
    config = settings.of_tables()
    config.table.background = 20
    f = estimator(model)
    source = tables.open_table(frame)
    reads = black_box.kind_of(f).policy(config, f, source)[2]
    reads = reads.with_answers(black_box.of(f).ask, source)
    values = reads.columns.encode(frame[:3])
    return *black_box.of(f, reads=reads).bind({}, reads.batch(values)), reads


def xgboost(*, regression=False):
    library = pytest.importorskip("xgboost")
    kind = library.XGBRegressor if regression else library.XGBClassifier
    return kind(n_estimators=10, max_depth=3, n_jobs=1, enable_categorical=True)


def lightgbm(*, regression=False):
    library = pytest.importorskip("lightgbm")
    kind = library.LGBMRegressor if regression else library.LGBMClassifier
    return kind(n_estimators=10, max_depth=3, n_jobs=1, verbose=-1)


def catboost(*, regression=False):
    library = pytest.importorskip("catboost")
    kind = library.CatBoostRegressor if regression else library.CatBoostClassifier
    options = {"iterations": 10, "depth": 3, "thread_count": 1, "verbose": False}
    return kind(**options, cat_features=["kind"], allow_writing_files=False)


@pytest.mark.parametrize("library", [xgboost, lightgbm, catboost])
def test_tables_come_back_as_they_were_fitted(library):
    """Breaks if categories, gaps or booleans reach a library in another form than it learned."""
    model = library().fit(X, Y)
    model_, inputs, reads = bound(model, X)
    values = shapley.exact(model_, inputs)[:, 1] * reads.scale[1]
    p = model.predict_proba(X)[:, 1]
    odds = np.log(p / (1 - p))
    np.testing.assert_allclose(reads.base[1] + values.sum(1), odds[:3], atol=1e-3)
    assert odds.std() > 0.1
    # With `a` alone removed: by hand, rows of the library's own type.
    background = reads.columns.decode(reads.background)["a"]
    rows = pd.concat([X[:1].assign(a=a) for a in background])
    p = model.predict_proba(rows)[:, 1]
    masks = np.tile([False, True, True, True], (3, 1))
    found = np.asarray(model_.predict(model_.mask(inputs, masks)))[0, 1]
    expected = np.log(p / (1 - p)).mean()
    assert found * reads.scale[1] + reads.base[1] == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("library", [xgboost, lightgbm, catboost])
def test_a_regression_is_no_classifier(library):
    """Breaks if a regressor is refused, or another number than its prediction is explained."""
    model = library(regression=True).fit(X, X["a"])
    _, _, reads = bound(model, X)
    assert reads.unit == "value"
    background = model.predict(reads.columns.decode(reads.background))
    np.testing.assert_allclose(reads.base[0], background.mean(), rtol=1e-4)


@pytest.mark.parametrize("library", [xgboost, lightgbm])
def test_a_bare_booster_is_not_told_to_be_fitted(library):
    """Breaks if what is fitted already is told to be fitted first."""
    model = library().fit(X, Y)
    booster = model.get_booster() if hasattr(model, "get_booster") else model.booster_
    with pytest.raises(ValueError, match=r"a bare Booster of (xgboost|lightgbm) does not say"):
        estimator(booster)


@pytest.mark.parametrize("library", [xgboost, lightgbm])
def test_exact_values_are_those_of_tree_shap(library):
    """Breaks if an answer, its unit or the background differ from what shap takes them for."""
    shap = pytest.importorskip("shap")
    frame = X[["a", "b"]].fillna(0.0).assign(c=np.linspace(-1, 1, 300))
    model = library(regression=True).fit(frame, frame["a"] * frame["c"] + frame["b"])
    model_, inputs, reads = bound(model, frame)
    background = reads.columns.decode(reads.background)
    tree = shap.TreeExplainer(model, background, feature_perturbation="interventional")
    found = shapley.exact(model_, inputs)[:, 0] * reads.scale[0]
    np.testing.assert_allclose(found, tree.shap_values(frame[:3]), atol=2e-3)


def test_lightgbm_gets_its_columns_in_its_order():
    """Breaks if names with spaces, which LightGBM keeps with "_", let it read other columns."""
    frame = pd.DataFrame(RNG.normal(size=(300, 3)), columns=["one x", "two x", "three"])
    model = lightgbm(regression=True).fit(frame, 3 * frame["one x"] + frame["two x"])
    other = frame.assign(more=1.0)[["more", "three", "two x", "one x"]]
    f = estimator(model)
    source = tables.open_table(other, names=f.columns)
    reads = black_box.kind_of(f).policy(settings.of_tables(), f, source)[2]
    reads = reads.with_answers(black_box.of(f).ask, source)
    background = reads.columns.decode(reads.background)
    expected = model.predict(background[["one x", "two x", "three"]]).mean()
    np.testing.assert_allclose(reads.base[0], expected, rtol=1e-4)
