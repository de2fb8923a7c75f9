"""ID-ExpO on drawn digits: the classifier is fine-tuned so that a method explains it better.

    python train.py --config=configs/idexpo_digits.py --workdir=runs/idexpo
    python train.py --config=configs/idexpo_digits.py:fex --workdir=runs/joint

What follows the colon is the explanation: gradcam_norm1, the default, gradcam_attention, lime or
kernel_shap of a few queries, or fex, whose network learns beside the classifier. A folder of one's
own pictures, in class folders of the classifier's labels: --config.data.name=folder
--config.data.path=... --config.predictor.path=...
"""

import ml_collections

from configs import common


def get_config(explainer: str = "gradcam_norm1") -> ml_collections.ConfigDict:
    config = common.get_config("contrast")
    config.method = "id_expo"
    config.id_expo.explainer = explainer
    config.data.name = "digit_scenes"
    config.data.limit = 9_600
    config.data.augment = False
    config.batch_size = 64
    config.predictor.path = "models/digits_vit"
    config.optimizer.learning_rate = 1e-3  # of the explainer
    return config
