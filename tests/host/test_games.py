"""Black boxes whose answers add up: what their maps must be is known."""

import numpy as np
import pytest

import fex_jax
from fex_jax import host
from fex_jax.training.explainer import train
from tests.host.small_runs import small, source_of


@pytest.mark.parametrize(
    "labels, method", [(("red", "green", "blue"), "kernel_shap"), (("other", "red"), "lime")]
)
def test_what_cells_add_to_log_odds(labels, method, tmp_path, predictor_directory):
    """Breaks if labels that do not exclude each other are learned as if they did, or a single
    column is taken for the first class's, by the explainer or by a method that queries.

    A label's log-odds are the sum over cells of how far its colour is from grey. Of two classes f
    answers with the second one's probability alone. Without f, its own p of sigmoids need not sum
    to 1.
    """
    pictures = np.random.default_rng(0).integers(0, 256, (24, 4, 4, 3)).astype(np.uint8)
    known = (pictures[0].reshape(16, 3).T - 128.0) / 256  # [3, 16]
    pictures = pictures.repeat(8, 1).repeat(8, 2)
    one = len(labels) == 2

    def call(pixels: np.ndarray) -> np.ndarray:
        log_odds = (pixels.mean((1, 2), np.float64) - 128) * 16 / 256
        p = 1 / (1 + np.exp(-log_odds))
        return p[:, 0] if one else p

    output = "softmax" if one else "sigmoid"
    f = host.host(call, labels=labels, input=(32, 32, 3), output=output, digest="a game")
    changes = {"objective.num_masks": 16, "objective.num_passes": 4, "log_every": 100}
    changes |= {"optimizer.learning_rate": 0.02, "checkpoint.every": 100, "epochs": 5.0}
    train(small(predictor_directory, **changes), tmp_path, f, source_of(pictures, f))
    explainer = fex_jax.load(tmp_path)
    named = ["red"] if one else list(labels)
    again = [pictures[0]] * len(named)
    learned = explainer(again, targets=named)
    asked = fex_jax.attribute(method, f, again, targets=named, num_queries=200)
    for maps in (learned.logits, asked.attributions):
        for own, true in zip(maps.reshape(-1, 16), known, strict=False):
            assert np.corrcoef(own, true)[0, 1] > 0.9
    assert explainer.predictor.output == output and not explainer.contrastive
    sums = learned.probabilities.sum(-1)
    assert (sums > 0).all() and one == np.allclose(sums, 1, atol=1e-3)
