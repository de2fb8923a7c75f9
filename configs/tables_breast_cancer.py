"""Shapley values of gradient boosting on breast cancer, 30 measurements: the embedded table.

    python train.py --config=configs/tables_breast_cancer.py --workdir=runs/cancer
    python eval.py --config=configs/tables_breast_cancer.py --workdir=runs/cancer

The objective follows the colon: `--config=configs/tables_breast_cancer.py:contrast` is FEX's own,
`:fastshap` FastSHAP's, `:paper` and `:authors` are FEX as published.

A minute of two cores; r = .98 to true values on other rows. The table (Wolberg et al., 1995) is
part of scikit-learn: nothing is downloaded.
"""

import ml_collections
from sklearn.ensemble import GradientBoostingClassifier

from configs import common
from fex_jax.data import table_sets
from fex_jax.host import HostPredictor
from fex_jax.host.estimator import estimator


def classifier() -> HostPredictor:
    """What is explained: 100 trees of depth 3, fitted on the training split."""
    frame, label = table_sets.load("breast_cancer")
    model = GradientBoostingClassifier(random_state=0)
    model.fit(table_sets.part(frame, "train"), table_sets.part(label, "train"))
    labels = ("malignant", "benign")
    return estimator(model, labels=labels, digest="breast cancer, boosting of 100 trees")


def get_config(preset: str = "shapley") -> ml_collections.ConfigDict:
    config = common.of_tables(preset)
    config.data.name = "breast_cancer"
    config.predictor.path = "configs.tables_breast_cancer:classifier"
    config.epochs = 250.0
    config.log_every = 20
    return config
