"""A host predictor as a `predictors.Model`: inside jit, queries leave JAX by a callback.

Training, attributions, refinement and metrics that only query then run on it unchanged; methods
that look inside a classifier refuse it by name.
"""

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.buffer_callback import buffer_callback
from jax.sharding import PartitionSpec

from fex_jax.errors import HostError
from fex_jax.host.bank import ID, identify
from fex_jax.host.predictor import HostPredictor
from fex_jax.predictors import Inputs, Model
from fex_jax.removal import Pictures, Removal


def model(
    predictor: HostPredictor,
    mask: Callable[[Inputs, jax.Array], Inputs],
    grid: tuple[int, ...],
    read: Callable[[Inputs], jax.Array] = lambda inputs: inputs,
) -> Model:
    """f by a callback, on inputs that are masked in JAX.

    Args:
      predictor: f, of images or tables.
      mask: (inputs, masks [B, N]) → inputs without their features at 0, a JAX function.
      grid: (rows, columns) of the features, or (N,).
      read: inputs → what f is asked about, [B, ...]. Pixels are rounded to uint8 for f.

    Raises:
      ValueError: a predictor of texts, which JAX has no arrays for.
    """
    if predictor.input == "text":
        raise ValueError(f"{predictor.name} takes strings, which cannot be masked as JAX arrays")
    pixels = len(predictor.input) == 3

    def predict(inputs: Inputs) -> jax.Array:
        asked = to_pixels(read(inputs)) if pixels else read(inputs)
        return callback(predictor, len(predictor.labels), asked)

    return Model(predict=predict, mask=mask, grid=grid, output=predictor.output)


def image_model(
    predictor: HostPredictor, removal: Removal, images: np.ndarray
) -> tuple[Model, Pictures]:
    """f and its inputs for uint8 images [B, H, W, C]: pixels as floats, and their backgrounds."""
    inputs = removal.prepare(predictor.checked(images))
    return model(predictor, removal.mask, removal.grid, lambda pictures: pictures.images), inputs


def to_pixels(images: jax.Array) -> jax.Array:
    """Floats in 0..255 as f sees them, uint8: a quarter of the bytes leave the device."""
    return jnp.round(images).clip(0, 255).astype(jnp.uint8)


@contextlib.contextmanager
def plain_errors() -> Iterator[None]:
    """Within it, what f's callback raises inside jit comes out as it was raised: a HostError, or
    the KeyboardInterrupt of a Ctrl-C.

    XLA wraps it in an error of its own that holds a page of its stack.
    """
    _failures.clear()
    log = logging.getLogger("jax._src.callback")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    except Exception as error:  # whatever it was wrapped in on its way
        if _failures and not isinstance(error, HostError):
            raise _failures[-1] from None
        raise
    finally:
        log.setLevel(level)
        _failures.clear()


@contextlib.contextmanager
def counted() -> Iterator[list[int]]:
    """Within it, how many inputs callbacks ask about, of whatever f: a list of one number."""
    count = [0]
    _counts.append(count)
    try:
        yield count
    finally:
        _counts.remove(count)


def callback(ask: Callable[..., np.ndarray], classes: int, *arrays: jax.Array) -> jax.Array:
    """ask(arrays [B, ...]) → answers [B, K] on the host, from inside jit; see `plain_errors`."""

    def answers(*asked: Any) -> np.ndarray:
        with _one_at_a_time:
            for count in _counts:
                count[0] += len(asked[0])
            try:
                return ask(*map(np.asarray, asked))
            except BaseException as error:
                _failures.append(error)
                raise

    return on_host(answers, jax.ShapeDtypeStruct((classes,), jnp.float32), *arrays)


def on_host(
    function: Callable[..., np.ndarray], row: jax.ShapeDtypeStruct, *arrays: jax.Array
) -> jax.Array:
    """function(arrays [B, ...]) → B of what `row` describes, on the host, from inside jit.

    Of several processes under one mesh each calls it about its own rows, once a device; where rows
    do not divide, the first about all of them.
    """

    def into(_: Any, out: Any, *buffers: Any) -> None:
        np.asarray(out)[...] = function(*(np.asarray(buffer).copy() for buffer in buffers))

    def call(*arrays: jax.Array) -> jax.Array:
        shape = jax.ShapeDtypeStruct((arrays[0].shape[0], *row.shape), row.dtype)
        # `pure_callback` hands arrays over by JAX's threads. CPUs have one a core, and a callback
        # holds one: on one core, or of as many threads, all wait for ever.
        if jax.default_backend() == "cpu" and (apart or mesh.size <= 1):
            return buffer_callback(into, shape, vmap_method="sequential")(*arrays)
        return jax.pure_callback(function, shape, *arrays, vmap_method="sequential")

    mesh = jax.sharding.get_abstract_mesh()
    apart = jax.process_count() > 1 and not (mesh.empty or arrays[0].shape[0] % mesh.size)
    if not apart:
        return call(*arrays)
    rows = PartitionSpec(mesh.axis_names)
    return jax.shard_map(call, in_specs=rows, out_specs=rows, check_vma=False)(*arrays)


def identified(inputs: jax.Array) -> jax.Array:
    """`bank.identify` of inputs [B, ...] from inside jit: uint8 [B, 16]."""

    def ids(inputs: Any) -> np.ndarray:
        found = b"".join(identify(np.asarray(inputs)))
        return np.frombuffer(found, np.uint8).reshape(-1, ID)

    return on_host(ids, jax.ShapeDtypeStruct((ID,), np.uint8), inputs)


_failures: list[BaseException] = []
_counts: list[list[int]] = []
_one_at_a_time = threading.Lock()  # f need not bear to be asked by several devices at once
