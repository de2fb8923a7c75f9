"""Several processes train as one does, stop together, and one goes on where they stopped."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import textwrap
import time

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from fex_jax import feeding, settings, sharding
from fex_jax.training.explainer import train
from tests.conftest import random_checkpoint

ROOT = pathlib.Path(__file__).resolve().parents[2]
PICTURES = np.random.default_rng(0).integers(0, 256, (136, 32, 32, 3), np.uint8)
SCRIPT = """
import sys
from fex_jax import sharding
sharding._SMALLEST_SPLIT = 64  # so that the tiny model is split at all
from tests.training import test_distributed
test_distributed.run(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
"""


def run(workdir, port: int = 0, index: int = 0) -> None:
    """8 steps of a tiny ViT, in this process or, with a port, in one of two."""
    config = settings.default()
    config.update_from_flattened_dict(
        {
            "batch_size": 16, "epochs": 1.0, "log_every": 1, "checkpoint.every": 100,
            "objective.num_masks": 4, "objective.num_updates": 2, "objective.num_passes": 1,
            "optimizer.learning_rate": 1e-3, "optimizer.backbone_scale": 1.0,
        }
    )  # fmt: skip
    if port:
        config.distributed = {"address": f"127.0.0.1:{port}", "count": 2, "index": index}
        config.mesh.fsdp = 2
        sharding.connect(**config.distributed)  # before the predictor's weights are drawn
    predictor = random_checkpoint()
    train(config, pathlib.Path(workdir), predictor, feeding.open_data(predictor, PICTURES)[0])


def losses(workdir: pathlib.Path) -> list[float]:
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


def test_two_processes_stop_together_and_one_goes_on(tmp_path, caplog):
    """Breaks if batches, gradients, held-out inputs or checkpoints depend on the processes.

    Two processes that share the parameters are told to stop in the middle, by a signal to one of
    them; this process goes on with what they saved, on a mesh of its own. Or if a step that begins
    a run, follows another or continues a run is not of the same program: each takes seconds.
    """

    def run_here(workdir: pathlib.Path) -> None:
        caplog.clear()
        with jax.log_compiles():
            run(workdir)
        assert sum("Compiling jit(step) " in line for line in caplog.messages) == 1

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    both = tmp_path / "both"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(SCRIPT), both, str(port), str(index)],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for index in range(2)
    ]
    try:
        deadline = time.monotonic() + 300
        while not (both / "metrics.jsonl").is_file() or len(losses(both)) < 2:
            assert all(process.poll() is None for process in processes), processes[0].stdout.read()
            assert time.monotonic() < deadline, "took too long"
            time.sleep(0.02)
        processes[1].send_signal(signal.SIGTERM)
        run_here(tmp_path / "alone")  # meanwhile
        said = [process.communicate(timeout=120)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [128 + signal.SIGTERM] * 2, said
    assert "stopped by SIGTERM at step" in said[0] and "stopped by" not in said[1]
    until = len(losses(both))
    assert 2 <= until < 8, "the signal came too late to test anything"

    run_here(both)
    np.testing.assert_allclose(losses(both), losses(tmp_path / "alone"), rtol=2e-4)
    found, expected = (
        load_file(path / "export" / "explainer.safetensors") for path in (both, tmp_path / "alone")
    )
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=2e-3, err_msg=name)


@pytest.mark.parametrize(
    "address, count, index",
    [("host", 2, 0), ("host:1", 0, 0), ("host:1", 2, 2), ("host:1", 2, -1), ("a b:1", 2, 0)],
)
def test_what_cannot_be_is_said(address, count, index):
    """Breaks if a wrong number ends in minutes of waiting."""
    with pytest.raises(ValueError, match=f"distributed.address is '{address}', count {count}"):
        sharding.connect(address, count, index)
