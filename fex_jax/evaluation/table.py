"""The result of a comparison: printed, as a dictionary, and written with its pictures."""

import dataclasses
import json
import pathlib
import platform
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import jax
import numpy as np

from fex_jax import checks, explain, metrics, report
from fex_jax.evaluation import gallery
from fex_jax.evaluation.cache import Result
from fex_jax.evaluation.tasks import Predictor, Task, of


@dataclasses.dataclass(frozen=True, eq=False)
class Table:
    """What several methods are worth on one task; `print` shows it, `to_dict` is results.json."""

    results: dict[str, list[Result]]  # scores and statistics of a method; of each of its seeds
    task: Task
    predictor: Predictor
    protocol: metrics.Protocol
    facts: dict[str, str]  # what a reader must know about the run
    logits: frozenset[str]  # methods whose scores are logits of λ
    explainers: Sequence[explain.Explainer]

    @property
    def methods(self) -> dict[str, dict[str, report.Interval]]:
        """Method → metric → mean and 95 % interval."""
        return {
            name: report.over_seeds([report.summarise(found) for _, found in runs])
            for name, runs in self.results.items()
        }

    @property
    def efficiency(self) -> dict[str, dict[str, float]]:
        """Method → what it costs; scores from elsewhere have none."""
        return {
            name: {key: float(np.mean([s.cost[key] for s, _ in runs])) for key in runs[0][0].cost}
            for name, runs in self.results.items()
            if runs[0][0].cost
        }

    def to_dict(self) -> dict[str, Any]:
        """All but the scores themselves, for JSON."""
        return {
            "protocol": self.protocol.name,
            "num_inputs": self.task.size,
            "num_pairs": len(self.task.pairs),
            "accuracy": self.task.accuracy,
            "facts": self.facts,
            "methods": self.methods,
            "efficiency": self.efficiency,
            "empty_map": report.empty_map([found for _, found in sum(self.results.values(), [])]),
        }

    def __str__(self) -> str:
        """The table for a terminal, then the facts."""
        facts = [f"{name}: {text}" for name, text in self.facts.items()]
        return "\n".join([report.console(self.methods, self.efficiency), *facts])

    __repr__ = __str__

    def _repr_markdown_(self) -> str:
        """The table as notebooks show it."""
        return report.markdown(self.to_dict(), self.facts)

    def write(self, directory: str | pathlib.Path, name: str = "", **more: Any) -> None:
        """Writes results.json and .md, curves.png, probabilities.png and gallery.html.

        Of images also maps.png, of labelled texts top_words.png. The gallery needs an
        explainer, and things that can be shown.

        Args:
          directory: is made if it is not there.
          name: of the data, for titles.
          more: further entries of results.json.
        """
        directory = checks.folder(directory, "Table.write")
        with checks.room(directory):
            results = more | self.to_dict()
            (directory / "results.json").write_text(json.dumps(results, indent=2) + "\n")
            (directory / "results.md").write_text(report.markdown(results, self.facts), "utf-8")
            gallery.draw(directory, self, name)
            if self.explainers and hasattr(of(self.predictor), "gallery_items"):
                gallery.write(directory / "gallery.html", self, name)


def describe(
    task: Task, predictor: Predictor, protocol: metrics.Protocol, unit: str, digest: str
) -> dict[str, str]:
    """What a reader must know beside the numbers."""
    name = predictor.config.family if predictor.inside else predictor.name
    facts = {
        "Data": f"{task.size} {predictor.modality}",
        "Predictor": f"{name}, {len(predictor.labels)} classes, {digest}",
        "Protocol": protocol.name,
        "Features": of(predictor).scored(task, predictor, unit),
    }
    if not predictor.inside:
        facts["Removal"] = str(predictor.removal)
    if task.accuracy is not None:
        facts["Predictor's accuracy"] = f"{task.accuracy:.1%}"
    if len(task.pairs):
        facts["Two-object scenes"] = (
            f"{len(task.pairs)} show just the two most probable classes; in {task.agreed.sum()} f "
            "itself finds each on its own object"
        )
    packages = ("jax", "jaxlib", "flax", "numpy")
    facts["Versions"] = ", ".join(f"{name} {version(name)}" for name in packages)
    facts["Device"] = f"{jax.devices()[0].device_kind}, {platform.machine()}"
    return facts
