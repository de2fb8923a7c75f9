"""Models as Flax NNX modules, used functionally: parameters are a plain nested dict of arrays."""

import functools
from collections.abc import Callable
from typing import Any

import jax
from flax import nnx

Params = dict[str, Any]
# Of a program that runs once: XLA's full optimisation of random draws takes far longer than they.
ONCE = {"xla_backend_optimization_level": 1}

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


@functools.cache  # all that is compiled of one network hangs on the two functions
def functional(
    build: Callable[..., nnx.Module], *given: Any, **options: Any
) -> tuple[Callable[[jax.Array], Params], Callable[[Params], Any]]:
    """`init(key) -> params` and `bind(params) -> module`, of build(*given, **options, rngs=…).

    Every level of `params` has string keys, and its leaves are the module's whole state. What is
    given can be hashed, and the same of equal ones is returned.
    """
    graphdef, template = _trace(build, *given, **options)

    def draw(key: jax.Array) -> Params:
        module = build(*given, **options, rngs=nnx.Rngs(key))
        return _name(nnx.to_pure_dict(nnx.state(module)))

    compiled, traced = jax.jit(draw, compiler_options=ONCE), jax.jit(draw)

    def init(key: jax.Array) -> Params:
        # JAX takes compiler options at top level only, so under a caller's jit, do without.
        return traced(key) if isinstance(key, jax.core.Tracer) else compiled(key)

    def bind(params: Params) -> nnx.Module:
        return nnx.merge(graphdef, _unname(params, template))

    return init, bind


def shapes(build: Callable[..., nnx.Module], *given: Any, **options: Any) -> Params:
    """The `jax.ShapeDtypeStruct` of every parameter that `init` would return."""
    return _name(_trace(build, *given, **options)[1])


@functools.cache  # takes as long as to trace a use of the network
def _trace(
    build: Callable[..., nnx.Module], *given: Any, **options: Any
) -> tuple[nnx.GraphDef, dict]:
    """The module's structure and its parameters' shapes, found without allocating anything."""
    graphdef, state = nnx.split(nnx.eval_shape(lambda: build(*given, **options, rngs=nnx.Rngs(0))))
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
