"""DeepLIFT: captum's numbers on networks of its own rules, and completeness on all others."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fex_jax.attributions.deeplift import deeplift
from fex_jax.predictors import Model
from tests.attributions.white_box import KEY, images, perceptron, rows, targets, texts, tiny
from tests.attributions.white_box import tiny_bert as bert

RNG = np.random.default_rng(0)
FILTERS = RNG.normal(size=(4, 3, 3, 3)).astype(np.float32)  # torch's order
FIRST, SECOND = (RNG.normal(size=s).astype(np.float32) / 8 for s in ((4 * 36, 16), (16, 5)))


def convolutional(activation) -> Model:
    """A convolution, an activation, and two layers with one between: [B, 8, 8, 3] → [B, 5]."""

    def logits(x, _=None):
        given = jnp.moveaxis(x, -1, 1)
        hidden = activation(jax.lax.conv(given, FILTERS, (1, 1), "VALID"))
        return activation(hidden.reshape(len(x), -1) @ FIRST) @ SECOND

    return Model(
        predict=lambda x: jax.nn.softmax(logits(x)),
        mask=lambda x, masks: jnp.where(masks.reshape(-1, 8, 8, 1), x, 0),
        grid=(8, 8),
        embed=lambda x: x,
        logits=logits,
        pool=lambda values, _: values.sum(-1).reshape(len(values), -1),
    )


@pytest.mark.parametrize(
    "name, activation", [("ReLU", jax.nn.relu), ("Tanh", jnp.tanh), ("Softplus", jax.nn.softplus)]
)
def test_equals_captum(name, activation):
    """Breaks if a multiplier is a gradient, or of another baseline, sign or order."""
    torch = pytest.importorskip("torch")
    captum = pytest.importorskip("captum.attr")
    convolution = torch.nn.Conv2d(3, 4, 3, bias=False)
    first, second = torch.nn.Linear(4 * 36, 16, bias=False), torch.nn.Linear(16, 5, bias=False)
    with torch.no_grad():
        for layer, weights in ((convolution, FILTERS), (first, FIRST.T), (second, SECOND.T)):
            layer.weight.copy_(torch.tensor(weights))
    one, other = getattr(torch.nn, name)(), getattr(torch.nn, name)()
    twin = torch.nn.Sequential(convolution, one, torch.nn.Flatten(), first, other, second)
    x, y = rows(2, 8, 8), targets()
    start = 0.3 * rows(3, 8, 8)[2:]
    expected = captum.DeepLift(twin).attribute(
        torch.tensor(x).permute(0, 3, 1, 2), torch.tensor(start).permute(0, 3, 1, 2),
        target=torch.tensor(y),
    )  # fmt: skip
    expected = expected.sum(1).reshape(2, -1).detach().numpy()
    found = deeplift(convolutional(activation), x, y, KEY, baseline=start)
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_a_network_of_one_unit_by_hand():
    """Breaks if a unit that is off at x and on at x′ hands down its gradient, which is 0."""

    def logits(x, _=None):
        return jax.nn.relu(x @ jnp.array([[1.0], [-2.0]]) + 0.5)

    unit = Model(
        predict=logits, mask=lambda x, m: jnp.where(m, x, 0), grid=(2,), embed=lambda x: x,
        logits=logits, pool=lambda values, _: values, output="value",
    )  # fmt: skip
    # 1 − 4 + 0.5 < 0, so 0; without any feature 0.5: Δout / Δin = −0.5 / −3.
    found = deeplift(unit, np.array([[1.0, 2.0]]), np.array([0]))
    np.testing.assert_allclose(found, [[1 / 6, -4 / 6]], rtol=1e-6)


@pytest.mark.parametrize("output", ["logit", "probability"])
def test_completeness_of_a_transformer(output):
    """Breaks if softmax, LayerNorm, GELU or a product of what changes loses a part."""
    f = {"logit": lambda logits: logits, "probability": jax.nn.softmax}[output]
    model, x, y = tiny("vit"), images(), targets()

    def gain(x):
        blank = model.blank(x)
        return f(model.logits(x, x)) - f(model.logits(blank, blank))

    found = deeplift(model, x, y, output=output)
    expected = np.asarray(jax.jit(gain)(x))[np.arange(2), y]
    np.testing.assert_allclose(found.sum(1), expected, atol=2e-5)
    assert (np.abs(expected) > 5e-4).all()


def test_completeness_of_a_text():
    """Breaks if a padded text, or one of [MASK]s, is read otherwise than f reads it."""
    model = bert()

    def gain(x):
        start = model.logits(model.embed(model.blank(x)), x)
        return model.logits(model.embed(x), x) - start

    found = deeplift(model, texts(), np.array([0, 1]))
    expected = np.asarray(jax.jit(gain)(texts()))[np.arange(2), [0, 1]]
    np.testing.assert_allclose(found.sum(1), expected, atol=2e-5)


def test_loops_are_refused():
    """Breaks if a loop hands down its gradient as if that were the rule."""
    plain = perceptron()

    def looped(x, _=None):
        return jax.lax.fori_loop(0, 2, lambda _, y: jnp.tanh(y), plain.logits(x))

    with pytest.raises(ValueError, match="deeplift reads no loops, and this network has a"):
        deeplift(dataclasses.replace(plain, logits=looped), rows(), targets())
    with pytest.raises(ValueError, match="output 'odds' is not one of"):
        deeplift(plain, rows(), targets(), output="odds")
