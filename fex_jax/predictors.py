"""The black box f: what the explainer may query and never looks into."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from fex_jax.models import Params, functional
from fex_jax.models.vit import ViTClassifier, ViTConfig


def vit_classifier(
    config: ViTConfig, dtype: jnp.dtype = jnp.float32
) -> Callable[[Params, jax.Array], jax.Array]:
    """predict(params, normalised images [B, H, W, C]) → probabilities [B, K], float32."""
    _, bind = functional(lambda rngs: ViTClassifier(config, dtype=dtype, rngs=rngs))
    return lambda params, images: jax.nn.softmax(bind(params)(images))
