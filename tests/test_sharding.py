"""Rules that place arrays, on meshes of virtual devices in a process of its own."""

import json
import pathlib
import subprocess
import sys

import jax
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, Mesh

from fex_jax import (
    contrast,
    evaluation,
    explain,
    feeding,
    host,
    ppo,
    predictors,
    settings,
    sharding,
    updates,
)
from fex_jax.data import tables
from fex_jax.models.policy import functional_policy
from fex_jax.training.explainer import train
from tests import tiny_text
from tests.conftest import random_checkpoint, random_params

PIXELS = np.random.default_rng(0).integers(0, 256, (32, 32, 32, 3), np.uint8)
SCRIPT = """
import pathlib, sys
import jax
jax.config.update("jax_num_cpu_devices", 4)
from fex_jax import sharding
sharding._SMALLEST_SPLIT = 64  # so that the tiny models are split at all
from tests import test_sharding as own
own.same_gradients([own.mesh(4, 1), own.mesh(4, 2)])
own.score(pathlib.Path(sys.argv[1]) / "scores_4.npz")
own.train_each(pathlib.Path(sys.argv[1]) / "four", fsdp=2)
"""


def test_mesh_must_divide_the_devices():
    """Breaks if a wrong mesh.fsdp ends in a traceback from inside JAX."""
    with pytest.raises(ValueError, match=f"does not divide the {jax.device_count()} devices"):
        sharding.make_mesh(jax.device_count() + 1)


def mesh(devices: int, fsdp: int) -> Mesh:
    """Of some of this process's own devices."""
    own, names = jax.local_devices()[:devices], ("data", "fsdp")
    types = (AxisType.Auto,) * 2
    return jax.make_mesh((devices // fsdp, fsdp), names, axis_types=types, devices=own)


def same_gradients(meshes: list[Mesh]) -> None:
    """Each mesh gives the loss and the gradients that one device gives.

    The optimiser is plain descent with rate 1 on one update, so old minus new parameters are the
    gradient. Meshes may span processes, of which the first compares.
    """
    predictor = random_checkpoint()
    init, bind = functional_policy(predictor.config, 10)
    params = jax.tree.map(np.asarray, random_params(init))
    optimizer = optax.sgd(1.0)
    objective = contrast.Objective(num_updates=1)
    images = np.random.default_rng(0).normal(size=(16, 32, 32, 3)).astype(np.float32)

    def step(state, frozen, images):
        model = predictors.image(predictor.config, frozen)
        return contrast.train_step(
            state, model, images, jax.random.key(1), read=lambda p, x: None,
            policy=lambda p, pair, y: ppo.PolicyOutput(*bind(p)(pair[0], y)),
            optimizer=optimizer, objective=objective,
        )  # fmt: skip

    def run(mesh):
        step_0 = np.zeros((), np.int32)
        state = updates.TrainState(params, optimizer.init(params), step_0)
        own = jax.tree.map(np.asarray, predictor.params)
        shardings = sharding.split_parameters(state, mesh)
        split = [s for s in jax.tree.leaves(shardings) if "fsdp" in tuple(s.spec)]
        assert bool(split) == (mesh.shape["fsdp"] > 1), split
        rows = images  # of all processes
        if mesh.size > jax.local_device_count():
            rows = np.split(images, jax.process_count())[jax.process_index()]
        new, metrics = jax.jit(step, out_shardings=(shardings, sharding.replicated(mesh)))(
            jax.device_put(state, shardings),
            jax.device_put(own, sharding.split_parameters(own, mesh)),
            sharding.global_batch(rows, mesh),
        )
        return sharding.gather(new.params, mesh), jax.tree.map(float, metrics)

    first = jax.process_index() == 0
    expected = run(mesh(1, 1)) if first else None
    for other in meshes:
        found = run(other)
        if not first:
            continue
        (new, metrics), (own, said) = expected, found
        moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), params, new)
        assert max(jax.tree.leaves(moved)) > 1e-2
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4), own, new)
        for name, value in metrics.items():
            np.testing.assert_allclose(said[name], value, rtol=1e-5, atol=1e-3, err_msg=name)


def brightness(frame) -> np.ndarray:
    """A function of rows, with an interaction."""
    return frame["a"].to_numpy() * 2 + frame["b"].to_numpy() * frame["c"].to_numpy()


def train_each(folder: pathlib.Path, fsdp: int) -> None:
    """Two steps of FastSHAP of pictures, FEX of texts, and FastSHAP of a table."""
    pd = pytest.importorskip("pandas")

    def small(config, **changes):
        values = {"batch_size": 16, "epochs": 1.0, "log_every": 1, "checkpoint.every": 100}
        config.update_from_flattened_dict(values | {"mesh.fsdp": fsdp} | changes)
        return config

    pictures = random_checkpoint()
    source = feeding.open_data(pictures, PIXELS)[0]
    train(small(settings.default("fastshap")), folder / "pictures", pictures, source)

    texts = tiny_text.checkpoint()
    source = feeding.open_data(texts, [f"{word} film" for word in tiny_text.WORDS[:18]] * 2)[0]
    own = {"policy": "bert", "text.max_length": 16, "data.limit": 32}
    config = small(settings.default(), **own)
    train(config, folder / "texts", texts, source)

    rows = pd.DataFrame(np.random.default_rng(0).normal(size=(40, 3)), columns=list("abc"))
    f = host.host(brightness, labels=("y",), input="table", output="value")
    source = tables.open_table(rows[:32], background=rows[32:])
    config = small(settings.of_tables("shapley"), **{"objective.num_updates": 2})
    train(config, folder / "table", f, source)


def score(file: pathlib.Path) -> None:
    """Scores and statistics of an explainer and of methods, of 24 pictures in batches of 8."""
    predictor = random_checkpoint()
    params = random_params(functional_policy(predictor.config, 10)[0])
    explainer = explain.Explainer(predictor, predictor.config, params, budget=-3.0)
    part = explainer.answers(PIXELS[:8]).addressable_shards[0].data
    assert len(part) == 8 // jax.local_device_count()
    methods = ["rise", "gradient_x_input"]
    table = evaluation.evaluate([*methods, explainer], explainer, PIXELS[:24], batch_size=8)
    found = {}
    for name, ((scores, statistics),) in table.results.items():
        found |= {f"{name}/{key}": value for key, value in statistics.items()}
        found[f"{name}/scores"] = scores.targets
    np.savez(file, **found, devices=jax.local_device_count())


def losses(workdir: pathlib.Path) -> list[float]:
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


def test_four_devices_do_what_one_does(tmp_path):
    """Breaks if sharding changes training: gradients and metrics on (4, 1) and (2, 2).

    Or a run of FastSHAP, of texts or of a table there. Or if methods have other scores where four
    devices compute them, or one of the four computes all.
    """
    command = [sys.executable, "-c", SCRIPT, tmp_path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        score(tmp_path / "scores_1.npz")  # meanwhile
        train_each(tmp_path / "one", fsdp=1)
        said = process.communicate(timeout=300)[0]
    assert process.returncode == 0, said.decode()[-3000:]
    one, four = (np.load(tmp_path / f"scores_{count}.npz") for count in (1, 4))
    assert (one["devices"], four["devices"]) == (1, 4) and len(one.files) == len(four.files) > 20
    for name in set(one.files) - {"devices"}:
        np.testing.assert_allclose(four[name], one[name], rtol=1e-4, atol=1e-5, err_msg=name)
    for name in ("pictures", "texts", "table"):
        expected = losses(tmp_path / "one" / name)
        assert len(expected) == 2
        found = losses(tmp_path / "four" / name)
        np.testing.assert_allclose(found, expected, rtol=2e-4, atol=1e-5, err_msg=name)
