"""What `fex-jax serve` takes: answers a second and their wait, by clients that ask at once.

    python benchmarks/load.py

The shipped explainer of digit scenes, on this machine's loopback address. Each client asks for one
random picture after the other, base64 of a PNG, over a connection that stays open; server and
clients share the cores. Medians and 99th percentiles over all requests. `--write` keeps the table
in docs/results/load.json.
"""

import base64
import concurrent.futures
import contextlib
import http.client
import io
import json
import pathlib
import subprocess
import sys
import time
from collections.abc import Iterator

import numpy as np
from absl import app, flags
from PIL import Image

ROOT = pathlib.Path(__file__).resolve().parent.parent


def pictures(count: int) -> list[bytes]:
    """Random ones, as PNG files."""
    rng, found = np.random.default_rng(0), []
    for _ in range(count):
        file = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)).save(file, "PNG")
        found.append(file.getvalue())
    return found


@contextlib.contextmanager
def served(explainer: str) -> Iterator[str]:
    """A server of its own process; yields its host and port."""
    command = [sys.executable, "-m", "fex_jax", "serve", explainer, "--port=0"]
    server = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        line = next(line for line in server.stdout if line.startswith("http://"))
        yield line.split()[0].removeprefix("http://")
    finally:
        server.terminate()
        server.wait()


def bodies(count: int) -> list[str]:
    """Requests of one picture each."""
    contents = [base64.b64encode(file).decode() for file in pictures(count)]
    return [json.dumps({"images": [content]}) for content in contents]


def client(address: str, requests: list[str]) -> list[float]:
    """Milliseconds of each request.

    Raises:
      RuntimeError: one was refused.
    """
    connection, times = http.client.HTTPConnection(address), []
    for body in requests:
        start = time.perf_counter()
        connection.request("POST", "/explain", body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        answer = response.read()
        if response.status != 200:
            raise RuntimeError(answer.decode())
        times.append(1000 * (time.perf_counter() - start))
    return times


def measure(address: str, clients: int, count: int) -> dict:
    """A row of the table."""
    shares = [bodies(count // clients)] * clients
    start = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(clients) as pool:
        times = np.concatenate(list(pool.map(client, [address] * clients, shares)))
    took = time.perf_counter() - start
    return {
        "Clients": str(clients),
        "Requests": len(times),
        "p50 ms": float(np.percentile(times, 50)),
        "p99 ms": float(np.percentile(times, 99)),
        "a second": len(times) / took,
    }


def main(_: list[str]) -> None:
    given = flags.FLAGS
    with served("models/digits_fex") as address:
        time.sleep(given.pause)
        measure(address, 16, 160)  # warms up
        rows = [measure(address, int(clients), given.requests) for clients in given.clients]
    for row in rows:
        print(row)
    if given.write:
        path = ROOT / "docs" / "results" / "load.json"
        path.write_text(json.dumps({"rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    flags.DEFINE_integer("requests", 1000, "Of all clients together.")
    flags.DEFINE_list("clients", ["1", "4", "16"], "That ask at once.")
    flags.DEFINE_float("pause", 20, "Seconds in which the server compiles larger batches.")
    flags.DEFINE_bool("write", False, "Write docs/results/load.json.")
    app.run(main)
