"""ModernBERT (Warner et al., 2024), as `ModernBertForSequenceClassification` of transformers.

Shapes: B texts, T tokens (padding included), D hidden size, K classes.
"""

import dataclasses
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
from fex_jax.models.activations import ACTIVATIONS, NAMED
from fex_jax.models.bert import HIDDEN_FROM_ATTENTION, check_window
from fex_jax.models.vit import Linear, layer_norm, stack
from fex_jax.token_batch import TokenBatch

ARCHITECTURES = {
    "modernbert": (
        "ModernBertForSequenceClassification",
        "ModernBertModel",
        "ModernBertForMaskedLM",
    )
}
HEAD = {"modernbert": "classifier"}
PREFIX = {"modernbert": "model"}
OUTSIDE = r"(head|classifier|decoder)\..*"
_KINDS = ("full_attention", "sliding_attention")
_SIZE = checks.integer(1, 2**20)
# By their names in config.json, the fields of the config that it has and what they may be.
_FIELDS = {
    "vocab_size": ("vocab_size", checks.integer(1, 2**24)),
    "hidden_size": ("hidden_size", checks.integer(2, 2**15)),
    "intermediate_size": ("mlp_dim", checks.integer(1, 2**18)),
    "num_hidden_layers": ("num_layers", checks.integer(1, 1000)),
    "num_attention_heads": ("num_heads", checks.integer(1, 1024)),
    "hidden_activation": ("activation", NAMED),
    "max_position_embeddings": ("max_length", checks.integer(3, 2**20)),
    "norm_eps": ("layer_norm_eps", checks.number(0, 1)),
    "norm_bias": ("norm_bias", checks.flag()),
    "pad_token_id": ("pad_id", checks.integer(0, 2**24)),
    "attention_bias": ("attention_bias", checks.flag()),
    "local_attention": ("window", _SIZE),
    "mlp_bias": ("mlp_bias", checks.flag()),
    "classifier_pooling": ("pooling", checks.one_of("cls", "mean")),
    "classifier_bias": ("head_bias", checks.flag()),
    "classifier_activation": ("head_activation", NAMED),
}
_ROPE = {"rope_type": checks.one_of("default"), "rope_theta": checks.number(1, 1e12)}
_OTHERS = {
    "global_attn_every_n_layers": _SIZE,
    "layer_types": checks.several(checks.one_of(*_KINDS)),
    "rope_parameters": checks.mapping(),
    "rope_scaling": checks.nothing(),
}


@dataclasses.dataclass(frozen=True)
class ModernBertConfig:
    """Architecture of a ModernBERT classifier."""

    num_classes: int
    vocab_size: int = 50368
    hidden_size: int = 768
    num_layers: int = 22
    num_heads: int = 12
    mlp_dim: int = 1152
    max_length: int = 8192  # tokens of a text
    pad_id: int = 50283
    layer_norm_eps: float = 1e-5
    global_every: int = 3  # of so many layers the first sees the whole text, the others a window
    window: int = 128  # tokens of it, half of them on either side
    global_theta: float = 160_000.0  # base of the angles by which positions turn
    local_theta: float = 10_000.0
    activation: str = "gelu"
    head_activation: str = "gelu"
    pooling: str = "cls"  # or "mean"
    norm_bias: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False
    head_bias: bool = False
    family: str = "modernbert"

    def __post_init__(self) -> None:
        if self.hidden_size % (2 * self.num_heads):
            raise ValueError(
                f"hidden_size {self.hidden_size} does not divide into {self.num_heads} heads of "
                "an even size, whose halves positions turn"
            )
        if self.pad_id >= self.vocab_size:
            raise ValueError(f"pad_id {self.pad_id} is not in a vocabulary of {self.vocab_size}")

    def encoder(self, **options: Any) -> "_Encoder":
        """The network without its head."""
        return _Encoder(self, **options)

    def classifier(self, **options: Any) -> "ModernBert":
        """The network."""
        return ModernBert(self, **options)


CONFIG = ModernBertConfig
SIZES = dict(_FIELDS.values()) | {
    "family": checks.one_of("modernbert"),
    "global_every": _SIZE,
    "global_theta": _ROPE["rope_theta"],
    "local_theta": _ROPE["rope_theta"],
}


class _Block(nnx.Module):
    """Pre-norm transformer block: [B, T, D] → the same; the first reads what is normalised."""

    def __init__(
        self, config: ModernBertConfig, dtype: DTypeLike, rngs: nnx.Rngs, first: bool = False
    ):
        size, self.num_heads = config.hidden_size, config.num_heads
        self.activation = ACTIVATIONS[config.activation]
        norm = partial(layer_norm, size, config.layer_norm_eps, rngs, config.norm_bias)
        attend = partial(Linear, use_bias=config.attention_bias, dtype=dtype, rngs=rngs)
        feed = partial(Linear, use_bias=config.mlp_bias, dtype=dtype, rngs=rngs)
        self.norm1 = None if first else norm()
        self.qkv, self.out = attend(size, 3 * size), attend(size, size)
        self.norm2 = norm()
        self.fc1, self.fc2 = feed(size, 2 * config.mlp_dim), feed(config.mlp_dim, size)

    def __call__(self, tokens: jax.Array, bias: jax.Array, turns: jax.Array) -> jax.Array:
        """`bias` [B, 1, 1 or T, T] is added to the scores, `turns` [2, T, d / 2] are `_turns`."""
        read = self.norm1(tokens) if self.norm1 else tokens
        heads = self.qkv(read).reshape(*tokens.shape[:2], 3, self.num_heads, -1)
        query, key, value = jnp.moveaxis(heads, (2, 3), (0, 2))  # [B, heads, T, d]
        query, key = _turned(query, *turns), _turned(key, *turns)
        wide = jnp.promote_types(query.dtype, jnp.float32)
        scores = jnp.matmul(query, key.mT, preferred_element_type=wide)
        weights = jax.nn.softmax(scores * query.shape[-1] ** -0.5 + bias)
        mixed = jnp.matmul(weights.astype(value.dtype), value).swapaxes(1, 2)
        tokens = tokens + self.out(mixed.reshape(tokens.shape))
        values, gate = jnp.split(self.fc1(self.norm2(tokens)), 2, -1)
        return tokens + self.fc2(self.activation(values) * gate)


def _turned(x: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
    """Rotary positions: the halves of x [..., T, d] as coordinates in d / 2 planes, turned."""
    first, second = jnp.split(x.astype(jnp.float32), 2, -1)
    turned = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], -1)
    return turned.astype(x.dtype)


def _turns(length: int, size: int, theta: float) -> np.ndarray:
    """cos and sin of position times θ^(−2i/d), [2, T, d / 2], in float32 as in transformers."""
    frequencies = np.float32(theta ** (-np.arange(0, size, 2) / size))
    angles = np.arange(length, dtype=np.float32)[:, None] * frequencies
    return np.stack([np.cos(angles), np.sin(angles)])


class _Encoder(nnx.Module):
    """Texts → hidden states [B, T, D] after the last norm."""

    def __init__(
        self,
        config: ModernBertConfig,
        *,
        dtype: DTypeLike = jnp.float32,
        remat: bool = False,
        rngs: nnx.Rngs,
    ):
        self.config, self.remat = config, remat
        size = config.hidden_size
        table = 0.02 * jax.random.normal(rngs.params(), (config.vocab_size, size))
        self.word_embedding = nnx.Param(table)
        norm = partial(layer_norm, size, config.layer_norm_eps, rngs, config.norm_bias)
        self.norm, self.last_norm = norm(), norm()
        blocks = [_Block(config, dtype, rngs, first=True)]
        if config.num_layers > 1:
            others = stack(lambda rngs: _Block(config, dtype, rngs), config.num_layers - 1, rngs)
            blocks += list(others)
        self.blocks = nnx.List(blocks)

    def __call__(self, inputs: TokenBatch, tap: Tap = no_tap) -> jax.Array:
        return self.encode(self.embed(inputs), inputs, tap)

    def embed(self, inputs: TokenBatch) -> jax.Array:
        """Word embeddings [B, T, D], all that depends on which words are there; see `Bert`."""
        check_window(inputs, self.config.max_length)
        return self.word_embedding[...][inputs.ids]

    def encode(self, words: jax.Array, inputs: TokenBatch, tap: Tap = no_tap) -> jax.Array:
        """Hidden states from word embeddings [B, T, D], for gradients with respect to them."""
        config, length = self.config, inputs.ids.shape[-1]
        run = nnx.remat(_Block.__call__) if self.remat else _Block.__call__
        turns = partial(_turns, length, config.hidden_size // config.num_heads)
        whole = jnp.where(inputs.attention, 0.0, HIDDEN_FROM_ATTENTION)[:, None, None]
        places = np.arange(length)
        near = np.abs(places[:, None] - places) <= config.window // 2
        kinds = {
            True: (whole, turns(config.global_theta)),
            False: (jnp.where(near, whole, HIDDEN_FROM_ATTENTION), turns(config.local_theta)),
        }
        tokens = self.norm(words)
        for number, block in enumerate(self.blocks):
            tokens = run(block, tokens, *kinds[number % config.global_every == 0])
        return tap("output", self.last_norm(tokens))


class _Head(nnx.Module):
    """A pooled hidden state [B, D] → logits [B, K], in float32."""

    def __init__(self, config: ModernBertConfig, rngs: nnx.Rngs):
        linear = partial(Linear, config.hidden_size, dtype=jnp.float32, rngs=rngs)
        self.activation = ACTIVATIONS[config.head_activation]
        self.dense = linear(config.hidden_size, use_bias=config.head_bias)
        self.norm = layer_norm(config.hidden_size, config.layer_norm_eps, rngs, config.norm_bias)
        self.out = linear(config.num_classes)

    def __call__(self, pooled: jax.Array) -> jax.Array:
        return self.out(self.norm(self.activation(self.dense(pooled))))


class ModernBert(nnx.Module):
    """Texts → logits [B, K], of CLS or of the mean token."""

    def __init__(self, config: ModernBertConfig, *, rngs: nnx.Rngs, **options: Any):
        self.config = config
        self.backbone = config.encoder(rngs=rngs, **options)
        self.head = _Head(config, rngs)

    def __call__(self, inputs: TokenBatch, tap: Tap = no_tap) -> jax.Array:
        return self._classify(self.backbone(inputs, tap), inputs)

    def from_embeddings(self, words: jax.Array, inputs: TokenBatch) -> jax.Array:
        """Logits from word embeddings [B, T, D]; `inputs` says where the tokens are."""
        return self._classify(self.backbone.encode(words, inputs), inputs)

    def _classify(self, tokens: jax.Array, inputs: TokenBatch) -> jax.Array:
        if self.config.pooling == "cls":
            return self.head(tokens[:, 0])
        return self.head(tokens.mean(1, where=inputs.attention[..., None]))


# --- Hugging Face files --------------------------------------------------------------------------


def read_config(hf_config: dict[str, Any], num_classes: int, source: Path) -> ModernBertConfig:
    """config.json, of any version; what it leaves out has the defaults of transformers."""
    where = source / "config.json"
    checks.require(hf_config, _OTHERS, where)
    found = families.fields(hf_config, _FIELDS, where)
    for kind, short in zip(_KINDS, ("global", "local"), strict=True):
        rope = {"rope_theta": hf_config.get(f"{short}_rope_theta")}
        rope |= hf_config.get("rope_parameters", {}).get(kind) or {}
        rope = {name: value for name, value in rope.items() if value is not None}
        checks.require(rope, _ROPE, f"{where}: {kind}")
        if "rope_theta" in rope:
            found[f"{short}_theta"] = float(rope["rope_theta"])
    if every := _period(hf_config, found.get("num_layers", ModernBertConfig.num_layers), where):
        found["global_every"] = every
    return ModernBertConfig(num_classes, **found)


def _layer_types(every: int, count: int) -> list[str]:
    return [_KINDS[number % every > 0] for number in range(count)]


def _period(hf_config: dict[str, Any], count: int, where: Path) -> int | None:
    """Every how many layers one sees the whole text, from the first one on; None: not said."""
    kinds, said = hf_config.get("layer_types"), hf_config.get("global_attn_every_n_layers")
    if kinds is None:
        return said
    for every in ([said] if said else []) + list(range(1, count + 1)):
        if list(kinds) == _layer_types(every, count):
            return every
    raise ValueError(
        f"{where}: layer_types are supported where every n-th of the {count} layers, from the "
        "first on, is full_attention and all others are sliding_attention"
    )


def write_config(config: ModernBertConfig) -> dict[str, Any]:
    """What config.json says of the architecture."""
    theta = zip(_KINDS, (config.global_theta, config.local_theta), strict=True)
    return {name: getattr(config, own) for name, (own, _) in _FIELDS.items()} | {
        "global_attn_every_n_layers": config.global_every,
        "layer_types": _layer_types(config.global_every, config.num_layers),
        "rope_parameters": {
            kind: {"rope_type": "default", "rope_theta": base} for kind, base in theta
        },
    }


def head(config: ModernBertConfig, rngs: nnx.Rngs) -> _Head:
    """The head, of first values."""
    return _Head(config, rngs)


def check(tensors: dict[str, np.ndarray], config: ModernBertConfig, source: Path) -> None:
    """Raises a ValueError where the tensors are of other sizes."""
    norm = "model.embeddings.norm.weight"
    hub.check_sizes(tensors, config.num_layers, config.hidden_size, norm, source)


_BLOCK, _LAYER = r"backbone/blocks/(\d+)/", r"model.layers.\1."
_RULES = [
    names.Rule("backbone/word_embedding", "model.embeddings.tok_embeddings.weight"),
    *names.norm("backbone/norm", "model.embeddings.norm"),
    *names.norm(_BLOCK + "norm1", _LAYER + "attn_norm"),
    *names.linear(_BLOCK + "qkv", _LAYER + "attn.Wqkv"),
    *names.linear(_BLOCK + "out", _LAYER + "attn.Wo"),
    *names.norm(_BLOCK + "norm2", _LAYER + "mlp_norm"),
    *names.linear(_BLOCK + "fc1", _LAYER + "mlp.Wi"),
    *names.linear(_BLOCK + "fc2", _LAYER + "mlp.Wo"),
    *names.norm("backbone/last_norm", "model.final_norm"),
    *names.linear("head/dense", "head.dense"),
    *names.norm("head/norm", "head.norm"),
    *names.linear("head/out", "classifier"),
]


def rules(config: ModernBertConfig) -> list[names.Rule]:
    """Names here and there."""
    return _RULES


def ignored(config: ModernBertConfig) -> str:
    """The head of masked pre-training."""
    return r"decoder\..*"
