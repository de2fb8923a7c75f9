"""How much training a number of queries suffices for."""

import os
from types import SimpleNamespace

import numpy as np
import pytest

from fex_jax import feeding, host, settings
from fex_jax.host import black_box
from fex_jax.training import asking, counting, held_out
from fex_jax.training.explainer import num_steps


@pytest.mark.parametrize("size, queries", [(1160, 20_000), (1160, 100_000), (100, 5_000)])
def test_what_is_afforded_is_no_more_than_may_be_asked(size, queries):
    """Breaks if `fit(queries=...)` plans more than that, and then refuses its own plan, or wastes
    them: the probe and the held-out inputs are paid from them, too."""
    config = settings.default()
    config.batch_size, config.epochs = 32, 100.0
    f = host.host(
        lambda images: np.ones((len(images), 2)) / 2, labels=("a", "b"), input=(32, 32, 3)
    )
    config.epochs = counting.affordable(config, f, SimpleNamespace(size=size), queries)
    kept = held_out.count(config.method, size)
    training = num_steps(config, SimpleNamespace(size=size - kept)) * 32 * 11
    probed = counting.of_probe(asking.candidates(config, f), counting.PROBED)
    compared = counting.of_comparison(asking.candidates(config, f)[0], config, None)
    planned = probed + held_out.queries(kept) + training
    planned += compared if compared <= queries / 10 else 0
    assert queries - 2 * 32 * 11 < planned <= queries


@pytest.mark.parametrize("noise, backwards", [(0.0, False), (0.2, False), (0.0, True)])
def test_answers_that_are_not_of_their_inputs_are_said(noise, backwards, tmp_path, capsys):
    """Breaks if an f that is random, or whose rows come back in another order, is explained as if
    its answers were of what it was asked about; or if a run that goes on asks twice."""
    draw, asked = np.random.default_rng(0), []

    def f(images: np.ndarray) -> np.ndarray:
        asked.extend(images)
        share = images.mean((1, 2, 3)) / 255 + noise * draw.uniform(-1, 1, len(images))
        answers = np.stack([share.clip(0, 1), 1 - share.clip(0, 1)], -1)
        return answers[::-1] if backwards else answers

    pictures = draw.integers(0, 256, (12, 1, 1, 3), np.uint8).repeat(16, 1).repeat(16, 2)
    box = host.host(f, labels=("light", "dark"), input=(16, 16, 3), digest="f")
    config = settings.default()
    config.policy = "unet"
    config.removal.kind, config.removal.softness, config.removal.grid = "fill", 0.0, 4
    _, _, reads = black_box.kind_of(box).policy(config, box, None)
    source = feeding.open_data(black_box.of(box), pictures)[0]
    counts = []
    for _ in range(2):
        with asking.settled(box, reads, config, tmp_path, source, 0, None):
            counts.append(len(asked))
    assert ("differently" in capsys.readouterr().err) == bool(noise or backwards)
    assert counts[0] == counts[1] <= counting.of_probe([None], 12)


@pytest.mark.parametrize("price", [0.0, 0.5])
def test_what_is_paid_for_is_on_the_disk_before_more_is_asked(price, tmp_path, monkeypatch):
    """Breaks if a crash of the machine loses answers that have a price, of the probe, of training
    or of scoring; or if free ones wait for the disk."""
    synced, asked = [], []
    sync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (sync(file), synced.append(file)))

    def f(images: np.ndarray) -> np.ndarray:
        asked.append(len(synced))
        share = images.mean((1, 2, 3)) / 255
        return np.stack([share, 1 - share], -1)

    pictures = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), np.uint8)
    box = host.host(f, labels=("light", "dark"), input=(16, 16, 3), digest="f")
    config = settings.default()
    config.policy, config.predictor.price = "unet", price
    config.removal.kind, config.removal.softness = "fill", 0.0
    _, _, reads = black_box.kind_of(box).policy(config, box, None)
    source = feeding.open_data(black_box.of(box), pictures)[0]
    with asking.settled(box, reads, config, tmp_path, source, 0, None) as settled:
        for count in (1, 2):
            settled.answer(*settled.show(settled.bind({}, pictures[:count])[1]))
    again = SimpleNamespace(predictor=settled, asking=settled.asking)
    with black_box.recorded([again], box, tmp_path, price=price) as (scored,):
        for count in (3, 4):
            scored.answer(*scored.show(scored.bind({}, pictures[:count])[1]))
    assert len(asked) > 8
    assert len(set(asked)) == (len(asked) if price else 2)  # a new file is synced in any case
