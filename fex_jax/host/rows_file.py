"""The file of the arrays by which tables are read: rows.safetensors."""

import pathlib

import numpy as np
from safetensors.numpy import save_file

from fex_jax import checks
from fex_jax.models.mlp import STEP_TYPES, Steps
from fex_jax.surrogate import Surrogate

_FILE, _LEARNED = "rows.safetensors", "surrogate."
_OWN = {"background": np.float64, "answers": np.float64, "scale": np.float64}
_STEPS = dict(zip(Steps._fields, STEP_TYPES, strict=True))


def save(
    directory: pathlib.Path,
    own: dict[str, np.ndarray],
    steps: Steps,
    surrogate: Surrogate | None,
) -> None:
    """Writes background, answers and scale, and all arrays of the others."""
    learned = surrogate.arrays if surrogate else {}
    arrays = own | steps._asdict() | {_LEARNED + name: array for name, array in learned.items()}
    save_file({k: np.ascontiguousarray(v) for k, v in arrays.items()}, directory / _FILE)


def read(
    directory: pathlib.Path, owner: np.ndarray, classes: int
) -> tuple[dict[str, np.ndarray], Steps, Surrogate | None]:
    """What `save` wrote, of a table whose columns are of these features [D].

    Raises:
      ValueError: arrays that do not fit them, or each other.
    """
    path = checks.file_inside(directory, _FILE)
    arrays = checks.read_tensors(path)
    learned = {name: arrays.pop(name) for name in list(arrays) if name.startswith(_LEARNED)}
    if {name: array.dtype for name, array in arrays.items()} != _OWN | _STEPS:
        raise ValueError(f"{path} holds other arrays than {', '.join(_OWN | _STEPS)}")
    steps = Steps(*(arrays.pop(name) for name in Steps._fields))
    background, scale = arrays["background"], arrays["scale"]
    count, rows = len(owner), len(background)
    fit = (
        background.shape == (rows, count)
        and arrays["answers"].shape == (rows, classes)
        and scale.shape == (classes,)
        and bool((scale > 0).all())
        and steps.fits(count)
        and rows > 0
    )
    surrogate = None
    if fit and learned:
        sizes = steps.size, int(owner.max()) + 1, classes
        found = {name.removeprefix(_LEARNED): array for name, array in learned.items()}
        surrogate = Surrogate(found, owner[steps.columns], *sizes[1:])
        fit = {name: array.shape for name, array in found.items()} == Surrogate.shapes(*sizes)
    if not fit:
        raise ValueError(f"{path} is of another table than the columns beside it")
    return arrays, steps, surrogate
