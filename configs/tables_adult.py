"""Shapley values of gradient boosting on UCI Adult: 12 features, six of them categories.

    python train.py --config=configs/tables_adult.py --workdir=runs/adult \
        --config.data.path=adult.data
    python eval.py --workdir=runs/adult

adult.data comes from https://archive.ics.uci.edu/dataset/2/adult (CC BY 4.0).
"""

import ml_collections
from sklearn.ensemble import HistGradientBoostingClassifier

from configs import common
from fex_jax.data import table_sets
from fex_jax.host import HostPredictor
from fex_jax.host.estimator import estimator


def classifier(*, path: str = "adult.data") -> HostPredictor:
    """What is explained: 100 trees of 31 leaves, fitted on the training split."""
    frame, label = table_sets.load("adult", path)
    model = HistGradientBoostingClassifier(categorical_features="from_dtype", random_state=0)
    model.fit(table_sets.part(frame, "train"), table_sets.part(label, "train"))
    labels = ("up to 50K", "more than 50K")
    return estimator(model, labels=labels, digest="adult, boosting of 100 trees")


def get_config(preset: str = "shapley") -> ml_collections.ConfigDict:
    config = common.of_tables(preset)
    config.data.name = "adult"
    config.data.path = "adult.data"
    config.predictor.path = "configs.tables_adult:classifier"
    config.predictor.options = common.with_path(config)
    config.epochs = 30.0
    return config
