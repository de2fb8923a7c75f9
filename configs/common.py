"""What the experiments share: `fex_jax.settings.default`, whose comments explain each setting."""

from fex_jax.settings import default as get_config

__all__ = ["get_config"]
