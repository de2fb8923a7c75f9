"""BERT, DistilBERT, RoBERTa, ELECTRA and families of their networks, with a classification head.

Shapes: B texts, T tokens (padding included), D hidden size, E that of embeddings, K classes.
"""

import dataclasses
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from fex_jax.models import Tap, no_tap
from fex_jax.models.activations import ACTIVATIONS
from fex_jax.models.vit import Attention, Linear, Mlp, layer_norm, stack
from fex_jax.token_batch import TokenBatch

Family = Literal["bert", "distilbert", "roberta", "xlm-roberta", "camembert", "electra"]
# Of families that have the network of another.
NETWORKS = {"xlm-roberta": "roberta", "camembert": "roberta"}
# Between the two layers of a classification head.
_BETWEEN = {"bert": "tanh", "distilbert": "relu", "roberta": "tanh", "electra": "gelu"}
HIDDEN_FROM_ATTENTION = -1e9  # finite: a softmax over nothing but padding is not NaN


@dataclasses.dataclass(frozen=True)
class BertConfig:
    """Architecture of a BERT-family classifier."""

    family: Family
    vocab_size: int
    num_classes: int
    hidden_size: int
    num_layers: int
    num_heads: int
    mlp_dim: int
    max_positions: int = 512  # rows of the position table; see `max_length`
    num_types: int = 2  # token types; 0 in DistilBERT, which has none
    pad_id: int = 0
    layer_norm_eps: float = 1e-12
    embedding_size: int = 0  # of ELECTRA, whose embeddings may be narrower; 0: hidden_size
    activation: str = "gelu"  # of `ACTIVATIONS`

    def __post_init__(self) -> None:
        if self.family not in get_args(Family):
            raise ValueError(f"family {self.family!r} is not one of {', '.join(get_args(Family))}")
        for name, value in dataclasses.asdict(self).items():
            least = 0 if name in ("num_types", "pad_id", "embedding_size") else 1
            if isinstance(value, int) and value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        if self.hidden_size % self.num_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} does not divide into {self.num_heads} heads"
            )
        if (self.num_types == 0) != (self.network == "distilbert"):
            raise ValueError(
                f"num_types is {self.num_types} in a {self.family}; it is 0 in distilbert and at "
                "least 1 in others"
            )
        if self.pad_id >= self.vocab_size:
            raise ValueError(f"pad_id {self.pad_id} is not in a vocabulary of {self.vocab_size}")
        if self.max_length < 3:
            raise ValueError(
                f"max_positions {self.max_positions} leaves {self.max_length} tokens; CLS, one "
                "token and SEP need 3"
            )

    def encoder(
        self, *, dtype: DTypeLike = jnp.float32, remat: bool = False, rngs: nnx.Rngs
    ) -> "Bert":
        """The network without its head."""
        return Bert(self, dtype=dtype, remat=remat, rngs=rngs)

    def classifier(
        self, *, dtype: DTypeLike = jnp.float32, remat: bool = False, rngs: nnx.Rngs
    ) -> "BertClassifier":
        """The network."""
        return BertClassifier(self, dtype=dtype, remat=remat, rngs=rngs)

    @property
    def width(self) -> int:
        """Of the embeddings."""
        return self.embedding_size or self.hidden_size

    @property
    def network(self) -> str:
        """The family whose network it is."""
        return NETWORKS.get(self.family, self.family)

    @property
    def head_activation(self) -> str:
        """Between the two layers of the head."""
        return _BETWEEN[self.network]

    @property
    def max_length(self) -> int:
        """The most tokens a text may have; RoBERTa counts positions from pad_id + 1."""
        return self.max_positions - (self.pad_id + 1 if self.network == "roberta" else 0)


def check_window(inputs: TokenBatch, max_length: int) -> None:
    """Raises a ValueError where a batch has more tokens than a model reads at a time."""
    if inputs.ids.shape[-1] > max_length:
        raise ValueError(
            f"a batch of {inputs.ids.shape[-1]} tokens is longer than the model's window of "
            f"{max_length}; encode texts in windows of that length"
        )


class Block(nnx.Module):
    """Post-norm transformer block: [B, T, D] -> [B, T, D]."""

    def __init__(self, config: BertConfig, *, dtype: DTypeLike, rngs: nnx.Rngs):
        size = config.hidden_size
        self.attention = Attention(size, config.num_heads, dtype=dtype, rngs=rngs)
        self.norm1 = layer_norm(size, config.layer_norm_eps, rngs)
        self.mlp = Mlp(size, config.mlp_dim, activation=config.activation, dtype=dtype, rngs=rngs)
        self.norm2 = layer_norm(size, config.layer_norm_eps, rngs)

    def __call__(self, tokens: jax.Array, bias: jax.Array, tap: Tap = no_tap) -> jax.Array:
        tokens = tap("hidden", tokens)
        # Attention reads the block's input itself; the tap sees it beside the residual path, as
        # in a pre-norm block.
        tokens = self.norm1(tokens + self.attention(tap("norm1", tokens), tap, bias))
        return self.norm2(tokens + self.mlp(tokens))


class Bert(nnx.Module):
    """Encoder: texts -> hidden states [B, T, D] of the last block.

    Parameters are float32 and matmuls run in `dtype`; `remat` recomputes each block in the
    backward pass, trading time for memory.
    """

    def __init__(
        self,
        config: BertConfig,
        *,
        dtype: DTypeLike = jnp.float32,
        remat: bool = False,
        rngs: nnx.Rngs,
    ):
        def table(rows: int) -> nnx.Param:
            shape = (rows, config.width)
            return nnx.Param(0.02 * jax.random.normal(rngs.params(), shape))

        self.config = config
        self.dtype = dtype
        self.remat = remat
        self.word_embedding = table(config.vocab_size)
        self.position_embedding = table(config.max_positions)
        if config.num_types:
            self.type_embedding = table(config.num_types)
        self.norm = layer_norm(config.width, config.layer_norm_eps, rngs)
        if config.width != config.hidden_size:
            sizes = config.width, config.hidden_size
            self.projection = Linear(*sizes, dtype=dtype, rngs=rngs)
        self.blocks = stack(
            lambda rngs: Block(config, dtype=dtype, rngs=rngs), config.num_layers, rngs
        )

    def __call__(self, inputs: TokenBatch, tap: Tap = no_tap) -> jax.Array:
        return self.encode(self.embed(inputs), inputs, tap)

    def embed(self, inputs: TokenBatch) -> jax.Array:
        """Word embeddings [B, T, E]: all of the network that depends on which words are there.

        Raises:
          ValueError: more tokens than positions.
        """
        check_window(inputs, self.config.max_length)
        return self.word_embedding[...][inputs.ids]

    def encode(self, words: jax.Array, inputs: TokenBatch, tap: Tap = no_tap) -> jax.Array:
        """Hidden states from word embeddings [B, T, E], for gradients with respect to them."""
        run = nnx.remat(Block.__call__, static_argnums=3) if self.remat else Block.__call__
        tokens = words + self.position_embedding[...][self._positions(inputs.ids)]
        if self.config.num_types:
            told = inputs.types is not None and self.config.num_types > 1
            types = inputs.types if told else 0
            tokens = tokens + self.type_embedding[...][types]
        tokens = self.norm(tokens)
        if self.config.width != self.config.hidden_size:
            tokens = self.projection(tokens)
        bias = jnp.where(inputs.attention, 0.0, HIDDEN_FROM_ATTENTION)[:, None, None]
        for block in self.blocks:
            tokens = run(block, tokens, bias, tap)
        return tap("output", tokens)

    def _positions(self, ids: jax.Array) -> jax.Array:
        """Rows of the position table, [B, T] or [T]; in RoBERTa padding stays at pad_id."""
        if self.config.network != "roberta":
            return jnp.arange(ids.shape[-1])
        real = ids != self.config.pad_id
        return jnp.where(real, jnp.cumsum(real, -1), 0) + self.config.pad_id


class Head(nnx.Module):
    """CLS's hidden state [B, D] -> logits [B, K], in float32: two layers."""

    def __init__(self, config: Any, rngs: nnx.Rngs):
        size = config.hidden_size
        self.activation = ACTIVATIONS[config.head_activation]
        self.dense = Linear(size, size, dtype=jnp.float32, rngs=rngs)
        self.out = Linear(size, config.num_classes, dtype=jnp.float32, rngs=rngs)

    def __call__(self, hidden: jax.Array) -> jax.Array:
        return self.out(self.activation(self.dense(hidden)))


class BertClassifier(nnx.Module):
    """A `Bert` with a classification head on CLS: texts -> logits [B, K]."""

    def __init__(
        self,
        config: BertConfig,
        *,
        dtype: DTypeLike = jnp.float32,
        remat: bool = False,
        rngs: nnx.Rngs,
    ):
        self.config = config
        self.backbone = Bert(config, dtype=dtype, remat=remat, rngs=rngs)
        self.head = Head(config, rngs)

    def __call__(self, inputs: TokenBatch, tap: Tap = no_tap) -> jax.Array:
        return self.head(self.backbone(inputs, tap)[:, 0])

    def from_embeddings(self, words: jax.Array, inputs: TokenBatch) -> jax.Array:
        """Logits from word embeddings [B, T, E]; `inputs` says where the tokens are."""
        return self.head(self.backbone.encode(words, inputs)[:, 0])
