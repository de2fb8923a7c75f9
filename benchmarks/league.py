"""Amortised explainers at equal terms: the same network, inputs, queries and gradient passes.

    python benchmarks/league.py --seeds=3
    python benchmarks/league.py "FEX" "FastSHAP"

Arguments are names of `RIVALS`; none means all. Each is trained on digit scenes from the same
weights of the classifier, asks it ten masks about every input beside the whole one (the Shapley
ones also the blank one), and goes three times over a batch. L2X has no use for answers to masks and
asks about whole inputs alone; its second network has as many gradient passes as its explainer. Of
CoRTX's ten masks four look for the positive, which each of its gradient passes encodes, too. Writes
docs/results/league.json, and makes the documents anew. Interrupted, the same command continues.
"""

import pathlib
import sys

from absl import app, flags

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import ablations  # noqa: E402

_LABELS = "digit_scenes:fastshap --config.objective.fit=labels --config.objective.num_passes=3"
_ALL_CLASSES = "--config.objective.targets=uniform --config.objective.num_targets=9"
RIVALS = {
    "FEX": "digit_scenes",
    "FEX, published objective": "digit_scenes:paper --config.objective.num_masks=10 "
    "--config.objective.num_passes=3",
    "FEX, as its authors' code has it": "digit_scenes:authors --config.objective.num_masks=10 "
    "--config.objective.num_passes=3",
    "FastSHAP": "digit_scenes:fastshap --config.objective.num_passes=3",
    "ViT-Shapley": f"digit_scenes:fastshap --config.objective.num_passes=3 {_ALL_CLASSES}",
    "SimSHAP": _LABELS,
    "Stochastic Amortization": f"{_LABELS} {_ALL_CLASSES}",
    "L2X": "digit_scenes:l2x --config.objective.num_passes=3",
    "CoRTX": "digit_scenes:cortx --config.objective.num_passes=3",
}

if __name__ == "__main__":
    ablations.CHOICES = RIVALS
    flags.FLAGS.set_default("table", "league")
    flags.FLAGS.set_default("workdir", "runs/league")
    flags.FLAGS.set_default("common", "--config.data.limit=4800")
    app.run(ablations.main)
