"""Attribution methods, one a file: (model, inputs, targets, key, **options) → scores [B, N].

`model` is a `predictors.Model`. Another method is another function of this form; adding it to
`METHODS` puts it into `eval.py --methods=all`.
"""

from fex_jax.attributions.kernel_shap import kernel_shap
from fex_jax.attributions.lime import lime
from fex_jax.attributions.occlusion import occlusion
from fex_jax.attributions.random import random
from fex_jax.attributions.rise import rise, smooth_rise

METHODS = {
    "random": random,
    "occlusion": occlusion,
    "rise": rise,
    "smooth_rise": smooth_rise,
    "lime": lime,
    "kernel_shap": kernel_shap,
}

__all__ = ["METHODS", *METHODS]
