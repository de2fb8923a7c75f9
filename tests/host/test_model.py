"""A host predictor as a Model: the same scores as the classifier inside JAX."""

import dataclasses
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fex_jax import attributions, predictors, refine
from fex_jax.host import Bank, HostError, host
from fex_jax.host.bank import identify
from fex_jax.host.model import image_model, model, plain_errors, to_pixels
from fex_jax.probing import probe
from fex_jax.removal import Removal

KEY = jax.random.key(3)


@pytest.fixture(scope="module")
def both(predictor):
    """A small ViT, and the same as a function of uint8 images; a removed patch is pixel 128.

    f sees rounded pixels: in the Flax model too, for patches are the only thing that changes.
    """
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3)).astype(np.uint8)
    normalize = predictor.preprocessing.normalize
    fill = float(normalize(np.full((1, 1, 1, 3), 128, np.uint8)).ravel()[0])
    flax = predictors.image(predictor.config, predictor.params, fill=fill)
    predict = jax.jit(flax.predict)

    def call(batch: np.ndarray) -> np.ndarray:
        assert isinstance(batch, np.ndarray) and batch.dtype == np.uint8
        padded = np.concatenate([batch, np.zeros((8 - len(batch), *batch.shape[1:]), np.uint8)])
        return np.asarray(predict(normalize(padded)))[: len(batch)]

    asked = host(call, labels=predictor.labels, input=(32, 32, 3), batch_size=8)
    hosted, inputs = image_model(asked, Removal("fill", predictor.config.grid), images)
    targets = flax.predict(normalize(images)).argmax(-1)
    return (flax, normalize(images)), (hosted, inputs), targets


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("occlusion", {}),
        ("rise", {"num_queries": 20}),
        ("lime", {"num_queries": 40}),
        ("kernel_shap", {"num_queries": 40}),
    ],
)
def test_methods_that_query_give_the_same_scores(both, method, options):
    """Breaks if a callback exchanges rows, rounds otherwise, or removes other pixels."""
    (flax, images), (hosted, inputs), targets = both
    scores = jax.jit(attributions.METHODS[method], static_argnums=0, static_argnames=tuple(options))
    expected = scores(flax, images, targets, KEY, **options)
    found = scores(hosted, inputs, targets, KEY, **options)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_refinement_gives_the_same_scores(both):
    """Breaks if `refine` cannot query a host predictor."""
    (flax, images), (hosted, inputs), targets = both
    scores = jnp.linspace(-1, 1, 16) * jnp.ones((3, 1))
    refined = jax.jit(refine.refine_scores, static_argnums=0, static_argnames="num_queries")
    expected, found = (
        refined(*which, targets, scores, KEY, num_queries=16)
        for which in ((flax, images), (hosted, inputs))
    )
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_methods_that_look_inside_refuse(both):
    """Breaks if one runs on a model that has no inside, or fails without its name."""
    _, (hosted, inputs), targets = both
    inside = "integrated_gradients", "grad_shap", "smooth_grad", "agi", "deeplift", "attlrp"
    for name in (*inside, "rollout", "gradcam_norm1"):
        with pytest.raises(ValueError, match="looks inside the classifier"):
            attributions.METHODS[name](hosted, inputs, targets, KEY)


def test_blur_and_soft_edges_are_probed(both):
    """Breaks if backgrounds do not travel with their pictures through gathers and jit."""
    _, (hosted, inputs), targets = both
    removal = Removal("blur", (4, 4), 0.5, sigma=3.0)
    soft = dataclasses.replace(hosted, mask=removal.mask)
    with pytest.warns(UserWarning, match="takes nothing of its answer away"):  # random weights
        found = probe(soft, removal.prepare(inputs.images), targets=targets, shares=(1.0, 0.5))
    assert found.answers[0] == pytest.approx(found.clean, abs=1e-5)
    scores = jax.jit(lambda inputs: attributions.occlusion(soft, inputs, targets, chunk=7))
    assert np.isfinite(scores(removal.prepare(inputs.images))).all()


def test_a_bank_answers_masks_of_pictures(tmp_path):
    """Breaks if draw → ask → learn with a bank gives other answers than the callback does.

    f is the mean of each channel; the second time it would fail.
    """
    asked = []

    def call(batch: np.ndarray) -> np.ndarray:
        asked.append(len(batch))
        return batch.mean((1, 2))

    f = host(call, labels=list("rgb"), input=(8, 8, 3), output="value", digest="means")
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3)).astype(np.uint8)
    removal = Removal("blur", (2, 2), 0.5, sigma=2.0)
    direct, inputs = image_model(f, removal, images)
    masks = np.random.default_rng(1).integers(0, 2, (4, 4)).astype(bool)
    expected = direct.predict(direct.mask(inputs, masks))
    for _ in range(2):
        with Bank(tmp_path / "bank", f, removal=str(removal), grid=removal.grid) as bank:
            seen = np.asarray(to_pixels(removal.mask(inputs, masks).images))
            found = bank.ask(identify(images), masks, lambda rows, seen=seen: seen[rows])
        np.testing.assert_allclose(found, expected, atol=1e-3)
    assert asked == [4, 4]  # by the callback and by the bank


def test_tables_by_a_mask_of_ones_own():
    """Breaks if rows of numbers cannot be explained: of a sum, occlusion is each term's share."""
    weight = np.array([1.0, -2.0, 3.0], np.float32)
    asked = host(lambda rows: rows @ weight, labels=("value",), input=(3,), output="value")
    table = model(asked, lambda rows, m: jnp.where(m, rows, 0.5), (3,))
    rows = jnp.array([[1.0, 2.0, 3.0], [0.5, 0.5, 0.5]])
    found = attributions.occlusion(table, rows, jnp.zeros(2, int))
    np.testing.assert_allclose(found, weight * (rows - 0.5), atol=1e-5)
    with pytest.raises(ValueError, match="takes strings"):
        model(host(len, labels=["n"], input="text", output="value"), table.mask, (3,))


def test_a_failure_inside_jit_is_one_sentence(caplog):
    """Breaks if XLA's page of a stack is what a user sees."""
    asked = host(lambda rows: rows * np.nan, labels=("a", "b"), input=(2,), name="f")
    broken = model(asked, lambda rows, m: rows * m, (2,))
    with pytest.raises(HostError, match="^f answered nan for class 0 of input 0; wanted finite"):
        with plain_errors():
            jax.block_until_ready(jax.jit(broken.predict)(jnp.ones((1, 2))))
    assert not caplog.records


ON_ONE_CORE = """
import threading
import numpy as np
import fex_jax
f = fex_jax.host(lambda x: np.full((len(x), 2), 0.5), labels=["a", "b"], input=(224, 224, 3))
pictures = np.zeros((8, 224, 224, 3), np.uint8)
def ask():
    found = fex_jax.attribute("rise", f, pictures, [0] * 8, num_queries=2)
    print(len(found.attributions), flush=True)
threads = [threading.Thread(target=ask, daemon=True) for _ in range(3)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


def test_one_core_answers_several_threads():
    """Breaks if a callback needs another of JAX's threads, of which there are as many as cores:
    XLA takes their number from NPROC."""
    asked = subprocess.run(
        [sys.executable, "-c", ON_ONE_CORE], env=os.environ | {"NPROC": "1"},
        capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert asked.returncode == 0, asked.stderr
    assert asked.stdout.split() == ["8"] * 3


def test_ctrl_c_while_f_is_asked_stays_one():
    """Breaks if a page of XLA's stack comes in its place, which nothing that ends a run expects."""

    def stop(batch):
        raise KeyboardInterrupt

    f = host(stop, labels=("a", "b"), input=(4,))
    asked = model(f, lambda inputs, masks: inputs, (4,))
    with pytest.raises(KeyboardInterrupt), plain_errors():
        np.asarray(jax.jit(asked.predict)(jnp.zeros((2, 4))))
