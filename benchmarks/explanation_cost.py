"""The price of an explanation: its time divided by that of a prediction, of three sizes of ViT.

    python benchmarks/explanation_cost.py

An explanation is one pass of the explainer for one class, on the classifier's own backbone; both
are compiled, warm and timed in turns in one process, medians of `--turns`. Weights are random: no
time depends on them. Writes docs/results/price.json and makes the documents anew.
"""

import pathlib
import sys

from absl import app, flags

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import performance  # noqa: E402

SIZES = {
    "ViT-Ti/16": {"hidden_size": 192, "num_heads": 3, "mlp_dim": 768},
    "ViT-S/16": {"hidden_size": 384, "num_heads": 6, "mlp_dim": 1536},
    "ViT-B/16": {"hidden_size": 768, "num_heads": 12, "mlp_dim": 3072},
}
_BATCHES = 1, 16


def main(_: list[str]) -> None:
    rows = []
    for name, size in SIZES.items():
        predictor = performance.network(**size)
        for count in _BATCHES:
            predict, explain, _ = performance.explaining(predictor, count)
            calls = {"explanation": explain, "prediction": predict}
            took = performance.timed(calls, flags.FLAGS.turns)
            row = {"network": name, "pictures": count}
            row |= {f"{what}, ms": 1e3 * seconds for what, seconds in took.items()}
            rows.append(row | {"price": took["explanation"] / took["prediction"]})
            print(rows[-1], flush=True)
    performance.write({"price": rows})


if __name__ == "__main__":
    app.run(main)
