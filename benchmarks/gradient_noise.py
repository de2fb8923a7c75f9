"""Signal and noise of policy-gradient estimators, at equal numbers of queries.

    python benchmarks/gradient_noise.py --config=configs/digit_scenes.py --workdir=runs/demo

All estimate ∇_z E_b E_q[h(m⊙x) − h((1−m)⊙x)], h the log-odds of f, at the logits z of an explainer,
on validation inputs, for an untrained (flat) and for the trained one, from 20 queries an input.
Signal to noise is |E g|² / tr Var(g); the table gives it relative to `leave_one_out`, too.
"""

import functools
import pathlib
import sys
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from ml_collections import config_flags
from tqdm import tqdm

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from fex_jax import evaluation, explain  # noqa: E402
from fex_jax.answers import log_odds  # noqa: E402
from fex_jax.attributions.queries import target_probabilities  # noqa: E402
from fex_jax.contrast import Objective, centre, contrast_score, shift_budget, slope  # noqa: E402
from fex_jax.contrast import leave_one_out as others  # noqa: E402

_CONFIG = config_flags.DEFINE_config_file("config", None, "An experiment of configs/.")
_WORKDIR = flags.DEFINE_string("workdir", None, "The folder that train.py wrote.")
_REPEATS = flags.DEFINE_integer("repeats", 100, "Estimates of each gradient.")
_INPUTS = flags.DEFINE_integer("inputs", 16, "Validation inputs.")
_FITTED = flags.DEFINE_integer("fitted", 400, "Masks an input to fit the ideal critics to.")

Ask = Callable[[jax.Array], jax.Array]  # masks [S, B, N] → h(m⊙x) [S, B]


def draw(key: jax.Array, logits: jax.Array, count: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """One budget an input and S masks: λ [B, N], masks [S, B, N], uniform numbers [S, B, N]."""
    budget_key, mask_key = jax.random.split(key)
    budgets = jax.random.uniform(budget_key, (len(logits), 1), minval=-3.0, maxval=3.0)
    lam = jax.nn.sigmoid(shift_budget(logits, budgets))
    uniform = jax.random.uniform(mask_key, (count, *logits.shape))
    return lam, uniform < lam, uniform


def contrast(ask: Ask, masks: jax.Array) -> jax.Array:
    kept, removed = jnp.split(ask(jnp.concatenate([masks, ~masks])), 2)
    return kept - removed


def score_function(advantages: jax.Array, masks: jax.Array, lam: jax.Array) -> jax.Array:
    """mean_s A_s ∇ log q(m_s), [B, N]; centring takes off the mean over features."""
    return centred((advantages[..., None] * (masks - lam)).mean(0))


def centred(gradient: jax.Array) -> jax.Array:
    return gradient - gradient.mean(-1, keepdims=True)


# Estimators: (ask, logits, critic [B, N], mean score [B], key) → gradient [B, N], from 20 queries.


def unpaired(ask, logits, critic, mean, key):
    """h(m) and h(1 − m') of different masks, each with its leave-one-out value baseline."""
    return unpaired_credit(ask, logits, jnp.zeros_like(logits), mean, key)


def regression(ask, logits, critic, mean, key):
    """The same of what the map α(z − mean z) does not explain linearly: what training uses."""
    alpha = 2 * slope(logits, Objective())  # of both groups
    return unpaired_credit(ask, logits, alpha * centre(logits), mean, key)


def unpaired_credit(ask, logits, critic, mean, key):
    """The same of what an ideal linear critic does not explain, and its own part exactly."""
    lam, masks, _ = draw(key, logits, 20)
    scores = contrast_score(ask(jnp.concatenate([masks[:10], ~masks[10:]])))
    rest = scores - jnp.einsum("sbn,bn->sb", masks - lam, critic / 2)
    advantages = rest - others(rest.T).T
    return 2 * score_function(advantages, masks, lam) + centred(critic * lam * (1 - lam))


def no_baseline(ask, logits, critic, mean, key):
    """h(m) − h(1 − m) itself."""
    lam, masks, _ = draw(key, logits, 10)
    return score_function(contrast(ask, masks), masks, lam)


def value_of_input(ask, logits, critic, mean, key):
    """Minus E[c | x]: the best that a learned v(x) can do."""
    lam, masks, _ = draw(key, logits, 10)
    return score_function(contrast(ask, masks) - mean, masks, lam)


def leave_one_out(ask, logits, critic, mean, key):
    """Minus the mean of the input's other masks: a pair of questions a mask, the unit below."""
    lam, masks, _ = draw(key, logits, 10)
    scores = contrast(ask, masks)
    return score_function(scores - others(scores.T, 1).T, masks, lam)


def credit(ask, logits, critic, mean, key):
    """The same of c − w·(m − λ), and w λ(1 − λ): an ideal linear critic, credit a feature."""
    lam, masks, _ = draw(key, logits, 10)
    scores = contrast(ask, masks) - jnp.einsum("sbn,bn->sb", masks - lam, critic)
    sampled = score_function(scores - others(scores.T, 1).T, masks, lam)
    return sampled + centred(critic * lam * (1 - lam))


def disarm(ask, logits, critic, mean, key):
    """DisARM (Dong, Mnih and Tucker, 2020), also U2G: masks from u and from 1 − u, in pairs."""
    lam, first, uniform = draw(key, logits, 5)
    second = 1 - uniform < lam
    difference = contrast(ask, first) - contrast(ask, second)
    signs = first.astype(jnp.float32) - second
    weights = jnp.maximum(lam, 1 - lam)
    return centred((difference[..., None] * signs * weights).mean(0) / 2)


ESTIMATORS = (
    no_baseline,
    value_of_input,
    disarm,
    leave_one_out,
    credit,
    unpaired,
    regression,
    unpaired_credit,
)


def fit_critic(ask: Ask, logits: jax.Array, key: jax.Array, count: int) -> tuple:
    """w [B, N] of the ridge regression c ≈ w·(m − λ) over budgets, and E[c] [B]."""
    keys = jax.random.split(key, count)
    drawn = [draw(k, logits, 1) for k in keys]
    masks = jnp.concatenate([m for _, m, _ in drawn])
    x = jnp.concatenate([m - lam[None] for lam, m, _ in drawn])  # [count, B, N]
    scores = contrast(ask, masks)
    gram = jnp.einsum("sbn,sbm->bnm", x, x) + 4.0 * jnp.eye(x.shape[-1])
    moments = jnp.einsum("sbn,sb->bn", x, scores - scores.mean(0))
    return jnp.linalg.solve(gram, moments[..., None])[..., 0], scores.mean(0)


def main(_: list[str]) -> None:
    config = _CONFIG.value
    config.data.eval_split, config.eval.num_images = "validation", _INPUTS.value
    explainer = explain.load(_WORKDIR.value)
    bind, _, task = evaluation.load_task(explainer, config)
    maps = explainer.attribute(task.inputs, task.targets[:, None])[:, 0]
    model, inputs = bind(explainer.predictor.params, task.inputs)
    ask = jax.jit(lambda masks: log_odds(target_probabilities(model, inputs, task.targets, masks)))

    for name, logits in (("untrained", jnp.zeros_like(maps)), ("trained", maps)):
        critic, mean = fit_critic(ask, logits, jax.random.key(1), _FITTED.value)
        found = {}
        for estimator in ESTIMATORS:
            once = functools.partial(jax.jit(functools.partial(estimator, ask)), logits, critic)
            keys = jax.random.split(jax.random.key(2), _REPEATS.value)
            title = f"{name}, {estimator.__name__}"
            draws = np.stack([once(mean, k) for k in tqdm(keys, title, leave=False)])
            noise = draws.var(0, ddof=1).sum(-1)  # [B]
            signal = (draws.mean(0) ** 2).sum(-1) - noise / len(draws)  # without its own noise
            found[estimator.__name__] = draws.mean(0), signal.sum() / noise.sum()
        reference, unit = found["leave_one_out"]
        print(f"\n{name} explainer, {len(maps)} inputs, {_REPEATS.value} estimates of 20 queries")
        print("| estimator | signal to noise | relative | its mean: cosine with leave_one_out |")
        print("|---|---|---|---|")
        for estimator, (gradient, ratio) in found.items():
            norms = np.linalg.norm(gradient) * np.linalg.norm(reference)
            cosine = float((gradient * reference).sum() / norms)
            print(f"| {estimator} | {ratio:.4f} | {ratio / unit:.2f} | {cosine:.2f} |")


if __name__ == "__main__":
    flags.mark_flags_as_required(["config", "workdir"])
    app.run(main)
