"""Rules that place arrays, on a mesh of virtual devices in a process of its own."""

import subprocess
import sys
import textwrap

import jax
import pytest

from fex_jax import sharding


def test_mesh_must_divide_the_devices():
    """Breaks if a wrong mesh.fsdp ends in a traceback from inside JAX."""
    with pytest.raises(ValueError, match=f"does not divide the {jax.device_count()} devices"):
        sharding.make_mesh(jax.device_count() + 1)


def test_four_devices_give_the_loss_and_gradients_of_one():
    """Breaks if sharding changes the training step: gradients and metrics on (1), (4, 1), (2, 2).

    The optimiser is plain descent with rate 1 on one update, so new minus old parameters are
    the gradient.
    """
    script = """
        import sys
        import jax
        jax.config.update("jax_num_cpu_devices", 4)
        import jax.numpy as jnp, numpy as np, optax
        from fex_jax import contrast, ppo, predictors, sharding, updates
        from fex_jax.models.policy import functional_policy
        from tests.conftest import random_checkpoint, random_params

        sharding._SMALLEST_SPLIT = 64  # so that the tiny model is split at all
        predictor = random_checkpoint()
        init, bind = functional_policy(predictor.config, 10)
        params = random_params(init)
        optimizer = optax.sgd(1.0)
        objective = contrast.Objective(num_updates=1)
        images = np.random.default_rng(0).normal(size=(16, 32, 32, 3)).astype(np.float32)

        def step(state, frozen, images):
            model = predictors.image(predictor.config, frozen)
            return contrast.train_step(
                state, model, images, jax.random.key(1), read=lambda p, x: None,
                policy=lambda p, pair, y: ppo.PolicyOutput(*bind(p)(pair[0], y)),
                optimizer=optimizer, objective=objective)

        results = []
        for devices, fsdp in ((1, 1), (4, 1), (4, 2)):
            mesh = jax.make_mesh((devices // fsdp, fsdp), ("data", "fsdp"),
                                 axis_types=(jax.sharding.AxisType.Auto,) * 2,
                                 devices=jax.devices()[:devices])
            state = updates.TrainState(params, optimizer.init(params), jnp.zeros((), jnp.int32))
            shardings = sharding.split_parameters(state, mesh)
            split = [s for s in jax.tree.leaves(shardings) if s.spec]
            assert bool(split) == (fsdp > 1), split
            run = jax.jit(step, out_shardings=(shardings, sharding.replicated(mesh)))
            new, metrics = run(
                jax.device_put(state, shardings),
                jax.device_put(predictor.params, sharding.split_parameters(predictor.params, mesh)),
                sharding.global_batch(images, mesh))
            gradient = jax.tree.map(lambda a, b: np.asarray(a) - np.asarray(b), params, new.params)
            results.append((gradient, jax.tree.map(float, metrics)))
        for gradient, metrics in results[1:]:
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4), results[0][0],
                         gradient)
            for name, value in results[0][1].items():
                np.testing.assert_allclose(
                    metrics[name], value, rtol=1e-5, atol=1e-3, err_msg=name)
        assert max(np.abs(x).max() for x in jax.tree.leaves(results[0][0])) > 1e-2
        print("equal")
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=300
    )
    assert result.stdout.strip() == "equal", result.stderr[-3000:]
