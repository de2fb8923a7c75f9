"""ONNX's counterparts of JAX's primitives, by their names; `lowering` calls them."""

import string
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from onnx import helper

# Primitives that stand for a jaxpr, and which of their parameters holds it.
CALLS = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
}
# Primitives that change no value.
SAME = frozenset({"stop_gradient", "copy", "copy_p", "optimization_barrier"})

# The name of an operator, or rule(graph, *names of operands, **parameters) → the result's name.
ELEMENTWISE: dict[str, str | Callable[..., str]] = {
    "add": "Add",
    "sub": "Sub",
    "mul": "Mul",
    "div": "Div",
    "max": "Max",
    "min": "Min",
    "neg": "Neg",
    "abs": "Abs",
    "sign": "Sign",
    "exp": "Exp",
    "log": "Log",
    "sqrt": "Sqrt",
    "tanh": "Tanh",
    "logistic": "Sigmoid",
    "erf": "Erf",
    "floor": "Floor",
    "round": "Round",  # half to even, as jnp.round
    "ceil": "Ceil",
    "eq": "Equal",
    "lt": "Less",
    "le": "LessOrEqual",
    "gt": "Greater",
    "ge": "GreaterOrEqual",
    "and": "And",  # of bools
    "or": "Or",
    "not": "Not",
    "square": lambda graph, x, **_: graph.node("Mul", [x, x]),
    "rsqrt": lambda graph, x, **_: graph.node("Reciprocal", [graph.node("Sqrt", [x])]),
    "ne": lambda graph, x, y, **_: graph.node("Not", [graph.node("Equal", [x, y])]),
    "log1p": lambda graph, x, **_: graph.node("Log", [graph.node("Add", [x, _one(graph)])]),
    "erfc": lambda graph, x, **_: graph.node("Sub", [_one(graph), graph.node("Erf", [x])]),
    "clamp": lambda graph, low, x, high, **_: graph.node(
        "Min", [graph.node("Max", [x, low]), high]
    ),
    "select_n": lambda graph, which, no, yes, **_: graph.node("Where", [which, yes, no]),
    "integer_pow": lambda graph, x, y, **_: graph.node(
        "Pow", [x, graph.constant(np.float32(y)).name]
    ),
    "convert_element_type": lambda graph, x, new_dtype, **_: _cast(graph, x, new_dtype),
}


def _one(graph: Any) -> str:
    return graph.constant(np.float32(1)).name


def _cast(graph: Any, name: str, dtype: Any) -> str:
    return graph.node("Cast", [name], to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))


# --- Shapes: what was broadcast stays as small as it is ---------------------------------------


def _broadcast_in_dim(call: Any) -> Any:
    value = call.values[0]
    shape = [1] * len(call["shape"])
    for size, place in zip(value.shape, call["broadcast_dimensions"], strict=True):
        shape[place] = size
    return _as(call, value, tuple(shape))


def _squeeze(call: Any) -> Any:
    value, dropped = call.values[0], call["dimensions"]
    return _as(call, value, tuple(s for i, s in enumerate(value.shape) if i not in dropped))


def _as(call: Any, value: Any, shape: tuple) -> Any:
    if shape == value.shape:
        return value
    return value._replace(name=call.graph.reshape(value.name, shape), shape=shape)


def _transpose(call: Any) -> Any:
    value, order = call.values[0], call["permutation"]
    name = call.graph.node("Transpose", [value.name], perm=list(order))
    return value._replace(name=name, shape=tuple(value.shape[i] for i in order))


def _iota(call: Any) -> Any:
    place, shape = call["dimension"], call["shape"]
    ones = [1] * len(shape)
    ones[place] = -1
    if isinstance(shape[place], int):
        return call.graph.constant(np.arange(shape[place], dtype=call["dtype"]).reshape(ones))
    _supported(call, len(shape) == 1)
    first, step = (call.graph.constant(np.int64(n)).name for n in (0, 1))
    end = call.graph.reshape(call.graph.size(*shape), ())
    numbers = call.graph.node("Range", [first, end, step])
    return call.result(_cast(call.graph, numbers, call["dtype"]))


def _dim_as_value(call: Any) -> Any:
    size = call.graph.reshape(call.graph.size(call["dim"]), ())
    return call.result(_cast(call.graph, size, call.equation.outvars[0].aval.dtype))


def _reshape(call: Any) -> Any:
    shape = call.equation.outvars[0].aval.shape
    return call.result(call.graph.reshape(call.operand(), shape))


# --- Parts ------------------------------------------------------------------------------------


def _concatenate(call: Any) -> Any:
    parts = [call.operand(i) for i in range(len(call.values))]
    return call.result(call.graph.node("Concat", parts, axis=call["dimension"]))


def _split(call: Any) -> Any:
    sizes = call["sizes"]
    inputs = [call.operand(), call.graph.integers(*sizes)]
    names = call.graph.node_of_several("Split", inputs, len(sizes), axis=call["axis"])
    return [call.result(name, i) for i, name in enumerate(names)]


def _slice(call: Any) -> Any:
    starts, ends, shape = call["start_indices"], call["limit_indices"], call.shape()
    steps = call["strides"] or (1,) * len(shape)
    axes = [i for i in range(len(shape)) if (starts[i], ends[i], steps[i]) != (0, shape[i], 1)]
    chosen = [call.graph.integers(*(x[i] for i in axes)) for x in (starts, ends)]
    chosen += [call.graph.integers(*axes), call.graph.integers(*(steps[i] for i in axes))]
    return call.result(call.graph.node("Slice", [call.operand(), *chosen]))


def _pad(call: Any) -> Any:
    low, high, inner = zip(*call["padding_config"], strict=True)
    _supported(call, not any(inner) and min(*low, *high) >= 0)
    inputs = [call.operand(), call.graph.integers(*low, *high), call.operand(1)]
    return call.result(call.graph.node("Pad", inputs))


def _gather(call: Any) -> Any:
    """A window, rows by their numbers, or an entry of each of a batch's rows."""
    graph, numbers, shape = call.graph, call["dimension_numbers"], call.shape()
    places = call.shape(1)
    axes, dropped = numbers.start_index_map, numbers.collapsed_slice_dims
    if len(places) == 1 and not numbers.operand_batching_dims:
        sizes = np.array([call["slice_sizes"][axis] for axis in axes], np.int32)
        start = call.operand(1)
        end = graph.node("Add", [start, graph.constant(sizes).name])
        ends = [start, end, graph.constant(np.array(axes, np.int32)).name]
        name = graph.node("Slice", [call.operand(), *ends])
        return _reshaped(call, name) if dropped else call.result(name)
    where = graph.reshape(call.operand(1), places[:-1])
    if not numbers.operand_batching_dims:
        (axis,), rank = axes, len(places) - 1
        kept = [*range(axis), *range(axis + rank, rank + len(shape) - 1)]
        _supported(call, dropped == (axis,) and list(numbers.offset_dims) == kept)
        return call.result(graph.node("Gather", [call.operand(), where], axis=axis))
    _supported(call, len(shape) == 2 and axes == dropped == (1,) and not numbers.offset_dims)
    count = int(np.prod(places[1:-1]))
    where = graph.reshape(where, (places[0], count))
    return _reshaped(call, graph.node("GatherElements", [call.operand(), where], axis=1))


def _scatter_add(call: Any) -> Any:
    """Sums of a batch's rows by their numbers; those past the last are dropped."""
    graph, numbers, shape = call.graph, call["dimension_numbers"], call.shape()
    _supported(call, numbers.operand_batching_dims == (0,) and numbers.inserted_window_dims == (1,))
    updates = call.shape(2)
    where = graph.node("Min", [call.operand(1), graph.constant(np.int32(shape[1])).name])
    where = graph.reshape(where, (*call.shape(1)[:2], *(1,) * (len(shape) - 2)))
    where = graph.node("Expand", [where, graph.sizes(updates)])
    pads = [0] * 2 * len(shape)
    pads[len(shape) + 1] = 1
    longer = graph.node("Pad", [call.operand(), graph.integers(*pads)])
    summed = graph.node(
        "ScatterElements", [longer, where, call.operand(2)], axis=1, reduction="add"
    )
    ends = [graph.integers(0), graph.integers(shape[1]), graph.integers(1)]
    return call.result(graph.node("Slice", [summed, *ends]))


# --- Sums, orders, products -------------------------------------------------------------------


def _reduce(operator: str) -> Callable[[Any], Any]:
    def rule(call: Any) -> Any:
        inputs = [call.operand(), call.graph.integers(*call["axes"])]
        return call.result(call.graph.node(operator, inputs, keepdims=0))

    return rule


def _argmax(call: Any) -> Any:
    (axis,) = call["axes"]
    found = call.graph.node("ArgMax", [call.operand()], axis=axis, keepdims=0)
    return call.result(_cast(call.graph, found, call["index_dtype"]))


def _cumsum(call: Any) -> Any:
    axis = call.graph.constant(np.int64(call["axis"])).name
    inputs = [call.operand(), axis]
    return call.result(call.graph.node("CumSum", inputs, reverse=int(call["reverse"])))


def _sort(call: Any) -> Any:
    """By the first operand; equal entries keep their order."""
    axis = call["dimension"]
    _supported(call, call["num_keys"] == 1)
    inputs = [call.operand(), call.graph.integers(call.shape()[axis])]
    first, order = call.graph.node_of_several("TopK", inputs, 2, axis=axis, largest=0)
    others = range(1, len(call.values))
    names = [call.graph.node("GatherElements", [call.operand(i), order], axis=axis) for i in others]
    return [call.result(name, i) for i, name in enumerate([first, *names])]


def _dot_general(call: Any) -> Any:
    """MatMul where rows and columns are in their places, Einsum elsewhere."""
    ((left, right), (batch, other)) = call["dimension_numbers"]
    ranks = len(call.shape()), len(call.shape(1))
    operands = [call.operand(), call.operand(1)]
    leading = tuple(range(len(batch)))
    in_place = tuple(batch) == tuple(other) == leading and tuple(left) == (ranks[0] - 1,)
    if in_place and ranks[1] == len(batch) + 2 and (len(batch) == 0 or ranks[0] == ranks[1]):
        if tuple(right) == (ranks[1] - 1,):
            order = [*leading, ranks[1] - 1, ranks[1] - 2]
            operands[1] = call.graph.node("Transpose", [operands[1]], perm=order)
        return call.result(call.graph.node("MatMul", operands))
    letters = iter(string.ascii_lowercase)
    first = [next(letters) for _ in range(ranks[0])]
    second = [next(letters) for _ in range(ranks[1])]
    for mine, theirs in zip((*batch, *left), (*other, *right), strict=True):
        second[theirs] = first[mine]
    free = [x for i, x in enumerate(first) if i not in (*batch, *left)]
    free += [x for i, x in enumerate(second) if i not in (*other, *right)]
    result = [*(first[i] for i in batch), *free]
    equation = f"{''.join(first)},{''.join(second)}->{''.join(result)}"
    return call.result(call.graph.node("Einsum", operands, equation=equation))


# --- Convolutions and pools: ONNX has channels first ------------------------------------------


def _convolution(call: Any) -> Any:
    graph, numbers = call.graph, call["dimension_numbers"]
    _supported(call, call["batch_group_count"] == 1 and set(call["lhs_dilation"]) == {1})
    images = graph.node("Transpose", [call.operand()], perm=list(numbers.lhs_spec))
    kernel = graph.node("Transpose", [call.operand(1)], perm=list(numbers.rhs_spec))
    found = graph.node(
        "Conv",
        [images, kernel],
        strides=list(call["window_strides"]),
        pads=_margins(call["padding"]),
        dilations=list(call["rhs_dilation"]),
        group=call["feature_group_count"],
    )
    back = np.argsort(numbers.out_spec).tolist()
    return call.result(graph.node("Transpose", [found], perm=back))


def _pool(operator: str, **attributes: Any) -> Callable[[Any], Any]:
    def rule(call: Any) -> Any:
        graph, window = call.graph, call["window_dimensions"]
        _supported(call, len(window) == 4 and window[0] == window[3] == 1)
        images = graph.node("Transpose", [call.operand()], perm=[0, 3, 1, 2])
        found = graph.node(
            operator,
            [images],
            kernel_shape=list(window[1:3]),
            strides=list(call["window_strides"][1:3]),
            pads=_margins(call["padding"][1:3]),
            **attributes,
        )
        if operator == "AveragePool":
            size = graph.constant(np.float32(window[1] * window[2])).name
            found = graph.node("Mul", [found, size])
        return call.result(graph.node("Transpose", [found], perm=[0, 2, 3, 1]))

    return rule


def _margins(padding: Sequence[tuple[int, int]]) -> list[int]:
    return [low for low, _ in padding] + [high for _, high in padding]


def _cond(call: Any) -> Any:
    """Of two branches."""
    graph, branches = call.graph, call["branches"]
    _supported(call, len(branches) == 2 and len(call.equation.outvars) == 1)
    no, yes = (graph.branch(branch, call.values[1:]) for branch in branches)
    chosen = _cast(graph, call.operand(), np.bool_)
    return call.result(graph.node("If", [chosen], then_branch=yes, else_branch=no))


def _reshaped(call: Any, name: str) -> Any:
    return call.result(call.graph.reshape(name, call.equation.outvars[0].aval.shape))


def _supported(call: Any, is_supported: bool) -> None:
    if not is_supported:
        raise ValueError(f"this form has no counterpart in ONNX here: {call.equation}")


# rule(an equation with its operands in the graph) → its result, or a list of several.
RULES: dict[str, Callable[[Any], Any]] = {
    "argmax": _argmax,
    "broadcast_in_dim": _broadcast_in_dim,
    "concatenate": _concatenate,
    "cond": _cond,
    "conv_general_dilated": _convolution,
    "cumsum": _cumsum,
    "dim_as_value": _dim_as_value,
    "dot_general": _dot_general,
    "gather": _gather,
    "iota": _iota,
    "pad": _pad,
    "reduce_max": _reduce("ReduceMax"),
    "reduce_min": _reduce("ReduceMin"),
    "reduce_sum": _reduce("ReduceSum"),
    "reduce_window_max": _pool("MaxPool"),
    "reduce_window_sum": _pool("AveragePool", count_include_pad=1),
    "reshape": _reshape,
    "scatter-add": _scatter_add,
    "slice": _slice,
    "sort": _sort,
    "split": _split,
    "squeeze": _squeeze,
    "transpose": _transpose,
}
