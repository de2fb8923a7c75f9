"""Pictures a second that a job explains, beside decoding alone and the device alone.

    python benchmarks/batch_jobs.py

Drawn scenes of 64 pixels as PNG and the shipped explainer; drawn photographs as JPEG of ImageNet's
mean size and a ViT-Ti/16 of 1,000 classes, whose weights are random, for no time depends on them.
*Decoding* is of all cores, as a job reads files. *Device* explains pictures that are decoded. The
job does both: with an accelerator it can have the smaller of the two, on a CPU, where both share
the cores, 1 / (1 / decoding + 1 / device). All are compiled and measured in turns; medians.
`--write` keeps the table in docs/results/batch_jobs.json.
"""

import json
import pathlib
import sys
import tempfile
import time
from collections.abc import Callable

import jax
import numpy as np
from absl import app, flags
from PIL import Image

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from fex_jax import batch, explain, pretrained, scenes  # noqa: E402
from fex_jax.data.ahead import ahead  # noqa: E402
from fex_jax.models import shapes  # noqa: E402
from fex_jax.models.policy import Policy  # noqa: E402
from fex_jax.models.vit import ViTClassifier, ViTConfig  # noqa: E402
from fex_jax.preprocessing import Preprocessing  # noqa: E402

VIT_TI16 = ViTConfig(
    family="vit", image_size=224, patch_size=16, num_classes=1000,
    hidden_size=192, num_layers=12, num_heads=3, mlp_dim=768,
)  # fmt: skip
_TURNS = 5


def vit_ti16() -> explain.Explainer:
    """An explainer on f's own backbone, with random weights."""
    rng, count = np.random.default_rng(0), VIT_TI16.num_classes
    classifier = shapes(ViTClassifier, VIT_TI16)
    policy = shapes(Policy, VIT_TI16, count, map_head="wide")
    f, own = (
        jax.tree.map(lambda x: rng.normal(0, 0.02, x.shape).astype(np.float32), tree)
        for tree in (classifier, policy)
    )
    predictor = pretrained.Checkpoint(VIT_TI16, f, tuple(map(str, range(count))), Preprocessing())
    params = own | {"backbone": f["backbone"]}
    return explain.Explainer(predictor, VIT_TI16, params, budget=-3.0, map_head="wide")


def draw_scenes(folder: pathlib.Path, count: int) -> None:
    objects, layout = scenes.split_objects(scenes.digits(), "test"), scenes.Layout(64)
    for i in range(count):
        Image.fromarray(scenes.draw(objects, layout, 2, i).image).save(folder / f"{i}.png")


def draw_photographs(folder: pathlib.Path, count: int) -> None:
    """Smooth noise: its JPEG files are about as long as those of photographs, 100 kB."""
    rng = np.random.default_rng(0)
    for i in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (60, 80, 3), np.uint8))
        pixels = np.asarray(coarse.resize((500, 375), Image.Resampling.BICUBIC), np.int16)
        noisy = pixels + rng.integers(-24, 25, pixels.shape, np.int16)
        picture = Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
        picture.save(folder / f"{i}.jpg", quality=85)


def measure(
    name: str, explainer: explain.Explainer, draw: Callable[[pathlib.Path, int], None], count: int
) -> dict:
    """A row of the table."""
    rows = batch.Rows(explainer)
    with tempfile.TemporaryDirectory() as temporary:
        home = pathlib.Path(temporary)
        (home / "in").mkdir()
        draw(home / "in", count)
        files = sorted((home / "in").iterdir())
        pixels = [rows.read(file) for file in files]
        outputs = (home / str(i) for i in range(_TURNS + 1))

        def device() -> None:
            for start in range(0, count, rows.at_once):
                part = slice(start, start + rows.at_once)
                rows.explain([file.name for file in files[part]], pixels[part])

        ways: dict[str, Callable[[], object]] = {
            "decoding": lambda: list(ahead(rows.read, files, 2 * rows.at_once)),
            "device": device,
            "job": lambda: batch.explain_files(explainer, home / "in", next(outputs)),
            "one call": lambda: explainer([str(file) for file in files]),
        }
        rates: dict[str, list[float]] = {way: [] for way in ways}
        for turn in range(_TURNS + 1):
            for way, call in ways.items():
                start = time.perf_counter()
                call()
                rates[way] += [count / (time.perf_counter() - start)] if turn else []
    a_second = {way: float(np.median(values)) for way, values in rates.items()}
    both = a_second["decoding"], a_second["device"]
    shared = jax.default_backend() == "cpu"
    bound = 1 / (1 / both[0] + 1 / both[1]) if shared else min(both)
    row = {"Explainer": name, "Pictures": count}
    row |= {f"{way}/s": value for way, value in a_second.items()}
    return row | {"at best/s": bound, "job / best": a_second["job"] / bound}


def main(_: list[str]) -> None:
    count = flags.FLAGS.pictures
    rows = [
        measure("digits, 64 px", explain.load(ROOT / "models/digits_fex"), draw_scenes, 8 * count),
        measure("ViT-Ti/16, 224 px", vit_ti16(), draw_photographs, count),
    ]
    for row in rows:
        print(row)
    if flags.FLAGS.write:
        path = ROOT / "docs" / "results" / "batch_jobs.json"
        path.write_text(json.dumps({"rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    flags.DEFINE_integer("pictures", 256, "Photographs; of scenes eight times as many.")
    flags.DEFINE_bool("write", False, "Write docs/results/batch_jobs.json.")
    app.run(main)
