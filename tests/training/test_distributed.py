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
import ml_collections
import numpy as np
import pytest
from safetensors.numpy import load_file

from fex_jax import feeding, host, pretrained, settings, sharding
from fex_jax.host import black_box
from fex_jax.host.model import callback
from fex_jax.host.pictures import default_sigma
from fex_jax.removal import Removal
from fex_jax.training.explainer import train
from tests.conftest import random_checkpoint

ROOT = pathlib.Path(__file__).resolve().parents[2]
PICTURES = np.random.default_rng(0).integers(0, 256, (136, 32, 32, 3), np.uint8)
SCRIPT = """
import sys
from fex_jax import sharding
sharding._SMALLEST_SPLIT = 64  # so that the tiny model is split at all
from tests.training import test_distributed
workdir, port, index = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
test_distributed.configured(port, index)  # connects
test_distributed.ask_apart()
test_distributed.run_black_box(workdir + "_box", port, index)
test_distributed.run(workdir, port, index)
"""


def configured(port: int, index: int) -> ml_collections.ConfigDict:
    """8 batches, in this process or, with a port, in one of two."""
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
    return config


def run(workdir, port: int = 0, index: int = 0) -> None:
    """A tiny ViT's explainer."""
    config, predictor = configured(port, index), random_checkpoint()
    train(config, pathlib.Path(workdir), predictor, feeding.open_data(predictor, PICTURES)[0])


def ask_apart() -> None:
    """Each process is asked about its own rows, in order; where they do not divide, one is."""
    mesh, asked = sharding.make_mesh(2), []

    def double(rows: np.ndarray) -> np.ndarray:
        asked.append(len(rows))
        return np.float32(2) * rows

    with jax.set_mesh(mesh):
        ask = jax.jit(lambda x: callback(double, 3, x), out_shardings=sharding.replicated(mesh))
        for size, of_first, of_others in ((4, [2], [2]), (3, [3], [])):
            asked.clear()
            x = np.arange(size * 3, dtype=np.float32).reshape(size, 3)
            np.testing.assert_array_equal(ask(x), 2 * x)
            jax.effects_barrier()
            assert asked == (of_others if jax.process_index() else of_first), (size, asked)


def quarters(pictures: np.ndarray) -> np.ndarray:
    """A classifier that is asked: how bright each quarter of a picture is."""
    halves = np.stack(np.split(pictures.mean(-1) / 255, 2, 1), 1)
    return np.stack(np.split(halves, 2, 3), 2).mean((3, 4)).reshape(-1, 4) * 20


def run_black_box(workdir: str, port: int, index: int) -> None:
    """Two batches about what can only be asked."""
    config = configured(port, index)
    pretrained.save(reads := pathlib.Path(f"{workdir}_vit{index}"), random_checkpoint())
    config.update({"map_head": "shared", "policy_backbone": {"path": str(reads)}})
    config.removal.update({"grid": 4, "kind": "fill", "softness": 0.0})
    f = host.host(quarters, labels=list("abcd"), input=(32, 32, 3), output="logits")
    source = feeding.open_data(black_box.of(f), PICTURES[:32])[0]
    train(config, pathlib.Path(workdir), f, source, queries=2_000)


def answers(folder: pathlib.Path) -> set[bytes]:
    """Pictures that a bank has answers about, each of one whole and four masked ones."""
    f = host.host(quarters, labels=list("abcd"), input=(32, 32, 3), output="logits")
    removal = Removal("fill", (4, 4), 0.0, sigma=default_sigma((32, 32)))
    where = {"removal": str(removal), "grid": (4, 4)}
    with host.Bank(folder / black_box.ANSWERS, f, **where) as bank:
        assert len(bank) >= 16 * 4  # two masks of a picture may be alike
        return {name for name, _, _ in bank.records()}


def losses(workdir: pathlib.Path) -> list[float]:
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


def test_two_processes_stop_together_and_one_goes_on(tmp_path, caplog):
    """Breaks if batches, gradients, held-out inputs or checkpoints depend on the processes.

    Or if what can only be asked is not asked by each process about its own inputs, once.

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
    first, second = (answers(tmp_path / "both_box" / name) for name in ("", "process_1"))
    assert len(first) == len(second) == 16 and not first & second
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
