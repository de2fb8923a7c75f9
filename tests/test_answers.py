"""Log-odds, by hand."""

import jax.numpy as jnp
import numpy as np

from fex_jax.answers import log_odds


def test_log_odds_by_hand():
    """Breaks if a sign or the base is wrong, or if a certain answer is infinite."""
    least = np.log(0.01 / 0.99)
    np.testing.assert_allclose(
        log_odds(jnp.array([0.5, 0.75, 0.25, 0.0, 1.0, 1e-9])),
        [0, np.log(3), -np.log(3), least, -least, least],
        rtol=1e-4,
        atol=1e-6,
    )
