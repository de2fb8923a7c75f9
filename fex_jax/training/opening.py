"""Opening what a config names, before what training takes is imported."""

import ml_collections

from fex_jax import finding, host, pretrained
from fex_jax.export import Predictor
from fex_jax.host import HostPredictor
from fex_jax.models import Params
from fex_jax.models.policy import Backbone, make_backbone
from fex_jax.preprocessing import Preprocessing
from fex_jax.pretrained.image import reader


def open_predictor(config: ml_collections.ConfigDict) -> Predictor | HostPredictor:
    """What the config names: a checkpoint, or a black box."""
    path = finding.predictor_path(config)
    if not host.is_name(path):
        return pretrained.load(path, config.predictor.image_size or None)
    return host.open(path, **finding.black_box_options(config))


def open_backbone(
    config: ml_collections.ConfigDict, predictor: Predictor
) -> tuple[Backbone, Params | None, Preprocessing | None]:
    """What explains a checkpoint: the network, its first parameters, and how it sees images.

    It is what `policy_backbone.path` names, the predictor's own network, or a U-Net, whose
    parameters are drawn: None. The last two see what the predictor sees: None.

    Raises:
      ValueError: a path of something else, or of a predictor of texts; an unknown `policy`.
    """
    path = config.policy_backbone.path
    if path and predictor.modality != "images":
        raise ValueError(
            f"policy_backbone.path is {path}, but a {predictor.config.family} classifier of "
            f"{predictor.modality} is explained by its own network: leave the path out"
        )
    if path:
        found = reader(path, predictor.config.grid)
        return found.config, found.params["backbone"], found.preprocessing
    drawn = config.policy == "unet"
    backbone = make_backbone(config.policy, predictor.config)
    return backbone, None if drawn else predictor.params["backbone"], None
