"""What asking a black box while learning is worth.

    python benchmarks/black_box_overlap.py

trains an explainer of a function that answers each call after a while, as an endpoint does, and
writes docs/results/black_box_overlap.json: seconds a batch of the function alone, of learning
alone, and of both, one after the other and overlapped. Learning alone has all answers in its bank.
"""

import json
import pathlib
import shutil
import sys
import tempfile
import time

import jax
import numpy as np
from absl import app, flags

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from fex_jax import feeding, host, settings  # noqa: E402
from fex_jax.host import black_box  # noqa: E402
from fex_jax.training.explainer import train  # noqa: E402

_BATCHES = flags.DEFINE_integer("batches", 20, "Batches of a run; the second half is timed.")
_SIDE = flags.DEFINE_integer("side", 64, "Of the pictures, in pixels.")
_OUTPUT = flags.DEFINE_string("output", "docs/results/black_box_overlap.json", "What to write.")

# Of f, in times of learning.
_SLOWNESS = {"at once": 0.0, "as long as learning takes": 1.0}
_BATCH = 32


class Slow:
    """Three colours' shares, after `seconds`."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.spent, self.calls = seconds, 0.0, 0

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        began = time.perf_counter()
        time.sleep(self.seconds)
        powers = np.exp(pixels.mean((1, 2), np.float64) / 10)
        answers = powers / powers.sum(-1, keepdims=True)
        self.spent, self.calls = self.spent + time.perf_counter() - began, self.calls + 1
        return answers


def main(_: list[str]) -> None:
    shape = (_BATCH * _BATCHES.value, _SIDE.value, _SIDE.value, 3)
    pictures = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    config = settings.default()
    config.update_from_flattened_dict(
        {
            "policy": "unet", "batch_size": _BATCH, "data.augment": False, "removal.kind": "fill",
            "removal.softness": 0.0, "log_every": _BATCHES.value // 2,
        }
    )  # fmt: skip
    calls = 1 + config.objective.num_masks  # of f, a batch

    def run(seconds: float, overlap: bool, bank: pathlib.Path | None = None) -> tuple[float, ...]:
        """Seconds a batch, and those in f; the bank is kept, or used."""
        f = Slow(seconds)
        options = {"labels": list("rgb"), "input": shape[1:], "digest": "slow"}
        predictor = host.host(f, **options)
        config.predictor.overlap = overlap
        with tempfile.TemporaryDirectory() as folder:
            workdir = pathlib.Path(folder)
            if bank and bank.is_file():
                shutil.copy(bank, workdir / black_box.ANSWERS)
            data = feeding.open_data(black_box.of(predictor), pictures)[0]
            train(config, workdir, predictor, data)
            if bank and not bank.is_file():
                shutil.copy(workdir / black_box.ANSWERS, bank)
            last = (workdir / "metrics.jsonl").read_text().splitlines()[-1]
        return _BATCH / json.loads(last)["images_per_second"], f.spent / max(f.calls, 1) * calls

    with tempfile.TemporaryDirectory() as folder:
        bank = pathlib.Path(folder) / "bank"
        run(0.0, True, bank)
        learning, _ = run(0.0, True, bank)
    rows = []
    for name, slowness in _SLOWNESS.items():
        seconds = slowness * learning / calls
        overlapped, of_f = run(seconds, True)
        after_another, _ = run(seconds, False)
        row = {
            "f alone, s": of_f, "learning alone, s": learning, "overlapped, s": overlapped,
            "one after the other, s": after_another,
            "slower alone / overlapped": max(of_f, learning) / overlapped,
        }  # fmt: skip
        rows.append({"f answers": name} | {name: round(value, 3) for name, value in row.items()})
        print(rows[-1], flush=True)
    facts = {
        "what": f"seconds a batch of {_BATCH} pictures of {_SIDE.value} pixels, {calls} calls of f",
        "device": jax.devices()[0].device_kind,
    }
    output = pathlib.Path(_OUTPUT.value)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(facts | {"rows": rows}, indent=2) + "\n")
    print(f"wrote {output}")


if __name__ == "__main__":
    app.run(main)
