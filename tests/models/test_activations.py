"""Activations: those that Hugging Face names."""

import pathlib

import numpy as np
import pytest

from fex_jax import families
from fex_jax.models.activations import ACTIVATIONS


def test_all_that_transformers_names():
    """Breaks if a name stands for another function, or one without parameters is missing."""
    torch = pytest.importorskip("torch")
    theirs = pytest.importorskip("transformers.activations").ACT2FN
    assert theirs.keys() - {"prelu", "xielu"} == ACTIVATIONS.keys()
    x = np.float32([*np.linspace(-12, 12, 97), -1e4, 1e4])
    for name, function in ACTIVATIONS.items():
        expected = theirs[name](torch.tensor(x)).numpy()
        np.testing.assert_allclose(function(x), expected, rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("name", ["prelu", "xielu"])
@pytest.mark.parametrize("family", families.MODULES)
def test_those_with_parameters_are_refused(family, name):
    """Breaks if a family computes with another activation, or does not say why it will not."""
    keys = ("hidden_act", "activation", "hidden_activation")
    said = {"model_type": family} | dict.fromkeys(keys, name)
    with pytest.raises(ValueError, match=f"is '{name}'; expected one of .* learn parameters of"):
        families.of(family).read_config(said, 2, pathlib.Path("folder"))
