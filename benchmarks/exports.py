"""What exported explainers say and how long they take, beside the explainer they were made of.

    pip install onnx onnxruntime litert-converter ai-edge-litert
    python benchmarks/exports.py

Of the shipped explainer of digit scenes and of a ViT-S/16 of 1,000 classes with random weights, on
whose backbone f and the explainer agree: `latency.py` has them, too. The difference is the largest
of attributions, of 16 random pictures; of files that resize, of 16 scenes that Pillow made 160 ×
120 pixels, and Pillow's resizing counts for fex_jax. Milliseconds are of one picture, attributions
and probabilities, medians over `--calls`; each format runs in a process of its own, on as many
threads as there are cores. `--write` keeps the table in docs/results/exports.json.
"""

import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
from absl import app, flags
from PIL import Image

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.latency import vit_s16, with_random_head  # noqa: E402
from fex_jax import explain, scenes  # noqa: E402

_FORMATS = {"onnx": "ONNX Runtime", "stablehlo": "StableHLO, jax.export", "tflite": "LiteRT"}

# run(pixels [1, S, S, 3], classes [1]) → attributions, by format.
_OPEN = {
    "onnx": """
import onnxruntime
session = onnxruntime.InferenceSession(path)
run = lambda x, k: session.run(None, {"pixels": x, "classes": k})[0]
""",
    "stablehlo": """
import jax, pathlib
call = jax.jit(jax.export.deserialize(bytearray(pathlib.Path(path).read_bytes())).call)
run = lambda x, k: np.asarray(call(x, k)[0])
""",
    "tflite": """
import os
from ai_edge_litert.interpreter import Interpreter
signature = Interpreter(path, num_threads=os.cpu_count()).get_signature_runner("explain")
run = lambda x, k: signature(pixels=x, classes=k)["attributions"]
""",
}


def measured(path: pathlib.Path, pictures: pathlib.Path, calls: int) -> tuple[np.ndarray, float]:
    """Attributions of all pictures, and the median of milliseconds of one."""
    script = f"""
import sys, time
import numpy as np
path, pictures, calls = sys.argv[1:]
{_OPEN[path.suffix[1:]]}
pixels, predicted = np.load(pictures), np.full(1, -1, np.int32)
found = np.concatenate([run(pixels[i : i + 1], predicted) for i in range(len(pixels))])
times = []
for _ in range(int(calls)):
    start = time.perf_counter()
    run(pixels[:1], predicted)
    times.append(1000 * (time.perf_counter() - start))
np.savez(pictures + ".npz", found=found, times=times)
"""
    command = [sys.executable, "-c", script, str(path), str(pictures), str(calls)]
    subprocess.run(command, check=True)
    with np.load(f"{pictures}.npz") as file:
        return file["found"], float(np.median(file["times"]))


def noise(explainer: explain.Explainer) -> np.ndarray:
    """Pictures of the size that f takes, uint8 [16, S, S, 3]."""
    side = explainer.predictor.config.image_size
    return np.random.default_rng(0).integers(0, 256, (16, side, side, 3), np.uint8)


def wide_scenes() -> np.ndarray:
    """Scenes of another size and proportion than f takes, uint8 [16, 120, 160, 3]."""
    objects = scenes.split_objects(scenes.digits(), "test")
    drawn = [scenes.draw(objects, scenes.Layout(), 0, i).image for i in range(16)]
    return np.stack([np.asarray(Image.fromarray(x).resize((160, 120))) for x in drawn])


def rows(
    name: str, explainer: explain.Explainer, pixels: np.ndarray, calls: int, *, resize: bool = False
) -> list[dict]:
    """A row for the explainer, and one for each format, that of TFLite where sizes are fixed."""
    expected = explainer(pixels).attributions
    explainer.warmup()
    times = []
    for _ in range(calls):
        start = time.perf_counter()
        explainer(pixels[0])
        times.append(1000 * (time.perf_counter() - start))
    own = statistics.median(times)
    found = [{"File": f"{name}, fex_jax itself", "MiB": "", "difference": "", "ms": own}]
    with tempfile.TemporaryDirectory() as folder:
        pictures = pathlib.Path(folder) / "pictures.npy"
        np.save(pictures, pixels)
        for suffix, runtime in _FORMATS.items():
            if resize and suffix == "tflite":
                continue
            path = pathlib.Path(folder) / f"explainer.{suffix}"
            explainer.export(path, resize=resize)
            maps, milliseconds = measured(path, pictures, calls)
            found.append(
                {
                    "File": f"{name}, {runtime}",
                    "MiB": path.stat().st_size / 2**20,
                    "difference": float(np.abs(maps - expected).max()),
                    "ms": milliseconds,
                }
            )
            print(found[-1], flush=True)
    return found


def main(_: list[str]) -> None:
    shipped = explain.load(ROOT / "models" / "digits_fex")
    calls, large = flags.FLAGS.calls, with_random_head(vit_s16())
    table = rows("digits", shipped, noise(shipped), calls)
    table += rows("digits with resize=True", shipped, wide_scenes(), calls, resize=True)
    table += rows("ViT-S/16", large, noise(large), calls // 10)
    for row in table:
        row["ms / fex_jax"] = row["ms"] / next(
            own["ms"] for own in table if own["File"].split(",")[0] == row["File"].split(",")[0]
        )
    if flags.FLAGS.write:
        path = ROOT / "docs" / "results" / "exports.json"
        path.write_text(json.dumps({"rows": table}, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    flags.DEFINE_integer("calls", 200, "Calls of each; of the ViT-S/16 a tenth.")
    flags.DEFINE_bool("write", False, "Write docs/results/exports.json.")
    app.run(main)
