"""What a network's answers are taken for where nobody said what they are."""

import numpy as np
import pytest

from fex_jax.host import HostError
from fex_jax.host.answers import AssumedLogits

ROWS = np.random.default_rng(0).uniform(0.01, 0.99, (20, 3)).astype(np.float32)


def test_independent_probabilities_are_refused_however_few_come_at_a_time():
    """Breaks if a softmax is taken of sigmoids, which would be nearly flat, and nothing is said."""
    with pytest.raises(HostError, match="net answers numbers from 0 to 1 that do not sum to 1"):
        AssumedLogits("net")(ROWS)
    assumed, asked = AssumedLogits("net"), []
    with pytest.warns(
        UserWarning, match="sum to 1, .* and they are taken for logits: open it with"
    ):
        with pytest.raises(HostError, match="output='sigmoid'"):
            for row in ROWS:
                asked.append(row)
                assumed(row[None])
    assert len(asked) == 3  # three rows of three numbers
    with pytest.raises(HostError, match="output='sigmoid'"):
        AssumedLogits("net")(np.full((4, 3), 0.5, np.float32))  # as of four black pictures


def test_logits_are_believed_when_one_lies_outside():
    """Breaks if a training stops because logits of some batch all happen to lie in 0..1."""
    assumed = AssumedLogits("net")
    with pytest.warns(UserWarning) as said:
        for answer in (ROWS[:1], ROWS[1:2], np.array([[-0.1, 0.5, 0.5]]), ROWS, ROWS):
            assert assumed(answer) is answer
    assert len(said) == 1
    nan = AssumedLogits("net")
    nan(np.full((1, 3), np.nan))  # says nothing; it is refused elsewhere
    with pytest.raises(HostError):
        nan(ROWS)


@pytest.mark.parametrize("shape", [(-1, 1), (-1,)])
def test_one_probability_for_two_classes_is_no_logit(shape):
    """Breaks if a torch module that ends in one sigmoid is answered by a sigmoid of it: two classes
    whose probabilities are never far apart."""
    torch = pytest.importorskip("torch")
    from fex_jax.host.torch_module import torch_module

    class Net(torch.nn.Module):
        def forward(self, x):
            return torch.sigmoid(x.sum(-1)).reshape(shape)

    settings = {"labels": ("no", "yes"), "input": (3,)}
    with pytest.raises(HostError, match="Net answers numbers from 0 to 1, one an input"):
        torch_module(Net(), **settings)(ROWS)
    found = torch_module(Net(), **settings, output="softmax")(ROWS)
    np.testing.assert_allclose(found[:, 1], 1 / (1 + np.exp(-ROWS.sum(-1))), atol=1e-6)
