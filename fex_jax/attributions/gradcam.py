"""GradCAM: a feature map's channels, weighted by their mean gradients.

Shapes: B inputs, N features, T tokens, C channels, D hidden size, K classes.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from fex_jax.attributions.door import public
from fex_jax.attributions.gradients import require, tapped_gradients
from fex_jax.predictors import Inputs, Model


def gradcam(
    feature_map: jax.Array, logits_of: Callable[[jax.Array], jax.Array], targets: jax.Array
) -> jax.Array:
    """(Σ_c w_c a_c)₊ with w_c the mean of ∂y/∂a_c over positions (Selvaraju et al., 2017).

    Args:
      feature_map: a [B, ..., C], such as a CNN's last [B, h, w, C].
      logits_of: the rest of the classifier, a → [B, K].
      targets: the explained classes y [B].

    Returns:
      [B, ...], such as [B, h, w].
    """

    def explained(feature_map: jax.Array) -> jax.Array:
        logits = logits_of(feature_map)
        return jnp.take_along_axis(logits, targets[:, None], axis=-1).sum()

    return _weighted(feature_map, jax.grad(explained)(feature_map))


@public
def gradcam_attention(
    model: Model, inputs: Inputs, targets: jax.Array, key: jax.Array
) -> jax.Array:
    """GradCAM with the last block's CLS attention as the map, its heads as channels (Chefer, 2021).

    Args:
      model: with `network` and `tokens`, or a ValueError says what it lacks.
      inputs: B of them.
      targets: the explained classes y [B].
      key: unused, here for all methods to be called alike.

    Returns:
      [B, N].
    """
    return _of_last(model, inputs, targets, "attention", lambda a: a[:, :, 0].mT)  # [B, T, heads]


@public
def gradcam_norm1(model: Model, inputs: Inputs, targets: jax.Array, key: jax.Array) -> jax.Array:
    """GradCAM with what the last block's attention reads as the map, hidden units as channels.

    The last hidden state would not do: a class read from CLS has no gradient at its other tokens.

    Args:
      model: with `network` and `tokens`, or a ValueError says what it lacks.
      inputs: B of them.
      targets: the explained classes y [B].
      key: unused, here for all methods to be called alike.

    Returns:
      [B, N].
    """
    return _of_last(model, inputs, targets, "norm1", lambda hidden: hidden)


@public
def gradcam_features(model: Model, inputs: Inputs, targets: jax.Array, key: jax.Array) -> jax.Array:
    """GradCAM of a convolutional network's last feature map, laid over the grid bilinearly.

    Args:
      model: whose `network` taps its feature map [B, h, w, C], or a ValueError says what it lacks.
      inputs: B of them.
      targets: the explained classes y [B].
      key: unused, here for all methods to be called alike.

    Returns:
      [B, N].
    """
    require(model, "GradCAM (feature map)", "network")
    values, gradients = tapped_gradients(model, inputs, targets, "feature_map")
    found = _weighted(values["feature_map"][0], gradients["feature_map"][0])  # [B, h, w]
    laid = jax.image.resize(found, (len(found), *model.grid), "linear")
    return laid.reshape(len(found), -1)


def _of_last(
    model: Model,
    inputs: Inputs,
    targets: jax.Array,
    name: str,
    view: Callable[[jax.Array], jax.Array],
) -> jax.Array:
    """The map that `view` [B, T, C] shows of the last value tapped."""
    require(model, f"GradCAM ({name})", "network", "tokens")
    values, gradients = tapped_gradients(model, inputs, targets, name)
    # [B, T, C] → [B, N, C]
    found, slopes = (model.tokens(view(x[name][-1]), inputs) for x in (values, gradients))
    return _weighted(found, slopes, model.features(inputs)[..., None])


def _weighted(
    feature_map: jax.Array, gradients: jax.Array, valid: jax.Array | None = None
) -> jax.Array:
    positions = tuple(range(1, feature_map.ndim - 1))
    weights = gradients.mean(positions, keepdims=True, where=valid)
    return jax.nn.relu((weights * feature_map).sum(-1)).astype(jnp.float32)
