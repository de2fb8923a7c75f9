"""Attribution methods, one a file: (model, inputs, targets, key, **options) → scores [B, N].

`model` is a `predictors.Model`. Another method is another function of this form, imported here;
its name in `finding.METHODS` lets `eval.py` run it, with `--methods=all` too.
"""

# ruff: noqa: F401  METHODS takes them by name

from fex_jax import finding
from fex_jax.attributions.agi import agi
from fex_jax.attributions.attcat import attcat
from fex_jax.attributions.attlrp import attlrp
from fex_jax.attributions.deeplift import deeplift
from fex_jax.attributions.empirical import empirical
from fex_jax.attributions.grad_shap import grad_shap
from fex_jax.attributions.gradcam import gradcam_attention, gradcam_features, gradcam_norm1
from fex_jax.attributions.gradient_x_input import gradient_x_input
from fex_jax.attributions.greedy import greedy
from fex_jax.attributions.integrated_gradients import integrated_gradients
from fex_jax.attributions.kernel_shap import kernel_shap
from fex_jax.attributions.lime import lime
from fex_jax.attributions.occlusion import occlusion
from fex_jax.attributions.random import random
from fex_jax.attributions.rise import rise, smooth_rise
from fex_jax.attributions.rollout import rollout
from fex_jax.attributions.smooth_grad import smooth_grad

METHODS = {name: globals()[name] for name in finding.METHODS}

# Soft masks that lie over rows and columns; every other method explains texts too.
IMAGES_ONLY = frozenset({"smooth_rise"})

# What a black box cannot be asked; `smooth_rise` makes masked pictures of its own.
LOOKS_INSIDE = frozenset(
    {
        "smooth_rise", "gradient_x_input", "integrated_gradients", "grad_shap", "smooth_grad",
        "agi", "deeplift",
        "gradcam_features", "gradcam_attention", "gradcam_norm1", "rollout", "attcat", "attlrp",
    }
)  # fmt: skip
TRANSFORMERS_ONLY = frozenset({"gradcam_attention", "gradcam_norm1", "rollout", "attcat", "attlrp"})
CONVOLUTIONS_ONLY = frozenset({"gradcam_features"})

# An oracle of 2N² queries an input, and a definition: only where they are named.
NOT_IN_ALL = frozenset({"greedy", "empirical"})


__all__ = [
    "CONVOLUTIONS_ONLY",
    "IMAGES_ONLY",
    "LOOKS_INSIDE",
    "METHODS",
    "NOT_IN_ALL",
    "TRANSFORMERS_ONLY",
    *METHODS,
]
