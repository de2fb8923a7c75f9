"""How eval.py chooses methods."""

import pytest

import eval as evaluation
from configs import digit_scenes
from fex_jax import attributions, predictors


class Loaded:
    """What choosing methods asks of an explainer."""

    def __init__(self, predictor):
        self.predictor, self.backbone = predictor, predictor.config
        self.method, self.centered, self.params = "fex", True, predictor.params


def test_methods_are_chosen_by_name(predictor):
    """Breaks if "all" leaves a method out, options are lost, or a typo passes."""
    config, bind = digit_scenes.get_config(), predictors.from_checkpoint(predictor)
    chosen = evaluation.choose_methods(["all"], [Loaded(predictor)], bind, config)
    assert [method.name for method in chosen] == ["fex", *attributions.METHODS]
    options = {method.name: method.settings for method in chosen}
    assert options["rise"] == {"num_queries": 100}
    with pytest.raises(ValueError, match="method 'rises' is unknown; choose all, or some of rand"):
        evaluation.choose_methods(["rises"], [Loaded(predictor)], bind, config)
