"""How long one picture waits for its explanation, beside what it waits for f alone.

    python benchmarks/latency.py

Of the shipped explainer of digit scenes, whose backbone learned; of one whose backbone is f's own;
and of a ViT-S/16 of 1,000 classes whose backbone is f's own. No latency depends on what the weights
are, so those of the last two are random. Each of the threads calls with one picture at a time; f
and the explainer are compiled, warm, and called in turns of a tenth of the calls. f is asked as the
explainer asks it: pixels in, probabilities out. *Map alone*: the class is given, and f is not
asked. `--write` keeps the table in docs/results/latency.json.
"""

import concurrent.futures
import json
import pathlib
import sys
import time
from collections.abc import Callable

import jax
import numpy as np
from absl import app, flags

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from fex_jax import explain, pretrained  # noqa: E402
from fex_jax.models import shapes  # noqa: E402
from fex_jax.models.policy import Policy  # noqa: E402
from fex_jax.models.vit import ViTClassifier, ViTConfig  # noqa: E402
from fex_jax.preprocessing import Preprocessing  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parent.parent
VIT_S16 = ViTConfig(
    family="vit", image_size=224, patch_size=16, num_classes=1000,
    hidden_size=384, num_layers=12, num_heads=6, mlp_dim=1536,
)  # fmt: skip
_TURNS = 10


def with_random_head(predictor: pretrained.Checkpoint) -> explain.Explainer:
    """An explainer on f's own backbone, its map head wide, as training begins it."""
    config = predictor.config
    heads = shapes(Policy, config, config.num_classes, map_head="wide")
    params = {"heads": _random(heads["heads"]), "backbone": predictor.params["backbone"]}
    return explain.Explainer(
        predictor, config, params, budget=-3.0, contrastive=True, map_head="wide"
    )


def vit_s16() -> pretrained.Checkpoint:
    """A classifier with random weights."""
    params = _random(shapes(ViTClassifier, VIT_S16))
    labels = tuple(map(str, range(VIT_S16.num_classes)))
    return pretrained.Checkpoint(VIT_S16, params, labels, Preprocessing())


def _random(tree):
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: rng.normal(0, 0.02, x.shape).astype(np.float32), tree)


def milliseconds(call: Callable[[], object], calls: int, threads: int) -> list[float]:
    """Of each call, as its thread waits for it."""

    def wait(_: int) -> float:
        start = time.perf_counter()
        call()
        return 1000 * (time.perf_counter() - start)

    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        return list(pool.map(wait, range(calls)))


def rows(name: str, explainer: explain.Explainer, calls: int) -> list[dict]:
    """A row for each number of threads."""
    side = explainer.predictor.config.image_size
    picture = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    explainer.warmup()
    explainer.warmup(with_prediction=False)
    asked = {
        "f": lambda: np.asarray(explainer.answers(picture[None])),
        "explainer": lambda: explainer(picture),
        "map": lambda: explainer(picture, targets=0, with_prediction=False),
    }
    found = []
    for threads in map(int, flags.FLAGS.threads):
        times: dict[str, list[float]] = {key: [] for key in asked}
        for turn in range(_TURNS + 1):
            for key, call in asked.items():
                some = milliseconds(call, calls // _TURNS, threads)
                times[key] += some if turn else []  # the first warms up
        f, own, alone = (np.percentile(times[key], [50, 99]).tolist() for key in asked)
        found.append(
            {
                "Explainer": f"{name}, {threads} thread{'s' if threads > 1 else ''}",
                "Calls": calls,
                "f, p50 ms": f[0],
                "f, p99 ms": f[1],
                "explanation, p50 ms": own[0],
                "explanation, p99 ms": own[1],
                "map alone, p50 ms": alone[0],
                "map alone, p99 ms": alone[1],
                "explanation / f": own[0] / f[0],
                "map alone / f": alone[0] / f[0],
            }
        )
        print(
            ", ".join(
                f"{k} {v:.3g}" if isinstance(v, float) else str(v) for k, v in found[-1].items()
            ),
            flush=True,
        )
    return found


def main(_: list[str]) -> None:
    shipped = explain.load(ROOT / "models" / "digits_fex")
    head = with_random_head(shipped.predictor)
    calls = flags.FLAGS.calls
    table = rows("digits, a backbone of its own", shipped, calls)
    table += rows("digits, f's backbone", head, calls)
    table += rows("ViT-S/16, f's backbone", with_random_head(vit_s16()), calls)
    if flags.FLAGS.write:
        path = ROOT / "docs" / "results" / "latency.json"
        path.write_text(json.dumps({"rows": table}, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    flags.DEFINE_integer("calls", 1000, "Calls of each.")
    flags.DEFINE_list("threads", ["1", "4", "16"], "That call at the same time.")
    flags.DEFINE_bool("write", False, "Write docs/results/latency.json.")
    app.run(main)
