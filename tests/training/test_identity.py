"""Digests that runs, exports and jobs are known by."""

import dataclasses

import numpy as np
import pytest

from fex_jax import host
from fex_jax.host import black_box
from fex_jax.training.identity import digest, of_predictor
from tests import tiny_text
from tests.conftest import random_checkpoint

PIXELS = random_checkpoint(3, 16, 2)
BOX = black_box.of(host.host(np.asarray, labels=("a", "b", "c"), input=(16, 16, 3), digest="f"))


@pytest.mark.parametrize("predictor", [PIXELS, tiny_text.checkpoint("bert", 3), BOX])
def test_what_answers_are_is_part_of_it(predictor):
    """Breaks if a run or a job goes on with sigmoids where a softmax began."""
    outputs = ("softmax", "sigmoid", "value")
    found = {of_predictor(dataclasses.replace(predictor, output=output)) for output in outputs}
    assert len(found) == 3 and of_predictor(predictor) in found


def test_how_an_explainer_sees_is_part_of_it():
    """Breaks if a job goes on where pictures are shown to the explainer in another way; or if what
    has neither such a way nor another output than a softmax is not known by its old digest."""
    ways = [dataclasses.replace(PIXELS.preprocessing, mean=(m,) * 3) for m in (0.25, 0.75)]
    assert len({of_predictor(PIXELS.read_as(looks)) for looks in (None, *ways)}) == 3
    old = PIXELS.params, repr(PIXELS.config), PIXELS.labels, repr(PIXELS.preprocessing)
    assert of_predictor(PIXELS) == digest(*old)
