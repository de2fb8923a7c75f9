"""Explainers on disk: a folder with explainer.json, explainer.safetensors and predictor/.

What is opened may come from strangers. Every field is checked, alone and against the tensors'
shapes, before anything is built of it.
"""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Callable, Collection
from typing import Any, NamedTuple, get_args

import jax
import numpy as np
from flax import traverse_util
from safetensors.numpy import save_file

from fex_jax import checks, escape, files, pretrained, tokens
from fex_jax.models import Params, shapes
from fex_jax.models.bert import BertConfig
from fex_jax.models.policy import Backbone, MapHead, Policy
from fex_jax.models.unet import UNetConfig
from fex_jax.models.vit import ViTConfig
from fex_jax.pretrained.rules import differences

_FORMAT = 4
_BACKBONES = {"vit": ViTConfig, "unet": UNetConfig, "bert": BertConfig}
_REQUIRED = object()

Check = Callable[[Any, str], Any]


def _one_of(*choices: str) -> Check:
    return functools.partial(checks.choice, choices=choices)


def _optional_number(value: Any, name: str) -> float | None:
    return None if value is None else checks.number(value, name, -1e3, 1e3)


# The explainer's own fields: how each is checked, and what it is in exports that do not say.
_SETTINGS: dict[str, tuple[Check, Any]] = {
    "method": (_one_of("fex", "fastshap"), _REQUIRED),
    "budget": (_optional_number, _REQUIRED),
    "contrastive": (checks.boolean, False),
    "map_head": (_one_of(*get_args(MapHead)), "token"),
    "fill": (functools.partial(checks.number, least=-1e3, most=1e3), 0.0),
    "unit": (_one_of(*get_args(tokens.Unit)), "word"),
    "removal": (_one_of("mask", "delete"), "mask"),
}
# The largest backbone that is built: several times the largest of the field.
_MOST = {
    "image_size": 4096,
    "patch_size": 4096,
    "num_channels": 64,
    "num_classes": 10**6,
    "hidden_size": 2**14,
    "num_layers": 256,
    "num_heads": 256,
    "mlp_dim": 2**17,
    "depth": 8,
    "vocab_size": 2 * 10**6,
    "max_positions": 2**17,
    "num_types": 64,
    "pad_id": 2 * 10**6,
}
_MAY_BE_ZERO = ("depth", "num_types", "pad_id")


class Export(NamedTuple):
    """What a folder holds."""

    predictor: pretrained.Checkpoint | pretrained.TextCheckpoint
    backbone: Backbone
    params: Params
    settings: dict[str, Any]  # the explainer's other fields


def read(path: str | pathlib.Path) -> Export:
    """Opens an export, a training run's folder, or one checkpoint; see `explain.load`."""
    path = pathlib.Path(path).expanduser()
    step = int(path.name) if path.parent.name == "checkpoints" and path.name.isdigit() else None
    run = path.parent.parent if step is not None else path
    export = run if (run / "explainer.json").is_file() else run / "export"
    if not (export / "explainer.json").is_file():
        raise FileNotFoundError(
            f"{path} holds no explainer: expected an export (explainer.json, explainer.safetensors,"
            " predictor/), or the --workdir of train.py"
        )
    backbone, settings = _read_description(files.inside(export, "explainer.json"))
    weights = files.inside(export, "explainer.safetensors")
    complete = step is None and weights.is_file()
    stored = files.tensor_shapes(weights) if complete else None
    if stored is not None:
        _check_depth(backbone, stored, weights)
    predictor = _read_predictor(export)
    _check_fits(backbone, predictor, export)
    wanted = shapes(
        lambda rngs: Policy(
            backbone, predictor.config.num_classes, map_head=settings["map_head"], rngs=rngs
        )
    )
    if stored is None:
        params = _read_checkpoint(export.parent / "checkpoints", wanted, step)
    else:
        expected = {k: x.shape for k, x in traverse_util.flatten_dict(wanted, sep="/").items()}
        if problems := differences(stored, expected):
            raise _of_another_network(weights, escape.terminal("; ".join(problems)))
        params = traverse_util.unflatten_dict(files.read_tensors(weights), sep="/")
    return Export(predictor, backbone, params, settings)


def _read_description(path: pathlib.Path) -> tuple[Backbone, dict[str, Any]]:
    """The backbone and the settings that an explainer.json names, each field checked."""
    values = files.read_json(path)
    if not isinstance(values.get("format"), int) or values["format"] != _FORMAT:
        raise ValueError(
            f"{path.parent} has format {checks.shown(values.get('format'))}; this version reads "
            f"{_FORMAT}: train the explainer again, or load it with the version that wrote it"
        )
    optional = {name: default for name, (_, default) in _SETTINGS.items() if default != _REQUIRED}
    values = optional | values
    try:
        _check_names(values, ("format", "policy", "backbone", *_SETTINGS), "")
        settings = {name: check(values[name], name) for name, (check, _) in _SETTINGS.items()}
        checks.choice(values["policy"], "policy", _BACKBONES)
        backbone = _backbone(_BACKBONES[values["policy"]], values["backbone"])
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return backbone, settings


def _backbone(kind: type[Backbone], values: Any) -> Backbone:
    """A backbone's config of values that may be of any type."""
    if not isinstance(values, dict):
        raise ValueError(f"backbone is {checks.shown(values)}; expected an object {{…}}")
    fields = {field.name: field for field in dataclasses.fields(kind) if field.init}
    defaults = {
        name: field.default
        for name, field in fields.items()
        if field.default is not dataclasses.MISSING
    }
    values = defaults | values
    _check_names(values, fields, "backbone.")
    for name, field in fields.items():
        if field.type is int:
            least = 0 if name in _MAY_BE_ZERO else 1
            checks.whole_number(values[name], f"backbone.{name}", least, _MOST[name])
        elif field.type is bool:
            checks.boolean(values[name], f"backbone.{name}")
        elif field.type is float:
            checks.number(values[name], f"backbone.{name}", 0, 1)
        else:
            checks.choice(values[name], f"backbone.{name}", get_args(field.type))
    return kind(**values)


def _check_names(values: dict[str, Any], known: Collection[str], prefix: str) -> None:
    """Refuses fields that are missing or unknown."""
    for name in sorted(set(known) - set(values)):
        raise ValueError(f"{prefix}{name} is missing")
    for name in sorted(set(values) - set(known)):
        raise ValueError(f"{prefix}{checks.shown(name)} is unknown: a newer version wrote it")


def _check_depth(
    backbone: Backbone, stored: dict[str, jax.ShapeDtypeStruct], path: pathlib.Path
) -> None:
    """Refuses another number of layers than the file holds, which would take long to build."""
    blocks = {name.split("/")[2] for name in stored if name.startswith("backbone/blocks/")}
    layers = getattr(backbone, "num_layers", 0)
    if layers != len(blocks):
        raise _of_another_network(path, f"it holds {len(blocks)} blocks, expected {layers}")


def _of_another_network(path: pathlib.Path, reason: str) -> ValueError:
    return ValueError(
        f"{path} is of another network: {reason}. Train the explainer again, or load it with the "
        "version that wrote it"
    )


def _read_predictor(export: pathlib.Path) -> pretrained.Checkpoint | pretrained.TextCheckpoint:
    directory = files.inside(export, "predictor")
    if not directory.is_dir():  # its name could be one of the hub's
        raise FileNotFoundError(f"{export} holds no predictor: {directory} is no folder")
    return pretrained.load(str(directory.absolute()))


def _check_fits(
    backbone: Backbone,
    predictor: pretrained.Checkpoint | pretrained.TextCheckpoint,
    export: pathlib.Path,
) -> None:
    """Refuses a policy that reads other inputs than the predictor, or has other features."""
    own = predictor.config
    if isinstance(backbone, type(own)):  # a policy of the predictor's own architecture
        names = [field.name for field in dataclasses.fields(own)]
    elif isinstance(backbone, UNetConfig) and isinstance(own, ViTConfig):
        names = ["image_size", "patch_size", "num_channels"]
    else:
        raise ValueError(
            f"{export}: its policy is a {type(backbone).__name__} and its predictor a "
            f"{type(own).__name__}: one reads texts, the other images"
        )
    for name in names:
        ours, theirs = getattr(backbone, name), getattr(own, name)
        if ours != theirs:
            raise ValueError(
                f"{export}: {name} of its policy is {ours} and of its predictor {theirs}: they do "
                "not belong together"
            )


def _read_checkpoint(directory: pathlib.Path, wanted: Params, step: int | None) -> Params:
    if not directory.is_dir():
        raise FileNotFoundError(
            f"{directory.parent} holds no weights: neither explainer.safetensors nor {directory}"
        )
    from fex_jax import checkpoint  # Orbax takes seconds to import; an export needs none

    try:
        params = checkpoint.restore_params(directory, wanted, step)
    except Exception as error:  # what Orbax raises at a stranger's files is of many kinds
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ValueError(f"{directory} holds no checkpoint of this network: {reason}") from error
    for name, value in traverse_util.flatten_dict(params, sep="/").items():
        if not np.isfinite(value).all():
            raise ValueError(f"{directory}: {name} holds NaN or infinite values")
    return params


def save_description(
    directory: pathlib.Path,
    predictor: pretrained.Checkpoint | pretrained.TextCheckpoint,
    backbone: Backbone,
    *,
    method: str = "fex",
    budget: float | None = None,
    contrastive: bool = False,
    map_head: MapHead = "token",
    fill: float = 0.0,
    unit: str = "word",
    removal: str = "mask",
) -> None:
    """Writes all of an export but the explainer's weights, which training is yet to find."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "explainer.safetensors").unlink(missing_ok=True)  # of an earlier run
    pretrained.save(directory / "predictor", predictor)
    description = {
        "format": _FORMAT,
        "policy": next(name for name, kind in _BACKBONES.items() if isinstance(backbone, kind)),
        "backbone": {
            f.name: getattr(backbone, f.name) for f in dataclasses.fields(backbone) if f.init
        },
        "method": method,
        "budget": budget,
        "contrastive": contrastive,
        "map_head": map_head,
        "fill": fill,
        "unit": unit,
        "removal": removal,
    }
    (directory / "explainer.json").write_text(json.dumps(description, indent=2) + "\n")


def save_weights(directory: pathlib.Path, params: Params) -> None:
    """Completes an export with the policy's parameters."""
    tensors = traverse_util.flatten_dict(jax.tree.map(np.asarray, params), sep="/")
    save_file(tensors, directory / "explainer.safetensors")
