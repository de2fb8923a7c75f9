"""Shapley values of a model of survival on NHANES I: 18 measurements, a regression.

    python train.py --config=configs/tables_nhanes.py --workdir=runs/nhanes \
        --config.data.path=nhanes
    python eval.py --workdir=runs/nhanes

The folder holds nhanes_X.csv, measurements of 9,932 people, and nhanes_y.csv, for how many years
each was seen alive, negative where the study ended before the person died. They are the survey's
(https://wwwn.cdc.gov/nchs/nhanes/nhanes1), in the public domain, as `shap.datasets.nhanesi()`
returns them: write its two parts by `to_csv`, the second as a column y.
"""

from typing import Any

import ml_collections
import numpy as np
from sklearn.ensemble import HistGradientBoostingRegressor

from configs import common
from fex_jax import host
from fex_jax.data import table_sets


def fitted(frame: Any, years: Any) -> HistGradientBoostingRegressor:
    """100 trees for the hazard h, deaths a year, of the likelihood Π h^died exp(−h years)."""
    died, seen = years.to_numpy() > 0, np.maximum(np.abs(years.to_numpy()), 1 / 365)
    model = HistGradientBoostingRegressor(loss="poisson", random_state=0)
    return model.fit(frame, died / seen, sample_weight=seen)


def log_hazard(model: HistGradientBoostingRegressor) -> host.HostPredictor:
    return host.host(
        lambda frame: np.log(model.predict(frame)),
        labels=("log hazard",),
        input="table",
        output="value",
        name="the hazard",
        digest="nhanes, boosting of 100 trees",
    )


def regression(*, path: str = "nhanes") -> host.HostPredictor:
    """What is explained: the logarithm of the hazard, of trees fitted on the training split."""
    parts = table_sets.load("nhanes", path)
    return log_hazard(fitted(*(table_sets.part(part, "train") for part in parts)))


def get_config(preset: str = "shapley") -> ml_collections.ConfigDict:
    config = common.of_tables(preset)
    config.data.name = "nhanes"
    config.data.path = "nhanes"
    config.predictor.path = "configs.tables_nhanes:regression"
    config.predictor.options = common.with_path(config)
    config.epochs = 60.0
    return config
