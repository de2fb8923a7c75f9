"""The memory of a job of `fex-jax explain` over 100,000 pictures.

    python benchmarks/batch_memory.py

A thousand drawn scenes, each a hundred times under other names, in a tar; the shipped explainer.
The memory is the process's resident set, read once a second from /proc, at shares of the job's
time; a tenth of it is over when all is compiled. `--write` keeps the figures in
docs/results/batch_memory.json.
"""

import io
import json
import os
import pathlib
import subprocess
import sys
import tarfile
import tempfile
import time

from absl import app, flags
from PIL import Image

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from fex_jax import scenes  # noqa: E402

_SCENES = 1000


def pack(path: pathlib.Path, count: int) -> None:
    """A tar of `count` pictures."""
    objects, layout = scenes.split_objects(scenes.digits(), "test"), scenes.Layout(64)
    contents = []
    for i in range(min(_SCENES, count)):
        file = io.BytesIO()
        Image.fromarray(scenes.draw(objects, layout, 2, i).image).save(file, "PNG")
        contents.append(file.getvalue())
    with tarfile.open(path, "w") as tar:
        for i in range(count):
            member = tarfile.TarInfo(f"{i:07}.png")
            member.size = len(contents[i % _SCENES])
            tar.addfile(member, io.BytesIO(contents[i % _SCENES]))


def resident(process: subprocess.Popen) -> float:
    """Mebibytes."""
    pages = int(pathlib.Path(f"/proc/{process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE") / 2**20


def main(_: list[str]) -> None:
    given, samples = flags.FLAGS, []
    with tempfile.TemporaryDirectory() as temporary:
        home = pathlib.Path(temporary)
        pack(home / "scenes.tar", given.items)
        command = [sys.executable, "-m", "fex_jax", "explain", "models/digits_fex"]
        command += [f"--input={home / 'scenes.tar'}", f"--output={home / 'out'}"]
        start = time.monotonic()
        process = subprocess.Popen(
            command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, stderr=subprocess.DEVNULL
        )
        while process.poll() is None:
            samples.append(resident(process))
            time.sleep(1)
        took = time.monotonic() - start
        if process.returncode:
            sys.exit(process.returncode)
    row: dict = {"Items": given.items, "items/s": given.items / took}
    for share in (0.1, 0.5, 0.9):
        row[f"MiB after {share * 100:.0f} %"] = samples[int(share * len(samples))]
    row["MiB at most"] = max(samples)
    print(row)
    if given.write:
        path = ROOT / "docs" / "results" / "batch_memory.json"
        path.write_text(json.dumps({"rows": [row]}, indent=2) + "\n")


if __name__ == "__main__":
    flags.DEFINE_integer("items", 100_000, "Pictures of the job.")
    flags.DEFINE_bool("write", False, "Write docs/results/batch_memory.json.")
    app.run(main)
