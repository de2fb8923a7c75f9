"""Several processes train as one does, stop together, and go on where they stopped."""

import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import jax
import ml_collections
import numpy as np
import pytest
from safetensors.numpy import load_file

from configs import idexpo_digits
from fex_jax import feeding, host, pretrained, settings, sharding
from fex_jax.host import black_box
from fex_jax.host.model import callback
from fex_jax.host.pictures import default_sigma
from fex_jax.removal import Removal
from fex_jax.training import joint
from fex_jax.training.explainer import train
from tests.conftest import random_checkpoint
from tests.test_sharding import losses

ROOT = pathlib.Path(__file__).resolve().parents[2]
PICTURES = np.random.default_rng(0).integers(0, 256, (136, 32, 32, 3), np.uint8)
SCRIPT = """
import sys
import jax
jax.config.update("jax_num_cpu_devices", 2)
from fex_jax import sharding
sharding._SMALLEST_SPLIT = 64  # so that the tiny models are split at all
from tests import test_sharding
from tests.training import test_distributed as own
workdir, port, index, begins = sys.argv[1], *map(int, sys.argv[2:])
with sharding.ending_together():
    own.configured(port, index)  # connects
    if begins:
        own.refuse_id_expo()
        test_sharding.same_gradients([sharding.make_mesh(4)])
        own.ask_apart()
        own.run_black_box(workdir + "_box", port, index)
    own.run(workdir, port, index)
"""


def configured(port: int, index: int) -> ml_collections.ConfigDict:
    """16 batches, in this process or, with a port, in one of two."""
    config = settings.default()
    config.update_from_flattened_dict(
        {
            "batch_size": 16, "epochs": 2.0, "log_every": 1, "checkpoint.every": 3,
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


def refuse_id_expo() -> None:
    """Each process would train all, and write over the others."""
    with pytest.raises(ValueError, match="there are 2 processes; id_expo trains in one"):
        joint.require(idexpo_digits.get_config(), joint.EXPLAINERS)


def ask_apart() -> None:
    """Each process is asked about its own rows, in order; where they do not divide, one is."""
    mesh, asked = sharding.make_mesh(2), []

    def double(rows: np.ndarray) -> np.ndarray:
        asked.append(len(rows))
        return np.float32(2) * rows[:, :3]

    with jax.set_mesh(mesh):
        ask = jax.jit(lambda x: callback(double, 3, x), out_shardings=sharding.replicated(mesh))
        # Of rows that divide as many numbers as pictures have.
        for size, width, of_first, of_others in ((8, 2**16, [2, 2], [2, 2]), (3, 3, [3], [])):
            asked.clear()
            x = np.arange(size * width, dtype=np.float32).reshape(size, width)
            np.testing.assert_array_equal(ask(x), 2 * x[:, :3])
            jax.effects_barrier()
            assert asked == (of_others if jax.process_index() else of_first), (size, asked)


def quarters(pictures: np.ndarray) -> np.ndarray:
    """A classifier that is asked: how bright each quarter of a picture is."""
    halves = np.stack(np.split(pictures.mean(-1) / 255, 2, 1), 1)
    return np.stack(np.split(halves, 2, 3), 2).mean((3, 4)).reshape(-1, 4) * 20


def run_black_box(workdir: str, port: int, index: int) -> None:
    """Two batches about what can only be asked."""
    config = configured(port, index)
    config.epochs = 1.0
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


@contextlib.contextmanager
def two_processes(workdir: pathlib.Path, begins: bool) -> Iterator[list[subprocess.Popen]]:
    """Of two devices and one core each; they run `SCRIPT` and are dead afterwards."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with contextlib.ExitStack() as stack:
        processes = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", SCRIPT, workdir, *map(str, (port, index, int(begins)))],
                    cwd=ROOT,
                    env=os.environ | {"PYTHONPATH": str(ROOT), "NPROC": "1"},
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                )
            )
            for index in range(2)
        ]
        try:
            yield processes
        finally:
            for process in processes:
                process.kill()


def wait_for(steps: int, workdir: pathlib.Path, processes: list[subprocess.Popen]) -> None:
    """Until the run has logged so many."""
    deadline = time.monotonic() + 300
    while not (workdir / "metrics.jsonl").is_file() or len(losses(workdir)) < steps:
        for process in processes:
            assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline, "took too long"
        time.sleep(0.01)


def test_two_processes_stop_together_and_go_on(tmp_path, caplog):
    """Breaks if batches, gradients, held-out inputs or checkpoints depend on the processes.

    Or if what can only be asked is not asked by each process about its own inputs, once, or a
    process of one core waits for ever for its answer; or if ID-ExpO, which trains in one process,
    begins in two.

    Of two processes with two devices each, which share the parameters, one is killed in the middle;
    the other must say so and end. The same two go on until a signal to one of them stops both; this
    process goes on with what they saved, on a mesh of its own. Or if a step that begins a run,
    follows another or continues a run is not of the same program: each takes seconds.
    """

    def run_here(workdir: pathlib.Path) -> None:
        caplog.clear()
        with jax.log_compiles():
            run(workdir)
        assert sum("Compiling jit(step) " in line for line in caplog.messages) == 1

    both, alone = tmp_path / "both", tmp_path / "alone"
    with two_processes(both, begins=True) as processes:
        run_here(alone)  # meanwhile
        wait_for(4, both, processes)
        processes[1].kill()
        said = processes[0].communicate(timeout=60)[0]
        assert processes[0].returncode == 1, said
        assert "error: another process of this run has ended" in said
    killed = losses(both)
    assert 4 <= len(killed) < 14, "the kill came too late to test anything"
    first, second = (answers(tmp_path / "both_box" / name) for name in ("", "process_1"))
    assert len(first) == len(second) == 16 and not first & second

    with two_processes(both, begins=False) as processes:
        wait_for(len(killed) + 1, both, processes)
        processes[1].send_signal(signal.SIGTERM)
        said = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [128 + signal.SIGTERM] * 2, said
    assert "stopped by SIGTERM at step" in said[0] and "stopped by" not in said[1]
    until = losses(both)
    assert len(killed) < len(until) < 16, "the signal came too late to test anything"
    np.testing.assert_allclose(until[: len(killed)], killed, rtol=1e-6)

    run_here(both)
    np.testing.assert_allclose(losses(both), losses(alone), rtol=2e-4)
    found, expected = (
        load_file(path / "export" / "explainer.safetensors") for path in (both, alone)
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
