"""A classifier of tables: dense layers on what `mlp.Steps` reads of the columns.

What is removed of a column becomes the mean over the training rows of what is read of it, b:

    m ⊙ x = m x + (1 − m) b,    m in [0, 1] of each column

A fixed baseline: no row has it. On disk it is a folder of config.json and model.safetensors:

    f = table_classifier.open(path="runs/idexpo/predictor")
    f(frame)  # probabilities [B, K]; and fex_jax.fit(f, frame) explains it as a black box

It is asked by NumPy alone, for JAX may not be called where a black box is asked.
Shapes: B rows, D columns, E numbers that are read of them, N features, K classes.
"""

import dataclasses
import json
import os
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from safetensors.numpy import save_file

from fex_jax import checks
from fex_jax.data.columns import Columns
from fex_jax.data.tables import Source
from fex_jax.families.rules import differences
from fex_jax.host import HostPredictor, digests, host
from fex_jax.models import Params
from fex_jax.models.mlp import Steps
from fex_jax.predictors import Model

_HIDDEN = 64, 64  # numbers of the layers between
_FORMAT = 1
_FIELDS = {
    "format": checks.one_of(_FORMAT),
    "columns": checks.several(checks.mapping(), at_least=1),
    "features": checks.several(checks.text(), at_least=2),
    "labels": checks.several(checks.text(), at_least=2),
}
_PART = 4096  # rows that are read at a time


@dataclasses.dataclass(frozen=True, eq=False)
class TableClassifier:
    """Everything of f but its parameters, which training changes."""

    columns: Columns
    features: tuple[str, ...]
    labels: tuple[str, ...]
    steps: Steps
    owner: np.ndarray  # int32 [E] the feature that each number is read of
    baseline: np.ndarray  # b, float32 [E]

    @classmethod
    def of(cls, source: Source, labels: tuple[str, ...]) -> "TableClassifier":
        """For the rows of a source.

        Raises:
          ValueError: fewer than two features that differ among the rows: nothing is to be ranked.
        """
        steps = Steps.of(
            source.values,
            [column.categories is not None for column in source.columns],
            [column.missing for column in source.columns],
        )
        of_column = np.zeros(len(source.columns), np.int32)
        for number, (_, members) in enumerate(source.groups):
            of_column[list(members)] = number
        owner = of_column[steps.columns]
        if len(np.unique(owner)) < 2:
            raise ValueError(
                "the table has fewer than two columns whose rows differ: explanations rank columns"
            )
        total = np.zeros(steps.size)
        for start in range(0, source.size, _PART):
            read = steps(steps.scaled(source.values[start : start + _PART]))
            total += read.sum(0, dtype=np.float64)
        baseline = (total / source.size).astype(np.float32)
        names = tuple(name for name, _ in source.groups)
        return cls(source.columns, names, labels, steps, owner, baseline)

    def init(self, key: jax.Array) -> Params:
        """Parameters: kernels of variance 2 / inputs (He et al., 2015), the last all but zero."""
        params: Params = {}
        last = len(_HIDDEN)
        for i, shape in enumerate(self.shapes):
            size = 1e-2 if i == last else 1.0
            scale = size * np.sqrt(2 / shape[0], dtype=np.float32)
            kernel = scale * jax.random.normal(jax.random.fold_in(key, i), shape)
            params[str(i)] = {"kernel": kernel, "bias": jnp.zeros(shape[1])}
        return params

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """Of the kernels."""
        sizes = self.steps.size, *_HIDDEN, len(self.labels)
        return list(zip(sizes, sizes[1:], strict=False))

    def keep(self, inputs: jax.Array, masks: jax.Array) -> jax.Array:
        """m ⊙ x of what is read, [B, E], and m of the features, [B, N]."""
        baseline = jnp.asarray(self.baseline)
        return baseline + masks[:, self.owner] * (inputs - baseline)

    def model(self, params: Params) -> Model:
        """f on what is read of rows, [B, E]."""
        return Model(
            predict=lambda inputs: jax.nn.softmax(logits(params, inputs)),
            mask=lambda inputs, masks: self.keep(inputs, masks.astype(inputs.dtype)),
            grid=(len(self.features),),
            embed=lambda inputs: inputs,
            logits=lambda inputs, _: logits(params, inputs),
        )

    def save(self, directory: pathlib.Path, params: Params) -> None:
        """Writes f, whole or not at all each of its two files."""
        directory.mkdir(parents=True, exist_ok=True)
        description = {
            "format": _FORMAT,
            "columns": self.columns.to_list(),
            "features": self.features,
            "labels": self.labels,
        }
        config, weights = directory / "config.json", directory / "model.safetensors"
        _part(config).write_text(json.dumps(description, indent=2) + "\n")
        arrays = {f"steps.{name}": array for name, array in self.steps._asdict().items()}
        arrays |= {"owner": self.owner, "baseline": self.baseline} | _flat(params)
        save_file({k: np.ascontiguousarray(v) for k, v in arrays.items()}, _part(weights))
        for path in config, weights:
            os.replace(_part(path), path)


def logits(params: Params, inputs: Any) -> Any:
    """Layers x W + b with ReLUs between: [B, E] → [B, K], of arrays of JAX, or all of NumPy."""
    *hidden, last = (params[name] for name in sorted(params, key=int))
    for layer in hidden:
        inputs = (inputs @ layer["kernel"] + layer["bias"]).clip(0)
    return inputs @ last["kernel"] + last["bias"]


def read(path: str | os.PathLike[str]) -> tuple[TableClassifier, Params]:
    """What `save` wrote, and its parameters.

    Raises:
      ValueError: another folder, or files that do not fit each other.
    """
    directory = pathlib.Path(path).expanduser()
    config, weights = (
        checks.file_inside(directory, name) for name in ("config.json", "model.safetensors")
    )
    if not (config.is_file() and weights.is_file()):
        raise ValueError(
            f"{directory} holds no classifier of tables: expected config.json and "
            "model.safetensors, as train.py --config=configs/idexpo_adult.py writes them"
        )
    values = checks.read_json(config)
    if set(values) != set(_FIELDS):
        raise ValueError(f"{config} is of no classifier of tables: expected {', '.join(_FIELDS)}")
    checks.require(values, _FIELDS, config)
    columns = Columns.from_list(values["columns"], config)
    arrays = checks.read_tensors(weights)
    other = ValueError(f"{weights} is of another table than {config.name} beside it")
    try:
        steps = Steps(*(arrays.pop(f"steps.{name}") for name in Steps._fields))
        owner, baseline = arrays.pop("owner"), arrays.pop("baseline")
    except KeyError:
        raise other from None
    fits = (
        steps.fits(len(columns))
        and owner.shape == baseline.shape == (steps.size,)
        and (owner.dtype, baseline.dtype) == (np.int32, np.float32)
        and set(owner) <= set(range(len(values["features"])))
    )
    if not fits:
        raise other
    features, labels = tuple(values["features"]), tuple(values["labels"])
    found = TableClassifier(columns, features, labels, steps, owner, baseline)
    expected = {k: v.shape for k, v in _flat(jax.eval_shape(found.init, jax.random.key(0))).items()}
    if problems := differences(arrays, expected):
        raise ValueError(f"{weights}: {'; '.join(problems)}")
    if broken := checks.not_finite_floats(arrays | {"baseline": baseline}):
        raise ValueError(f"{weights}: {'; '.join(broken[:5])}")
    return found, traverse_util.unflatten_dict(arrays, sep=".")


def open(*, path: str) -> HostPredictor:
    """The classifier of a folder as a black box, a function of data frames.

    So does `fex_jax.host.open("fex_jax.table_classifier:open", path=...)`.

    Raises:
      ValueError: see `read`.
    """
    f, params = read(path)

    def answer(frame: Any) -> np.ndarray:
        found = logits(params, f.steps(f.steps.scaled(f.columns.encode(frame))))
        odds = np.exp(found - found.max(-1, keepdims=True))
        return odds / odds.sum(-1, keepdims=True)

    files = [pathlib.Path(path).expanduser() / n for n in ("config.json", "model.safetensors")]
    digest = digests.of_file(files[1], digests.of_file(files[0]))
    return host(
        answer, labels=f.labels, input="table", columns=f.columns.names, name=path, digest=digest
    )


def _flat(params: Params) -> dict[str, Any]:
    return traverse_util.flatten_dict(params, sep=".")


def _part(path: pathlib.Path) -> pathlib.Path:
    return path.with_name(f"{path.name}.part")
