"""Fine-tuning beside an explanation: what learns from what."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import idexpo_digits
from fex_jax import pretrained
from fex_jax.models import shapes
from fex_jax.models.policy import functional_policy
from fex_jax.models.vit import ViTClassifier, ViTConfig
from fex_jax.preprocessing import Preprocessing
from fex_jax.training import joint
from fex_jax.training import step as steps
from tests.conftest import random_like, random_params

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (4, 32, 32, 3), np.uint8)
TARGETS = np.eye(10, dtype=np.float32)[:4]


@functools.cache
def program(explainer):
    """λ₁ → gradients of a classifier of one block and its explanation, by what learns."""
    config = idexpo_digits.get_config(explainer)
    config.id_expo.points, config.objective.num_masks = 1, 4
    vit = ViTConfig(
        family="vit", image_size=32, patch_size=8, num_classes=10, hidden_size=16, num_layers=1,
        num_heads=2, mlp_dim=32,
    )  # fmt: skip
    network = random_like(shapes(ViTClassifier, vit))
    labels = tuple(map(str, range(10)))
    tiny = pretrained.Checkpoint(vit, network, labels, Preprocessing(size=(32, 32)))
    params, policy, objective = {"f": network}, None, None
    if explainer == "fex":
        init, policy = functional_policy(vit, 10)
        objective = dataclasses.replace(steps.make_objective(joint._of_fex(config)), num_updates=1)
        params["g"] = random_params(init)

    def of(strength):
        with config.id_expo.ignore_type():  # traced: one program for every λ₁
            config.id_expo.strength = strength
        loss = joint.make_loss(config, tiny, policy, objective)
        return jax.grad(loss)(params, (PIXELS, TARGETS), jax.random.key(0), jnp.zeros(()))

    return jax.jit(of)


def gradients(explainer, strength):
    return program(explainer)(strength)


def far(one, other):
    moved = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), one, other)
    return max(jax.tree.leaves(moved))


@pytest.mark.parametrize("explainer", ["gradcam_norm1", "lime", "kernel_shap"])
def test_an_explanation_is_learned_through(explainer):
    """Breaks if the regulariser does not reach f."""
    assert far(gradients(explainer, 0.0)["f"], gradients(explainer, 1.0)["f"]) > 1e-3


def test_classifier_and_explainer_learn_apart():
    """Breaks if FEX is paid for f's regulariser, f for what FEX's regression misses, or if with
    λ₁ = 0 more than the task is learned."""
    plain, tuned = (gradients("fex", strength) for strength in (0.0, 1.0))
    assert far(plain["g"], tuned["g"]) < 1e-5
    assert far(plain["f"], tuned["f"]) > 1e-3
    assert max(float(jnp.abs(x).max()) for x in jax.tree.leaves(plain["g"])) > 1e-3
    assert far(plain["f"], gradients("gradcam_norm1", 0.0)["f"]) < 1e-5


def test_settings_that_do_not_fit_are_named(tmp_path):
    """Breaks if a misspelt explanation, or a classifier of other classes, is trained anyway."""
    config = idexpo_digits.get_config("gradcam")
    with pytest.raises(ValueError, match="id_expo.explainer is 'gradcam'; choose gradcam_norm1"):
        joint.train(config, tmp_path)
    config = idexpo_digits.get_config()
    config.mesh.fsdp = 2
    with pytest.raises(ValueError, match="mesh.fsdp is 2, .* leave mesh and distributed out"):
        joint.train(config, tmp_path)
    config.mesh.fsdp = 1
    config.predictor.path = "models/reviews_bert"
    with pytest.raises(ValueError, match="is no classifier of images"):
        joint.train(config, tmp_path)
    config.predictor.path = "models/fashion_vit"
    with pytest.raises(ValueError, match="digit_scenes has other classes than models/fashion_vit"):
        joint.train(config, tmp_path)


def test_an_export_that_is_there_is_kept(tmp_path):
    """Breaks if FEX beside a classifier writes over an explainer that another run left there."""
    (tmp_path / "export").mkdir()
    with pytest.raises(ValueError, match="export is there, but the checkpoints .* are gone"):
        joint.train(idexpo_digits.get_config("fex"), tmp_path)
    assert not list((tmp_path / "export").iterdir()) and not (tmp_path / "predictor").exists()
