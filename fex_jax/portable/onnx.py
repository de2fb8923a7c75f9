"""ONNX files: what a program's jaxpr says in ONNX's own operators, see `lowering`."""

import json
import pathlib

import jax

from fex_jax import errors
from fex_jax.portable.program import OUTPUTS, Program

_LARGEST = 2**31  # bytes, of a file of protocol buffers


@jax.enable_x64(False)
def write(program: Program, path: pathlib.Path) -> None:
    """Writes a file for any runtime of operator set 18; `description` is in its metadata.

    Raises:
      ImportError: the package onnx is not installed.
      ValueError: more weights than one file holds.
    """
    errors.require("onnx")
    import onnx

    from fex_jax.portable import lowering

    jaxpr, _ = program.trace()
    graph = lowering.graph(jaxpr, list(program.inputs), OUTPUTS)
    size = sum(len(tensor.raw_data) for tensor in graph.initializer)
    if size >= _LARGEST:
        raise ValueError(f"{path} would hold {size:,} bytes of weights; an ONNX file holds 2 GiB")
    model = onnx.helper.make_model(
        graph,
        producer_name="fex_jax",
        ir_version=lowering.IR_VERSION,
        opset_imports=[onnx.helper.make_opsetid("", lowering.OPSET)],
    )
    described = {
        key: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for key, value in program.description.items()
    }
    onnx.helper.set_model_props(model, described)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
