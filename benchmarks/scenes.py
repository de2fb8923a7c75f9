"""Drawn scenes a second: in one thread, in tf.data's threads, by processes ahead, and from disk.

    python benchmarks/scenes.py

Digit scenes of 64 pixels, as training streams them. Every way takes its turn in each round; a row
has the medians of the rounds. A stream's clock starts after its first scenes, when TensorFlow's
threads and the processes have started. CPU milliseconds are of this process alone, not of
those that it started. `--write` keeps the table in docs/results/scenes.json.
"""

import gc
import json
import os
import pathlib
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

import numpy as np
from absl import app, flags

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from fex_jax import data, scenes  # noqa: E402
from fex_jax.data import drawn  # noqa: E402
from fex_jax.preprocessing import Preprocessing  # noqa: E402

_BATCH, _FIRST = 128, 16  # scenes a batch; batches before the clock starts
_PATH = pathlib.Path(__file__).resolve().parent.parent / "docs" / "results" / "scenes.json"


def in_one_thread() -> Iterator[list[scenes.Scene]]:
    """Batches of `scenes.draw` alone."""
    objects, layout = scenes.split_objects(scenes.digits(), "train"), scenes.Layout()
    for start in range(0, 10**6, _BATCH):
        yield [scenes.draw(objects, layout, 0, i) for i in range(start, start + _BATCH)]


def stream(cache: str = "") -> Iterator[data.Batch]:
    """Batches as training reads them."""
    source = data.scene_source(scenes.digits(), scenes.Layout(), "train", cache=cache)
    preprocessing = Preprocessing(size=(64, 64))
    return data.train_stream(source, preprocessing, _BATCH, seed=0, augment=False)


def rate(batches: Iterator, count: int) -> tuple[float, float]:
    """Scenes a second of `count` batches, and their milliseconds of wall clock in this process's
    CPU time: what its threads have left for training."""
    for _ in range(_FIRST):
        next(batches)
    start, cpu = time.perf_counter(), time.process_time()
    for _ in range(count):
        next(batches)
    made = count * _BATCH
    return made / (time.perf_counter() - start), 1000 * (time.process_time() - cpu) / made


def main(_: list[str]) -> None:
    drawers = drawn._most_drawers()
    ways: dict[str, Callable[[str], Iterator]] = {
        "drawn in one thread": lambda folder: in_one_thread(),
        "a stream that draws as it is read": lambda folder: stream(),
        f"a stream with a cache, {drawers} processes draw": stream,
        "a stream with a cache, from disk": stream,  # what the one before has left there
    }
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(flags.FLAGS.rounds):
        options = {"dir": flags.FLAGS.folder or None, "ignore_cleanup_errors": True}
        with tempfile.TemporaryDirectory(**options) as folder:
            for name, way in ways.items():
                found[name].append(rate(way(folder), flags.FLAGS.batches))
                print(f"{name}: {found[name][-1][0]:,.0f} scenes/s", flush=True)
                gc.collect()  # ends what is still drawn ahead
    rows = [
        {
            "Way": name,
            "scenes/s": float(np.median([scenes for scenes, _ in rates])),
            "CPU ms a scene in the process that reads": float(np.median([ms for _, ms in rates])),
        }
        for name, rates in found.items()
    ]
    print(json.dumps(rows, indent=2))
    if flags.FLAGS.write:
        _PATH.write_text(json.dumps({"cores": os.cpu_count(), "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    flags.DEFINE_integer("batches", 64, f"Of {_BATCH} scenes, of each way in each round.")
    flags.DEFINE_integer("rounds", 5, "In which every way takes its turn.")
    flags.DEFINE_string("folder", "", "For the cache; empty: the system's for temporary files.")
    flags.DEFINE_bool("write", False, "Write docs/results/scenes.json.")
    app.run(main)
