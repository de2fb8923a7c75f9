"""AttLRP: layer-wise relevance of attention, times its gradient, rolled out to CLS.

Shapes: B inputs, N features, T tokens, D hidden size, K classes.
"""

import dataclasses
from collections.abc import Callable
from typing import cast

import jax
import jax.numpy as jnp
from flax import nnx

from fex_jax.attributions.door import public
from fex_jax.attributions.gradients import require, tapped_gradients
from fex_jax.models import bert, vit, vit_head
from fex_jax.predictors import Inputs, Model

Network = vit.ViTClassifier | bert.BertClassifier


@public
def attlrp(model: Model, inputs: Inputs, targets: jax.Array, key: jax.Array) -> jax.Array:
    """CLS row of Ā_L ⋯ Ā_1, Ā = I + mean_heads((∇A ⊙ R_A)₊) (Chefer, Gur & Wolf, 2021).

    R_A is the relevance of a block's attention A, propagated from the target's logit down to the
    first block: by the z⁺ rule (α = 1) through linear layers, in halves to the two factors of a
    product, in shares to the two terms of a residual sum, unchanged through softmax, LayerNorm,
    LayerScale and activations.

    The product is over all blocks. The authors' scripts for segmentation leave out the first one,
    with `start_layer=1`; their function's default is 0, as here.

    Everything is computed in float64, whatever the model's type and `jax_enable_x64` are: shares
    of sums that cross zero magnify rounding from block to block, in float32 by up to a third of
    the map in DINOv2-small's 12. That costs about twice the time and memory on a CPU.

    Args:
      model: of a `ViTClassifier` without SwiGLU or of a `BertClassifier`, or a ValueError says
        what does not fit.
      inputs: B of them.
      targets: the explained classes y [B].
      key: unused, here for all methods to be called alike.

    Returns:
      [B, N].
    """
    require(model, "AttLRP", "network", "tokens")
    if not isinstance(model.network, Network):
        raise ValueError(
            "AttLRP has rules for ViTClassifier and BertClassifier only, not "
            f"{type(model.network).__name__}"
        )
    if isinstance(model.network, vit.ViTClassifier) and model.network.config.swiglu:
        raise ValueError("AttLRP has no rule for the products in SwiGLU; choose another method")
    # Strict promotion ends here: flax's LayerNorm asks what float64 and float32 have in common.
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        precise = dataclasses.replace(model, network=_in_float64(model.network))
        row = jnp.float32(_cls_row(precise, jax.tree.map(_double, inputs), targets))
    return model.tokens(row, inputs)


def _cls_row(model: Model, inputs: Inputs, targets: jax.Array) -> jax.Array:
    """What CLS reads of each token, [B, T]."""
    network = cast(Network, model.network)
    names = "hidden", "attention", "output"
    values, gradients = tapped_gradients(model, inputs, targets, *names)
    (tokens,) = values["output"]
    relevance = _head(network, tokens, targets)
    row = jax.nn.one_hot(jnp.zeros_like(targets), tokens.shape[1])
    seen = network.backbone.blocks, values["hidden"], values["attention"], gradients["attention"]
    for block, hidden, weights, gradient in reversed(list(zip(*seen, strict=True))):
        relevance, of_weights = _block(block, hidden, weights, relevance)
        attention = jax.nn.relu(gradient * of_weights).mean(1)  # [B, T, T]
        row += (row[:, None] @ attention)[:, 0]
    return row


def _double(x: jax.Array) -> jax.Array:
    """In float64, or as it is where it holds no floats."""
    return jnp.float64(x) if jnp.issubdtype(x.dtype, jnp.floating) else x


def _in_float64(network: Network) -> Network:
    """A network of the same function whose parameters and layers are float64."""
    graphdef, state = nnx.split(network)
    precise = nnx.merge(graphdef, jax.tree.map(_double, state))
    for _, module in nnx.iter_modules(precise):
        if hasattr(module, "dtype"):
            module.dtype = jnp.float64
    return precise


# --- Layers: activations and the relevance of outputs → the relevance of inputs ------------------


def _head(network: Network, tokens: jax.Array, targets: jax.Array) -> jax.Array:
    """The relevance of the last tokens [B, T, D], one of the target's logit."""
    relevance = jax.nn.one_hot(targets, network.config.num_classes)
    if isinstance(network, bert.BertClassifier):
        head = network.head
        hidden = head.activation(head.dense(tokens[:, 0]))
        relevance = _linear(head.out.kernel[...], hidden, relevance)
        return _linear(
            head.dense.kernel[...], tokens, relevance, lambda kernel, x: x[:, 0] @ kernel
        )

    def apply(kernel: jax.Array, tokens: jax.Array) -> jax.Array:
        # DINOv2's mean is part of the linear map: each token is one of its inputs.
        return vit_head.summary(network.config, tokens) @ kernel

    return _linear(network.head.kernel[...], tokens, relevance, apply)


def _block(
    block: vit.Block | bert.Block, tokens: jax.Array, weights: jax.Array, relevance: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The relevance of a block's input [B, T, D] and of its attention [B, heads, T, T].

    Relevance passes LayerNorm unchanged, so that where a block normalises, before its layers as
    ViT or after its sums as BERT, decides what its layers read and nothing else.
    """
    attention, mlp, before = block.attention, block.mlp, isinstance(block, vit.Block)

    def split(x: jax.Array) -> jax.Array:
        return x.reshape(*x.shape[:2], attention.num_heads, -1).swapaxes(1, 2)

    def merge(x: jax.Array) -> jax.Array:
        return x.swapaxes(1, 2).reshape(tokens.shape)

    read = block.norm1(tokens) if before else tokens
    layers = attention.query, attention.key, attention.value
    query, key, value = (split(layer(read)) for layer in layers)  # [B, heads, T, d]
    mixed = merge(weights @ value)
    update = attention.out(mixed)
    update = block.scale1(update) if before and block.scale1 else update
    middle = tokens + update if before else block.norm1(tokens + update)
    read2 = block.norm2(middle) if before else middle
    hidden = mlp.activation(mlp.fc1(read2))
    update2 = mlp.fc2(hidden)
    update2 = block.scale2(update2) if before and block.scale2 else update2

    of_middle, of_update2 = _sum(middle, update2, relevance)
    of_hidden = _linear(mlp.fc2.kernel[...], hidden, of_update2)
    of_middle += _linear(mlp.fc1.kernel[...], read2, of_hidden)
    of_tokens, of_update = _sum(tokens, update, of_middle)
    of_mixed = _linear(attention.out.kernel[...], mixed, of_update)
    of_weights, of_value = _product(weights, value, split(of_mixed))
    of_query, of_key = _product(query, key.mT, of_weights)
    for layer, share in zip(layers, (of_query, of_key.mT, of_value), strict=True):
        of_tokens += _linear(layer.kernel[...], read, merge(share))
    return of_tokens, of_weights


# --- Rules ---------------------------------------------------------------------------------------


def _linear(
    kernel: jax.Array,
    x: jax.Array,
    relevance: jax.Array,
    apply: Callable[[jax.Array, jax.Array], jax.Array] = lambda kernel, x: x @ kernel,
) -> jax.Array:
    """z⁺: R_j = Σ_i (x_j w_ji)₊ / Σ_k (x_k w_ki)₊ R_i, for `apply` linear in x and in the kernel.

    A product is positive where both factors are, or neither is. The sum is conserved but for
    outputs without any positive contribution, whose relevance ends there.
    """

    def positive(up: jax.Array, down: jax.Array) -> jax.Array:
        return apply(jnp.maximum(kernel, 0), up) + apply(jnp.minimum(kernel, 0), down)

    up, down = jnp.maximum(x, 0), jnp.minimum(x, 0)
    z, pullback = jax.vjp(positive, up, down)
    share_up, share_down = pullback(_ratio(relevance, z))
    return up * share_up + down * share_down


def _product(u: jax.Array, v: jax.Array, relevance: jax.Array) -> tuple[jax.Array, jax.Array]:
    """R_u = ½ u ⊙ ∂(u v)/∂u R / (u v), and so for v: each would take all of R alone."""
    z, pullback = jax.vjp(jnp.matmul, u, v)
    share_u, share_v = pullback(_ratio(relevance, z))
    return u * share_u / 2, v * share_v / 2


def _sum(u: jax.Array, v: jax.Array, relevance: jax.Array) -> tuple[jax.Array, jax.Array]:
    """R_u = u / (u + v) R, and so for v, then scaled to |ΣR_u| : |ΣR_v| with ΣR in total.

    Without this, u ≈ −v makes both large, with opposite signs.
    """
    share = _ratio(relevance, u + v)
    parts = u * share, v * share

    def total(x: jax.Array) -> jax.Array:
        return x.sum((1, 2), keepdims=True)  # an input's

    scale = _ratio(total(relevance), jnp.abs(total(parts[0])) + jnp.abs(total(parts[1])))
    first, second = (part * jnp.sign(total(part)) * scale for part in parts)
    return first, second


def _ratio(numerator: jax.Array, denominator: jax.Array) -> jax.Array:
    """Their quotient, zero where there is nothing to share."""
    empty = jnp.abs(denominator) < 1e-9
    return jnp.where(empty, 0, numerator / jnp.where(empty, 1, denominator))
