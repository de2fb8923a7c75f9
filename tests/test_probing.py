"""What survives removal, by hand, and the removal that is chosen by it."""

import jax.numpy as jnp
import numpy as np
import pytest

from fex_jax.predictors import Model
from fex_jax.probing import Probe, choose, probe
from fex_jax.removal import Removal


def share_model(size: int, power: float = 1.0) -> Model:
    """f_0 = .1 + .8 (share of features kept)^power, f_1 the rest."""

    def predict(x):
        first = 0.1 + 0.8 * x.mean(-1) ** power
        return jnp.stack([first, 1 - first], -1)

    return Model(predict, lambda x, m: jnp.where(m, x, 0), (size,))


def test_the_probe_by_hand():
    """Breaks if masks do not keep the stated share, or survival is not of clean over blank."""
    found = probe(share_model(20), jnp.ones((4, 20)), draws=2)
    assert found.clean == pytest.approx(0.9) and found.blank == pytest.approx(0.1)
    np.testing.assert_allclose(found.answers, [0.82, 0.66, 0.5, 0.34, 0.18], atol=1e-6)
    np.testing.assert_allclose(found.survives, found.shares, atol=1e-6)
    assert found.sentence.startswith(
        "f says 0.900 of whole inputs, 0.820 (90%) with 90% kept, 0.660 (70%) with 70% kept"
    ) and found.sentence.endswith("and 0.100 of nothing")


def test_the_probe_warns_when_nothing_survives():
    """Breaks if a removal that f cannot stand passes without a word, or a good one is warned of."""
    with pytest.warns(UserWarning, match="with 50% of the features kept nothing survives"):
        probe(share_model(20, power=9), jnp.ones((4, 20)))
    with pytest.raises(ValueError, match="no inputs"):
        probe(share_model(20), jnp.ones((0, 20)))
    with pytest.raises(ValueError, match="give shares in 0..1"):
        probe(share_model(20), jnp.ones((1, 20)), shares=(50,))


def test_a_removal_that_removes_nothing_is_said():
    """Breaks if f says the same of inputs without any feature and no one hears of it, or what
    survives is a share of next to nothing; or if it is chosen where another removes something."""

    def predict(x):  # but for a trace, the same of everything
        first = 0.55 + 0.002 * x.mean(-1)
        return jnp.stack([first, 1 - first], -1)

    with pytest.warns(UserWarning, match="about as much of inputs without any feature as of whole"):
        found = probe(Model(predict, lambda x, m: jnp.where(m, x, 0), (20,)), jnp.ones((4, 20)))
    assert not found.removes and np.isnan(found.at_half)
    assert "0.551 (–) with 50% kept" in found.sentence and "%)" not in found.sentence
    grid = (4, 4)
    silent = {
        Removal("mean", grid): Probe(0.55, 0.548, (0.5,), (1.9,)),
        Removal("blur", grid): Probe(0.55, 0.5485, (0.5,), (0.5,)),
    }
    assert choose(silent) == Removal("mean", grid)
    for blank in (0.45, 0.6, 0.65):  # it takes something away, or adds it
        fill = Probe(0.55, blank, (0.5,), (0.5,))
        assert choose(silent | {Removal("fill", grid): fill}) == Removal("fill", grid)


def test_the_hardest_edges_that_f_stands_are_chosen():
    """Breaks if more is shown of removed cells than f needs, or a picture that stays is preferred.

    Of .9 a tenth survives hard edges, .7 those of half a cell, .8 of a whole one: .64 is enough.
    """

    def found(at_half: float, blank: float = 0.0) -> Probe:
        return Probe(0.9, blank, (0.7, 0.5), (0.9, blank + at_half * (0.9 - blank)))

    grid = (4, 4)
    probes = {
        Removal("fill", grid): found(0.1),
        Removal("fill", grid, 0.5): found(0.65),
        Removal("blur", grid, 0.5): found(0.7),
        Removal("blur", grid, 1.0): found(0.8),
        Removal("mean", grid): found(0.9, blank=0.7),
    }
    assert choose(probes) == Removal("blur", grid, 0.5)
    del probes[Removal("mean", grid)], probes[Removal("blur", grid, 1.0)]
    assert choose(probes | {Removal("mean", grid): found(0.6)}) == Removal("mean", grid)
    even = {one: Probe(0.9, 0.5, (0.5,), (0.7,)) for one in probes}  # of two classes
    assert choose(even) == Removal("fill", grid)


def test_a_value_survives_from_its_own_zero():
    """Breaks if a value's zero or sign changes how much of it survives: here the share kept."""

    def predict(x):
        share = x.mean(-1, keepdims=True)
        return jnp.concatenate([5 + 3 * share, -70 - 2 * share], -1)

    model = Model(predict, lambda x, m: jnp.where(m, x, 0), (20,), output="value")
    for label, size in ((0, 3), (1, 2)):
        found = probe(model, jnp.ones((4, 20)), targets=np.full(4, label))
        assert found.clean == pytest.approx(size) and found.blank == 0
        np.testing.assert_allclose(found.survives, found.shares, atol=1e-5)
