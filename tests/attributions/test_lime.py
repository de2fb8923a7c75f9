"""LIME, against scikit-learn and captum on the same masks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import Ridge

from fex_jax.attributions.lime import lime, weighted_ridge
from fex_jax.attributions.queries import bernoulli
from tests.attributions.parity import torch_twin


def test_regression_is_scikit_learns():
    """Breaks if the intercept is penalised or the weights are not used."""
    rng = np.random.default_rng(0)
    masks, values = rng.integers(0, 2, (40, 6)), rng.normal(size=40).astype(np.float32)
    weights = rng.uniform(size=40).astype(np.float32)
    expected = Ridge(alpha=0.7).fit(masks, values, weights).coef_
    actual = weighted_ridge(jnp.asarray(masks), values, weights, 0.7)
    np.testing.assert_allclose(actual, expected, atol=1e-5)


def masks_of(key: jax.Array, count: int, batch: int, size: int) -> np.ndarray:
    """LIME's own draws [M, B, N]."""
    draw = bernoulli(jnp.broadcast_to(key, (batch,)), size, 0.5)
    return np.array(
        jax.vmap(jax.vmap(draw, (None, 0)), (0, None))(jnp.arange(count), jnp.arange(batch))
    )


@pytest.mark.parametrize("ridge", [0.0, 0.3])
def test_padding_is_in_no_regression(padded, ridge):
    """Breaks if features that do not exist count for a distance or get a coefficient."""
    sizes, key, count = [5, 3, 1, 6, 2], jax.random.key(1), 80
    (model, inputs, targets), alone = padded(8, sizes)
    masks = masks_of(key, count, 5, 8)
    scores = lime(model, inputs, targets, key, num_queries=count, ridge=ridge)
    assert not scores[~np.asarray(model.valid(inputs))].any()
    for row, (few, x, target) in enumerate(alone):
        kept = masks[:, row, : sizes[row]]
        answers = np.asarray(few.predict(x * kept))[:, target[0]]
        weights = np.exp(-((1 - np.sqrt(kept.mean(-1))) ** 2) / (2 * 0.25**2))
        expected = Ridge(alpha=ridge).fit(kept, answers, weights).coef_
        np.testing.assert_allclose(scores[row, : sizes[row]], expected, atol=1e-5)


@pytest.mark.parametrize(
    "width, ridge, count", [(0.02, 1e-3, 60), (0.004, 0.0, 60), (1e-3, 1.0, 60), (0.25, 0.0, 5)]
)
def test_narrow_kernels_and_few_queries(game, width, ridge, count):
    """Breaks if weights that leave float32 give NaN, or a singular system anything but lstsq's."""
    model, inputs, targets = game(8)
    key = jax.random.key(2)
    masks = masks_of(key, count, 5, 8)
    scores = lime(model, inputs, targets, key, num_queries=count, kernel_width=width, ridge=ridge)
    for row, (x, target) in enumerate(zip(inputs, targets, strict=True)):
        kept = masks[:, row].astype(float)
        answers = np.asarray(model.predict(x * kept))[:, target].astype(float)
        logs = -((1 - np.sqrt(kept.mean(-1))) ** 2) / (2 * width**2)
        weights = np.exp(logs - logs.max())
        centred = np.sqrt(weights)[:, None] * (kept - weights @ kept / weights.sum())
        values = np.sqrt(weights) * (answers - weights @ answers / weights.sum())
        with np.errstate(over="ignore"):
            penalty = np.sqrt(min(ridge * np.exp(-logs.max()), 1e30)) * np.eye(8)
        rows = np.concatenate([centred, penalty])
        expected = np.linalg.lstsq(rows, np.concatenate([values, np.zeros(8)]), rcond=1e-7)[0]
        np.testing.assert_allclose(scores[row], expected, atol=1e-4)


def test_agrees_with_captum():
    """Breaks if masks, distances or the linear model are not those of captum's LIME."""
    captum = pytest.importorskip("captum.attr")
    torch = pytest.importorskip("torch")
    from captum._utils.models.linear_model import SkLearnRidge
    from captum.attr._core.lime import get_exp_kernel_similarity_function

    model, images, targets, probabilities, tensor = torch_twin()
    key, count = jax.random.key(3), 60
    masks = masks_of(key, count, len(images), model.num_features)

    def to_image(mask, image, **_):
        patches = mask.reshape(1, 1, *model.grid).float()
        return image * torch.nn.functional.interpolate(patches, size=image.shape[2:])

    # captum hands its distance the two images; ours is between masks, whose images they are.
    kernel = get_exp_kernel_similarity_function("cosine", kernel_width=0.25)

    def similarity(_image, _perturbed, mask, **_):
        return kernel(torch.ones_like(mask).double(), mask.double(), mask.double())

    scores = lime(model, images, jnp.asarray(targets), key, num_queries=count, ridge=1.0)
    for b in range(len(images)):

        def perturb(_image, b=b, **_):
            yield from torch.from_numpy(masks[:, b, None]).float()

        expected = captum.LimeBase(
            probabilities,
            SkLearnRidge(alpha=1.0),
            similarity,
            perturb,
            perturb_interpretable_space=True,
            from_interp_rep_transform=to_image,
            to_interp_rep_transform=None,
        ).attribute(tensor[b : b + 1], target=int(targets[b]), n_samples=count)
        np.testing.assert_allclose(scores[b], expected[0].numpy(), atol=1e-5)
    assert np.abs(scores).max() > 1e-3
