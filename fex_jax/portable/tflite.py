"""TFLite files for LiteRT, of one picture at a time, by Google's litert-converter."""

import pathlib

import jax

from fex_jax import errors
from fex_jax.portable.program import OUTPUTS, Program


@jax.enable_x64(False)
def write(program: Program, path: pathlib.Path) -> None:
    """Writes a file whose only signature has the program's names, and its description as .json.

    Raises:
      ImportError: the package litert-converter is not installed.
      ValueError: texts, pictures to resize, or what the converter says against the network.
    """
    if "pixels" not in program.inputs:
        raise ValueError(f"{path}: LiteRT has no scatter, which sums words need; write .onnx")
    if program.resizes:
        raise ValueError(
            f"{path}: LiteRT's shapes are fixed, so it cannot resize; leave resize out"
        )
    errors.require("litert_converter")
    from litert_converter import converter_api_ext as converter
    from litert_converter.mlir import ir, passmanager

    exported = program.lowered(["cpu"], batch=1)
    context = ir.Context()
    converter.prepare_mlir_context(context)
    with context:
        module = ir.Module.parse(exported.mlir_module())
        converter.set_signature(module.operation, "explain", list(program.inputs), list(OUTPUTS))
        try:
            passes, config = passmanager.PassManager(), converter.ConvertToTFLConfig()
            converter.run_convert_to_tfl_passes(module, passes, config)
            written = converter.export_flatbuffer_to_bytes(module.operation)
        except Exception as error:  # the converter's own kinds
            raise ValueError(f"{path} cannot be written: {str(error)[:500]}") from error
    path.write_bytes(written)
    program.describe(path)
