"""What the experiments share: `fex_jax.settings.default`, whose comments explain each setting."""

from typing import Any

from fex_jax.settings import default as get_config
from fex_jax.settings import of_tables

__all__ = ["get_config", "of_tables", "with_path"]


def with_path(config: Any) -> Any:
    """Options of a predictor that is made of the data: their path, whatever a flag makes of it."""
    return '{"path": "' + config.data.get_ref("path") + '"}'
