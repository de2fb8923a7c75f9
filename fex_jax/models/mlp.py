"""A residual network of dense layers, for tables: from all of a row's numbers to its features."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from fex_jax.models.vit import Linear

_NUMBERS = 4096  # that its last layer gives of all features together, about
_STEPS, _READ = 32, 8192  # numbers that it reads of a column, and of all columns, about
_CATEGORIES = 256  # that it tells apart


@dataclasses.dataclass(frozen=True)
class MLPConfig:
    """E inputs → N features and one of the whole row, of `hidden_size` numbers each."""

    num_inputs: int
    num_features: int
    hidden_size: int = 32
    width: int = 256
    num_layers: int = 3

    @classmethod
    def of(cls, num_inputs: int, num_features: int) -> "MLPConfig":
        """Of a size that tables of so many features take."""
        return cls(num_inputs, num_features, max(4, min(32, _NUMBERS // num_features)))


class _Block(nnx.Module):
    """x + W₂ gelu(W₁ norm(x)), from x itself at first."""

    def __init__(self, width: int, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.norm = nnx.LayerNorm(width, rngs=rngs)
        self.first = Linear(width, width, dtype=dtype, rngs=rngs)
        self.second = Linear(
            width, width, dtype=dtype, kernel_init=nnx.initializers.normal(1e-3), rngs=rngs
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        return x + self.second(jax.nn.gelu(self.first(self.norm(x))))


class MLP(nnx.Module):
    """[B, E] → [B, 1 + N, hidden_size], the first of the whole row."""

    first_feature = 1

    def __init__(
        self, config: MLPConfig, *, dtype: jnp.dtype = jnp.float32, rngs: nnx.Rngs
    ) -> None:
        self.config = config
        count = (1 + config.num_features) * config.hidden_size
        self.read = Linear(config.num_inputs, config.width, dtype=dtype, rngs=rngs)
        self.blocks = nnx.List(
            [_Block(config.width, dtype=dtype, rngs=rngs) for _ in range(config.num_layers)]
        )
        self.norm = nnx.LayerNorm(config.width, rngs=rngs)
        self.write = Linear(config.width, count, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.read(x)
        for block in self.blocks:
            x = block(x)
        tokens = self.write(self.norm(x))
        return tokens.reshape(x.shape[0], -1, self.config.hidden_size)


class Steps(NamedTuple):
    """What a network reads of D columns: E numbers, how far each value is on each step of its own.

    A value's steps lie between quantiles of its column (Gorishniy et al., On Embeddings for
    Numerical Features, 2022). Of categories it is their order that a network need not know: each
    has a step of its own.
    """

    least: np.ndarray  # float64 [D]
    width: np.ndarray  # float64 [D] half of how far values are apart
    place: np.ndarray  # int32 [F] a step's column
    low: np.ndarray  # float32 [F] where it begins, in widths from the least
    high: np.ndarray  # float32 [F]
    missing: np.ndarray  # int32 [E − F] columns of which is read whether they have a value; some do

    @classmethod
    def of(cls, values: np.ndarray, categories: Sequence[bool], missing: Sequence[bool]) -> "Steps":
        """Those of columns with these values [B, D], NaN where there is none."""
        none = np.isnan(values)
        known = np.where(none, np.nanmin(values, initial=np.inf, axis=0), values)
        known = np.where(np.isinf(known), 0.0, known)  # of columns without any value
        least, most = known.min(0), known.max(0)
        width = most / 2 - least / 2
        gaps = np.flatnonzero(np.asarray(missing) & ~none.all(0)).astype(np.int32)
        empty = np.zeros(0, np.float32)
        ends = least, np.where(width > 0, width, 1.0)
        found = cls(*ends, empty, empty, empty, gaps)
        scaled, steps = found.scaled(values), []
        most_steps = max(1, min(_STEPS, _READ // values.shape[1]))
        for i, is_category in enumerate(categories):
            own = scaled[~np.isnan(scaled[:, i]), i]
            edges = np.unique(own)
            if len(edges) > (_CATEGORIES if is_category else most_steps + 1):
                # Of rows, and of values: where most rows have one value, others differ as well.
                shares = np.linspace(0, 1, most_steps + 1)
                both = [np.quantile(x, shares, method="nearest") for x in (own, edges)]
                edges = np.unique(np.concatenate(both))
            steps.append((np.full(max(len(edges) - 1, 0), i, np.int32), edges[:-1], edges[1:]))
        place, low, high = (np.concatenate(parts) for parts in zip(*steps, strict=True))
        return found._replace(place=place, low=low, high=high)

    @property
    def size(self) -> int:
        """E."""
        return len(self.place) + len(self.missing)

    @property
    def columns(self) -> np.ndarray:
        """The column that each number is read of, [E]."""
        return np.concatenate([self.place, self.missing])

    def scaled(self, values: np.ndarray) -> np.ndarray:
        """float64 [B, D] in widths from the least, float32: large ones differ there, too."""
        with np.errstate(over="ignore"):
            return (values / self.width - self.least / self.width).astype(np.float32)

    def __call__(self, scaled: Any) -> Any:
        """What `scaled` returns, [B, D] → [B, E] in −½ to ½, of NumPy if that is."""
        of = np if isinstance(scaled, np.ndarray) else jnp
        with np.errstate(over="ignore"):
            x = (scaled[:, self.place] - self.low) / (self.high - self.low)
        steps = of.nan_to_num(of.clip(x, 0, 1), nan=0.0)
        missing = of.isnan(scaled[:, self.missing]).astype(steps.dtype)
        return of.concatenate([steps, missing], -1) - 0.5

    def fits(self, num_columns: int) -> bool:
        """Whether its arrays belong together, and to a table of D columns."""
        columns = self.columns
        return (
            tuple(array.dtype for array in self) == STEP_TYPES
            and self.least.shape == self.width.shape == (num_columns,)
            and self.place.shape == self.low.shape == self.high.shape == (self.place.size,)
            and bool(((columns >= 0) & (columns < num_columns)).all())
        )


STEP_TYPES = np.float64, np.float64, np.int32, np.float32, np.float32, np.int32
