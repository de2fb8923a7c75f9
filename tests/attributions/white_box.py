"""What the tests of white-box methods share: the methods with their options, and tiny models."""

import functools
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from fex_jax import predictors, pretrained, tokens
from fex_jax.attributions.agi import agi
from fex_jax.attributions.attcat import attcat
from fex_jax.attributions.attlrp import attlrp
from fex_jax.attributions.deeplift import deeplift
from fex_jax.attributions.grad_shap import grad_shap, grad_shap_of
from fex_jax.attributions.gradcam import gradcam_attention, gradcam_norm1
from fex_jax.attributions.gradient_x_input import gradient_x_input
from fex_jax.attributions.integrated_gradients import integrated_gradients
from fex_jax.attributions.rollout import rollout
from fex_jax.attributions.smooth_grad import smooth_grad
from fex_jax.models import shapes
from fex_jax.models.vit import ViTClassifier, ViTConfig
from fex_jax.predictors import Model
from fex_jax.predictors import image as vit
from fex_jax.preprocessing import Preprocessing
from fex_jax.token_batch import TokenBatch
from tests import tiny_text
from tests.conftest import random_checkpoint, random_like

GOLDEN = Path(__file__).parent / "golden" / "white_box.npz"
FAMILIES = ("vit", "deit", "dinov2")
KEY = jax.random.key(0)
METHODS = {
    "integrated_gradients": (integrated_gradients, {"steps": 4}),
    "grad_shap": (grad_shap, {"samples": 4}),
    "gradient_x_input": (gradient_x_input, {}),
    "smooth_grad": (smooth_grad, {"samples": 3}),
    "agi": (agi, {"classes": 2, "steps": 2}),
    "deeplift": (deeplift, {}),
    "gradcam_attention": (gradcam_attention, {}),
    "gradcam_norm1": (gradcam_norm1, {}),
    "rollout": (rollout, {}),
    "attcat": (attcat, {}),
    "attlrp": (attlrp, {}),
}


def checkpoint(family: str, **changes: int) -> pretrained.Checkpoint:
    """Random weights; the family's own layers, prefix tokens and head."""
    if family == "vit" and not changes:
        return random_checkpoint(num_layers=2)
    sizes = dict(hidden_size=16, num_layers=2, num_heads=2, mlp_dim=32) | changes
    config = ViTConfig(family=family, image_size=32, patch_size=8, num_classes=10, **sizes)
    params = random_like(shapes(ViTClassifier, config))
    labels = tuple(f"class {i}" for i in range(10))
    return pretrained.Checkpoint(config, params, labels, Preprocessing(size=(32, 32)))


def tiny(family: str) -> Model:
    """The same as a Model."""
    one = checkpoint(family)
    return vit(one.config, one.params)


def perceptron(*grid: int) -> Model:
    """Far cheaper to compile: one hidden layer on `rows`, each place of the grid a feature."""
    grid = grid or (12,)
    rng = np.random.default_rng(0)
    first = rng.normal(size=(3 * np.prod(grid), 64)) / 6
    second = rng.normal(size=(64, 5)) / 4

    def logits(x, _=None):
        return jnp.tanh(x.reshape(len(x), -1) @ jnp.float32(first)) @ jnp.float32(second)

    return Model(
        predict=lambda x: jax.nn.softmax(logits(x)),
        mask=lambda x, masks: jnp.where(masks.reshape(-1, *grid, 1), x, 0),
        grid=grid,
        embed=lambda x: x,
        logits=logits,
        pool=lambda values, _: values.sum(-1).reshape(len(values), -1),
    )


def rows(count: int = 2, *grid: int) -> np.ndarray:
    """[B, 12, 3], or images [B, *grid, 3]."""
    shape = count, *(grid or (12,)), 3
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


def tiny_bert(length: int = 12, mask_id: int | None = 4) -> Model:
    """A BERT with random weights."""
    one = tiny_text.checkpoint(num_layers=2)
    return predictors.bert(one.config, one.params, length, mask_id)


def texts(length: int = 12) -> TokenBatch:
    """Seven words, of which "funny" is two tokens, and two words; then padding."""
    tokenizer = tiny_text.tokenizer()
    written = tokenizer(["a funny film , very good !", "dull plot"], "word")
    return tokens.collate(written, length, tokenizer)


def images(count: int = 2) -> np.ndarray:
    """Normalised, [B, 32, 32, 3]."""
    return np.random.default_rng(1).normal(size=(count, 32, 32, 3)).astype(np.float32)


def targets(count: int = 2) -> np.ndarray:
    """All different."""
    return np.arange(3, 3 - count, -1)


def draws(samples: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """GradSHAP's α [S, B] and noise [S, B, H, W, C]."""
    rng = np.random.default_rng(2)
    alphas = rng.uniform(size=(samples, 2)).astype(np.float32)
    return alphas, 0.2 * rng.normal(size=(samples, *images().shape)).astype(np.float32)


@functools.cache
def ours(family: str) -> dict[str, np.ndarray]:
    """The scores of two images that torch and captum compute too; all in one program."""
    model = tiny(family)
    alphas, noise = map(jnp.asarray, draws())

    def run(x, y):
        return {
            "integrated_gradients": integrated_gradients(
                model, x, y, KEY, steps=16, baseline=0.3, chunk=8
            ),
            "integrated_gradients_logit": integrated_gradients(
                model, x, y, KEY, steps=16, output="logit", chunk=8
            ),
            "grad_shap": grad_shap_of(
                model, x, y, lambda s, i, _: (alphas[s, i], noise[s, i]), len(alphas)
            ),
            "gradient_x_input": gradient_x_input(model, x, y, KEY),
            "gradient_x_input_log_probability": gradient_x_input(
                model, x, y, KEY, output="log_probability"
            ),
            "gradcam_attention": gradcam_attention(model, x, y, KEY),
            "gradcam_norm1": gradcam_norm1(model, x, y, KEY),
            "rollout": rollout(model, x, y, KEY),
            "attcat": attcat(model, x, y, KEY),
        }

    return jax.tree.map(np.asarray, jax.jit(run)(images(), targets()))


@functools.cache
def ours_of_texts() -> dict[str, np.ndarray]:
    """The scores of two texts that captum computes too."""
    model = tiny_bert()

    def run(x, y):
        return {
            "integrated_gradients": integrated_gradients(model, x, y, KEY, steps=16, chunk=8),
            "gradient_x_input": gradient_x_input(model, x, y, KEY),
        }

    return jax.tree.map(np.asarray, jax.jit(run)(texts(), np.array([0, 1])))


@functools.cache
def of_all_methods(length: int) -> dict[str, np.ndarray]:
    """The scores of the same texts in a batch of this length, by every method in one program."""
    model = tiny_bert(length)

    def run(x, y):
        return {
            name: method(model, x, y, KEY, **options) for name, (method, options) in METHODS.items()
        }

    return jax.tree.map(np.asarray, jax.jit(run)(texts(length), np.array([0, 1])))


def theirs_of_texts() -> dict[str, np.ndarray]:
    """The same from captum; a text without its words is one of [MASK]s."""
    from tests.attributions import torch_reference as reference

    x = texts()
    blank = np.where(x.features < 0, x.ids, tiny_text.tokenizer().mask_id)
    with tempfile.TemporaryDirectory() as directory:
        pretrained.save(directory, tiny_text.checkpoint(num_layers=2))
        return reference.text_gradients(directory, x, blank, np.array([0, 1]), 16)


def in_torch(one: pretrained.Checkpoint | pretrained.TextCheckpoint):
    """The same classifier in transformers, by way of a directory in Hugging Face format."""
    from tests.attributions import torch_reference as reference

    with tempfile.TemporaryDirectory() as directory:
        pretrained.save(directory, one)
        return reference.load(directory, isinstance(one, pretrained.TextCheckpoint))


def theirs(family: str) -> dict[str, np.ndarray]:
    """The scores of `ours` from torch."""
    from tests.attributions import torch_reference as reference

    model = in_torch(checkpoint(family))
    x, y = images(), targets()
    return {
        "integrated_gradients": reference.integrated_gradients(
            model, x, y, 16, "probability", baseline=0.3
        ),
        "integrated_gradients_logit": reference.integrated_gradients(model, x, y, 16, "logit"),
        "grad_shap": reference.grad_shap(model, x, y, *draws(), "probability"),
        "gradient_x_input": reference.gradient_x_input(model, x, y, "probability"),
        "gradient_x_input_log_probability": reference.gradient_x_input(
            model, x, y, "log_probability"
        ),
        "gradcam_attention": reference.gradcam_attention(model, x, y),
        "gradcam_norm1": reference.gradcam_norm1(model, x, y),
        "rollout": reference.rollout(model, x, y),
        "attcat": reference.attcat(model, x, y),
    }
