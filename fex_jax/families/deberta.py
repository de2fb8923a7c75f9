"""DeBERTa-v2 and v3 (He et al., 2021, 2023), as `DebertaV2ForSequenceClassification`.

Shapes: B texts, T tokens, D hidden, E embedding and d head size, P relative positions, K classes.
"""

import dataclasses
import math
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike

from fex_jax import checks, families
from fex_jax.families import hub
from fex_jax.families import rules as names
from fex_jax.models import Tap, no_tap
from fex_jax.models.activations import NAMED
from fex_jax.models.bert import HIDDEN_FROM_ATTENTION, Head, check_window
from fex_jax.models.vit import Linear, Mlp, layer_norm, stack
from fex_jax.token_batch import TokenBatch

ARCHITECTURES = {
    "deberta-v2": ("DebertaV2ForSequenceClassification", "DebertaV2Model", "DebertaV2ForMaskedLM")
}
HEAD = {"deberta-v2": "classifier"}
PREFIX = {"deberta-v2": "deberta"}
OUTSIDE = r"(pooler|classifier|cls|lm_predictions|mask_predictions)\..*"
_RANGE = checks.integer(-1, 2**20)
# By their names in config.json, the fields of the config that it has and what they may be.
_FIELDS = {
    "vocab_size": ("vocab_size", checks.integer(1, 2**24)),
    "hidden_size": ("hidden_size", checks.integer(1, 2**15)),
    "num_hidden_layers": ("num_layers", checks.integer(1, 1000)),
    "num_attention_heads": ("num_heads", checks.integer(1, 1024)),
    "intermediate_size": ("mlp_dim", checks.integer(1, 2**18)),
    "hidden_act": ("activation", NAMED),
    "pooler_hidden_act": ("head_activation", NAMED),
    "max_position_embeddings": ("max_length", checks.integer(3, 2**20)),
    "type_vocab_size": ("num_types", checks.integer(0, 1024)),
    "layer_norm_eps": ("layer_norm_eps", checks.number(0, 1)),
    "pad_token_id": ("pad_id", checks.integer(0, 2**24)),
    "embedding_size": ("embedding_size", checks.integer(0, 2**15)),
    "position_biased_input": ("absolute", checks.flag()),
    "relative_attention": ("relative", checks.flag()),
    "max_relative_positions": ("max_relative", _RANGE),
    "position_buckets": ("buckets", _RANGE),
    "share_att_key": ("shared", checks.flag()),
}
_OTHERS = {
    "pos_att_type": checks.either(checks.text(), checks.several(checks.one_of("c2p", "p2c"))),
    "norm_rel_ebd": checks.text(),
}


@dataclasses.dataclass(frozen=True)
class DebertaConfig:
    """Architecture of a DeBERTa-v2 or v3 classifier."""

    num_classes: int
    vocab_size: int = 128100
    hidden_size: int = 1536
    num_layers: int = 24
    num_heads: int = 24
    mlp_dim: int = 6144
    max_length: int = 512  # tokens of a text
    num_types: int = 0  # token types; 0: none
    pad_id: int = 0
    layer_norm_eps: float = 1e-7
    embedding_size: int = 0  # of embeddings that are narrower or wider; 0: hidden_size
    activation: str = "gelu"
    head_activation: str = "gelu"
    absolute: bool = True  # positions are embedded
    relative: bool = False  # attention knows how far tokens lie apart
    max_relative: int = -1  # from where on they are all as far; -1: max_length
    buckets: int = -1  # of distances on either side, the farther the wider; -1: each its own
    shared: bool = False  # positions are projected as contents are
    c2p: bool = False  # contents ask about positions
    p2c: bool = False  # positions ask about contents
    norm_positions: bool = False
    family: str = "deberta-v2"

    def __post_init__(self) -> None:
        if self.hidden_size % self.num_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} does not divide into {self.num_heads} heads"
            )
        if self.pad_id >= self.vocab_size:
            raise ValueError(f"pad_id {self.pad_id} is not in a vocabulary of {self.vocab_size}")
        if self.buckets > 0 and not 2 < self.buckets < 2 * self.farthest - 2:
            raise ValueError(
                f"{self.buckets} position_buckets of up to {self.farthest} positions: expected 3 "
                "or more, and half of them below the last position"
            )

    def encoder(self, **options: Any) -> "_Encoder":
        """The network without its head."""
        return _Encoder(self, **options)

    def classifier(self, **options: Any) -> "Deberta":
        """The network."""
        return Deberta(self, **options)

    @property
    def width(self) -> int:
        """Of the embeddings."""
        return self.embedding_size or self.hidden_size

    @property
    def farthest(self) -> int:
        """The distance from which on tokens are all as far."""
        return self.max_relative if self.max_relative > 0 else self.max_length

    @property
    def span(self) -> int:
        """P / 2, the relative positions on either side."""
        return self.buckets if self.buckets > 0 else self.farthest


CONFIG = DebertaConfig
SIZES = dict(_FIELDS.values()) | {"family": checks.one_of("deberta-v2")}
SIZES |= dict.fromkeys(("c2p", "p2c", "norm_positions"), checks.flag())


def relative_positions(length: int, config: DebertaConfig) -> np.ndarray:
    """Rows of the table of relative positions, [T, T] in 0..P − 1, for queries before keys.

    Distances up to half the buckets have one each; beyond, their logarithm counts. In float32, as
    their published training had it.
    """
    places = np.arange(length)
    distance = places[:, None] - places
    if config.buckets > 0:
        half = config.buckets // 2
        far = np.maximum(np.abs(distance), half).astype(np.float32) / np.float32(half)
        scale = np.log(np.float32((config.farthest - 1) / half))
        steps = np.ceil(np.log(far) / scale * np.float32(half - 1)).astype(int) + half
        distance = np.where(np.abs(distance) <= half, distance, np.sign(distance) * steps)
    return np.clip(distance + config.span, 0, 2 * config.span - 1)


class _Attention(nnx.Module):
    """Disentangled self-attention: [B, T, D] → [B, T, D]; softmax in float32."""

    def __init__(self, config: DebertaConfig, dtype: DTypeLike, rngs: nnx.Rngs):
        self.config = config
        linear = partial(Linear, config.hidden_size, config.hidden_size, dtype=dtype, rngs=rngs)
        self.query, self.key, self.value, self.out = linear(), linear(), linear(), linear()
        own = config.relative and not config.shared
        self.position_key = linear() if own and config.c2p else None
        self.position_query = linear() if own and config.p2c else None

    def __call__(
        self, tokens: jax.Array, positions: jax.Array | None, rows: np.ndarray, bias: jax.Array
    ) -> jax.Array:
        """`positions` [P, D] and which `rows` of it are between tokens [T, T]."""
        query, key, value = (self._split(f(tokens)) for f in (self.query, self.key, self.value))
        wide = jnp.promote_types(query.dtype, jnp.float32)
        product = partial(jnp.matmul, preferred_element_type=wide)
        scores, places = product(query, key.mT), np.arange(len(rows))[:, None]
        if positions is not None and self.config.c2p:
            keys = self._split((self.position_key or self.key)(positions)[None])
            scores += _entries(product(query, keys.mT), places * keys.shape[2] + rows)
        if positions is not None and self.config.p2c:
            queries = self._split((self.position_query or self.query)(positions)[None])
            scores += _entries(product(key, queries.mT), places.T * queries.shape[2] + rows)
        terms = 1 + self.config.c2p + self.config.p2c
        weights = jax.nn.softmax(scores / math.sqrt(terms * query.shape[-1]) + bias)
        mixed = jnp.matmul(weights.astype(value.dtype), value).swapaxes(1, 2)
        return self.out(mixed.reshape(tokens.shape))

    def _split(self, x: jax.Array) -> jax.Array:
        return x.reshape(*x.shape[:2], self.config.num_heads, -1).swapaxes(1, 2)


def _entries(x: jax.Array, where: np.ndarray) -> jax.Array:
    """Those of x [B, heads, T, P] whose numbers within [T, P] are `where` [T, T]."""
    return jnp.take(x.reshape(*x.shape[:2], -1), where, axis=-1, mode="clip")


class _Block(nnx.Module):
    """Post-norm transformer block: [B, T, D] → [B, T, D]."""

    def __init__(self, config: DebertaConfig, dtype: DTypeLike, rngs: nnx.Rngs):
        norm = partial(layer_norm, config.hidden_size, config.layer_norm_eps, rngs)
        sizes = config.hidden_size, config.mlp_dim
        self.attention = _Attention(config, dtype, rngs)
        self.norm1 = norm()
        self.mlp = Mlp(*sizes, activation=config.activation, dtype=dtype, rngs=rngs)
        self.norm2 = norm()

    def __call__(self, tokens: jax.Array, *read: Any) -> jax.Array:
        tokens = self.norm1(tokens + self.attention(tokens, *read))
        return self.norm2(tokens + self.mlp(tokens))


class _Encoder(nnx.Module):
    """Texts → hidden states [B, T, D] of the last block."""

    def __init__(
        self,
        config: DebertaConfig,
        *,
        dtype: DTypeLike = jnp.float32,
        remat: bool = False,
        rngs: nnx.Rngs,
    ):
        def table(rows: int, width: int = config.width) -> nnx.Param:
            return nnx.Param(0.02 * jax.random.normal(rngs.params(), (rows, width)))

        self.config, self.remat = config, remat
        norm = partial(layer_norm, config.hidden_size, config.layer_norm_eps, rngs)
        self.word_embedding = table(config.vocab_size)
        self.position_embedding = table(config.max_length) if config.absolute else None
        self.type_embedding = table(config.num_types) if config.num_types else None
        if config.width != config.hidden_size:
            sizes = config.width, config.hidden_size
            self.projection = Linear(*sizes, use_bias=False, dtype=dtype, rngs=rngs)
        self.norm = norm()
        self.relative = table(2 * config.span, config.hidden_size) if config.relative else None
        self.relative_norm = norm() if config.norm_positions else None
        self.blocks = stack(lambda rngs: _Block(config, dtype, rngs), config.num_layers, rngs)

    def __call__(self, inputs: TokenBatch, tap: Tap = no_tap) -> jax.Array:
        return self.encode(self.embed(inputs), inputs, tap)

    def embed(self, inputs: TokenBatch) -> jax.Array:
        """Word embeddings [B, T, E], all that depends on which words are there; see `Bert`."""
        check_window(inputs, self.config.max_length)
        return self.word_embedding[...][inputs.ids]

    def encode(self, words: jax.Array, inputs: TokenBatch, tap: Tap = no_tap) -> jax.Array:
        """Hidden states from word embeddings [B, T, E], for gradients with respect to them."""
        run = nnx.remat(_Block.__call__) if self.remat else _Block.__call__
        length, tokens, positions = inputs.ids.shape[-1], words, None
        if self.position_embedding is not None:
            tokens = tokens + self.position_embedding[...][:length]
        if self.type_embedding is not None:
            told = inputs.types is not None and self.config.num_types > 1
            types = inputs.types if told else 0
            tokens = tokens + self.type_embedding[...][types]
        if self.config.width != self.config.hidden_size:
            tokens = self.projection(tokens)
        tokens = self.norm(tokens)
        if self.relative is not None:
            positions = self.relative[...]
            positions = self.relative_norm(positions) if self.relative_norm else positions
        rows = relative_positions(length, self.config)
        bias = jnp.where(inputs.attention, 0.0, HIDDEN_FROM_ATTENTION)[:, None, None]
        for block in self.blocks:
            tokens = run(block, tokens, positions, rows, bias)
        return tap("output", tokens)


class Deberta(nnx.Module):
    """Texts → logits [B, K], of CLS."""

    def __init__(self, config: DebertaConfig, *, rngs: nnx.Rngs, **options: Any):
        self.config = config
        self.backbone = config.encoder(rngs=rngs, **options)
        self.head = Head(config, rngs)

    def __call__(self, inputs: TokenBatch, tap: Tap = no_tap) -> jax.Array:
        return self.head(self.backbone(inputs, tap)[:, 0])

    def from_embeddings(self, words: jax.Array, inputs: TokenBatch) -> jax.Array:
        """Logits from word embeddings [B, T, E]; `inputs` says where the tokens are."""
        return self.head(self.backbone.encode(words, inputs)[:, 0])


# --- Hugging Face files --------------------------------------------------------------------------


def read_config(hf_config: dict[str, Any], num_classes: int, source: Path) -> DebertaConfig:
    """config.json; what it leaves out has the defaults of transformers."""
    where = source / "config.json"
    checks.require(hf_config, _OTHERS, where)
    found = families.fields(hf_config, _FIELDS, where)
    size = found.get("hidden_size", DebertaConfig.hidden_size)
    heads = found.get("num_heads", DebertaConfig.num_heads)
    only = {"conv_kernel_size": 0, "attention_head_size": size // heads, "pooler_hidden_size": size}
    checks.require(hf_config, {name: checks.one_of(value) for name, value in only.items()}, where)
    if found.get("embedding_size") == size:
        found["embedding_size"] = 0
    asks = hf_config.get("pos_att_type") or []
    asks = asks.lower().replace(" ", "").split("|") if isinstance(asks, str) else asks
    norms = hf_config.get("norm_rel_ebd", "none").lower().replace(" ", "").split("|")
    found |= {"c2p": "c2p" in asks, "p2c": "p2c" in asks, "norm_positions": "layer_norm" in norms}
    return DebertaConfig(num_classes, **found)


def write_config(config: DebertaConfig) -> dict[str, Any]:
    """What config.json says of the architecture."""
    return {name: getattr(config, own) for name, (own, _) in _FIELDS.items()} | {
        "embedding_size": config.width,
        "pooler_hidden_size": config.hidden_size,
        "pos_att_type": [name for name in ("p2c", "c2p") if getattr(config, name)],
        "norm_rel_ebd": "layer_norm" if config.norm_positions else "none",
    }


def head(config: DebertaConfig, rngs: nnx.Rngs) -> Head:
    """The head, of first values."""
    return Head(config, rngs)


def check(tensors: dict[str, np.ndarray], config: DebertaConfig, source: Path) -> None:
    """Raises a ValueError where the tensors are of other sizes."""
    norm = "deberta.embeddings.LayerNorm.weight"
    hub.check_sizes(tensors, config.num_layers, config.hidden_size, norm, source)


_BLOCK, _LAYER = r"backbone/blocks/(\d+)/", r"deberta.encoder.layer.\1."
_RULES = [
    names.Rule("backbone/(word|position)_embedding", r"deberta.embeddings.\1_embeddings.weight"),
    names.Rule("backbone/type_embedding", "deberta.embeddings.token_type_embeddings.weight"),
    *names.linear("backbone/projection", "deberta.embeddings.embed_proj"),
    *names.norm("backbone/norm", "deberta.embeddings.LayerNorm"),
    names.Rule("backbone/relative", "deberta.encoder.rel_embeddings.weight"),
    *names.norm("backbone/relative_norm", "deberta.encoder.LayerNorm"),
    *names.linear(_BLOCK + "attention/(query|key|value)", _LAYER + r"attention.self.\2_proj"),
    *names.linear(
        _BLOCK + "attention/position_(query|key)", _LAYER + r"attention.self.pos_\2_proj"
    ),
    *names.linear(_BLOCK + "attention/out", _LAYER + "attention.output.dense"),
    *names.norm(_BLOCK + "norm1", _LAYER + "attention.output.LayerNorm"),
    *names.linear(_BLOCK + "mlp/fc1", _LAYER + "intermediate.dense"),
    *names.linear(_BLOCK + "mlp/fc2", _LAYER + "output.dense"),
    *names.norm(_BLOCK + "norm2", _LAYER + "output.LayerNorm"),
    *names.linear("head/dense", "pooler.dense"),
    *names.linear("head/out", "classifier"),
]


def rules(config: DebertaConfig) -> list[names.Rule]:
    """Names here and there."""
    return _RULES


def ignored(config: DebertaConfig) -> str:
    """The heads of masked pre-training, positions that are not used, and their numbers."""
    positions = "" if config.absolute else r"|deberta\.embeddings\.position_embeddings\..*"
    return (
        r"(cls|lm_predictions|mask_predictions)\..*|deberta\.embeddings\.position_ids" + positions
    )
