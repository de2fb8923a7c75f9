"""StableHLO files: `jax.export`, for CPUs and CUDA, batches of any size."""

import pathlib

import jax

from fex_jax.portable.program import Program

PLATFORMS = ("cpu", "cuda")


@jax.enable_x64(False)
def write(program: Program, path: pathlib.Path) -> None:
    """Writes what `jax.export.deserialize` reads, and its description beside it as .json."""
    path.write_bytes(program.lowered(PLATFORMS).serialize())
    program.describe(path)
