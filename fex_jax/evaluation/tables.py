"""What an explainer of tables is worth, and its gallery.

Shapley values are compared with true ones. What does not add up is measured by what becomes of f's
answer while columns are removed.
"""

import functools
import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from fex_jax import explain, feeding, metrics, page, shapley
from fex_jax.data import frames
from fex_jax.evaluation import run, tasks, true_values
from fex_jax.evaluation.methods import Given, choose
from fex_jax.evaluation.run import Method
from fex_jax.host.black_box import BlackBox
from fex_jax.host.model import plain_errors
from fex_jax.modalities import tables as modality
from fex_jax.table_explanation import TableExplanation
from fex_jax.targets import class_numbers

_ROUNDING = 1e-3  # of what f says, in its standard deviations
_REMOVED = 64  # rows whose columns are removed, at most
_SHOWN = 6  # rows of the gallery
_BEESWARM = 500  # rows of its beeswarm


class Truth(NamedTuple):
    """Attributions beside the Shapley values that they should be.

    Where these are sampled, their variance is subtracted from that of the values and of the errors.
    """

    rows: int  # 0: nothing was compared
    features: int
    exact: bool  # by enumeration or TreeSHAP; else sampled
    correlation: float
    error: float  # root of the mean squared error, in ranges of the true values
    quantity: str
    trees: bool = False  # by TreeSHAP

    @property
    def brief(self) -> str:
        """In a few words."""
        return f"r = {self.correlation:.3f}, error {self.error:.1%}"

    @property
    def facts(self) -> dict[str, str]:
        """What a reader must know."""
        how = "TreeSHAP's" if self.trees else "exact" if self.exact else "sampled"
        return {
            "Correlation with true values": f"{self.correlation:.3f}",
            "Error, of their range": f"{self.error:.1%}",
            "True values": f"{how}, {self.rows} rows",
        }

    def __str__(self) -> str:
        """In words."""
        if not self.rows:
            return (
                f"The values are not compared with true ones: there are no held-out rows, or "
                f"{self.features} features take too many queries.\nThey are {self.quantity}."
            )
        sampled = "ones sampled in random orders of the features"
        how = "TreeSHAP's" if self.trees else "exact ones" if self.exact else sampled
        return (
            f"On {self.rows} held-out rows, beside {how}: {self.brief} of their range.\n"
            f"They are {self.quantity}."
        )


class Removal(NamedTuple):
    """What f says in the mean of the explained class, in its unit, while columns are removed.

    Areas under the curves of `metrics.areas`, from the whole row to the background.
    """

    rows: int
    features: int
    deletion: float  # the column with the largest value first; lower is better
    insertion: float  # with the smallest first, read from its end; higher is better
    quantity: str

    @property
    def brief(self) -> str:
        """In a few words."""
        return f"deletion {self.deletion:.3f}, insertion {self.insertion:.3f}"

    @property
    def facts(self) -> dict[str, str]:
        """What a reader must know."""
        return {
            "Deletion, lower is better": f"{self.deletion:.3f}",
            "Insertion, higher is better": f"{self.insertion:.3f}",
            "Columns removed of": f"{self.rows} rows",
        }

    def __str__(self) -> str:
        """In words."""
        return f"On {self.rows} held-out rows: {self.brief}.\nThey are {self.quantity}."


def measure(
    explainer: explain.Explainer,
    values: np.ndarray,
    seconds: float = 20.0,
    queries: int = shapley.MOST_ASKED,
) -> Truth:
    """An explainer's attributions of rows [B, D] beside true ones, for about so many seconds.

    Of up to `shapley.MOST_EXACT` features the truth is exact, by enumeration; of more it is
    TreeSHAP's where `tree_shap` knows it, and else sampled. Where answers are kept, it is of
    few rows, and exact or sampled within so many queries, however long they take.

    Raises:
      HostError: f failed, or is not at hand.
    """
    given = explainer(explainer.predictor.reads.columns.decode(values))
    true, noise, trees = true_values.of_rows(
        explainer, values, given.targets, seconds, queries - len(values)
    )
    return compare(given.attributions.to_numpy()[: len(true)], true, noise, given.quantity, trees)


def attribute(
    method: Method,
    box: BlackBox,
    table: Any,
    targets: Any = None,
    batch_size: int = modality.BATCH_SIZE,
    seed: int = 0,
) -> TableExplanation:
    """The values that a method of `run.of_function` gives the rows of a table, in the box's unit.

    Where the method's do not add up to what f says, there are no base values.

    Raises:
      ValueError: names the first column, row or class that cannot be used, and why.
      HostError: f failed.
    """
    reads = box.reads
    frame = frames.as_frame(table, reads.columns.names)
    values = reads.columns.encode(frame)
    predict = tasks.make_prediction(box.bind, box.params)
    size = max(1, min(batch_size, len(values)))
    said, found = np.zeros((len(values), len(box.labels))), np.zeros((0, len(reads.features)))
    with plain_errors():
        if len(values):
            said = tasks.in_batches(predict, reads.batch(values), size, "predictions")
        said = reads.said(said)
        classes = modality.default_classes(reads, said)
        if targets is not None:
            classes = class_numbers(targets, len(values), box.labels, "rows")
        if len(values):
            grid, none = (len(reads.features),), np.zeros(len(values), int)
            task = tasks.Task(
                reads.batch(values), grid, None, box.labels, None, None, classes, none, classes
            )
            found = run.attribute(method, None, task, size, seed).targets
    found = found * reads.scale[classes][:, None]
    change = (said - reads.base)[np.arange(len(classes)), classes]
    gaps = np.abs(found.sum(1) - change) / reads.scale[classes]
    given = found, classes, said, box.labels, f"{method.name} of {reads.quantity}"
    return TableExplanation.of(frame, reads, *given, adds_up=bool((gaps < _ROUNDING).all()))


def compare(
    given: np.ndarray, true: np.ndarray, noise: np.ndarray, quantity: str, trees: bool = False
) -> Truth:
    """Attributions beside true values [B, N], which are known up to a variance, or by `trees`."""
    if not len(true):
        return Truth(0, given.shape[1], False, 0.0, 0.0, quantity)
    x, y = given.ravel(), true.ravel()
    spread = max(y.var() - noise.mean(), 1e-30)
    covariance = np.mean((x - x.mean()) * (y - y.mean()))
    squares = max(np.mean((x - y) ** 2) - noise.mean(), 0.0)
    return Truth(
        rows=len(given),
        features=given.shape[1],
        exact=not noise.any(),
        correlation=float(min(covariance / max(x.std() * np.sqrt(spread), 1e-30), 1.0)),
        error=float(np.sqrt(squares) / max(np.ptp(y), 1e-30)),
        quantity=quantity,
        trees=trees,
    )


def removing(box: BlackBox, values: np.ndarray, targets: np.ndarray) -> Callable[..., Removal]:
    """removal(attributions [B, N] of the rows' classes [B], quantity) → what they are worth."""
    reads = box.reads

    @jax.jit
    def areas(batch: Any, scores: jax.Array, classes: jax.Array) -> dict:
        model, inputs = box.bind({}, batch)

        def predict(asked: Any) -> jax.Array:
            return reads.said(model.predict(asked))

        given = inputs, scores, classes, classes, metrics.FEX, model.features(inputs), "value"
        return metrics.areas(metrics.perturbation_curves(predict, model.mask, *given), metrics.FEX)

    def removal(attributions: np.ndarray, quantity: str) -> Removal:
        rows = reads.batch(values), attributions.astype(np.float32), targets
        with jax.enable_x64(False), plain_errors():
            found = tasks.in_batches(
                lambda some: areas(*some), rows, len(values), "columns removed"
            )
        means = {name: float(found[name].mean()) for name in ("deletion", "insertion")}
        count, size = attributions.shape
        return Removal(count, size, quantity=quantity, **means)

    return removal


def evaluate(
    explainer: explain.Explainer,
    config: Any,
    directory: pathlib.Path,
    given: Sequence[Given] = (),
    seconds: float = 20.0,
) -> str:
    """Explains the evaluation split that a config of configs/ names; writes results and a gallery.

    Args:
      given: methods that are measured on the same rows.
      seconds: that computing true values may take, about.

    Returns:
      How near Shapley values are to true ones, or what other attributions are worth where columns
      are removed; and where the gallery is.

    Raises:
      ValueError: a method that there is not, or data that do not fit.
      HostError: f failed, or is not at hand.
    """
    box = explainer.predictor
    options = config.attributions.to_dict()
    rows = choose(given, (), box.bind, box, options)
    source: Any = feeding.open_split(box, config)  # with `values`
    values = source.values[: config.eval.num_images or None]
    if not len(values):
        raise ValueError(f"the split {config.data.eval_split} of {config.data.name} has no rows")
    frame = box.reads.columns.decode(values)
    own = explainer(frame)
    if own.base_values is None:
        count = min(len(values), _REMOVED)
        worth: Any = removing(box, values[:count], own.targets[:count])
        title = "FEX's λ" if box.reads.plain else "FEX's contrasts"
    else:
        true, noise, trees = true_values.of_rows(explainer, values, own.targets, seconds)
        count, title = len(true), "Shapley values"
        worth = functools.partial(compare, true=true, noise=noise, trees=trees)
    found = worth(own.attributions.to_numpy()[:count], quantity=own.quantity)
    results = {explainer.name: found}
    for method in tqdm(rows if count else (), unit="method", leave=False):
        other = attribute(method, box, frame[:count], own.targets[:count], seed=config.seed)
        x = other.attributions.to_numpy()
        results[method.name] = worth(x, quantity=other.quantity)
    path = write(directory, own, f"{title}, {config.data.name}", found)
    content = {name: one._asdict() for name, one in results.items()}
    (directory / "results.json").write_text(json.dumps(content, indent=2) + "\n")
    lines = [f"  {name:20} {one.brief}" for name, one in results.items()]
    beside = ["Beside other methods, of these rows:", *lines] if len(lines) > 1 else []
    return "\n".join([str(found), *beside, f"gallery: {path.resolve()}"])


def write(
    directory: pathlib.Path, explanation: TableExplanation, title: str, found: Truth | Removal
) -> pathlib.Path:
    """gallery.html, a page that needs no other file: what the values are worth, and pictures."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "gallery.html"
    facts = {
        "Rows": f"{len(explanation):,}",
        "Features": str(found.features),
        **found.facts,
    }
    page.table_gallery(path, explanation, title, facts, _BEESWARM, _SHOWN)
    return path
