"""The explainer network g and its critic v on top of any backbone that yields tokens."""

import functools
import operator
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from fex_jax import masking
from fex_jax.answers import log_odds
from fex_jax.models import Params, functional
from fex_jax.models.mlp import MLP, MLPConfig
from fex_jax.models.unet import UNet, UNetConfig
from fex_jax.models.vit import Linear, ViT, ViTConfig
from fex_jax.token_batch import TokenBatch

Backbone = ViTConfig | UNetConfig | MLPConfig | Any  # or the config of another of the `families`
BACKBONES = {"vit": ViTConfig, "unet": UNetConfig, "mlp": MLPConfig}
MapHead = Literal["token", "wide", "shared"]
_CLASSES_AT_ONCE = 16  # maps held in memory together by the paper's KL term


class Heads(nnx.Module):
    """Map head on feature tokens, three linear layers; as many of a critic, on the pooled token.

    A map head that reads more than `width` numbers of a feature reads them again in its last layer,
    beside the hidden one.
    """

    def __init__(
        self,
        width: int,
        num_classes: int,
        read: int,
        shared: bool = False,
        faithful: bool = False,
        critic: bool = False,
        *,
        rngs: nnx.Rngs,
    ):
        def linear(outputs: int, scale: float = 1.0, inputs: int = width) -> Linear:
            init = nnx.initializers.variance_scaling(scale, "fan_in", "truncated_normal")
            return Linear(inputs, outputs, kernel_init=init, rngs=rngs)

        self.map_in, self.map_mid = linear(width, inputs=read), linear(width)
        # λ starts near 1/2: every mask is explored
        last = width if read == width else width + read
        self.map_out = linear(num_classes, 0.01, last)
        if shared:
            self.map_all = linear(1, 0.01, last)
            self.mix = nnx.Param(jnp.array([1.0, 0.0]))  # no gradient: `training.held_out`
        if critic:
            self.value_in, self.value_mid = linear(width), linear(width)
            self.value_out = linear(num_classes, 0.01)
        else:
            for _ in range(6):  # a critic's keys: what comes after is drawn as with one
                rngs.params()
        if faithful:  # last: the others are drawn as they are without it
            self.faith_in, self.faith_mid = linear(width, inputs=4), linear(width)
            self.faith_out = linear(2, 0.01)
            # No gradient: `training.held_out` sets it.
            self.faith_level = nnx.Param(jnp.array(0.5, jnp.float32))


# [B, N, D] of each feature, or [B, 1, D] of all: concatenated they would be one array, but copying
# them takes time, and what is the same everywhere is read once.
Parts = tuple[jax.Array, ...]


class Reading(NamedTuple):
    """What a backbone says of a batch; of a frozen one it is the same in every pass."""

    pooled: jax.Array  # [B, D] the first token
    each: Parts  # what the map head reads of each feature, side by side
    valid: jax.Array | None  # bool [B, N], features that an input has; None: all


class Policy(nnx.Module):
    """g: inputs to one attribution map per class; with a critic v, to one value per class.

    Inputs are normalised images [B, H, W, C], rows of a table [B, E], or a `TokenBatch`, whose
    texts have fewer features than N: what is said of a feature comes from the mean of its tokens,
    and means over features are over those that a text has.

    The last layer of the map head is linear, z_ik = w_k · h_i + b_k. So one class's map needs one
    column of w, and the mean map of all classes is w · mean_i h_i: no method but the paper's KL
    form ever computes all K maps, and K = 1000 costs what K = 10 does.

    The map head reads of a feature its "token", as published, or, "wide", of a backbone that has a
    `read_more`, also what says which class it is about and where. A "shared" one is wide and has a
    column for all classes beside those of each: z_k = a z_0 + b c_k (`mix`).

    With `faithful` a head of its own predicts what f will say of masks that a map draws
    (`fex_jax.faithfulness`). It reads a few numbers of the map, and nothing learns through it.
    """

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        *,
        map_head: MapHead = "token",
        faithful: bool = False,
        critic: bool = False,
        dtype: jnp.dtype = jnp.float32,
        remat: bool = False,
        rngs: nnx.Rngs,
    ):
        if map_head not in get_args(MapHead):
            raise ValueError(f"map_head {map_head!r} is unknown; choose token, wide or shared")
        self.backbone: ViT | UNet | MLP | Any
        match backbone:
            case ViTConfig():
                self.backbone = ViT(backbone, dtype=dtype, remat=remat, rngs=rngs)
            case UNetConfig():
                self.backbone = UNet(backbone, dtype=dtype, rngs=rngs)
            case MLPConfig():
                self.backbone = MLP(backbone, dtype=dtype, rngs=rngs)
            case _:
                self.backbone = backbone.encoder(dtype=dtype, remat=remat, rngs=rngs)
        self.reads_more = map_head != "token" and hasattr(backbone, "wide_size")
        self.shares = map_head == "shared"
        width = backbone.hidden_size
        read = backbone.wide_size if self.reads_more else width
        self.heads = Heads(width, num_classes, read, self.shares, faithful, critic, rngs=rngs)
        self.config, self.faithful, self.critic = backbone, faithful, critic

    def __call__(
        self, inputs: jax.Array | TokenBatch, targets: jax.Array, kl: str = "authors"
    ) -> tuple[Any, ...]:
        """Inputs, targets [B, T] → what `ppo.PolicyOutput` holds.

        The second output is what the KL term compares with f (Eq. 24): mean_i z_ik ("authors") or
        mean_i log σ(z_ik) ("paper"), of a shared head c_ik for z_ik. `valid` says which features an
        input has; None: all. `parts` are z_0 [B, 1, N] and c [B, T, N] of a shared head, or None.
        `faithfulness` is that of the first target's map, as log-odds [B, 1, 2], or None.
        """
        return self.say(self.read(inputs), targets, kl)

    def read(self, inputs: jax.Array | TokenBatch) -> Reading:
        """What the heads need to know of inputs: all that the backbone has a part in."""
        tokens, each, valid = self._read(inputs)
        return Reading(tokens[:, 0], each, valid)

    def say(self, reading: Reading, targets: jax.Array, kl: str = "authors") -> tuple[Any, ...]:
        """What calling the policy returns, from what it has read."""
        hidden, pooled, valid = self._hidden(reading)
        logits = self._maps(hidden, targets)
        parts = None
        if self.shares:
            parts = self._shared(hidden), logits
            logits = self._mixed(*parts)
        mean_of_class = self._mean_log_sigmoid if kl == "paper" else self._mean
        class_logits = mean_of_class(hidden, valid)
        values = self._values(pooled, targets) if self.critic else None
        means = class_logits if kl == "authors" else self._mean(hidden, valid)
        valid = None if valid is None else valid[:, None]
        faith = None
        if self.faithful:
            faith = self._faith(logits[:, :1], means, targets[:, :1], valid)
        return logits, class_logits, values, valid, parts, faith

    def maps(
        self, inputs: jax.Array | TokenBatch, targets: jax.Array, *, contrastive: bool = False
    ) -> jax.Array:
        """Map logits of several classes: inputs, targets [B, T] → [B, T, N].

        With `contrastive` less what else f believes in: z_y − Σ_{k≠y} p_k z_k, where
        p = softmax(mean_i z_i) is what the KL term has taught of f(x) (Eq. 24, "authors"). Of a
        shared head c takes the place of z, for z_0 is every class's.
        """
        hidden, _, valid = self._hidden(self.read(inputs))
        maps = self._maps(hidden, targets)
        if contrastive:
            maps = self._contrast(maps, hidden, targets, valid)
        return self._mixed(self._shared(hidden), maps) if self.shares else maps

    def faithfulness(self, inputs: jax.Array | TokenBatch, targets: jax.Array) -> jax.Array:
        """Log-odds that f will give targets, of what their maps keep and of the rest: [B, T, 2]."""
        hidden, _, valid = self._hidden(self.read(inputs))
        maps = self._maps(hidden, targets)
        if self.shares:
            maps = self._mixed(self._shared(hidden), maps)
        means = self._mean(hidden, valid)
        return self._faith(maps, means, targets, None if valid is None else valid[:, None])

    def _values(self, pooled: jax.Array, targets: jax.Array) -> jax.Array:
        hidden = jax.nn.relu(self.heads.value_mid(jax.nn.relu(self.heads.value_in(pooled))))
        return jnp.take_along_axis(self.heads.value_out(hidden), targets, -1)

    def _faith(
        self, maps: jax.Array, means: jax.Array, targets: jax.Array, valid: jax.Array | None
    ) -> jax.Array:
        """From how much a map tells apart, its highest and lowest tenth, and the belief in y."""
        maps, means = jax.lax.stop_gradient((maps, means))
        belief = jnp.take_along_axis(log_odds(jax.nn.softmax(means)), targets, -1)
        spread = maps.std(-1, where=valid)
        there = jnp.ones_like(maps, bool) if valid is None else jnp.broadcast_to(valid, maps.shape)
        count = there.sum(-1, keepdims=True)
        centred = jnp.where(there, maps - maps.mean(-1, keepdims=True, where=valid), 0)
        rank = jnp.argsort(jnp.argsort(jnp.where(there, -centred, jnp.inf), -1), -1)
        tenth = jnp.maximum(1, jnp.round(count / 10).astype(int))
        high, low = (
            jnp.mean(centred, -1, where=part)
            for part in (rank < tenth, there & (rank >= count - tenth))
        )
        read = jnp.stack([spread, high, low, belief], -1)
        hidden = jax.nn.relu(self.heads.faith_in(read))
        return self.heads.faith_out(jax.nn.relu(self.heads.faith_mid(hidden)))

    def _contrast(
        self, maps: jax.Array, hidden: Parts, targets: jax.Array, valid: jax.Array | None
    ) -> jax.Array:
        p = jax.nn.softmax(self._mean(hidden, valid))  # [B, K]
        own = jnp.take_along_axis(p, targets, -1)[..., None]
        column, bias = p @ self.heads.map_out.kernel[...].T, p @ self.heads.map_out.bias[...]
        expected = _products("bnd,bd->bn", hidden, column) + bias[:, None]  # Σ_k p_k z_k
        return maps - (expected[:, None] - own * maps)

    def _shared(self, hidden: Parts) -> jax.Array:
        """z_0, [B, N, D] → [B, 1, N]."""
        return _linear(self.heads.map_all, hidden)[:, None, :, 0]

    def _mixed(self, shared: jax.Array, own: jax.Array) -> jax.Array:
        """a z_0 + b c."""
        of_all, of_class = jax.lax.stop_gradient(self.heads.mix[...])
        return of_all * shared + of_class * own

    def _hidden(self, reading: Reading) -> tuple[Parts, jax.Array, jax.Array | None]:
        """What the map head's last layer reads [B, N, D], the pooled token [B, D], valid."""
        pooled, each, valid = reading
        hidden = jax.nn.relu(_linear(self.heads.map_in, each))
        hidden = jax.nn.relu(self.heads.map_mid(hidden))
        return (hidden, *(each if self.reads_more else ())), pooled, valid

    def _read(self, inputs: jax.Array | TokenBatch) -> tuple[jax.Array, Parts, jax.Array | None]:
        """Tokens [B, T, D], what the map head reads of each feature, valid."""
        if self.reads_more:
            return *self.backbone.read_more(inputs), None
        tokens = self.backbone(inputs).astype(jnp.float32)
        if isinstance(inputs, TokenBatch):
            means, valid = _mean_of_features(tokens, inputs.features)
            return tokens, (means,), valid
        return tokens, (tokens[:, self.backbone.first_feature :],), None

    def _maps(self, hidden: Parts, targets: jax.Array) -> jax.Array:
        """[B, N, D] and [B, T] → z of the target classes only, [B, T, N]."""
        kernel, bias = self.heads.map_out.kernel[...].T[targets], self.heads.map_out.bias[targets]
        return _products("bnd,btd->btn", hidden, kernel) + bias[..., None]

    def _mean(self, hidden: Parts, valid: jax.Array | None) -> jax.Array:
        """mean_i z_ik for all classes, [B, N, D] → [B, K]."""
        where = None if valid is None else valid[..., None]
        return _linear(self.heads.map_out, tuple(part.mean(1, where=where) for part in hidden))

    def _mean_log_sigmoid(self, hidden: Parts, valid: jax.Array | None) -> jax.Array:
        """mean_i log σ(z_ik) for all classes, [B, N, D] → [B, K], a few classes at a time."""

        @jax.checkpoint
        def mean_of_class(column: tuple[jax.Array, jax.Array]) -> jax.Array:
            kernel, bias = column
            logits = _products("bnd,d->bn", hidden, kernel) + bias
            return jax.nn.log_sigmoid(logits).mean(1, where=valid)

        columns = (self.heads.map_out.kernel[...].T, self.heads.map_out.bias[...])
        return jax.lax.map(mean_of_class, columns, batch_size=_CLASSES_AT_ONCE).T


def _products(sums: str, parts: Parts, weights: jax.Array) -> jax.Array:
    """einsum(sums, concatenate(parts, -1), weights), which sums over the last axis of both."""
    each = (jnp.einsum(sums, *pair) for pair in _with_weights(parts, weights))
    return functools.reduce(operator.add, each)


def _linear(layer: Linear, parts: Parts) -> jax.Array:
    """layer(concatenate(parts, -1))."""
    found = layer.bias[...]
    for part, weights in _with_weights(parts, layer.kernel[...].T):
        product = part.reshape(-1, part.shape[-1]) @ weights.T  # on one matrix: see `Linear`
        found = found + product.reshape(*part.shape[:-1], -1)
    return found


def _with_weights(parts: Parts, weights: jax.Array) -> Iterator[tuple[jax.Array, jax.Array]]:
    """Each part with its share of weights [..., ΣD]."""
    ends = np.cumsum([part.shape[-1] for part in parts])[:-1]
    return zip(parts, jnp.split(weights, ends, -1), strict=True)


def _mean_of_features(tokens: jax.Array, features: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Means of the tokens of each feature: [B, T, D], [B, T] → [B, N = T, D], bool [B, N]."""
    sums = masking.sum_over_features(tokens, features)
    sizes = masking.sum_over_features(jnp.ones(features.shape), features)
    return sums / jnp.maximum(sizes, 1)[..., None], sizes > 0


def make_backbone(kind: str, predictor: Any) -> Backbone:
    """The backbone a config names: "unet", or by its `kind_of` the predictor's own architecture."""
    own = kind_of(predictor)
    if kind == own:
        return predictor
    sees = hasattr(predictor, "image_size")
    if kind == "unet" and sees:
        return UNetConfig(predictor.image_size, predictor.patch_size, predictor.num_channels)
    raise ValueError(
        f"policy {kind!r} is not for a {predictor.family}; choose {own}{' or unet' * sees}"
    )


def kind_of(backbone: Backbone) -> str:
    """What a config and explainer.json call an architecture, of texts "bert"."""
    for name, kind in BACKBONES.items():
        if isinstance(backbone, kind):
            return name
    return backbone.family if hasattr(backbone, "image_size") else "bert"


def functional_policy(
    backbone: Backbone,
    num_classes: int,
    dtype: jnp.dtype = jnp.float32,
    remat: bool = False,
    map_head: MapHead = "token",
    faithful: bool = False,
    critic: bool = False,
) -> tuple[Callable[[jax.Array], Params], Callable[[Params], Policy]]:
    """init(key) → params, and bind(params) → a `Policy` with them."""
    heads = {"map_head": map_head, "faithful": faithful, "critic": critic}
    network = {"dtype": dtype, "remat": remat} | heads
    return functional(Policy, backbone, num_classes, **network)
