"""Models as Flax NNX modules, used functionally: parameters are a plain nested dict of arrays."""

from collections.abc import Callable
from typing import Any

import jax
from flax import nnx

Params = dict[str, Any]

# tap(name, value) → value: called where attribution methods look into a classifier, in order of
# the blocks. "hidden": a block's input [B, T, D]; "norm1": what its attention reads [B, T, D];
# "attention": its weights [B, heads, T, T]; "output", once: what the head reads [B, T, D]; and of
# a convolutional network "feature_map", once: its last one [B, h, w, C]. What it returns takes the
# value's place.
Tap = Callable[[str, jax.Array], jax.Array]


def no_tap(_: str, value: jax.Array) -> jax.Array:
    """Leaves everything as it is."""
    return value


def sides(image_size: int | tuple[int, int]) -> tuple[int, int]:
    """(height, width) in pixels of an image_size, which of a square is one number."""
    return (image_size, image_size) if isinstance(image_size, int) else image_size


def functional(
    build: Callable[[nnx.Rngs], nnx.Module],
) -> tuple[Callable[[jax.Array], Params], Callable[[Params], Any]]:
    """Returns `init(key) -> params` and `bind(params) -> module`, for the module that it builds.

    Every level of `params` has string keys, and its leaves are the module's whole state.
    """
    graphdef, template = _trace(build)

    def draw(key: jax.Array) -> Params:
        return _name(nnx.to_pure_dict(nnx.state(build(nnx.Rngs(key)))))

    # Runs once: XLA's full optimisation of random draws takes far longer than the draws.
    compiled = jax.jit(draw, compiler_options={"xla_backend_optimization_level": 1})

    def init(key: jax.Array) -> Params:
        # JAX takes compiler options at top level only, so under a caller's jit, do without.
        return draw(key) if isinstance(key, jax.core.Tracer) else compiled(key)

    def bind(params: Params) -> nnx.Module:
        return nnx.merge(graphdef, _unname(params, template))

    return init, bind


def shapes(build: Callable[[nnx.Rngs], nnx.Module]) -> Params:
    """The `jax.ShapeDtypeStruct` of every parameter that `init` would return."""
    return _name(_trace(build)[1])


def _trace(build: Callable[[nnx.Rngs], nnx.Module]) -> tuple[nnx.GraphDef, dict]:
    """The module's structure and its parameters' shapes, found without allocating anything."""
    graphdef, state = nnx.split(nnx.eval_shape(lambda: build(nnx.Rngs(0))))
    return graphdef, nnx.to_pure_dict(state)


def _name(tree: dict) -> Params:
    """Turns the integer keys of module lists into strings, which safetensors names need."""
    return {str(k): _name(v) if isinstance(v, dict) else v for k, v in tree.items()}


def _unname(params: Params, template: dict) -> dict:
    """Restores the keys of `template`, the inverse of `_name`; a missing key is a KeyError."""
    return {
        k: _unname(params[str(k)], v) if isinstance(v, dict) else params[str(k)]
        for k, v in template.items()
    }
