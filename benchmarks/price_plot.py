"""Positive AUC against price, a point a method: docs/results/<name>_price.png from <name>.json.

python benchmarks/price_plot.py --name=digit_scenes
"""

import argparse
import json
import pathlib
import sys

from matplotlib.figure import Figure

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from fex_jax import attributions, plotting  # noqa: E402
from scripts.docs import label  # noqa: E402

_LEFT_OUT = {"smooth_rise", "fastshap+100"}  # beside RISE, and FEX refined
# Where a name stands from its point; the others right of it.
_PLACE = {
    "gradcam_attention": (0, 9, "left"),
    "gradcam_norm1": (6, -8, "left"),
    "integrated_gradients": (-7, 0, "right"),
    "rise": (-7, 0, "right"),
    "fastshap": (0, 10, "center"),
    "lime": (0, -10, "right"),
    "fex+100": (-7, 0, "right"),
}


def group(name: str) -> str:
    """What a method needs."""
    if name.partition("+")[0] in ("fex", "fastshap"):
        return "trained"
    return "looks inside" if name in attributions.LOOKS_INSIDE else "asks the classifier"


def draw(found: dict) -> Figure:
    """The lower and the further left, the better."""
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    kinds = list(dict.fromkeys(map(group, found["methods"])))
    for kind, colour, marker in zip(kinds, plotting.COLOURS, plotting.MARKERS, strict=False):
        names = [n for n in found["methods"] if group(n) == kind and n not in _LEFT_OUT]
        names = [n for n in names if found["efficiency"][n]["predictions"] > 0.5]  # not Random
        price = [found["efficiency"][n]["predictions"] for n in names]
        area = [found["methods"][n]["positive_auc"]["mean"] for n in names]
        axes.scatter(price, area, color=colour, marker=marker, label=kind, zorder=3)
        for name, x, y in zip(names, price, area, strict=True):
            right, up, side = _PLACE.get(name, (7, 0, "left"))
            axes.annotate(
                label(name).replace("refined by 100 queries", "refined"), (x, y), (right, up),
                textcoords="offset points", fontsize=8, ha=side, va="center",
            )  # fmt: skip
    axes.set(
        xscale="log", yscale="log", xlim=(0.6, 2500), ylim=(0.05, 0.9),
        xlabel="Price: time of an explanation / time of one prediction",
        ylabel="Positive AUC (lower is better)",
    )  # fmt: skip
    axes.set_yticks([0.06, 0.1, 0.2, 0.4, 0.8], labels=["0.06", "0.1", "0.2", "0.4", "0.8"])
    axes.set_xticks([1, 10, 100, 1000], labels=["1×", "10×", "100×", "1000×"])
    axes.minorticks_off()
    axes.grid(color="0.9")
    axes.legend(frameon=False, loc="upper right")
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--name", default="digit_scenes", help="a file of docs/results")
    path = ROOT / "docs" / "results" / parser.parse_args().name
    found = json.loads(path.with_suffix(".json").read_text())
    draw(found).savefig(path.with_name(f"{path.name}_price.png"), dpi=130)


if __name__ == "__main__":
    main()
