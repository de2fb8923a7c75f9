"""Shapley values of gradient boosting on California's houses: 8 features, a regression.

    python train.py --config=configs/tables_california.py --workdir=runs/california
    python eval.py --workdir=runs/california

The table (Pace and Barry, 1997) is the one that `sklearn.datasets.fetch_california_housing()`
downloads: call it once. `--config.data.path` is its data_home, if not the usual one.
"""

import ml_collections
from sklearn.ensemble import HistGradientBoostingRegressor

from configs import common
from fex_jax.data import table_sets
from fex_jax.host import HostPredictor
from fex_jax.host.estimator import estimator


def regression(*, path: str = "") -> HostPredictor:
    """What is explained: prices in 100,000 dollars, by 100 trees fitted on the training split."""
    frame, price = table_sets.load("california", path)
    model = HistGradientBoostingRegressor(random_state=0)
    model.fit(table_sets.part(frame, "train"), table_sets.part(price, "train"))
    return estimator(model, labels=("price",), digest="california, boosting of 100 trees")


def get_config(preset: str = "shapley") -> ml_collections.ConfigDict:
    config = common.of_tables(preset)
    config.data.name = "california"
    config.predictor.path = "configs.tables_california:regression"
    config.predictor.options = common.with_path(config)
    config.epochs = 30.0
    return config
