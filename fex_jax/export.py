"""Explainers on disk: a folder with explainer.json, explainer.safetensors and predictor/."""

import dataclasses
import json
import pathlib
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import traverse_util
from safetensors.numpy import load_file, save_file

from fex_jax import pretrained
from fex_jax.models import Params, shapes
from fex_jax.models.bert import BertConfig
from fex_jax.models.policy import Backbone, MapHead, Policy
from fex_jax.models.unet import UNetConfig
from fex_jax.models.vit import ViTConfig
from fex_jax.pretrained.rules import differences

_FORMAT = 4
_BACKBONES = {"vit": ViTConfig, "unet": UNetConfig, "bert": BertConfig}


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
    description = json.loads((export / "explainer.json").read_text())
    if description.get("format") != _FORMAT:
        raise ValueError(
            f"{export} has format {description.get('format')!r}; this version reads {_FORMAT}: "
            "train the explainer again, or load it with the version that wrote it"
        )
    predictor = pretrained.load(str(export / "predictor"))
    backbone = _BACKBONES[description["policy"]](**description["backbone"])
    num_classes = predictor.config.num_classes
    # Exports that do not say so yet have these.
    earlier = {"removal": "mask", "contrastive": False, "map_head": "token"}
    description = earlier | description
    map_head = description["map_head"]
    wanted = shapes(lambda rngs: Policy(backbone, num_classes, map_head=map_head, rngs=rngs))
    weights = export / "explainer.safetensors"
    if step is None and weights.is_file():
        params = _read_weights(weights, wanted)
    else:
        from fex_jax import checkpoint  # Orbax takes seconds to import; an export needs none

        params = checkpoint.restore_params(export.parent / "checkpoints", wanted, step)
    is_text = isinstance(predictor, pretrained.TextCheckpoint)
    own = ("unit", "removal") if is_text else ("fill", "map_head")
    settings = {name: description[name] for name in ("method", "budget", "contrastive", *own)}
    return Export(predictor, backbone, params, settings)


def _read_weights(path: pathlib.Path, wanted: Params) -> Params:
    """The parameters of the network whose shapes are `wanted`; another network's are refused."""
    tensors = load_file(path)
    expected = {k: leaf.shape for k, leaf in traverse_util.flatten_dict(wanted, sep="/").items()}
    if problems := differences(tensors, expected):
        raise ValueError(
            f"{path} is of another network: {'; '.join(problems)}. Train the explainer again, or "
            "load it with the version that wrote it"
        )
    return traverse_util.unflatten_dict(tensors, sep="/")


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
