"""ID-ExpO on UCI Adult: a classifier of tables is trained so that a method explains it better.

    python train.py --config=configs/idexpo_adult.py --workdir=runs/idexpo_adult \
        --config.data.path=adult.data

What follows the colon is the explanation: lime, the default, or kernel_shap. scikit-learn's breast
cancer needs no file: --config.data.name=breast_cancer. A table of one's own, and its column that
holds the class: --config.data.name=table --config.data.path=rows.csv --config.table.label=diagnosis

adult.data comes from https://archive.ics.uci.edu/dataset/2/adult (CC BY 4.0).
"""

import ml_collections

from configs import common


def get_config(explainer: str = "lime") -> ml_collections.ConfigDict:
    config = common.of_tables("contrast")
    config.method = "id_expo"
    config.id_expo.explainer = explainer
    config.id_expo.strength = 0.05
    config.id_expo.num_queries = 32
    config.id_expo.learning_rate = 2e-3
    config.data.name = "adult"
    config.data.path = "adult.data"
    config.batch_size = 256
    config.epochs = 6.0
    return config
