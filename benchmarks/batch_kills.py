"""What 50 SIGKILLs do to a job of `explain_files`: all items must be there once, as without.

    python benchmarks/batch_kills.py

Drawn scenes as PNG files, a hundredth of them damaged; the shipped explainer. The job runs once
alone. Then it is started again and again, and killed at a moment drawn uniformly between its taking
of the folder and a little after its first rows, until so many kills are done; then it may end.
Processes are forked from one that has imported all: to import takes longer than what may go wrong.
Takes about 3 minutes of two cores. `--write` keeps the figures in docs/results.
"""

import json
import multiprocessing
import os
import pathlib
import random
import sys
import tempfile
import time
from multiprocessing.process import BaseProcess

import pyarrow.parquet as pq
from absl import app, flags
from PIL import Image

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from fex_jax import batch, scenes  # noqa: E402

_AFTER = 0.8  # seconds of work that a kill may come after


def draw(folder: pathlib.Path, count: int) -> None:
    """Scenes as PNG files; every hundredth is cut short."""
    folder.mkdir()
    objects, layout = scenes.split_objects(scenes.digits(), "test"), scenes.Layout(64)
    for i in range(count):
        file = folder / f"{i:05}.png"
        Image.fromarray(scenes.draw(objects, layout, 2, i).image).save(file)
        if i % 100 == 99:
            file.write_bytes(file.read_bytes()[:1000])


def start(inputs: pathlib.Path, output: pathlib.Path) -> BaseProcess:
    """A process that does the job."""
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["fex_jax.batch", "fex_jax.scenes", "absl.app"])
    process = processes.Process(
        target=batch.explain_files,
        args=(ROOT / "models" / "digits_fex", inputs, output),
        kwargs={"part_seconds": 0.05, "top_k": 2},
    )
    process.start()
    return process


def kill(process: BaseProcess, output: pathlib.Path, share: float, until_work: float) -> float:
    """Kills a job after a share of the time that it takes to its first rows and a little more.

    Returns how long it took to its first rows; where it had none, what was believed or more.
    """
    before, lock, since = parts(output), output / "_lock-0", None
    while process.is_alive():
        now = time.monotonic()
        if since is None and lock.exists() and lock.read_text() == str(process.pid):
            since = now
        if since and now - since > share * (until_work + _AFTER):
            break
        if since and before is not None and parts(output) > before:
            until_work, before = now - since, None
        time.sleep(0.002)
    else:
        sys.exit("the job ended before its kill: give it more items")
    process.kill()
    process.join()
    return until_work if before is None else max(until_work, now - since)


def parts(output: pathlib.Path) -> int:
    return len(list(output.glob("*.parquet")))


def rows(output: pathlib.Path) -> list[dict]:
    """Of all parts, by id and class."""
    found = [row for path in output.glob("*.parquet") for row in pq.read_table(path).to_pylist()]
    return sorted(
        found, key=lambda row: (row["id"], -1 if row["target"] is None else row["target"])
    )


def main(_: list[str]) -> None:
    given = flags.FLAGS
    rng, start_time = random.Random(given.seed), time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        home = pathlib.Path(temporary)
        os.environ |= {
            "JAX_COMPILATION_CACHE_DIR": str(home / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        draw(home / "scenes", given.items)
        start(home / "scenes", home / "alone").join()  # compiles
        expected, output = rows(home / "alone"), home / "killed"
        writing, until_work = 0, 2.0
        for number in range(given.kills):
            process = start(home / "scenes", output)
            until_work = kill(process, output, rng.random(), until_work)
            writing += bool(list(output.glob("_part-*")))
            print(
                f"kill {number + 1}: {len({row['id'] for row in rows(output)}):,} items", flush=True
            )
        last = start(home / "scenes", output)
        last.join()
        if last.exitcode:
            sys.exit(last.exitcode)
        found = rows(output)
        keys = [(row["id"], row["target"]) for row in found]
        wanted = {(row["id"], row["target"]) for row in expected}
        row = {
            "Items": given.items,
            "SIGKILLs": given.kills,
            "while a part was written": writing,
            "parts": parts(output),
            "items lost": len({i for i, _ in wanted} - {i for i, _ in keys}),
            "rows doubled": len(keys) - len(set(keys)),
            "rows that differ": sum(a != b for a, b in zip(found, expected, strict=False)),
            "minutes": (time.monotonic() - start_time) / 60,
        }
    print(row)
    if row["items lost"] or row["rows doubled"] or row["rows that differ"]:
        sys.exit("a kill lost, doubled or changed something")
    if given.write:
        path = ROOT / "docs" / "results" / "batch_kills.json"
        path.write_text(json.dumps({"rows": [row]}, indent=2) + "\n")


if __name__ == "__main__":
    flags.DEFINE_integer("items", 3000, "Pictures of the job.")
    flags.DEFINE_integer("kills", 50, "How often it is killed.")
    flags.DEFINE_integer("seed", 0, "Of the moments.")
    flags.DEFINE_bool("write", False, "Write docs/results/batch_kills.json.")
    app.run(main)
