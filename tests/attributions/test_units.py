"""Functions whose attributions are known by construction, as XAI-Units has them.

Lee et al. 2025, XAI-Units: Benchmarking Explainability Methods with Unit Tests, arXiv 2506.01059:
tables of numbers, each unit one behaviour of a model. A removed number is 0.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fex_jax import attributions
from fex_jax.predictors import Model

RNG = np.random.default_rng(0)
X = RNG.uniform(0.5, 1.5, (4, 6)).astype(np.float32)
W = RNG.normal(size=6).astype(np.float32)
OPTIONS = {"kernel_shap": {"num_queries": 62}}  # all coalitions
LINEAR = ["gradient_x_input", "integrated_gradients", "deeplift"]


def attribute(name: str, logits, x: np.ndarray = X, output="softmax") -> np.ndarray:
    """φ [B, 6] of class 0 by a method, of a function x [B, 6] → logits [B, K]."""
    answer = {"softmax": jax.nn.softmax, "value": lambda values: values}[output]
    model = Model(
        predict=lambda x: answer(logits(x)),
        mask=lambda x, masks: x * masks.astype(x.dtype),
        grid=(6,),
        output=output,
        embed=lambda x: x,
        logits=lambda x, _: logits(x),
        pool=lambda values, _: values,
    )
    given = model, x, np.zeros(4, int), jax.random.key(0)
    return np.asarray(attributions.METHODS[name](*given, **OPTIONS.get(name, {})))


@pytest.mark.parametrize("name", LINEAR)
def test_weighted_numbers(name):
    """Breaks if terms of a sum under a softmax have other shares than their own: w_i x_i."""
    found = attribute(name, lambda x: jnp.stack([x @ W, 0 * x[:, 0]], -1))
    shares = found / (W * X)
    np.testing.assert_allclose(shares, np.broadcast_to(shares[:, :1], shares.shape), rtol=1e-4)
    assert (shares > 0).all()


@pytest.mark.parametrize("name", [*LINEAR, "kernel_shap", "occlusion"])
def test_conflicting_numbers(name):
    """Breaks if a number that cancels another does not bear half of it: y = Σ w_i x_i (1 − c_i).

    What is taken away alone bears all or nothing: x_i changes nothing where c_i = 1.
    """
    x = X.copy()
    x[:, 3:] = 1  # c

    def value(x):
        return ((1 - x[:, 3:]) * x[:, :3] @ W[:3])[:, None]

    whole = W[:3] * x[:, :3]
    halves = np.concatenate([whole / 2, -whole / 2], -1)
    expected = {
        "gradient_x_input": np.concatenate([0 * whole, -whole], -1),
        "occlusion": np.concatenate([0 * whole, -whole], -1),
    }
    found = attribute(name, value, x, "value")
    np.testing.assert_allclose(found, expected.get(name, halves), atol=1e-5)


@pytest.mark.parametrize(
    "name",
    ["occlusion", "kernel_shap", *LINEAR[:2], "grad_shap", "smooth_grad", "agi"],
)
def test_what_all_classes_share(name):
    """Breaks if a number that adds the same to every class counts, or one that adds to none.

    DeepLIFT explains a logit, to which it does add.
    """

    def logits(x):
        return jnp.stack([2 * x[:, 0], 2 * x[:, 1], x[:, 2] - x[:, 3]], -1) + 3 * x[:, 5:]

    found = np.abs(attribute(name, logits))
    assert found[:, 4:].max() < 1e-5 * found.max()
