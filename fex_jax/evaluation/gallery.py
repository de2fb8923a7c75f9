"""Pictures of a comparison: curves, maps side by side, and a gallery of the first inputs."""

import pathlib
from typing import TYPE_CHECKING

import numpy as np

from fex_jax import metrics, page, plotting, report
from fex_jax.evaluation import tasks

if TYPE_CHECKING:
    from fex_jax.evaluation.table import Table

_ITEMS = 16


def write(path: pathlib.Path, table: "Table", name: str) -> None:
    """gallery.html: the first inputs with what explains their two most probable classes."""
    items = tasks.of(table.predictor).gallery_items
    on = f" on {name}" if name else ""
    page.gallery(
        path,
        items(table.explainers[0], table.task, table.results, _ITEMS),
        _fractions(table.protocol),
        f"{next(iter(table.results)).upper()}{on}",
        table.facts,
        report.quality(table.methods),
        "Value" if table.predictor.output == "value" else "Probability",
    )


def draw(directory: pathlib.Path, table: "Table", name: str) -> None:
    """curves.png, but for values, and probabilities.png; and what the modality has to draw.

    Of a black box that was probed, removal.png.
    """
    fractions = _fractions(table.protocol)
    drawn = [
        ("curves", "correct", "Unchanged predictions"),
        ("probabilities", "probability", "Probability of the explained class"),
    ]
    if table.predictor.output == "value":
        drawn = [("probabilities", "probability", "Explained value")]
    for file, field, ylabel in drawn:
        means = {
            method: {
                direction: np.mean([found[f"{direction}_{field}"].mean(0) for _, found in runs], 0)
                for direction in fractions
            }
            for method, runs in table.results.items()
        }
        plotting.curves(directory / f"{file}.png", means, fractions, name, ylabel)
    if draw_own := getattr(tasks.of(table.predictor), "draw", None):
        draw_own(directory, table, name)
    if probe := getattr(table.predictor, "probe", None):
        plotting.survival(directory / "removal.png", probe, str(table.predictor.removal))


def write_inputs(path: pathlib.Path, predictor: tasks.Predictor, task: tasks.Task) -> None:
    """What a method from elsewhere needs: inputs, their features, and classes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    module = tasks.of(predictor)
    inputs = module.written(task) if hasattr(module, "written") else {"inputs": task.inputs}
    np.savez(path, targets=task.targets, **inputs)


def _fractions(protocol: metrics.Protocol) -> dict[str, tuple[float, ...]]:
    return {"positive": protocol.fractions, "negative": protocol.negative_fractions}
