"""Explainers as files that run elsewhere: ONNX and TFLite without JAX, StableHLO in any XLA.

`program` says what goes in and what comes out; a module a format writes it, of `finding.FORMATS`:
write(program.Program, path).
"""

import dataclasses
import importlib
import os
import pathlib
import tempfile
from typing import Any

from fex_jax import checks, finding
from fex_jax.portable import program


def export(
    explainer: Any,
    path: str | pathlib.Path,
    *,
    length: int | None = None,
    resize: bool = False,
) -> pathlib.Path:
    """Writes an explainer as one file.

    In go `pixels`, uint8 [B, S, S, 3], or of texts `ids`, `attention` and `features`, [B, T] as
    `token_batch.TokenBatch` has them; and `classes`, int32 [B], -1 for the predicted one. Out come
    `attributions` and `logits`, [B, rows, cols] or [B, T], `targets` [B] and `probabilities`
    [B, K], as `modalities.images.Explanation` has them. B is any number; TFLite is of pictures, and
    B is 1. What has to be done before and after is described in the file, or beside it as .json:
    see `program.of`. Of a black box, which stays where it is, `probabilities` are what the
    explainer holds them to be.

    Args:
      explainer: an `explain.Explainer`.
      path: ends in .onnx, .stablehlo or .tflite.
      length: of texts, T, with CLS, SEP and padding; None: the longest that is read at a time.
      resize: `pixels` are [B, H, W, 3] of any size, and the file resizes and crops them as
        `preprocessing.Preprocessing.resize` does, with the same pixels. Of .onnx and .stablehlo.

    Returns:
      The path.

    Raises:
      ValueError: another ending, a folder that cannot be written to, a length that cannot be, or a
        network or a resizing that the format cannot hold.
      ImportError: names the package that writes the format.
      OSError: the disk is full.
    """
    path = finding.export(path)
    checks.folder(path.parent, path.name)
    explainer = dataclasses.replace(explainer, dtype="float32")  # not all formats have bfloat16
    found = program.of(explainer, length, resize=resize)
    writer = importlib.import_module(f"{__name__}.{finding.FORMATS[path.suffix]}")
    # Whole or not at all: what a full disk or a kill interrupts never has the name of an export.
    with (
        checks.room(path.parent),
        tempfile.TemporaryDirectory(prefix=".export-", dir=path.parent) as folder,
    ):
        writer.write(found, pathlib.Path(folder) / path.name)
        for file in pathlib.Path(folder).iterdir():
            os.replace(file, path.with_name(file.name))
    return path
