"""DeepLIFT: differences from a baseline, handed down through the network.

The network is read as JAX traces it. Every number has a value at x, a value at x′, and what it
takes of a change of the input: that is linear, and its transpose is one backward pass.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend import core
from jax.typing import ArrayLike

from fex_jax.answers import LOG_PROBABILITIES, PROBABILITIES
from fex_jax.attributions.door import public
from fex_jax.attributions.gradients import Output, baselines, require
from fex_jax.predictors import Inputs, Model

# Functions of one number; of two, where the other is a constant.
_KINKED = {"abs", "max", "min", "sign"}
_SMOOTH = {
    "exp", "exp2", "log", "log1p", "expm1", "tanh", "logistic", "erf", "erfc", "erf_inv", "rsqrt",
    "sqrt", "cbrt", "integer_pow", "square", "pow", "sin", "cos", "reciprocal",
}  # fmt: skip
# Of a smaller difference rounding would be most of a slope: the derivative takes its place. Halfway
# it errs by Δ² f‴ / 24 where f is smooth; across a kink by anything.
_NEAR = dict.fromkeys(_KINKED, 1e-6) | dict.fromkeys(_SMOOTH, 1e-2)
_PRODUCTS = {"mul", "dot_general", "conv_general_dilated"}
_LOOPS = {"scan", "while", "cond"}


class _Number(NamedTuple):
    """What is known of an array of the network."""

    value: Any  # at x
    start: Any  # at x′
    change: Any  # linear in that of the input; None: it does not depend on the input


@public
def deeplift(
    model: Model,
    inputs: Inputs,
    targets: jax.Array,
    key: jax.Array | None = None,
    *,
    baseline: ArrayLike | None = None,
    output: Output = "logit",
) -> jax.Array:
    """φ(x) = (x − x′) ⊙ m, per feature, m from the rescale rule (Shrikumar et al., ICML 2017).

    A function of one number hands down Δout / Δin in place of its derivative: ReLU, GELU, tanh, the
    exponential of a softmax. A product of two numbers that both change, of which the paper has no
    rule, is shared equally: Δ(ab) = Δa (b + b′)/2 + Δb (a + a′)/2. So attention, softmax and
    LayerNorm keep Σ_i φ_i = f_y(x) − f_y(x′); max pooling has its gradient at x, and does not.

    Args:
      model: with `embed`, `logits` and `pool`, or a ValueError says what it lacks.
      inputs: B of them.
      targets: the explained classes y [B].
      key: unused, here for all methods to be called alike.
      baseline: x′, of a shape that broadcasts to the embedded inputs'; the input without any of
        its features where None.
      output: what f is.

    Returns:
      [B, N].

    Raises:
      ValueError: another output, or a network with loops.
    """
    require(model, "DeepLIFT", "embed", "logits", "pool")
    outputs = {
        "probability": PROBABILITIES[model.output],
        "logit": lambda logits: logits,
        "log_probability": LOG_PROBABILITIES.get(model.output),
    }
    if outputs.get(output) is None:
        raise ValueError(f"output {output!r} is not one of {', '.join(outputs)}")
    x, start = model.embed(inputs), baselines(model, inputs, baseline)
    traced = jax.make_jaxpr(lambda x: outputs[output](model.logits(x, inputs)))(x)

    def explained(change: jax.Array) -> jax.Array:
        (found,) = _read(traced.jaxpr, traced.consts, [_Number(x, start, change)])
        return jnp.take_along_axis(found.change, targets[:, None], -1).sum()

    multipliers = jax.grad(explained)(jnp.zeros_like(x))
    return model.pool((x - start) * multipliers, inputs)


def _read(jaxpr: Any, consts: Sequence[Any], given: Sequence[_Number]) -> list[_Number]:
    """The outputs of a traced program."""
    known = dict(zip(jaxpr.invars, given, strict=True))
    known |= {v: _Number(c, c, None) for v, c in zip(jaxpr.constvars, consts, strict=True)}

    def look_up(variable: Any) -> _Number:
        if isinstance(variable, core.Literal):
            return _Number(variable.val, variable.val, None)
        return known[variable]

    for equation in jaxpr.eqns:
        found = _apply(equation, [look_up(variable) for variable in equation.invars])
        known |= dict(zip(equation.outvars, found, strict=True))
    return [look_up(variable) for variable in jaxpr.outvars]


def _apply(equation: Any, given: list[_Number]) -> list[_Number]:
    """One operation."""
    name, params = equation.primitive.name, equation.params
    inner = next((params[n] for n in ("jaxpr", "call_jaxpr", "fun_jaxpr") if n in params), None)
    if inner is not None and name not in _LOOPS:
        closed = inner if hasattr(inner, "consts") else core.ClosedJaxpr(inner, ())
        return _read(closed.jaxpr, closed.consts, given)

    def run(*arrays: Any) -> list[Any]:
        found = equation.primitive.bind(*arrays, **params)
        return list(found) if equation.primitive.multiple_results else [found]

    changing = [number for number in given if number.change is not None]
    values = run(*(number.value for number in given))
    if not changing:
        return [_Number(value, value, None) for value in values]
    if name in _LOOPS:
        raise ValueError(f"deeplift reads no loops, and this network has a {name}")
    starts = run(*(number.start for number in given))
    if name == "stop_gradient":  # a softmax is the same whatever is taken off: a constant then
        return [
            _Number(v := jnp.maximum(*both), v, None) for both in zip(values, starts, strict=True)
        ]
    if name == "div" and given[1].change is not None:
        given, name = [given[0], _slope("reciprocal", lambda x: 1 / x, given[1])], "mul"

        def run(*arrays: Any) -> list[Any]:
            return [arrays[0] * arrays[1]]

    if name in _PRODUCTS and all(number.change is not None for number in given):
        first, second = given
        means = [(number.value + number.start) / 2 for number in given]
        (left,), (right,) = run(first.change, means[1]), run(means[0], second.change)
        return [_Number(values[0], starts[0], left + right)]
    places = [place for place, number in enumerate(given) if number.change is not None]

    def of_changing(*arrays: Any) -> list[Any]:
        every = [number.value for number in given]
        for place, array in zip(places, arrays, strict=True):
            every[place] = array
        return run(*every)

    if name in _NEAR and len(changing) == 1:
        return [_slope(name, lambda x: of_changing(x)[0], changing[0])]
    at = tuple(number.value for number in changing)
    changes = jax.jvp(of_changing, at, tuple(number.change for number in changing))[1]
    floats = [jnp.issubdtype(jnp.result_type(value), jnp.floating) for value in values]
    return [
        _Number(v, s, change if is_float else None)
        for v, s, change, is_float in zip(values, starts, changes, floats, strict=True)
    ]


def _slope(name: str, function: Any, number: _Number) -> _Number:
    """The rescale rule: Δout / Δin, or where Δin is next to nothing the derivative halfway."""
    value, start = function(number.value), function(number.start)
    difference = number.value - number.start
    near = jnp.abs(difference) < _NEAR[name]
    halfway = (number.value + number.start) / 2
    derivative = jax.jvp(function, (halfway,), (jnp.ones_like(halfway),))[1]
    slope = jnp.where(near, derivative, (value - start) / jnp.where(near, 1, difference))
    return _Number(value, start, slope * number.change)
