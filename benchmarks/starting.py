"""What it takes to start a command, without and with the programs that it compiled before.

    python benchmarks/starting.py

`train.py` on 256 digit scenes and `eval.py` on 64, with an empty cache and then again, `--rounds`
times; medians. Writes docs/results/starting.json and makes the documents anew.
"""

import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

from absl import app, flags

ROOT = pathlib.Path(__file__).resolve().parent.parent
_ROUNDS = flags.DEFINE_integer("rounds", 3, "Times that each command is run, both ways.")
_COMMANDS = {
    "train.py": ("--config.data.limit=256", "--config.epochs=1"),
    "eval.py": ("--config.eval.num_images=64",),
}


def seconds(command: str, run: pathlib.Path, cache: pathlib.Path) -> float:
    """Wall-clock seconds of a command with its compiled programs in `cache`."""
    if command == "train.py":
        shutil.rmtree(run, ignore_errors=True)
    shutil.rmtree(run / "eval", ignore_errors=True)
    given = [f"--config={ROOT}/configs/digit_scenes.py", f"--workdir={run}", *_COMMANDS[command]]
    environment = os.environ | {"XDG_CACHE_HOME": str(cache)}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, str(ROOT / command), *given],
        check=True, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    return time.perf_counter() - began


def main(_: list[str]) -> None:
    took: dict[str, dict[str, list[float]]] = {
        command: {"nothing kept": [], "kept": []} for command in _COMMANDS
    }
    with tempfile.TemporaryDirectory() as folder:
        run, cache = pathlib.Path(folder) / "run", pathlib.Path(folder) / "cache"
        for _ in range(_ROUNDS.value):
            shutil.rmtree(cache, ignore_errors=True)
            for what in ("nothing kept", "kept"):
                for command in _COMMANDS:
                    took[command][what].append(seconds(command, run, cache))
                    print(f"{command}, {what}: {took[command][what][-1]:.1f} s", flush=True)
        size = sum(file.stat().st_size for file in cache.rglob("*") if file.is_file())
    rows = []
    for command, each in took.items():
        first, again = (statistics.median(each[what]) for what in ("nothing kept", "kept"))
        rows.append(
            {"command": command, "first, s": first, "again, s": again, "ratio": again / first}
        )
    path = ROOT / "docs" / "results" / "starting.json"
    facts = {"cores": os.cpu_count(), "cache MiB": round(size / 2**20, 1)}
    path.write_text(json.dumps(facts | {"rows": rows}, indent=2) + "\n")
    subprocess.run([sys.executable, str(ROOT / "scripts" / "docs.py")], check=True, cwd=ROOT)


if __name__ == "__main__":
    app.run(main)
