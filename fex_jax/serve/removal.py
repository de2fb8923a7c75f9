"""What f says of an input as its features go, the most important first."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fex_jax.host import HostError
from fex_jax.host.model import plain_errors

STEPS = 10  # of equal numbers of features


class Removal:
    """f(m⊙x) along an order of x's features, compiled once for each shape.

    Args:
      explainer: an `explain.Explainer`, whose predictor is asked.
    """

    def __init__(self, explainer: Any):
        self._explainer = explainer
        self._answers = jax.jit(self._of_masks)

    def __call__(self, batch: Any, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Features in the order in which they go, and f(x) [STEPS + 1, K] from none to all gone.

        Args:
          batch: one input, as `Explainer.attribute` takes it.
          scores: of its n features.

        Raises:
          HostError: f is not at hand, or has failed.
        """
        predictor = self._explainer.predictor
        if predictor.absence:
            raise HostError(predictor.absence)
        order = np.argsort(-scores, kind="stable")
        gone = np.rint(np.linspace(0, len(order), STEPS + 1)).astype(int)
        size = self._explainer.bind(predictor.params, batch)[0].num_features
        masks = np.ones((STEPS + 1, size), bool)
        for mask, count in zip(masks, gone, strict=True):
            mask[order[:count]] = False
        with jax.enable_x64(False), plain_errors():
            return order, np.asarray(self._answers(self._explainer.weights[0], batch, masks))

    def _of_masks(self, params: Any, batch: Any, masks: jax.Array) -> jax.Array:
        batch = jax.tree.map(lambda x: jnp.repeat(x, len(masks), 0), batch)
        model, inputs = self._explainer.bind(params, batch)
        return model.predict(model.mask(inputs, masks))
