"""The five starts of docs/paths.md, each in an empty folder."""

import functools
import inspect
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fex_jax
from fex_jax import explain, host, sharing
from fex_jax.host import black_box
from fex_jax.models.policy import functional_policy
from fex_jax.models.unet import UNetConfig
from fex_jax.removal import Removal
from fex_jax.training import fit as fitting
from tests.conftest import random_params
from tests.docs.test_blocks import BERT, BLOCK, FULL, ROOT, STARTS, VIT, write_bert, write_vit


def brief(fit: Callable, f: Any, data: Any, **options: Any) -> explain.Explainer:
    """`fit` for an epoch; of a black box of pictures an explainer that nothing was taught, where
    it would be: to train one takes half a minute."""
    inspect.signature(fit).bind(f, data, **options)
    if isinstance(f, str):
        f = host.open(f, labels=options["labels"])
    if not isinstance(f, host.HostPredictor):
        return fit(f, data, **options | {"epochs": 1})
    box = black_box.of(f, Removal("mean", (8, 8)))
    network = UNetConfig(64, 8, hidden_size=16, depth=1)
    init, _ = functional_policy(network, len(f.labels))
    explainer = explain.Explainer(box, network, random_params(init), budget=-3.0)
    sharing.save(explainer, options["workdir"])
    return explainer


@pytest.mark.parametrize("number", range(5))
def test_a_start_runs_in_an_empty_folder(number, tmp_path, monkeypatch):
    """Breaks if a block of docs/paths.md needs a file that it does not write, or another block; or
    if what is exported says something else than what is served.

    With FEX_FULL_SIZE all train as printed, of tiny networks where a name leads to the hub.
    """
    slow, code = BLOCK.findall((ROOT / STARTS).read_text())[number]
    for package in re.findall(r"^(?:import|from) (onnx|onnxruntime|xgboost)\b", code, re.M):
        pytest.importorskip(package)
    if "serve" in code:
        pytest.importorskip("uvicorn")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # of the server
    if FULL:
        write_vit(VIT)
        write_bert(BERT)
    elif slow:
        pytest.skip("the same call is in README.md; set FEX_FULL_SIZE=1 to run it")
    else:
        monkeypatch.setattr(fitting, "compare", lambda *_: "")
        monkeypatch.setattr(fex_jax, "fit", functools.partial(brief, fex_jax.fit), raising=False)
    given: dict = {}
    exec(compile(code, STARTS, "exec"), given)
    if number == 1:
        assert given["explainer"]("pictures/0.png").probabilities[0, 1] > 0.5  # red
    if number == 3:
        found = given["found"]
        total = found.base_values + found.attributions.sum(axis=1)
        np.testing.assert_allclose(total, found.predictions, rtol=1e-4, atol=1e-4)
    if number == 4:
        served = given["explanation"]["classes"][0]["attributions"]
        exported = given["session"].run(["attributions"], given["asked"])[0][0]
        np.testing.assert_allclose(served, exported, atol=1e-5)
