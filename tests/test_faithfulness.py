"""What an explainer predicts of its own maps, and the queries that it saves."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fex_jax import contrast, explain, faithfulness, settings
from fex_jax.export import save_description, save_weights
from fex_jax.models.policy import functional_policy, make_backbone
from fex_jax.training.step import make_optimizer
from tests.conftest import random_params

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (6, 32, 32, 3), np.uint8)


@pytest.fixture(scope="module")
def explainer(predictor):
    """Untrained, with a head for its faithfulness; half of `PIXELS` are below its level."""
    backbone = make_backbone("vit", predictor.config)
    params = random_params(functional_policy(backbone, 10, map_head="wide", faithful=True)[0])
    made = explain.Explainer(
        predictor, backbone, params, budget=-3.0, map_head="wide", faithful=True
    )
    level = jnp.float32(np.median(made(PIXELS).faithfulness))
    heads = params["heads"] | {"faith_level": level}
    return dataclasses.replace(made, params=params | {"heads": heads})


def answered(answers, budgets):
    """Of which a loss reads: scores of f's answers [B, S], half to what masks keep."""
    h = np.log(answers / (1 - answers)) * np.where(np.arange(answers.shape[1]) < 2, 1, -1)
    fields = dict.fromkeys(contrast.Answered._fields)
    fields |= {"scores": jnp.float32(h[:, None]), "budgets": jnp.float32(budgets)[:, None, None]}
    return contrast.Answered(**fields)


def test_the_loss_by_hand():
    """Breaks if the two questions change places, or large and small masks do not count alike."""
    answers = np.array([[0.9, 0.7, 0.2, 0.1], [0.6, 0.5, 0.4, 0.3]])
    budgets, p = np.array([0.0, 2.0]), np.array([0.8, 0.3])  # of what is kept, and of the rest
    logits = np.broadcast_to(np.log(p / (1 - p)), (2, 1, 2))
    found = faithfulness.loss(jnp.float32(logits), answered(answers, budgets))
    share = 1 / (1 + np.exp(-budgets))
    weights = share * (1 - share)
    of_answer = p[[0, 0, 1, 1]]
    entropy = -answers * np.log(of_answer) - (1 - answers) * np.log(1 - of_answer)
    expected = (weights[:, None] / weights.mean() * entropy).mean()
    assert float(found) == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(faithfulness.of(jnp.float32(logits))[:, 0], 0.5, atol=1e-6)


def test_it_is_least_where_it_predicts_the_answers():
    """Breaks if the minimum is not E[f(kept)] and E[f(removed)]: then no area is predicted."""
    answers = np.array([[0.9, 0.7, 0.2, 0.1], [0.6, 0.5, 0.4, 0.3]])
    p = np.stack([answers[:, :2].mean(1), answers[:, 2:].mean(1)], -1)[:, None]  # [B, 1, 2]
    gradient = jax.grad(faithfulness.loss)(
        jnp.float32(np.log(p / (1 - p))), answered(answers, np.array([1.0, -1.0]))
    )
    np.testing.assert_allclose(gradient, 0, atol=1e-6)


def test_maps_learn_as_they_do_without_it(predictor):
    """Breaks if another first state is drawn, a gradient leaves the head, or its norm clips
    those of the others."""
    plain, _ = functional_policy(predictor.config, 10, map_head="wide")
    init, bind = functional_policy(predictor.config, 10, map_head="wide", faithful=True)
    params, key = random_params(init), jax.random.key(0)
    # Compiled without the backbone's draws, which take most of the time.
    first, others = (jax.jit(lambda key, f=f: f(key)["heads"])(key) for f in (init, plain))
    for name, leaves in others.items():
        jax.tree.map(np.testing.assert_array_equal, first[name], leaves)

    images = predictor.preprocessing.normalize(PIXELS)
    targets = jnp.zeros((len(PIXELS), 1), int)
    gradient = jax.jit(jax.grad(lambda params: bind(params)(images, targets)[5].sum()))(params)
    moved = jax.tree.map(lambda x: bool(jnp.abs(x).sum() > 0), gradient)
    heads = moved["heads"]
    assert not any(jax.tree.leaves(moved["backbone"]))
    assert {name for name in heads if any(jax.tree.leaves(heads[name]))} == {
        "faith_in", "faith_mid", "faith_out",
    }  # fmt: skip

    config = settings.default()
    optimizer = make_optimizer(config, 10)
    update = jax.jit(optimizer.update)
    small = {"heads": {"map_out": jnp.ones(3)}, "backbone": jnp.ones(2)}
    large = small | {"heads": small["heads"] | {"faith_out": 1e6 * jnp.ones(3)}}
    for tree in (small, large):
        state = optimizer.init(tree)
        for _ in range(2):  # the first step of a warm-up is of size 0
            with jax.numpy_dtype_promotion("standard"):  # optax's own
                steps, state = update(tree, state, tree)
        if tree is small:
            expected = steps["heads"]["map_out"]
    np.testing.assert_array_equal(steps["heads"]["map_out"], expected)


def test_an_export_keeps_it_and_an_older_one_has_none(explainer, predictor, tmp_path):
    """Breaks if an export forgets the head, or one from before there was a head does not open."""
    save_description(
        tmp_path, predictor, explainer.backbone, budget=-3.0, map_head="wide", faithful=True
    )
    save_weights(tmp_path, explainer.params)
    opened = explain.load(tmp_path)(PIXELS)
    np.testing.assert_array_equal(opened.faithfulness, explainer(PIXELS).faithfulness)
    assert opened.faithfulness.shape == (6,) and np.abs(opened.faithfulness).max() <= 1
    description = json.loads((tmp_path / "explainer.json").read_text())
    del description["faithful"]
    (tmp_path / "explainer.json").write_text(json.dumps(description))
    heads = {n: v for n, v in explainer.params["heads"].items() if not n.startswith("faith")}
    save_weights(tmp_path, explainer.params | {"heads": heads})
    older = explain.load(tmp_path)
    assert older(PIXELS).faithfulness is None
    with pytest.raises(ValueError, match="has not learned how faithful .* refine=100"):
        older(PIXELS, refine="auto")


def test_queries_go_where_a_map_is_not_trusted(explainer, monkeypatch):
    """Breaks if a trusted map changes, another is not refined, or rows are mixed up."""
    monkeypatch.setattr(faithfulness, "QUERIES", 8)
    given = {"top_k": 2, "batch_size": 4}
    auto, own = explainer(PIXELS, refine="auto", **given), explainer(PIXELS, **given)
    refined = explainer(PIXELS, refine=8, **given)
    np.testing.assert_array_equal(auto.faithfulness, own.faithfulness)
    low = own.faithfulness < float(explainer.params["heads"]["faith_level"])
    assert 0 < low.sum() < low.size
    for mine, expected in ((low, refined), (~low, own)):
        # A regression that is asked in a batch of another size rounds otherwise.
        np.testing.assert_allclose(auto.logits[mine], expected.logits[mine], atol=5e-3)
    assert np.abs(refined.logits - own.logits).max() > 0.1


def test_of_two_classes_both_have_the_faithfulness_of_the_map_that_learned(predictor):
    """Breaks if the class whose map is another's, mirrored, is trusted by a map that none reads."""
    backbone = dataclasses.replace(predictor.config, num_classes=2)
    params = random_params(functional_policy(backbone, 2, faithful=True)[0])
    head = {name: leaf[..., :2] for name, leaf in predictor.params["head"].items()}
    two = dataclasses.replace(
        predictor, config=backbone, params=predictor.params | {"head": head}, labels=("a", "b")
    )
    made = explain.Explainer(two, backbone, params, budget=-3.0, faithful=True)
    both = made(PIXELS, top_k=2).faithfulness
    np.testing.assert_allclose(both[:, 0], both[:, 1], atol=1e-6)
    alone = made(PIXELS, targets=1, with_prediction=False).faithfulness
    np.testing.assert_allclose(alone, both[:, 0], atol=1e-6)
