"""The default objective: a contrast of f's answers, and its regression on the map: docs/method.md.

Shapes as in `ppo`: B inputs, K classes, of which T are explained, N features, S masks an input.
"""

import jax
import jax.numpy as jnp

from fex_jax.answers import alpha
from fex_jax.ppo import Objective, Rollout, centre, leave_one_out


def contrast_score(answers: jax.Array) -> jax.Array:
    """h(m⊙x) of a half of the masks and −h((1−m)⊙x) of the others; [S, ...] → [S, ...].

    Twice the mean estimates E[h(m⊙x) − h((1−m)⊙x)]: what is kept should suffice and its absence
    hurt. The two are asked of different masks, because of one mask they move against each other.
    """
    kept, removed = jnp.split(answers, 2)
    return jnp.concatenate([kept, -removed])


def regression_residuals(
    logits: jax.Array,
    scores: jax.Array,
    masks: jax.Array,
    objective: Objective,
    valid: jax.Array | None = None,
) -> jax.Array:
    """How far the scores are from linear in the map, as residuals [B, T, S] of mean 0 over masks.

        e_s = R_s − mean of the others' R,   R = c(m, x) − (α / G) Σ_i m_i (z_i − mean z)

    On policy −∇ E[e²] is, up to a factor, the policy gradient of E[c] − α KL(q ‖ flat), where flat
    keeps every feature alike at the same budget b: log q(m) − log flat(m) = Σ_i m_i (z_i − mean z)
    + a constant (docs/derivations.md). Its own linear part is taken off the score, so that what it
    does not explain is all the noise. Off policy it is a regression, which no ratio need correct.
    Logits z [B, T, N], scores [B, T, S] in G groups, masks [B, S, N], valid [B, 1, N].

    Where removed features come from a background row b, z − ψ(b) takes the place of z: keeping a
    feature also keeps b's own out, and what that is worth the map of b says. ψ(b) is it less the
    mean over all b, so that z has the same minimum with it and without it.
    """
    # A feature that is not there is never kept, so what its logit is does not matter.
    linear = jnp.einsum("bsn,btn->bts", masks.astype(logits.dtype), centre(logits, valid))
    rest = scores - slope(logits, objective, valid) * linear
    return rest - leave_one_out(rest, objective.num_groups)


def slope(logits: jax.Array, objective: Objective, valid: jax.Array | None = None) -> jax.Array:
    """α / G: what a unit of a map's logits [B, T, N] is worth to a group's score; a scalar.

    Of inputs with fewer features than N, those that are `valid` [B, 1, N], it is [B, 1, 1].
    """
    num_features: jax.Array | float = float(logits.shape[-1])
    if valid is not None:
        num_features = valid.sum(-1, keepdims=True, dtype=logits.dtype)
    return alpha(objective.temperature / objective.num_groups, num_features)


def regression_loss(
    logits: jax.Array,
    batch: Rollout,
    objective: Objective,
    valid: jax.Array | None = None,
    weights: jax.Array | float = 1.0,
) -> jax.Array:
    """√E[w e²] in units of α / G, e the residuals of `regression_residuals`; w [B, T, 1] of mean 1.

    The root gives gradients the scale that advantages of unit mean square have.
    """
    errors = regression_residuals(logits, batch.scores, batch.masks, objective, valid)
    unit = slope(logits, objective, valid).mean()
    return jnp.sqrt(jnp.mean(weights * errors**2) + 1e-12) / unit


def shared_regression_loss(
    shared: jax.Array,
    own: jax.Array,
    batch: Rollout,
    objective: Objective,
    valid: jax.Array | None = None,
) -> jax.Array:
    """Of what all classes have in common, and of each class alone: z_0 and c learn apart.

    z_0 [B, 1, N] learns from each class by f_y(x), of which one counts that f believes in; c
    [B, T, N] learns as a head without z_0 does.
    """
    common = jnp.broadcast_to(shared, own.shape)
    first = regression_loss(common, batch, objective, valid, plausibility(batch, objective))
    return first + regression_loss(own, batch, objective, valid)


def plausibility(batch: Rollout, objective: Objective) -> jax.Array:
    """f_y(x) of the targets relative to their mean over the batch, [B, T, 1]; of values, 1."""
    if objective.output == "value":
        return jnp.ones((*batch.targets.shape, 1))
    f = jnp.take_along_axis(batch.probabilities, batch.targets, -1)[..., None]
    return f / f.mean()
