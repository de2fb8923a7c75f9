"""How much training a number of queries suffices for."""

from types import SimpleNamespace

import numpy as np
import pytest

from fex_jax import host, settings
from fex_jax.training import asking, held_out
from fex_jax.training.explainer import num_steps


@pytest.mark.parametrize("size, queries", [(1160, 20_000), (1160, 100_000), (100, 5_000)])
def test_what_is_afforded_is_no_more_than_may_be_asked(size, queries):
    """Breaks if `fit(queries=...)` plans more than that, and then refuses its own plan, or wastes
    them: the probe and the held-out inputs are paid from them, too."""
    config = settings.default()
    config.batch_size, config.epochs = 32, 100.0
    f = host.host(
        lambda images: np.ones((len(images), 2)) / 2, labels=("a", "b"), input=(32, 32, 3)
    )
    config.epochs = asking.affordable(config, f, size, queries)
    kept = held_out.count(config.objective, size)
    training = num_steps(config, SimpleNamespace(size=size - kept)) * 32 * 11
    probed = asking.queries_of_probe(asking.candidates(config, f), asking.PROBED)
    planned = probed + held_out.queries(kept) + training
    assert queries - 2 * 32 * 11 < planned <= queries
