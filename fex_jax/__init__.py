"""fex-jax: fast explanations of black-box classifiers, learned by policy gradients.

explainer = fex_jax.fit("google/vit-base-patch16-224", "folder/of/images")
explainer = fex_jax.load("runs/mine")
result = explainer(images, top_k=2)
result = fex_jax.attribute("kernel_shap", classifier, images, num_queries=500)
table = fex_jax.evaluate(["fex", "rise"], explainer, images)
fex_jax.explain_files(explainer, "folder/of/images", "folder/of/parquet")
"""

import importlib
import io
import os
import sys
from typing import TYPE_CHECKING, Any

from fex_jax import errors

if TYPE_CHECKING:
    from fex_jax import host
    from fex_jax.batch import explain_files
    from fex_jax.evaluation import evaluate
    from fex_jax.evaluation.one_method import attribute
    from fex_jax.explain import load
    from fex_jax.training.fit import fit

# TensorFlow, which only reads data here, prints a screenful when it is imported.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

# An arrow or an accent that a terminal or a log cannot show must not end a run.
for _stream in (sys.stdout, sys.stderr):
    if isinstance(_stream, io.TextIOWrapper) and not _stream.encoding.lower().startswith("utf"):
        _stream.reconfigure(errors="replace")

# Where the public functions are. They are imported when they are used: JAX takes seconds.
_PUBLIC = {
    "attribute": "fex_jax.evaluation.one_method",
    "evaluate": "fex_jax.evaluation",
    "explain_files": "fex_jax.batch",
    "fit": "fex_jax.training.fit",
    "load": "fex_jax.explain",
}

__all__ = ["attribute", "evaluate", "explain_files", "fit", "host", "load"]


def __getattr__(name: str) -> Any:
    if name == "host":  # a package that is also a function
        return importlib.import_module("fex_jax.host")
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    except ModuleNotFoundError as error:
        raise ImportError(f"fex_jax.{name}: {errors.missing(error)}") from error


def __dir__() -> list[str]:
    return [*globals(), *_PUBLIC, "host"]
