"""How much of a classifier's answer survives each way of removing cells of a picture.

    python benchmarks/removal.py --predictor=mobilenet_v2_1.0_224_quant.tflite \
        --labels=imagenet_labels.txt --pictures=FOLDER

asks about the first `--count` pictures of a folder with a random half and a tenth of the cells
kept, under each removal and grid, and writes docs/results/removal.json.
"""

import json
import pathlib
import sys
import warnings

import jax
import numpy as np
from absl import app, flags
from PIL import Image, ImageOps

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from fex_jax import host  # noqa: E402
from fex_jax.host.model import image_model  # noqa: E402
from fex_jax.probing import probe  # noqa: E402
from fex_jax.removal import Removal  # noqa: E402

_PREDICTOR = flags.DEFINE_string("predictor", None, "File, address or module:function.")
_LABELS = flags.DEFINE_string("labels", None, "A file of labels.")
_PICTURES = flags.DEFINE_string("pictures", None, "A folder of pictures.")
_COUNT = flags.DEFINE_integer("count", 60, "Pictures.")
_OUTPUT = flags.DEFINE_string("output", "docs/results/removal.json", "What to write.")

_GRIDS = ((7, 7), (14, 14), (16, 16))
_REMOVALS = {
    "grey squares": {"kind": "fill"},
    "picture's mean": {"kind": "mean"},
    "blurred picture, hard": {"kind": "blur"},
    "grey, soft edges 1/3 cell": {"kind": "fill", "softness": 1 / 3},
    "blurred, soft edges 1/3 cell": {"kind": "blur", "softness": 1 / 3},
    "blurred, soft edges 1/2 cell": {"kind": "blur", "softness": 1 / 2},
    "blurred, soft edges 1 cell": {"kind": "blur", "softness": 1.0},
}


def main(_: list[str]) -> None:
    options = {"labels": _LABELS.value} if _LABELS.value else {}
    predictor = host.open(_PREDICTOR.value, **options)
    height, width, _ = predictor.input
    paths = sorted(pathlib.Path(_PICTURES.value).glob("*.jpg"))[: _COUNT.value]
    images = np.stack([_picture(path, height, width) for path in paths])
    rows = []
    for grid in _GRIDS:
        for name, settings in _REMOVALS.items():
            removal = Removal(grid=grid, **settings)
            model, inputs = image_model(predictor, removal, images)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the table shows what does not survive
                found = probe(model, inputs, key=jax.random.key(0), shares=(0.5, 0.1))
            half, tenth = (round(answer, 3) for answer in found.answers)
            cells = f"{grid[0]}×{grid[1]}"
            rows.append({"grid": cells, "removal": name, "half kept": half, "tenth kept": tenth})
            print(f"{grid[0]:2} x {grid[1]:2}  {name:30}  {half:.3f}  {tenth:.3f}", flush=True)
    facts = {
        "predictor": predictor.name,
        "pictures": len(images),
        "clean": round(found.clean, 3),
        "what": "mean probability of the clean picture's class, a share of cells kept at random",
    }
    output = pathlib.Path(_OUTPUT.value)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(facts | {"rows": rows}, indent=1, ensure_ascii=False) + "\n")
    print(f"wrote {output}")


def _picture(path: pathlib.Path, height: int, width: int) -> np.ndarray:
    """The middle of a picture, uint8 [height, width, 3]."""
    image = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    return np.asarray(ImageOps.fit(image, (width, height), Image.Resampling.BILINEAR))


if __name__ == "__main__":
    flags.mark_flags_as_required(["predictor", "pictures"])
    app.run(main)
