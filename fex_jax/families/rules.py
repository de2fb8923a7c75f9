"""Parameter names and layouts here and in Hugging Face files, and strict conversion of both."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from flax import nnx, traverse_util

from fex_jax import escape
from fex_jax.checks import not_finite_floats
from fex_jax.families import hub
from fex_jax.models import Params


class Rule(NamedTuple):
    """A parameter's name here, its name in Hugging Face files, and the array layouts there."""

    pattern: str
    replacement: str  # {family} stands for the model_type, or that of the same network
    to_hf: Callable[[np.ndarray, Any], np.ndarray] = lambda x, config: x
    from_hf: Callable[[np.ndarray], np.ndarray] = lambda x: x


def linear(name: str, hf_name: str) -> list[Rule]:
    """A linear layer: [in, out] here, [out, in] there."""
    return [
        Rule(f"{name}/kernel", f"{hf_name}.weight", lambda x, config: x.T, lambda x: x.T),
        Rule(f"{name}/bias", f"{hf_name}.bias"),
    ]


def convolution(name: str, hf_name: str) -> list[Rule]:
    """A convolution: [h, w, in, out] here, [out, in, h, w] there."""
    return [
        Rule(
            f"{name}/kernel",
            f"{hf_name}.weight",
            lambda x, config: x.transpose(3, 2, 0, 1),
            lambda x: x.transpose(2, 3, 1, 0),
        ),
        Rule(f"{name}/bias", f"{hf_name}.bias"),
    ]


def norm(name: str, hf_name: str) -> list[Rule]:
    """A LayerNorm."""
    return [
        Rule(f"{name}/scale", f"{hf_name}.weight"),
        Rule(f"{name}/bias", f"{hf_name}.bias"),
    ]


def to_hf(params: Params, rules: Sequence[Rule], config: Any) -> dict[str, np.ndarray]:
    """Tensors under their Hugging Face names; `config` is the model's, with its family."""
    tensors = {}
    for name, value in traverse_util.flatten_dict(params, sep="/").items():
        rule, hf_name = _find(name, rules, config)
        value = rule.to_hf(np.asarray(value, np.float32), config)
        tensors[hf_name] = np.ascontiguousarray(value)
    return tensors


def fresh_head(config: Any, family: ModuleType) -> dict[str, np.ndarray]:
    """Hugging Face tensors of a newly initialised head, the same at every call."""
    head = nnx.to_pure_dict(nnx.state(family.head(config, nnx.Rngs(0))))
    return to_hf({"head": head}, family.rules(config), config)


def from_hf(
    tensors: dict[str, np.ndarray],
    template: Params,
    rules: Sequence[Rule],
    config: Any,
    ignored: str,
    source: Path,
) -> Params:
    """Parameters shaped like `template`.

    Raises:
      ValueError: lists tensors that are missing, misshapen, or extra and not `ignored`, a regex,
        and those that do not hold finite floats.
    """
    params, expected, used = {}, {}, {}
    for name, leaf in traverse_util.flatten_dict(template, sep="/").items():
        rule, hf_name = _find(name, rules, config)
        # A broadcast zero has the layout without the memory.
        shape = rule.to_hf(np.broadcast_to(np.float32(0), leaf.shape), config).shape
        expected[hf_name] = shape
        if hf_name in tensors and tensors[hf_name].shape == shape:
            used[hf_name] = tensors[hf_name]
            with np.errstate(over="ignore"):  # it is named below
                params[name] = rule.from_hf(tensors[hf_name].astype(np.float32))
    if problems := differences(tensors, expected, ignored):
        raise ValueError(
            f"the tensors in {source} do not fit its config.json:\n  "
            + "\n  ".join(problems)
            + f"\nIs it one of {' or '.join(hub.architectures(config.family))}, unmodified? If so, "
            "load it with transformers and save it again with save_pretrained"
        )
    if broken := not_finite_floats(used):
        more = f"; … ({len(broken)} in all)" if len(broken) > 5 else ""
        raise ValueError(f"{source}: {'; '.join(broken[:5])}{more}")
    return traverse_util.unflatten_dict(params, sep="/")


def _find(name: str, rules: Sequence[Rule], config: Any) -> tuple[Rule, str]:
    """The one rule for a parameter's name, and the name that it has in Hugging Face files."""
    family = getattr(config, "network", config.family)
    for rule in rules:
        if match := re.fullmatch(rule.pattern, name):
            return rule, match.expand(rule.replacement).format(family=family)
    raise ValueError(f"parameter {name!r} is not one of a {family} classifier")


def differences(
    tensors: dict[str, np.ndarray], expected: dict[str, tuple[int, ...]], ignored: str = ""
) -> list[str]:
    """Tensors that are missing, misshapen, or extra and not `ignored`, a regex; a line a kind."""
    extra = [k for k in tensors if k not in expected and not re.fullmatch(ignored, k)]
    misshapen = [
        f"{k} is {list(tensors[k].shape)}, expected {list(shape)}"
        for k, shape in expected.items()
        if k in tensors and tensors[k].shape != shape
    ]
    return [
        escape.terminal(f"{len(keys)} {kind}: {'; '.join(keys[:5])}{'; ...' * (len(keys) > 5)}")
        for kind, keys in (
            ("missing", [k for k in expected if k not in tensors]),
            ("extra", extra),
            ("misshapen", misshapen),
        )
        if keys
    ]
