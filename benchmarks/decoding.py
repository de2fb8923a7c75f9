"""Images a second that the training stream decodes, beside TensorFlow's own decoder and a step.

    python benchmarks/decoding.py --seconds=10
    python benchmarks/decoding.py --step_images_per_second=1200

Photographs are drawn as JPEG files of ImageNet's mean size. The stream reads, decodes, crops and
batches them as `train.py` does; the alternative differs in its decoder alone, and the last line
decodes in one thread without tf.data. `--step_images_per_second` is what a training step takes:
docs/full_size.md has it for the paper's setting. Prints a Markdown table.
"""

import io
import math
import pathlib
import sys
import tempfile
import time
from collections.abc import Iterator

import numpy as np
import tensorflow as tf
from absl import app, flags
from PIL import Image

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from fex_jax import data  # noqa: E402
from fex_jax.data.decode import decode  # noqa: E402
from fex_jax.preprocessing import Preprocessing  # noqa: E402

_SECONDS = flags.DEFINE_float("seconds", 10.0, "Time for each measurement.", lower_bound=0.1)
_FILES = flags.DEFINE_integer("files", 256, "How many files are drawn.", lower_bound=64)
_STEP = flags.DEFINE_float("step_images_per_second", 0.0, "What a training step takes; 0: unknown.")
_SIZE = (500, 375)  # pixels, width and height
_BATCH = 64


def draw_folder(root: pathlib.Path, count: int) -> None:
    """Smooth noise: its JPEG files are about as long as those of photographs, 100 kB."""
    rng = np.random.default_rng(0)
    (root / "class").mkdir()
    for i in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (60, 80, 3), np.uint8))
        pixels = np.asarray(coarse.resize(_SIZE, Image.Resampling.BICUBIC), np.int16)
        pixels = pixels + rng.integers(-24, 25, pixels.shape, np.int16)
        image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
        image.save(root / "class" / f"{i}.jpg", quality=85)


def tensorflow_source(source: data.Source) -> data.Source:
    """The same records, decoded by TensorFlow, which ignores how a photograph was held."""

    def example(record: dict) -> dict:
        image = tf.io.decode_image(
            tf.io.read_file(record["file"]), channels=3, expand_animations=False
        )
        image = tf.ensure_shape(image, (None, None, 3))
        return {"image": image, "label": record["label"], "where": record["file"]}

    return source._replace(decode=example)


def rate(stream: Iterator, images: int) -> tuple[float, float]:
    """Images a second of a stream whose items hold `images`, and the CPU milliseconds of each."""
    for _ in range(2):
        next(stream)
    count, start, cpu = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - start < _SECONDS.value:
        next(stream)
        count += images
    wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    return count / wall, 1000 * cpu / count


def one_thread(root: pathlib.Path) -> Iterator[np.ndarray]:
    """The decoder alone, of files in memory."""
    files = [path.read_bytes() for path in root.rglob("*.jpg")]
    while True:
        for content in files:
            yield decode(io.BytesIO(content))


def main(_: list[str]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        root = pathlib.Path(directory)
        draw_folder(root, _FILES.value)
        size = np.mean([path.stat().st_size for path in root.rglob("*.jpg")])
        source = data.folder_source(str(root), "all")
        preprocessing = Preprocessing()
        rows = [
            (name, *rate(data.train_stream(which, preprocessing, _BATCH, seed=0), _BATCH))
            for name, which in (
                ("stream, `fex_jax.data.decode`", source),
                ("stream, TensorFlow's decoder", tensorflow_source(source)),
            )
        ]
        rows.append(("`decode` alone, one thread", *rate(one_thread(root), 1)))
    if _STEP.value:
        rows.append(("needed by a training step", _STEP.value, float("nan")))
    print(f"JPEG files of {_SIZE[0]} × {_SIZE[1]} pixels, {size / 1000:.0f} kB on average\n")
    print("| | images/s | CPU ms an image |\n|---|---|---|")
    for name, images, cpu in rows:
        print(f"| {name} | {images:,.0f} | {'' if math.isnan(cpu) else f'{cpu:.1f}'} |")


if __name__ == "__main__":
    app.run(main)
