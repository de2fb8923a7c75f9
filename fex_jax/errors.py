"""What is said in a line where something is missing or fails; importing it takes no time."""

import contextlib
import importlib
import sys
from collections.abc import Iterator

# What brings a package that explaining does without, by the name it is imported by.
_BROUGHT_BY = {
    "absl": "fex-jax[train]",
    "anyio": "fex-jax[serve]",
    "ai_edge_litert": "fex-jax[tflite]",
    "distrax": "fex-jax[train]",
    "h5py": "fex-jax[train]",
    "h11": "fex-jax[serve]",
    "importlib_resources": "fex-jax[train]",
    "jinja2": "fex-jax[plots]",
    "joblib": "fex-jax[estimator]",
    "keras": "fex-jax[keras]",
    "kubernetes": "jax[k8s]",
    "litert_converter": "litert-converter",
    "matplotlib": "fex-jax[plots]",
    "ml_collections": "fex-jax[train]",
    "onnx": "fex-jax[export]",
    "onnxruntime": "fex-jax[onnx]",
    "optax": "fex-jax[train]",
    "pandas": "fex-jax[tables]",
    "pyarrow": "fex-jax[batch]",
    "ray": "fex-jax[ray]",
    "shap": "shap",
    "skimage": "fex-jax[superpixels]",
    "sklearn": "fex-jax[estimator]",
    "starlette": "fex-jax[serve]",
    "tensorboard": "fex-jax[train]",
    "tensorflow": "fex-jax[train]",
    "tensorflow_datasets": "fex-jax[train]",
    "torch": "fex-jax[torch]",
    "transformers": "fex-jax[torch]",
    "uvicorn": "fex-jax[serve]",
}


class HostError(RuntimeError):
    """A black box that cannot be asked, or whose answer cannot be used; says why in a sentence."""


def missing(error: ModuleNotFoundError) -> str:
    """Which package an import did not find, and what installs it."""
    name = (error.name or "").partition(".")[0]
    if name not in _BROUGHT_BY:
        return str(error)
    return f"this takes {name}, which is not installed: pip install '{_BROUGHT_BY[name]}'"


def require(*packages: str) -> None:
    """Imports packages that explaining does without, before they are needed.

    Raises:
      ImportError: says of the first that is not there what installs it.
    """
    for name in packages:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            raise ImportError(missing(error)) from error


@contextlib.contextmanager
def in_a_line() -> Iterator[None]:
    """Ends a script with a line where what is within it cannot go on; Ctrl-C without one."""
    try:
        yield
    except ModuleNotFoundError as error:
        sys.exit(f"error: {missing(error)}")
    except (ValueError, OSError, ImportError, FloatingPointError, HostError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
