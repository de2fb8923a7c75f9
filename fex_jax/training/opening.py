"""Opening what a config names, before what training takes is imported."""

import ml_collections

from fex_jax import host, pretrained
from fex_jax.export import Predictor
from fex_jax.host import HostPredictor


def open_predictor(config: ml_collections.ConfigDict) -> Predictor | HostPredictor:
    """What the config names: a checkpoint, or a black box."""
    given = config.predictor
    if not given.path:
        raise ValueError(
            "no classifier is named: say with --config.predictor.path which to explain"
        )
    if not host.is_name(given.path):
        return pretrained.load(given.path, given.image_size or None)
    labels = {"labels": given.labels} if given.labels else {}
    return host.open(given.path, **labels | host.parse_options(given.options))
