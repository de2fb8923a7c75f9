"""The settings of a training run: defaults, and the objectives that a preset's name chooses.

A config of `configs/` is `default(preset)`, or `of_tables(preset)`, with a few settings changed.
"""

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import ml_collections

from fex_jax import checks

_CONTRAST = {
    "targets": "sampled",  # from f(x)
    "num_targets": 10,  # classes whose maps learn from each answer, at most all but one
    "budget_range": 3.0,
    "temperature": 0.5,  # α
    "kl_coef": 1.0,
    "standardize": True,  # values
    "num_masks": 10,  # a query each, as everywhere
    "num_updates": 4,
    "num_passes": 3,
}
_PUBLISHED = {
    "num_masks": 5,
    "num_updates": 4,
    "num_passes": 1,
    "clip_epsilon": 0.2,
    "value_coef": 0.5,
    "kl_coef": 1.0,
}
_FASTSHAP = {
    "targets": "sampled",  # argmax, sampled from f(x), or uniform
    "num_targets": 1,  # as published; FEX's default has 10
    "fit": "values",  # of coalitions; or "labels": as SimSHAP and Stochastic Amortization
    "efficiency": "normalize",  # or "penalty", with its weight:
    "gap_coef": 0.1,
    "num_masks": 10,  # coalitions in complementary pairs; with two more, 12 queries an image
    "num_updates": 4,
    "num_passes": 1,
}
_L2X = {
    "num_chosen": 16,  # k, features that q is shown; f is asked about whole inputs alone
    "temperature": 0.1,  # of the draws of a feature
    "num_updates": 4,
    "num_passes": 1,
}
_CORTX = {
    "targets": "sampled",
    "num_targets": 10,
    "num_masks": 10,  # with two more, 12 queries an image
    "num_positives": 4,  # of them look for the positive, with features kept by chance `keep`
    "keep": 0.5,
    "temperature": 0.1,  # of the contrast
    "num_updates": 4,
    "num_passes": 1,
}
_SHAPLEY = {
    "num_targets": 10,  # of each answer; all, where there are no more
    "num_masks": 8,  # coalitions in complementary pairs, a query each
    "control": True,  # subtract what the explainer expects of the background row that was drawn
    "num_updates": 4,
    "num_passes": 1,
}


class Preset(NamedTuple):
    """An objective with its settings, and what else suits it."""

    method: str  # of `objectives.METHODS`
    objective: dict[str, Any]
    map_head: str = "token"
    backbone_scale: float = 0.0


PRESETS = {
    "contrast": Preset("contrast", _CONTRAST, "wide"),
    "paper": Preset("published", _PUBLISHED | {"form": "paper", "entropy_coef": 1e-5}),
    "authors": Preset("published", _PUBLISHED | {"form": "authors", "entropy_coef": 1e-4}),
    "fastshap": Preset("fastshap", _FASTSHAP),
    "l2x": Preset("l2x", _L2X),
    "cortx": Preset("cortx", _CORTX, "wide", 0.1),
    "shapley": Preset("shapley", _SHAPLEY),
}


def default(preset: str = "contrast") -> ml_collections.ConfigDict:
    """The settings every run starts from; `preset` chooses the objective.

    Raises:
      ValueError: another preset.
    """
    if preset not in PRESETS:
        raise ValueError(f"preset {preset!r} is unknown; choose one of {', '.join(PRESETS)}")
    config = ml_collections.ConfigDict()
    config.method = PRESETS[preset].method
    config.seed = 0
    config.batch_size = 128  # of all devices together
    config.epochs = 1.0
    config.dtype = "float32"  # of the matrix products; parameters are always float32
    config.remat = False  # recompute the policy's blocks in the backward pass: less memory

    config.data = ml_collections.ConfigDict()
    config.data.name = ""  # {digit,fashion,cutout}_scenes, folder, drawn_reviews, texts, or TFDS
    config.data.path = ""  # a folder, or TFDS's data_dir
    config.data.column = ""  # of a table of texts, or two of pairs, as "first,second"
    config.data.train_split = "train"
    config.data.eval_split = "test"
    config.data.limit = 0  # training examples; 0 = all
    config.data.augment = True  # random resized crop and flip
    # A folder where scenes are kept, at most so many GiB. All cores draw ahead into it, so it pays
    # where a GPU waits for scenes, or where runs share them. "": each is drawn as it is read.
    config.data.cache, config.data.cache_gib = "", 16

    config.predictor = ml_collections.ConfigDict()
    # Hugging Face directory or hub id; or a black box: model.onnx, model.tflite, http://… or
    # package.module:function, with a file of its labels and, as JSON, other options of its adapter.
    config.predictor.path = ""
    config.predictor.labels = ""
    config.predictor.options = "{}"
    config.predictor.image_size = 0  # pixels; 0 = the checkpoint's own
    config.predictor.surrogate = ""  # a classifier trained on masked inputs, queried instead
    config.predictor.fill = 0.0  # what a removed patch becomes, after normalisation
    # A black box answers about a batch while the explainer learns from the one before; its masks
    # are then drawn by the explainer as it was before that.
    config.predictor.overlap = True
    # A black box's earlier run, whose answers are learned from again; then f is asked nothing.
    config.predictor.bank = ""
    config.predictor.price = 0.0  # of a query to a black box, in any currency, for what is said

    config.text = ml_collections.ConfigDict()  # for text predictors
    config.text.unit = "word"  # a feature is a word with all its pieces, or a "token"
    config.text.max_length = 0  # tokens; 0 = the predictor's window
    config.text.too_long = "refuse"  # training texts beyond it: or "cut" to it
    config.text.removal = "mask"  # a removed feature becomes [MASK]; or "delete" from attention

    config.table = ml_collections.ConfigDict()
    config.table.drop = ""  # columns of a file that f does not take, with commas between
    config.table.label = ""  # column of a file that holds the class, which id_expo learns
    config.table.groups = (
        "{}"  # columns that are one feature, JSON: {"address": ["street", "town"]}
    )
    config.table.background = 100  # rows that take the place of removed features
    config.table.unit = ""  # log-odds or probability; of other predictions value

    config.removal = ml_collections.ConfigDict()  # of a black box's cells or words
    # What f stands best: of cells fill, mean or blur, of words delete or word; or one of these. Of
    # tables background, or surrogate.
    config.removal.kind = "probe"
    # What may take the place of a removed one, as "[MASK]", beside words that f is known to have.
    config.removal.word = ""
    config.removal.softness = -1.0  # of edges, in cells; below 0: probed, too
    config.removal.sigma = 0.0  # of blur, in pixels; 0 = an eleventh of the side
    config.removal.grid = 0  # cells on the longer side; 0 = 16, of small pictures fewer

    # "vit", "resnet", "convnext", "swin" or "bert": the predictor's architecture and weights. From
    # nothing: "unet", or of a black box of texts "small_bert", of tables "mlp". Of a black box of
    # pictures "auto": DINOv2-small where the hub's cache has it and pictures are large enough, or
    # else "unet".
    config.policy = "vit"
    config.policy_backbone = ml_collections.ConfigDict()
    # In the place of all these, the directory or hub id of another network of images, or of a BERT
    # for a black box of texts.
    config.policy_backbone.path = ""
    # What the map head reads of a patch of a ViT or of a cell of a ResNet, ConvNeXt or Swin: its
    # "token", as published, or more, "wide". A wide one gives FastSHAP worse maps: see
    # docs/notebook.md. "shared" is wide, and mixes what all classes have in common with what is
    # each one's own: for many classes and few inputs.
    config.map_head = PRESETS[preset].map_head

    config.objective = ml_collections.ConfigDict(PRESETS[preset].objective)

    config.id_expo = ml_collections.ConfigDict()  # of method id_expo, which fine-tunes f
    config.id_expo.explainer = "gradcam_norm1"  # gradcam_attention, _norm1, _features, lime,
    # kernel_shap, or fex
    config.id_expo.strength = 0.1  # λ₁ of insertion and deletion
    config.id_expo.norm = 0.0  # λ₂ of ‖e‖²
    config.id_expo.temperature = 0.1  # τ, in standard deviations of an explanation
    config.id_expo.points = 2  # shares of the features that are kept, drawn for each input
    config.id_expo.num_queries = 64  # of lime and kernel_shap, about each input and step
    config.id_expo.learning_rate = 1e-4  # of f

    config.optimizer = ml_collections.ConfigDict()
    # What works on digits, garments and photographs alike: docs/notebook.md, "One optimiser".
    config.optimizer.learning_rate = 1.5e-4
    # Of that, for the predictor's backbone; 0 freezes it, all that the contrast of CoRTX moves.
    config.optimizer.backbone_scale = PRESETS[preset].backbone_scale
    config.optimizer.warmup_fraction = 0.05  # of the run; then a cosine to zero
    config.optimizer.clip_norm = 1.0

    config.mesh = ml_collections.ConfigDict()
    config.mesh.fsdp = 1  # devices that share the parameters; the rest split the batch only

    # Of a run of several processes: "host:port" of process 0, how many they are, which this is; or
    # "auto": what Slurm, Open MPI or Kubernetes (pip install 'jax[k8s]') say.
    config.distributed = ml_collections.ConfigDict({"address": "", "count": 0, "index": 0})

    config.checkpoint = ml_collections.ConfigDict()
    config.checkpoint.every = 100  # batches
    config.checkpoint.keep = 2
    config.log_every = 10  # batches

    config.eval = ml_collections.ConfigDict()
    config.eval.num_images = 1000  # 0 = the whole split
    config.eval.batch_size = 128
    config.eval.protocol = "fex"  # fex, chefer or authors
    config.eval.match_classes = "name"  # the data's to the predictor's; or "position"

    # Options of the methods that eval.py compares with; their defaults are in the functions.
    config.attributions = ml_collections.ConfigDict()
    config.attributions.rise = {"num_queries": 100}
    config.attributions.smooth_rise = {"num_queries": 100, "cells": 7}
    config.attributions.lime = {"num_queries": 1000}
    config.attributions.kernel_shap = {"num_queries": 1000}
    config.attributions.empirical = {"num_queries": 1000}
    config.attributions.integrated_gradients = {"steps": 100}
    config.attributions.grad_shap = {"samples": 100}
    return config


def of_tables(preset: str = "shapley") -> ml_collections.ConfigDict:
    """The settings every run of a table starts from.

    FastSHAP is the Shapley regression without what that adds to it.

    Raises:
      ValueError: another preset, or one that needs a classifier's network.
    """
    config = default("shapley" if preset == "fastshap" else preset)
    if preset in ("l2x", "cortx"):
        raise ValueError(
            f"the preset {preset} needs a classifier's network, and of tables there is none: "
            "choose contrast, shapley, fastshap, paper or authors"
        )
    if preset == "contrast":
        config.objective.standardize = False  # what is said of tables is, by its spread over rows
    if preset == "fastshap":
        config.objective.control, config.data.augment = False, False
    config.policy = "mlp"
    config.batch_size, config.epochs = 1024, 20.0
    config.optimizer.learning_rate = 2e-3
    config.checkpoint.every, config.log_every = 500, 50
    return config


_COUNT, _SIZE = checks.integer(1, 2**31 - 1), checks.integer(0, 2**31 - 1)
_CHECKS = {
    "seed": checks.integer(0, 2**32 - 1),
    "batch_size": _COUNT,
    "epochs": checks.number(1e-6, 1e6),
    "dtype": checks.one_of("float32", "bfloat16"),
    "log_every": _COUNT,
    "data.limit": _SIZE,
    "data.column": checks.text(),
    "data.cache": checks.text(),
    "data.cache_gib": _COUNT,
    "predictor.image_size": checks.integer(0, 4096),
    "predictor.fill": checks.number(-1e3, 1e3),
    "predictor.overlap": checks.flag(),
    "predictor.bank": checks.text(),
    "predictor.price": checks.number(0, 1e6),
    "text.unit": checks.one_of("word", "token"),
    "text.max_length": _SIZE,
    "text.too_long": checks.one_of("refuse", "cut"),
    "text.removal": checks.one_of("mask", "delete"),
    "table.drop": checks.text(),
    "table.groups": checks.text(),
    "table.label": checks.text(),
    "table.background": _COUNT,
    "table.unit": checks.one_of("", "log-odds", "probability", "value"),
    "map_head": checks.one_of("token", "wide", "shared"),
    "id_expo.explainer": checks.text(),
    "id_expo.strength": checks.number(0, 1e6),
    "id_expo.norm": checks.number(0, 1e6),
    "id_expo.temperature": checks.number(1e-6, 1e6),
    "id_expo.points": _COUNT,
    "id_expo.num_queries": checks.integer(2, 2**20),
    "id_expo.learning_rate": checks.number(0, 1e38),
    "optimizer.learning_rate": checks.number(0, 1e38),
    "optimizer.backbone_scale": checks.number(0, 1e3),
    "optimizer.warmup_fraction": checks.number(0, 1),
    "optimizer.clip_norm": checks.number(1e-9, 1e9),
    "mesh.fsdp": _COUNT,
    "distributed.count": _SIZE,
    "distributed.index": _SIZE,
    "checkpoint.every": _COUNT,
    "checkpoint.keep": _COUNT,
    "eval.protocol": checks.one_of("fex", "chefer", "authors"),
}
# Names of data that lie at `data.path`; TFDS and scikit-learn make the folder that they are given.
_AT_PATH = (
    "folder", "texts", "table", "arrays", "sst2", "eraser", "adult", "nhanes", "cutout_scenes",
    "imagenet_segmentation",
)  # fmt: skip


def check(config: ml_collections.ConfigDict) -> None:
    """Raises a ValueError at the first setting that training cannot use; objectives check theirs.

    What is the name of a file, a data set or a network is checked where that is opened.
    """
    checks.require(_flat(config.to_dict()), _CHECKS, "settings")


def check_data(config: ml_collections.ConfigDict) -> None:
    """Raises a ValueError where no data are named or there, before what opens it is imported."""
    name, path = config.data.name, config.data.path
    if not name:
        raise ValueError(
            "there is no data to open: data.name is empty, as of a run of data in memory. Pass "
            "--config=configs/common.py --config.data.path=PATH and --config.data.name=folder, "
            "texts or table; or call fex_jax.evaluate with what is in memory"
        )
    if name in _AT_PATH and not (path and os.path.exists(os.path.expanduser(path))):
        raise ValueError(
            f"data.path is {path!r}, and no file or folder is there: say with --config.data.path "
            f"where the data are ({name})"
        )


def _flat(values: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Settings by their whole names, "data.limit"."""
    found = {}
    for name, value in values.items():
        inner = (
            _flat(value, f"{above}{name}.") if isinstance(value, Mapping) else {above + name: value}
        )
        found |= inner
    return found
