"""How eval.py matches classes and chooses methods."""

import numpy as np
import pytest

import eval as evaluation
from configs import digit_scenes
from fex_jax import attributions


def test_labels_of_the_data_become_the_predictors_classes():
    """Breaks if a folder's first class is taken for the predictor's first class."""
    labels = ("ant", "bee", "cat")
    np.testing.assert_array_equal(evaluation.class_numbers(("cat", "ant"), labels), [2, 0])
    np.testing.assert_array_equal(evaluation.class_numbers(("n01", "n02", "n03"), labels), range(3))
    assert evaluation.class_numbers(("cat", "dog"), labels) is None


class Loaded:
    """What choosing methods asks of an explainer."""

    def __init__(self, predictor):
        self.predictor, self.backbone = predictor, predictor.config
        self.method, self.centered, self.params = "fex", True, predictor.params


def test_methods_are_chosen_by_name(predictor):
    """Breaks if "all" leaves a method out, options are lost, or a typo passes."""
    config = digit_scenes.get_config()
    chosen = evaluation.choose_methods(["all"], [Loaded(predictor)], config)
    assert [method.name for method in chosen] == ["fex", *attributions.METHODS]
    options = {method.name: method.settings for method in chosen}
    assert options["rise"] == {"num_queries": 100}
    with pytest.raises(ValueError, match="method 'rises' is unknown; choose all, or some of rand"):
        evaluation.choose_methods(["rises"], [Loaded(predictor)], config)
