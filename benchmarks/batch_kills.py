"""What 50 SIGKILLs do to a job of `fex-jax explain`: all items must be there once, as without.

    python benchmarks/batch_kills.py

Drawn scenes as PNG files, a hundredth of them damaged; the shipped explainer. The job runs once
alone. Then it is started again and again, and killed at a moment drawn uniformly between its taking
of the folder and a little after its first rows, until so many kills are done; then it may end.
Takes about 8 minutes of two cores. `--write` keeps the figures in docs/results.
"""

import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import time

import pyarrow.parquet as pq
from absl import app, flags
from PIL import Image

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from fex_jax import scenes  # noqa: E402

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


def start(inputs: pathlib.Path, output: pathlib.Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "fex_jax", "explain", "models/digits_fex"]
    command += [f"--input={inputs}", f"--output={output}", "--part-seconds=0.05", "--top-k=2"]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def kill(process: subprocess.Popen, output: pathlib.Path, share: float, until_work: float) -> float:
    """Kills a job after a share of the time that it takes to its first rows and a little more.

    Returns how long it took to its first rows; where it had none, what was believed or more.
    """
    before, lock, since = parts(output), output / "_lock-0", None
    while process.poll() is None:
        now = time.monotonic()
        if since is None and lock.exists() and lock.read_text() == str(process.pid):
            since = now
        if since and now - since > share * (until_work + _AFTER):
            break
        if since and before is not None and parts(output) > before:
            until_work, before = now - since, None
        time.sleep(0.002)
    else:
        sys.exit(f"the job ended before its kill: {process.communicate()[1].decode()}")
    process.kill()
    process.communicate()
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
            "PYTHONPATH": str(ROOT),
            "JAX_COMPILATION_CACHE_DIR": str(home / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        draw(home / "scenes", given.items)
        start(home / "scenes", home / "alone").communicate()  # compiles
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
        said = last.communicate()
        if last.returncode:
            sys.exit(said[1].decode())
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
    flags.DEFINE_integer("items", 4000, "Pictures of the job.")
    flags.DEFINE_integer("kills", 50, "How often it is killed.")
    flags.DEFINE_integer("seed", 0, "Of the moments.")
    flags.DEFINE_bool("write", False, "Write docs/results/batch_kills.json.")
    app.run(main)
