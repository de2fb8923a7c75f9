"""A trained explainer over HTTP, with a page to look at: `fex-jax serve runs/mine`.

`app` has the addresses, `connections` ends those of slow clients, `bodies` and `kserve` read
requests, `images` and `texts` what is in them, `batching` explains what waits at the same time in
one batch, `removal` says what f sees as features go, `refusing` why there is no answer, `page/` is
the page.
"""

from fex_jax.serve.app import Limits, application, run

__all__ = ["Limits", "application", "run"]
