"""TreeSHAP as the truth, beside the enumeration of all coalitions."""

import numpy as np
import pytest

from fex_jax import explain, settings, shapley
from fex_jax.data import tables
from fex_jax.evaluation import tables as truth
from fex_jax.evaluation import tree_shap
from fex_jax.host import black_box
from fex_jax.host.estimator import estimator
from fex_jax.host.predictor import host
from fex_jax.models.mlp import MLPConfig
from fex_jax.models.policy import functional_policy
from tests.conftest import random_params

pytest.importorskip("shap")
pd = pytest.importorskip("pandas")
ensemble = pytest.importorskip("sklearn.ensemble")

RNG = np.random.default_rng(0)
FRAME = pd.DataFrame(RNG.normal(size=(200, 5)), columns=list("abcde"))
FRAME["e"] = RNG.integers(4, size=200)
Y = (FRAME["a"] * FRAME["b"] + FRAME["c"] + FRAME["e"]).to_numpy()
BOOSTING = {"max_iter": 8, "max_leaf_nodes": 6, "random_state": 0}


def box(f, unit="", frame=FRAME, **options):
    config = settings.of_tables()
    config.table.background, config.table.unit = 20, unit
    source = tables.open_table(frame, **options)
    reads = black_box.kind_of(f).policy(config, f, source)[2]
    reads = reads.with_answers(black_box.of(f).ask, source)
    return black_box.of(f, reads=reads)


def boosting():
    return ensemble.HistGradientBoostingClassifier(**BOOSTING).fit(FRAME, Y > 1.5)


def forest():
    kind = ensemble.RandomForestClassifier(5, max_depth=3, random_state=0)
    return kind.fit(FRAME, np.digitize(Y, [0, 2]))  # three classes


def regressor():
    return ensemble.HistGradientBoostingRegressor(**BOOSTING).fit(FRAME, Y)


@pytest.mark.parametrize(
    "model, unit",
    [(boosting, "log-odds"), (forest, "probability"), (regressor, "")],
)
def test_trees_say_what_all_coalitions_say(model, unit):
    """Breaks if background, unit, classes or the order of features are others than f's."""
    given = box(estimator(model()), unit)
    rows = given.reads.columns.encode(FRAME[:3])
    found = tree_shap.open_trees(given)(rows)
    model_, inputs = given.bind({}, given.reads.batch(rows))
    exact = shapley.exact(model_, inputs) * given.reads.scale[:, None]
    np.testing.assert_allclose(found, exact, atol=1e-4)
    assert np.abs(exact).max() > 0.02


def test_what_trees_do_not_say():
    """Breaks if values of another function, unit or features pass for the true ones."""
    model = boosting()
    assert tree_shap.open_trees(box(estimator(model), groups={"ab": ["a", "b"]})) is None
    own = host(lambda x: model.predict_proba(x), labels=("no", "yes"), input="table")
    assert tree_shap.open_trees(box(own)) is None
    line = pytest.importorskip("sklearn.linear_model").LinearRegression().fit(FRAME, Y)
    assert tree_shap.open_trees(box(estimator(line))) is None
    flag = FRAME.assign(e=FRAME["e"] > 1)
    assert tree_shap.open_trees(box(estimator(model), frame=flag)) is None
    # Trees of a forest add up to probabilities, those of boosting to log-odds.
    for other, unit in (forest(), "log-odds"), (model, "probability"):
        assert tree_shap.open_trees(box(estimator(other), unit))(FRAME[:2].to_numpy()) is None


@pytest.mark.parametrize("unit, how", [("log-odds", "TreeSHAP's"), ("probability", "ones sampled")])
def test_it_is_said_beside_what(unit, how):
    """Breaks if more features than can be enumerated are sampled though trees say them, or not."""
    frame = FRAME.assign(**{f"more_{i}": RNG.normal(size=200) for i in range(8)})
    model = ensemble.HistGradientBoostingClassifier(**BOOSTING).fit(frame, Y > 1.5)
    given = box(estimator(model), unit, frame)
    backbone = MLPConfig.of(given.reads.steps.size, 13)
    params = random_params(functional_policy(backbone, 2)[0])
    explainer = explain.Explainer(given, backbone, params, method="shapley")
    found = truth.measure(explainer, given.reads.columns.encode(frame[:4]), 0)
    assert f"On 4 held-out rows, beside {how}" in str(found)
    assert found.exact == found.trees == (how == "TreeSHAP's")
    assert found.facts["True values"] == f"{how.removeprefix('ones ')}, 4 rows"
