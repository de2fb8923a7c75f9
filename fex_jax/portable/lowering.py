"""A jaxpr as an ONNX graph: the primitives that the networks of this package are made of.

A value that was broadcast keeps the shape it had, with ones, until an operator needs it whole:
ONNX's elementwise operators broadcast by themselves. Equal nodes are made once, so what a
classifier and an explainer share is computed once.
"""

import itertools
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx
from jax.extend import core
from onnx import helper, numpy_helper

from fex_jax.portable.primitives import CALLS, ELEMENTWISE, RULES, SAME

OPSET, IR_VERSION = 18, 9

Shape = tuple[Any, ...]  # of ints, and multiples of the batch


class Value(NamedTuple):
    """A tensor of the graph that broadcasts to the shape that the jaxpr says."""

    name: str
    shape: Shape


def graph(
    jaxpr: core.ClosedJaxpr, inputs: Sequence[str], outputs: Sequence[str]
) -> onnx.GraphProto:
    """The graph of a jaxpr whose inputs and outputs are arrays [batch, ...].

    Raises:
      ValueError: names a primitive, or a form of one, that has no counterpart here.
    """
    arguments = [
        Value(name, variable.aval.shape)
        for name, variable in zip(inputs, jaxpr.jaxpr.invars, strict=True)
    ]
    made = _Graph(arguments)
    found = made.run(jaxpr.jaxpr, jaxpr.consts, arguments)
    results = [
        made.whole(value, v.aval) for value, v in zip(found, jaxpr.jaxpr.outvars, strict=True)
    ]
    for name, result in zip(outputs, results, strict=True):
        made.nodes.append(helper.make_node("Identity", [result], [name]))
    described = [
        [_described(name, v.aval) for name, v in zip(names, variables, strict=True)]
        for names, variables in ((inputs, jaxpr.jaxpr.invars), (outputs, jaxpr.jaxpr.outvars))
    ]
    nodes, tensors = made.needed(outputs)
    return helper.make_graph(nodes, "explainer", *described, initializer=tensors)


def _described(name: str, aval: Any) -> onnx.ValueInfoProto:
    shape = [size if isinstance(size, int) else str(size) for size in aval.shape]
    return helper.make_tensor_value_info(name, _kind(aval.dtype), shape)


def _kind(dtype: Any) -> int:
    return helper.np_dtype_to_tensor_dtype(np.dtype(dtype))


class _Graph:
    """The nodes and tensors so far."""

    def __init__(self, inputs: Sequence[Value]):
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: dict[str, onnx.TensorProto] = {}
        self._sizes = {  # a symbol → whose axis it is the size of
            str(size): (value.name, axis)
            for value in reversed(inputs)
            for axis, size in enumerate(value.shape)
        }
        self._names = map("v{}".format, itertools.count())
        self._known: dict[Any, str] = {}  # a node or a tensor → its name
        self._arrays: list[Any] = []  # keeps what `_known` knows by its id

    def run(self, jaxpr: Any, consts: Sequence[Any], arguments: Sequence[Value]) -> list[Value]:
        """Adds a jaxpr's equations; their variables are this call's own."""
        values: dict[Any, Value] = dict(zip(jaxpr.invars, arguments, strict=True))
        values |= {v: self.constant(x) for v, x in zip(jaxpr.constvars, consts, strict=True)}

        def read(atom: Any) -> Value:
            return self.constant(atom.val) if isinstance(atom, core.Literal) else values[atom]

        for equation in jaxpr.eqns:
            found = self._equation(equation, [read(atom) for atom in equation.invars])
            values |= zip(equation.outvars, found, strict=True)
        return [read(atom) for atom in jaxpr.outvars]

    def _equation(self, equation: Any, values: list[Value]) -> Sequence[Value]:
        name, parameters = equation.primitive.name, equation.params
        if name in CALLS:
            inner = parameters[CALLS[name]]
            return self.run(getattr(inner, "jaxpr", inner), getattr(inner, "consts", ()), values)
        if name in SAME:
            return values
        if name in ELEMENTWISE:
            return [self._elementwise(ELEMENTWISE[name], values, parameters)]
        if name not in RULES:
            raise ValueError(f"the primitive {name} has no counterpart in ONNX here")
        found = RULES[name](_Call(self, equation, values))
        return found if isinstance(found, list) else [found]

    def _elementwise(self, rule: Any, values: list[Value], parameters: dict) -> Value:
        shape = _broadcast([value.shape for value in values])
        names = [value.name for value in values]
        if isinstance(rule, str):
            return Value(self.node(rule, names), shape)
        return Value(rule(self, *names, **parameters), shape)

    def node(self, operator: str, inputs: Sequence[str], **attributes: Any) -> str:
        """The name of an operator's first output."""
        return self.node_of_several(operator, inputs, 1, **attributes)[0]

    def node_of_several(
        self, operator: str, inputs: Sequence[str], count: int, **attributes: Any
    ) -> list[str]:
        """The names of an operator's outputs."""
        key = (operator, *inputs, repr(sorted(attributes.items())))
        if key not in self._known:
            name = self._known[key] = next(self._names)
            outputs = [f"{name}_{i}" for i in range(count)]
            self.nodes.append(helper.make_node(operator, list(inputs), outputs, **attributes))
        return [f"{self._known[key]}_{i}" for i in range(count)]

    def constant(self, array: Any) -> Value:
        """A tensor of an array, the same for the same one."""
        given, array = array, np.asarray(array)
        large = array.size > 64
        key = id(given) if large else (str(array.dtype), array.shape, array.tobytes())
        if key not in self._known:
            self._arrays.append(given)
            name = self._known[key] = next(self._names)
            self.tensors[name] = numpy_helper.from_array(np.ascontiguousarray(array), name)
        return Value(self._known[key], array.shape)

    def integers(self, *numbers: int) -> str:
        """A tensor of sizes, axes or places."""
        return self.constant(np.array(numbers, np.int64)).name

    def sizes(self, shape: Shape) -> str:
        """A shape as a tensor, whose parts may be multiples of an input's."""
        if all(isinstance(size, int) for size in shape):
            return self.integers(*shape)
        return self.node("Concat", [self.size(size) for size in shape], axis=0)

    def size(self, size: Any) -> str:
        """One size as a tensor [1]."""
        if isinstance(size, int):
            return self.integers(size)
        factor = re.fullmatch(r"(?:(\d+)\*)?(\w+)", str(size))
        if not factor:
            raise ValueError(f"the size {size} is no multiple of an input's")
        name, axis = self._sizes[factor[2]]
        part = self.node("Shape", [name], start=axis, end=axis + 1)
        return part if factor[1] is None else self.node("Mul", [part, self.size(int(factor[1]))])

    def branch(self, jaxpr: core.ClosedJaxpr, arguments: Sequence[Value]) -> onnx.GraphProto:
        """A jaxpr of one result as a graph inside of this one, whose nodes only it knows."""
        nodes, known = self.nodes, dict(self._known)
        self.nodes = []
        (found,), (variable,) = self.run(jaxpr.jaxpr, jaxpr.consts, arguments), jaxpr.jaxpr.outvars
        name = self.node("Identity", [self.whole(found, variable.aval)])
        made = helper.make_graph(self.nodes, name, [], [_described(name, variable.aval)])
        self.nodes, self._known = nodes, known
        return made

    def whole(self, value: Value, aval: Any) -> str:
        """The tensor in the shape that the jaxpr says."""
        if value.shape == aval.shape:
            return value.name
        return self.node("Expand", [value.name, self.sizes(aval.shape)])

    def reshape(self, name: str, shape: Shape) -> str:
        """In another shape, of which one size at most depends on the batch."""
        free = [size if isinstance(size, int) else -1 for size in shape]
        if free.count(-1) > 1:
            raise ValueError(f"the shape {shape} depends on the batch twice")
        return self.node("Reshape", [name, self.integers(*free)])

    def needed(self, outputs: Sequence[str]) -> tuple[list, list]:
        """The nodes, and the tensors, that the outputs depend on."""
        wanted, nodes = set(outputs), []
        for node in reversed(self.nodes):
            if wanted & set(node.output):
                wanted |= _read(node)
                nodes.append(node)
        return nodes[::-1], [self.tensors[name] for name in self.tensors if name in wanted]


def _read(node: onnx.NodeProto) -> set[str]:
    """The tensors that a node reads, and those that the graphs inside of it do."""
    inner = [attribute.g.node for attribute in node.attribute if attribute.HasField("g")]
    return set(node.input).union(*(_read(each) for nodes in inner for each in nodes))


def _broadcast(shapes: Sequence[Shape]) -> Shape:
    """The shape of an elementwise result; scalars have no dimensions."""
    rank = max(map(len, shapes))
    shapes = [(1,) * (rank - len(shape)) + shape for shape in shapes]
    return tuple(
        next((s for s in sizes if not (isinstance(s, int) and s == 1)), 1)
        for sizes in zip(*shapes, strict=True)
    )


class _Call(NamedTuple):
    """An equation with its operands in the graph."""

    graph: _Graph
    equation: Any
    values: list[Value]

    def operand(self, index: int = 0) -> str:
        """An operand, whole."""
        return self.graph.whole(self.values[index], self.equation.invars[index].aval)

    def shape(self, index: int = 0) -> Shape:
        """An operand's shape."""
        return self.equation.invars[index].aval.shape

    def result(self, name: str, index: int = 0) -> Value:
        """A tensor as one of the equation's results."""
        return Value(name, self.equation.outvars[index].aval.shape)

    def __getitem__(self, parameter: str) -> Any:
        return self.equation.params[parameter]
