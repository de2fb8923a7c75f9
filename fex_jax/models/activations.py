"""Activations by the names that Hugging Face configs have for them: arrays → arrays."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from fex_jax import checks

_gelu = partial(jax.nn.gelu, approximate=False)
_gelu_tanh = partial(jax.nn.gelu, approximate=True)


def _laplace(x: jax.Array) -> jax.Array:
    """½ (1 + erf((x − √½) / (√2 σ))), σ² ≈ 1 / (4π) (Ma et al., 2023)."""
    return (1 + jax.lax.erf((x - 0.707107) / (0.282095 * 2**0.5))) / 2


ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": _gelu,
    "gelu_10": lambda x: jnp.clip(_gelu(x), -10, 10),
    "gelu_python": _gelu,
    **dict.fromkeys(
        ("gelu_accurate", "gelu_fast", "gelu_new", "gelu_python_tanh", "gelu_pytorch_tanh"),
        _gelu_tanh,
    ),
    "hardswish": jax.nn.hard_swish,
    "laplace": _laplace,
    "leaky_relu": jax.nn.leaky_relu,
    "linear": lambda x: x,
    "mish": lambda x: x * jnp.tanh(jax.nn.softplus(x)),
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
    "relu": jax.nn.relu,
    "relu2": lambda x: jnp.square(jax.nn.relu(x)),
    "relu6": jax.nn.relu6,
    "sigmoid": jax.nn.sigmoid,
    "silu": jax.nn.silu,
    "sqrtsoftplus": lambda x: jnp.sqrt(jax.nn.softplus(x)),
    "swish": jax.nn.silu,
    "tanh": jnp.tanh,
}
_NAMES = checks.one_of(*ACTIVATIONS)
# The names of the other two's parameters differ with the version of transformers that wrote them.
NAMED = _NAMES._replace(
    wanted=f"{_NAMES.wanted}; prelu and xielu learn parameters of their own, which are not read"
)
