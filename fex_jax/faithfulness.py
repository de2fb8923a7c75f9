"""How faithful a map is, as the explainer itself predicts it, and queries for those that are not.

A map is faithful if f still sees the class in what it keeps, and no longer in the rest. The answers
that training asks for say both of masks that the policy draws; a head of the policy learns what
they will be: `models.policy.Policy.faithfulness`.
"""

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from fex_jax import modalities
from fex_jax.models import Params

if TYPE_CHECKING:  # of training, which imports for seconds
    from fex_jax.contrast import Answered
    from fex_jax.explain import Explainer

# Of `Explainer.explain`: maps [B, k, N], classes [B, k], f(x) [B, K], faithfulness [B, k].
Found = tuple[np.ndarray, np.ndarray, np.ndarray | None, np.ndarray | None]

QUERIES = 100  # about each map that refine="auto" does not trust
SHARE = 0.4  # of held-out inputs, whose maps would not be trusted


def is_learned(objective: Any) -> bool:
    """Whether training asks both questions, of probabilities, about masks of a drawn size."""
    return getattr(objective, "faithful", False)


def of(logits: jax.Array) -> jax.Array:
    """σ(u) − σ(v), [..., 2] → [...] in [−1, 1]: what insertion less deletion is expected to be."""
    kept, removed = jnp.moveaxis(jax.nn.sigmoid(logits), -1, 0)
    return kept - removed


def loss(logits: jax.Array, batch: "Answered") -> jax.Array:
    """−E[w (f log p + (1 − f) log(1 − p))], f = f_y(m⊙x) with p = σ(u), f_y((1−m)⊙x) with σ(v).

    w is in proportion to s(1 − s), s = σ(b) the share of the features that m keeps: b is uniform,
    and with these weights every share counts alike, as it does in an area under a curve.
    Logits (u, v) of the class that masks are drawn for, [B, 1, 2]; scalar.
    """
    kept, removed = jnp.split(batch.scores[:, 0], 2, -1)
    answers = jax.nn.sigmoid(jnp.stack([kept, -removed], 1))  # [B, 2, S / 2]
    share = jax.nn.sigmoid(batch.budgets)
    weights = share * (1 - share)
    u = logits[:, 0, :, None]
    return jnp.mean(weights / weights.mean() * (jax.nn.softplus(u) - answers * u))


def predicted(
    explainer: "Explainer",
    params: Params,
    batch: Any,
    classes: jax.Array,
    answers: jax.Array | None,
) -> jax.Array | None:
    """How faithful an explainer holds its own maps to be, jittable: [B, k]; None: not learned."""
    if not explainer.faithful:
        return None
    model, inputs = explainer.bind(explainer.predictor.params, batch)
    learned = explainer.learned(classes, answers)
    logits = explainer.network(params).faithfulness(model.view(inputs), learned)
    return jnp.broadcast_to(of(logits), classes.shape)


def refine_low(explainer: "Explainer", batch: Any, found: Found) -> Found:
    """What `Explainer.explain` found, with the maps refined that are less faithful than that level
    of held-out inputs.

    Raises:
      ValueError: the explainer has not learned which these are.
    """
    maps, classes, answers, values = found
    if values is None:
        raise ValueError(
            "refine is 'auto', and this explainer has not learned how faithful its maps are: give "
            f"a number of queries, as refine={QUERIES}, or train it again with the preset contrast"
        )
    maps, low = maps.copy(), np.argwhere(values < explainer.params["heads"]["faith_level"])
    for start in range(0, len(low), len(classes)):
        rows, columns = low[start : start + len(classes)].T
        padded = np.resize(np.arange(len(rows)), modalities.padded(len(rows), len(classes)))
        some = rows[padded]
        asked = jax.tree.map(lambda x, some=some: x[some], batch)
        said = None if answers is None else answers[some]
        chosen = classes[some, columns[padded]][:, None]
        better = explainer.attribute(asked, chosen, said, refine=QUERIES)
        maps[rows, columns] = np.asarray(better)[: len(rows), 0]
    return maps, classes, answers, values
