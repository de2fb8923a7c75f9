"""StableHLO files: `jax.export`, for CPUs and CUDA, batches of any size."""

import pathlib

import jax
import numpy as np

from fex_jax.portable import resizing
from fex_jax.portable.program import SIDES, Program

PLATFORMS = ("cpu", "cuda")


@jax.enable_x64(False)
def write(program: Program, path: pathlib.Path) -> None:
    """Writes what `jax.export.deserialize` reads, and its description beside it as .json."""
    if how := program.resize:
        program = program._replace(
            inputs=program.inputs | {"pixels": ((*SIDES, 3), np.uint8)},
            function=lambda pixels, classes, function=program.function: function(
                resizing.in_jax(pixels, how), classes
            ),
        )
    path.write_bytes(program.lowered(PLATFORMS).serialize())
    program.describe(path)
