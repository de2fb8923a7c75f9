"""How much of f's answer survives the removal of features, and which removal f can stand.

Asked before training: where nothing survives, queries about masked inputs say nothing.
"""

import dataclasses
import warnings
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from fex_jax.predictors import Inputs, Model
from fex_jax.removal import Removal


@dataclasses.dataclass(frozen=True)
class Probe:
    """How much of f's answer survives removal: means of f_y; of values, of f_y(m⊙x) − f_y(∅)
    with the sign that makes it positive of x."""

    clean: float  # of the clean inputs
    blank: float  # of the inputs without any feature
    shares: tuple[float, ...]  # of the features that are kept
    answers: tuple[float, ...]  # with that share kept, at random

    @property
    def removes(self) -> bool:
        """Whether f says something else of inputs without any feature: else no query tells."""
        return abs(self.clean - self.blank) > _NOTHING * abs(self.clean)

    @property
    def survives(self) -> tuple[float, ...]:
        """(f_y(m⊙x) − f_y(∅)) / (f_y(x) − f_y(∅)) of the means, for each share; NaN of what removes
        nothing."""
        span = self.clean - self.blank if self.removes else np.nan
        return tuple((answer - self.blank) / span for answer in self.answers)

    @property
    def sentence(self) -> str:
        """All of it in words."""
        kept = ", ".join(
            f"{answer:.3f} ({percent(of)}) with {share:.0%} kept"
            for share, answer, of in zip(self.shares, self.answers, self.survives, strict=True)
        )
        return f"f says {self.clean:.3f} of whole inputs, {kept}, and {self.blank:.3f} of nothing"

    @property
    def at_half(self) -> float:
        """What survives with the share kept that is nearest to a half."""
        return self.survives[int(np.argmin(np.abs(np.asarray(self.shares) - 0.5)))]


_NOTHING = 0.05  # of the answer: less counts as nothing
_LITTLE = 0.2  # of the answer: what an input without features may say more than the emptiest
_ENOUGH = 0.8  # of what the best removal lets survive


def choose(found: Mapping[Removal, Probe]) -> Removal:
    """The hardest edges with which four fifths of what survives at best survives.

    Soft edges let f see better what is kept, and more of what is removed. Left out are removals
    after all of which more than a fifth of f's answer is left, for then the picture is not gone,
    and before all those that remove nothing. If none removes anything, it is what removes most.
    """
    telling = {one: probe for one, probe in found.items() if probe.removes}
    if not telling:
        return max(found, key=lambda one: abs(found[one].clean - found[one].blank))
    found = telling
    least = min(probe.blank for probe in found.values())
    found = {
        one: probe
        for one, probe in found.items()
        if probe.blank - least <= _LITTLE * max(probe.clean - least, 0)
    }
    best = max(probe.at_half for probe in found.values())
    enough = min(_ENOUGH * best, best)  # it may lie below 0
    fit = {one: probe.at_half for one, probe in found.items() if probe.at_half >= enough}
    return min(fit, key=lambda one: (one.softness, -fit[one]))


def percent(share: float) -> str:
    """A share in a table or a sentence; of NaN a dash."""
    return "–" if np.isnan(share) else f"{share:.0%}"


def probe(
    model: Model,
    inputs: Inputs,
    *,
    targets: jax.Array | None = None,
    key: jax.Array | None = None,
    shares: tuple[float, ...] = (0.9, 0.7, 0.5, 0.3, 0.1),
    draws: int = 1,
) -> Probe:
    """Asks f about inputs with random features kept: B (2 + `draws` · shares) queries.

    Each mask keeps the given share of the features that an input has, to the nearest number.

    Args:
      model: of which `predict` and `mask` are used; `mask` is the removal that is probed.
      inputs: B of them, as the model takes them.
      targets: classes y [B]; None: the most probable ones of the clean inputs.
      key: of the masks.
      shares: of features kept.
      draws: masks of each input and share.

    Raises:
      ValueError: a share outside 0..1, no inputs, or no draws.
    """
    if not shares or not all(0 <= share <= 1 for share in shares) or draws < 1:
        raise ValueError(
            f"shares are {shares}, draws {draws}; give shares in 0..1 and draws from 1 on"
        )
    valid = model.features(inputs)
    if not len(valid):
        raise ValueError("the probe got no inputs; give at least one")
    masked = jax.jit(lambda inputs, masks: model.predict(model.mask(inputs, masks)))
    clean = np.asarray(model.predict(inputs))
    blank = np.asarray(masked(inputs, jnp.zeros_like(valid)))
    targets = clean.argmax(-1) if targets is None else np.asarray(targets)

    def mean(answers: np.ndarray | jax.Array) -> float:
        answers = np.asarray(answers)
        if model.output == "value":
            answers = (answers - blank) * np.sign(clean - blank)
        return float(np.take_along_axis(answers, targets[:, None], -1).mean())

    keys = iter(jax.random.split(jax.random.key(0) if key is None else key, len(shares) * draws))
    answers = []
    for share in shares:
        found = []
        for _ in range(draws):
            places = jnp.where(valid, jax.random.uniform(next(keys), valid.shape), 2.0)
            ranks = jnp.argsort(jnp.argsort(places, -1), -1)
            count = jnp.round(share * valid.sum(-1, keepdims=True, dtype=float))
            kept = ranks < count.astype(int)
            found.append(mean(masked(inputs, kept)))
        answers.append(float(np.mean(found)))
    result = Probe(mean(clean), mean(blank), tuple(shares), tuple(answers))
    if not result.removes:
        warnings.warn(
            f"f says about as much of inputs without any feature as of whole ones "
            f"({result.sentence}): this removal takes nothing of its answer away, and queries will "
            "say next to nothing; choose another, or what f says does not come from its inputs",
            stacklevel=2,
        )
    elif abs(result.at_half) < _NOTHING:
        half = min(shares, key=lambda share: abs(share - 0.5))
        warnings.warn(
            f"with {half:.0%} of the features kept nothing survives of f's answer "
            f"({result.sentence}): queries will say nothing of whole inputs; choose a removal that "
            "f can stand, such as blur with soft edges",
            stacklevel=2,
        )
    return result
