"""Explainers on disk: a folder with explainer.json, explainer.safetensors and predictor/.

What is opened may come from strangers. Every field is checked, alone and against the tensors'
shapes, before anything is built of it.
"""

import dataclasses
import json
import os
import pathlib
import re
import reprlib
import shutil
from collections.abc import Collection
from types import SimpleNamespace
from typing import Any, NamedTuple, get_args

import jax
import numpy as np
from flax import traverse_util
from safetensors.numpy import save_file

from fex_jax import checks, families, finding, objectives, pretrained, tokens
from fex_jax.families.rules import differences
from fex_jax.host import black_box
from fex_jax.host.black_box import BlackBox
from fex_jax.models import Params, shapes
from fex_jax.models.activations import NAMED
from fex_jax.models.policy import BACKBONES, Backbone, MapHead, Policy, kind_of
from fex_jax.models.unet import UNetConfig
from fex_jax.preprocessing import Preprocessing

_FORMAT = 4

# The explainer's own fields: what they may be, and what they are in exports that do not say.
SETTINGS = {
    "method": checks.one_of(*objectives.KINDS),
    "budget": checks.either(checks.number(-1e3, 0), checks.nothing()),  # as training writes it
    "temperature": checks.either(checks.number(1e-9, 1e9), checks.nothing()),
    "contrastive": checks.flag(),
    "map_head": checks.one_of(*get_args(MapHead)),
    "faithful": checks.flag(),
    "fill": checks.number(-1e3, 1e3),
    "unit": checks.one_of(*get_args(tokens.Unit)),
    "removal": checks.one_of("mask", "delete"),
}
_DEFAULTS: dict[str, Any] = {
    "temperature": None, "contrastive": False, "map_head": "token", "faithful": False,
    "critic": True, "removal": "mask", "looks": None,
}  # fmt: skip
_FIELDS = SETTINGS | {
    "format": checks.one_of(_FORMAT),
    "critic": checks.flag(),  # whether the weights hold one: it is of training alone
    # "bert": one of texts' `families`
    "policy": checks.one_of(*BACKBONES, *families.GRIDS, "bert"),
    "backbone": checks.mapping(),
    # How the backbone sees images, if otherwise than the predictor: a preprocessor_config.json.
    "looks": checks.either(checks.mapping(), checks.nothing()),
}
# The smallest and the largest backbone that is built, several times the largest of the field.
_SIDE = checks.integer(1, 4096)
_SIZES = {
    "family": checks.text(),
    "image_size": checks.either(_SIDE, checks.several(_SIDE, 2)),
    "patch_size": checks.integer(1, 4096),
    "num_channels": checks.integer(1, 64),
    "num_classes": checks.integer(1, 10**6),
    "hidden_size": checks.integer(1, 2**14),
    "num_layers": checks.integer(1, 256),
    "num_heads": checks.integer(1, 256),
    "mlp_dim": checks.integer(1, 2**17),
    "layer_norm_eps": checks.number(0, 1),
    "qkv_bias": checks.flag(),
    "swiglu": checks.flag(),
    "distilled": checks.flag(),
    "activation": NAMED,
    "depth": checks.integer(0, 8),
    "vocab_size": checks.integer(1, 2**24),
    "max_positions": checks.integer(1, 2**17),
    "num_types": checks.integer(0, 64),
    "num_inputs": checks.integer(1, 2**20),
    "num_features": checks.integer(1, 2**20),
    "width": checks.integer(1, 2**14),
    "pad_id": checks.integer(0, 2**24),
}
_FAMILY = checks.one_of(*families.TEXTS)
_MAX_JSON = 2**20  # bytes
WEIGHTS = "explainer.safetensors"

Predictor = pretrained.Checkpoint | pretrained.TextCheckpoint | BlackBox


class Export(NamedTuple):
    """What a folder holds."""

    predictor: Predictor
    backbone: Backbone
    params: Params
    settings: dict[str, Any]  # the explainer's other fields


def read(path: str | pathlib.Path, revision: str | None = None) -> Export:
    """Opens an export, a training run's folder, or one checkpoint; see `explain.load`."""
    path = finding.local(path, revision)
    export = finding.explainer(path)
    path = pathlib.Path(os.path.expanduser(path))
    step = int(path.name) if path.parent.name == "checkpoints" and path.name.isdecimal() else None
    backbone, settings = _read_description(checks.file_inside(export, "explainer.json"))
    weights = checks.file_inside(export, WEIGHTS)
    complete = step is None and weights.is_file()
    stored = checks.tensor_shapes(weights) if complete else None
    if stored is not None:
        _check_depth(backbone, stored, weights)
    predictor = _read_predictor(export, settings.pop("looks"))
    _check_fits(backbone, predictor, export)
    heads = {name: settings[name] for name in ("map_head", "faithful", "critic")}
    classes = predictor.config.num_classes
    wanted = shapes(Policy, backbone, classes, **heads)
    if stored is None:
        # Of FEX's two modules neither has anything beside.
        method = next(m for m, name in objectives.METHODS.items() if name == settings["method"])
        beside = objectives.beside(method, predictor.params)
        whole = wanted | jax.eval_shape(lambda: beside)
        found = _read_checkpoint(export.parent / "checkpoints", whole, step)
        params = {name: found[name] for name in wanted}
    else:
        expected = {k: x.shape for k, x in traverse_util.flatten_dict(wanted, sep="/").items()}
        if problems := differences(stored, expected):
            raise _of_another_network(weights, "; ".join(problems))
        tensors = checks.read_tensors(weights)
        if broken := checks.not_finite_floats(tensors):
            raise ValueError(f"{weights}: {'; '.join(broken[:5])}")
        params = traverse_util.unflatten_dict(tensors, sep="/")
    if settings.pop("critic"):
        heads = {n: x for n, x in params["heads"].items() if not n.startswith("value_")}
        params = params | {"heads": heads}
    return Export(predictor, backbone, params, settings)


def _read_description(path: pathlib.Path) -> tuple[Backbone, dict[str, Any]]:
    """The backbone and the settings that an explainer.json names, each field checked."""
    values = checks.read_json(path, _MAX_JSON)
    if not _FIELDS["format"].fits(values.get("format")):
        raise ValueError(
            f"{path.parent} has format {reprlib.repr(values.get('format'))}; this version reads "
            f"{_FORMAT}: train the explainer again, or load it with the version that wrote it"
        )
    values = _DEFAULTS | values
    _check_names(values, _FIELDS, (), path)
    checks.require(values, _FIELDS, path)
    kind, sizes = BACKBONES.get(values["policy"]), _SIZES
    if kind is None:
        family = values["policy"]
        if family == "bert":
            family = values["backbone"].get("family", family)
            checks.require({"family": family}, {"family": _FAMILY}, f"{path}: backbone")
        module = families.of(family)
        kind, sizes = module.CONFIG, _SIZES | module.SIZES
    fields = {field.name: field for field in dataclasses.fields(kind)}
    optional = [n for n, field in fields.items() if field.default is not dataclasses.MISSING]
    where = f"{path}: backbone"
    _check_names(values["backbone"], fields, optional, where)
    checks.require(values["backbone"], sizes, where)
    given = values["backbone"].items()
    try:
        backbone = kind(**{n: tuple(v) if isinstance(v, list) else v for n, v in given})
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    return backbone, {name: values[name] for name in (*SETTINGS, "critic", "looks")}


def _check_names(
    values: Collection[str], known: Collection[str], optional: Collection[str], where: Any
) -> None:
    """Refuses fields that are missing or unknown."""
    for name in known:
        if name not in values and name not in optional:
            raise ValueError(f"{where}: {name} is missing")
    for name in values:
        if name not in known:
            raise ValueError(f"{where}: {reprlib.repr(name)} is unknown to this version")


def _check_depth(
    backbone: Backbone, stored: dict[str, jax.ShapeDtypeStruct], path: pathlib.Path
) -> None:
    """Refuses another number of layers than the file holds, which would take long to build."""
    block = re.compile(r"backbone/(stages/\d+/)?(blocks/)?\d+/")
    blocks = {found[0] for found in map(block.match, stored) if found}
    layers = getattr(backbone, "num_layers", 0)
    if layers != len(blocks):
        raise _of_another_network(path, f"it holds {len(blocks)} blocks, expected {layers}")


def _of_another_network(path: pathlib.Path, reason: str) -> ValueError:
    return ValueError(
        f"{path} is of another network: {reason}. Train the explainer again, or load it with the "
        "version that wrote it"
    )


def _read_predictor(export: pathlib.Path, looks: dict[str, Any] | None) -> Predictor:
    directory = checks.file_inside(export, "predictor")
    if not directory.is_dir():  # its name could be one of the hub's
        raise FileNotFoundError(f"{export} holds no predictor: {directory} is no folder")
    if black_box.is_saved(directory):
        return black_box.read(directory)
    found = pretrained.load(str(directory.absolute()))
    seen = looks and found.modality == "images"
    return found.read_as(Preprocessing.from_dict(looks)) if seen else found


def _check_fits(backbone: Backbone, predictor: Predictor, export: pathlib.Path) -> None:
    """Refuses a policy that reads other inputs than the predictor, or has other features."""
    own = predictor.config
    if not predictor.inside:
        if not predictor.reads.fits(backbone, predictor.removal):
            raise ValueError(
                f"{export}: its policy and its black box are of other {predictor.modality}, "
                f"{backbone} and {predictor}: they do not belong together"
            )
        return
    if looks := getattr(predictor, "looks", None):  # a policy that has begun elsewhere
        own = SimpleNamespace(image_size=looks.image_size, grid=own.grid)
        names = ["image_size", "grid"]
    elif isinstance(backbone, type(own)):  # a policy of the predictor's own architecture
        names = [field.name for field in dataclasses.fields(own)]
    elif isinstance(backbone, UNetConfig) and hasattr(own, "image_size"):
        names = ["image_size", "patch_size", "num_channels"]
    else:
        raise ValueError(
            f"{export}: its policy is a {type(backbone).__name__} and its predictor a "
            f"{type(own).__name__}: they do not belong together"
        )
    for name in names:
        ours, theirs = getattr(backbone, name, None), getattr(own, name)
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
    flat = traverse_util.flatten_dict(jax.tree.map(np.asarray, params), sep="/")
    if broken := checks.not_finite_floats(flat):
        raise ValueError(f"{directory}: {'; '.join(broken[:5])}")
    return params


def save_description(
    directory: pathlib.Path,
    predictor: Predictor,
    backbone: Backbone,
    *,
    method: str = "fex",
    budget: float | None = None,
    temperature: float | None = None,
    contrastive: bool = False,
    map_head: MapHead = "token",
    faithful: bool = False,
    critic: bool = False,
    fill: float = 0.0,
    unit: str = "word",
    removal: str = "mask",
) -> None:
    """Writes all of an export but the explainer's weights, which training is yet to find."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / WEIGHTS).unlink(missing_ok=True)  # of an earlier run
    predictor.save(directory / "predictor")
    description = {
        "format": _FORMAT,
        "policy": kind_of(backbone),
        "backbone": {f.name: getattr(backbone, f.name) for f in dataclasses.fields(backbone)},
        "method": method,
        "budget": budget,
        "temperature": temperature,
        "contrastive": contrastive,
        "map_head": map_head,
        "faithful": faithful,
        "critic": critic,
        "fill": fill,
        "unit": unit,
        "removal": removal,
    }
    if looks := getattr(predictor, "looks", None):
        description["looks"] = looks.to_dict()
    (directory / "explainer.json").write_text(json.dumps(description, indent=2) + "\n")


def save_weights(directory: pathlib.Path, params: Params) -> None:
    """Completes an export with the policy's parameters, or replaces them: whole or not at all."""
    tensors = traverse_util.flatten_dict(jax.tree.map(np.asarray, params), sep="/")
    directory.mkdir(parents=True, exist_ok=True)
    part = directory / f"{WEIGHTS}.part"
    save_file(tensors, part)
    os.replace(part, directory / WEIGHTS)


def copy_weights(source: pathlib.Path, directory: pathlib.Path) -> None:
    """Completes an export with parameters that `save_weights` wrote elsewhere."""
    part = directory / f"{WEIGHTS}.part"
    shutil.copyfile(source / WEIGHTS, part)
    os.replace(part, directory / WEIGHTS)
