"""The classifier f as functions of its inputs: what an explainer may query, and what is inside."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from fex_jax import masking
from fex_jax.answers import PROBABILITIES
from fex_jax.models import Params, functional
from fex_jax.models.bert import BertConfig
from fex_jax.models.vit import ViTConfig
from fex_jax.outputs import Output
from fex_jax.token_batch import TokenBatch

Inputs = Any  # an array [B, ...], or a pytree of them
Bind = Callable[[Params, Any], tuple["Model", Inputs]]  # `from_checkpoint`


@dataclasses.dataclass(frozen=True)
class Model:
    """A classifier with its parameters bound, as training, attributions and metrics see it.

    FEX and the methods that only query use the first three; a model behind an API has no others.
    """

    predict: Callable[[Inputs], jax.Array]  # inputs → answers [B, K], see `output`
    mask: Callable[[Inputs, jax.Array], Inputs]  # (inputs, masks [B, N]) → without features at 0
    grid: tuple[int, ...]  # how the N features lie: (rows, columns) of patches, or (N,)
    # inputs → bool [B, N], False where an input has fewer than N features; None: all have N
    valid: Callable[[Inputs], jax.Array] | None = None
    # inputs → what a network that explains reads of them; here, what f reads
    view: Callable[[Inputs], Inputs] = lambda inputs: inputs
    # "softmax": probabilities of classes that exclude each other; "sigmoid": a probability for each
    # label; "value": any number
    output: Output = "softmax"

    # Where removed features are taken from a background of M rows: those, as inputs; and (inputs,
    # their numbers [B, R]) → the same inputs, to be asked about with these R rows alone; and inputs
    # → the numbers.
    background: Inputs | None = None
    of_background: jax.Array | None = None  # what f says of them, as `predict` answers: [M, K]
    against: Callable[[Inputs, jax.Array], Inputs] | None = None
    rows: Callable[[Inputs], jax.Array] | None = None

    # For gradients with respect to the input, or to what stands for it.
    embed: Callable[[Inputs], jax.Array] | None = None  # inputs → x [B, ...]
    logits: Callable[[jax.Array, Inputs], jax.Array] | None = None  # (x, inputs) → [B, K]
    # (values like x, inputs) → [B, N], sums over what belongs to a feature
    pool: Callable[[jax.Array, Inputs], jax.Array] | None = None

    # For attention and relevance: network(inputs, tap) → logits; see `models.Tap`.
    network: nnx.Module | None = None
    # (values [B, T, ...] of tokens, inputs) → of features [B, N, ...], sums where it has several
    tokens: Callable[[jax.Array, Inputs], jax.Array] | None = None

    @property
    def num_features(self) -> int:
        """N."""
        size = 1
        for length in self.grid:
            size *= length
        return size

    def features(self, inputs: Inputs) -> jax.Array:
        """Which of the N features each input has, bool [B, N]."""
        if self.valid is not None:
            return self.valid(inputs)
        return jnp.ones((jax.tree.leaves(inputs)[0].shape[0], self.num_features), bool)

    def drawn(self, inputs: Inputs, key: jax.Array) -> Inputs:
        """The inputs, each to be asked about with one background row alone, which is drawn.

        What is linear in f's answers keeps its mean, and a query is one question and not M. Where
        removed features come from no background, the inputs are as they were.
        """
        if self.background is None or self.against is None:
            return inputs
        size, rows = (len(jax.tree.leaves(x)[0]) for x in (inputs, self.background))
        return self.against(inputs, jax.random.randint(key, (size, 1), 0, rows))

    def blank(self, inputs: Inputs) -> Inputs:
        """The inputs without any of their features, of which f says v(∅)."""
        return self.mask(inputs, jnp.zeros_like(self.features(inputs)))


def output(predictor: Any) -> Output:
    """What the `Model` of a predictor answers with: of tables values, or as f does."""
    return getattr(predictor, "explained", None) or predictor.output


def _classifier(config: Any, dtype: jnp.dtype) -> Callable[[Params], Any]:
    """bind(params) → the network of one of the `families`."""
    return functional(type(config).classifier, config, dtype=dtype)[1]


def _check(config: Any, output: Output) -> None:
    """Refuses a head that a softmax misreads; of several outputs it cannot be seen."""
    if config.num_classes == 1 and output == "softmax":
        raise ValueError(
            "a softmax of one class is always 1: give output=checkpoint.output, or bind the model "
            "by predictors.from_checkpoint(checkpoint)"
        )


def image(
    config: Any,
    params: Params,
    fill: float = 0.0,
    dtype: jnp.dtype = jnp.float32,
    output: Output = "softmax",
) -> Model:
    """A network of one of the `families`, on normalised images [B, H, W, C].

    A removed patch becomes `fill`. `output` is the checkpoint's own, which `from_checkpoint` takes.

    Raises:
      ValueError: a softmax of one class.
    """
    _check(config, output)
    network = _classifier(config, dtype)(params)

    def mask(images: jax.Array, masks: jax.Array) -> jax.Array:
        return masking.patches(images, masks.reshape(-1, *config.grid), fill)

    def pool(values: jax.Array, _: jax.Array) -> jax.Array:
        side = config.patch_size
        cells = values.reshape(len(values), config.grid[0], side, config.grid[1], -1)
        return cells.sum((2, 4)).reshape(len(values), -1)

    def tokens(values: jax.Array, _: jax.Array) -> jax.Array:
        return values[:, config.num_prefix_tokens :]

    return Model(
        predict=lambda images: PROBABILITIES[output](network(images)),
        mask=mask,
        grid=config.grid,
        output=output,
        embed=lambda images: images,
        logits=lambda images, _: network(images),
        pool=pool,
        network=network,
        tokens=tokens if isinstance(config, ViTConfig) else None,
    )


def bert(
    config: Any,
    params: Params,
    length: int,
    mask_id: int | None,
    dtype: jnp.dtype = jnp.float32,
    output: Output = "softmax",
) -> Model:
    """A network of one of the `families` of texts, on batches of `length` tokens.

    N = `length`, fewer are valid. A removed token becomes `mask_id`, or with None is hidden from
    attention. Whether features are tokens or words is the batch's to say. x is the word embeddings,
    zero where nothing attends: f does not read them there, and a path of gradients from the blank
    text has somewhere to begin. `output` is the checkpoint's own, which `from_checkpoint` takes.

    Raises:
      ValueError: a softmax of one class.
    """
    _check(config, output)
    network = _classifier(config, dtype)(params)

    def embed(inputs: TokenBatch) -> jax.Array:
        return jnp.where(inputs.attention[..., None], network.backbone.embed(inputs), 0)

    def tokens(values: jax.Array, inputs: TokenBatch) -> jax.Array:
        return masking.sum_over_features(values, inputs.features)

    return Model(
        predict=lambda inputs: PROBABILITIES[output](network(inputs)),
        mask=lambda inputs, masks: masking.tokens(inputs, masks, mask_id),
        grid=(length,),
        output=output,
        valid=lambda inputs: masking.valid_features(inputs.features),
        embed=embed,
        logits=network.from_embeddings,
        pool=lambda values, inputs: tokens(values.sum(-1), inputs),
        network=network,
        tokens=tokens if isinstance(config, BertConfig) else None,
    )


def from_checkpoint(
    predictor: Any,
    fill: float = 0.0,
    removal: str = "mask",
    dtype: jnp.dtype = jnp.float32,
) -> Bind:
    """bind(params, batch) → a checkpoint's classifier as a `Model`, and what it takes for a batch.

    Args:
      predictor: a `pretrained.Checkpoint` or `pretrained.TextCheckpoint`, whose `model` says what
        batches are; or what has a `bind` of its own, a `host.black_box.BlackBox`, to which the
        rest does not apply.
      fill: what a removed patch becomes, after normalisation.
      removal: of words: "mask" replaces them by [MASK], "delete" hides them from attention.
      dtype: of the matrix products.

    Raises:
      ValueError: another removal.
    """
    if removal not in ("mask", "delete"):
        raise ValueError(f"text.removal is {removal!r}; choose mask or delete")
    if hasattr(predictor, "bind"):
        return predictor.bind
    return lambda params, batch: predictor.model(params, batch, fill, removal, dtype)
