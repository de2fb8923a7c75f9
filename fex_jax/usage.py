"""The flags of train.py and eval.py: `--help` and wrong ones are answered at once.

So nothing that computes is imported here.
"""

import functools
import operator
import re
import sys
from collections.abc import Callable, Sequence

from absl import flags

from fex_jax import settings
from fex_jax.errors import missing

_HELP = {"-h", "-help", "--help"}
# What settings mean, for the page; `settings.default` has all of them, and their values.
_MEANING = {
    "data.name": "folder, texts, digit_scenes, drawn_reviews, ..., or a name of TFDS",
    "data.path": "a folder or file of one's own; the data_dir of TFDS",
    "data.column": "of a table of texts; of pairs two, first,second",
    "data.limit": "training examples; 0: all",
    "data.eval_split": "what eval.py scores: test, all, of a run of fit held-out, ...",
    "predictor.path": "Hugging Face folder or id, model.onnx, http://..., package.module:f",
    "predictor.labels": "file of a black box's classes, one a line",
    "predictor.options": "more about a black box, JSON",
    "policy": "the explainer's network: vit, resnet, convnext, swin, bert, unet, ...",
    "policy_backbone.path": "a network that explains images, or BERT a black box of texts",
    "map_head": "what a map reads of a patch: token, wide or shared",
    "batch_size": "inputs a batch, all devices together",
    "epochs": "passes over the data",
    "seed": "of all that is drawn",
    "dtype": "of products: float32 or bfloat16",
    "optimizer.learning_rate": "after warm-up; falls to zero by a cosine",
    "optimizer.backbone_scale": "factor on it for the backbone; 0: frozen",
    "objective.num_masks": "masked inputs that f is asked about, an input and epoch",
    "objective.num_passes": "times a batch is learned from",
    "id_expo.explainer": "of configs/idexpo_*.py: gradcam_norm1, lime, kernel_shap, fex, ...",
    "id_expo.strength": "how much its faithfulness counts beside the task",
    "text.unit": "a feature of a text: word or token",
    "text.max_length": "tokens that are read; 0: as many as the classifier can",
    "text.too_long": "longer texts: refuse, or cut",
    "table.drop": "columns of a table's file that f does not take",
    "table.label": "column that holds the class, of configs/idexpo_adult.py",
    "table.groups": "columns that are one feature, JSON",
    "table.background": "rows that take the place of removed columns",
    "table.unit": "of a table: log-odds, probability or value",
    "removal.kind": "of a black box's parts; probe: finds out; of tables background, surrogate",
    "removal.grid": "cells a side of a black box's pictures; 0: up to 16",
    "checkpoint.every": "batches between two checkpoints",
    "mesh.fsdp": "devices that share the parameters",
    "distributed.address": "where several processes meet, host:port, or auto: docs/scale.md",
    "eval.num_images": "inputs to score; 0: all",
    "eval.batch_size": "inputs at a time",
    "eval.protocol": "how features are removed: fex, chefer or authors",
    "eval.match_classes": "the data's classes to the classifier's by name, or by position",
    "attributions.rise.num_queries": "so many for RISE",
    "attributions.lime.num_queries": "for LIME",
    "attributions.kernel_shap.num_queries": "for KernelSHAP",
    "attributions.integrated_gradients.steps": "for Integrated Gradients",
    "attributions.grad_shap.samples": "for GradSHAP",
}


def parser(about: str, parts: Sequence[str]) -> Callable[[Sequence[str]], list[str]]:
    """The `flags_parser` of `absl.app.run`: answers --help with a page, and a fault with a line.

    Args:
      about: the script's docstring.
      parts: the settings to list: names, or parts of the configuration, as "eval".
    """

    def parse(arguments: Sequence[str]) -> list[str]:
        if _HELP.intersection(arguments):
            print(page(about, parts))
            sys.exit()
        try:
            return flags.FLAGS(arguments)
        except ModuleNotFoundError as error:  # of a config's file
            sys.exit(f"error: {missing(error)}")
        except (flags.Error, AttributeError, LookupError, OSError, ValueError) as error:
            reason = _reason(error)
            name = re.match(r"'(\w+)'", reason)
            if name and any(a.startswith("--config.") and name[1] in a for a in arguments):
                reason = f"there is no setting {reason}"
            sys.exit(f"error: {reason} (--help lists flags and settings)")

    return parse


def _reason(error: Exception) -> str:
    """What a fault says, on one line: of one in a config's file not where it was raised."""
    while error.args and isinstance(error.args[0], Exception):
        error = error.args[0]
    said = str(error.args[0] if isinstance(error, LookupError) else error).strip()
    return " ".join((said.splitlines()[-1] if "Traceback" in said else said).split())


def page(about: str, parts: Sequence[str]) -> str:
    """What a script does, its flags, and the settings that matter with their defaults."""
    own = flags.FLAGS.get_key_flags_for_module(sys.argv[0])
    given = [(f"--{flag.name}", _shown(flag.default), str(flag.help)) for flag in own]
    defaults = settings.default()
    chosen = [
        (name, _shown(functools.reduce(operator.getitem, name.split("."), defaults)), meaning)
        for name, meaning in _MEANING.items()
        if any(name == part or name.startswith(f"{part}.") for part in parts)
    ]
    return "\n".join(
        [
            about.strip(),
            "\nFlags and their defaults:",
            *_lines(given),
            "\nSettings that matter, --config.NAME=VALUE, with their defaults; a file of configs/",
            "may begin with others, and fex_jax/settings.py explains all:",
            *_lines(chosen),
        ]
    )


def _shown(value: object) -> str:
    if isinstance(value, list):
        return ",".join(value) or "none"
    return "none" if value in (None, "") else str(value)


def _lines(rows: Sequence[tuple[str, str, str]]) -> list[str]:
    name, value = (max(len(row[i]) for row in rows) for i in (0, 1))
    return [f"  {row[0]:{name}}  {row[1]:{value}}  {row[2]}" for row in rows]


def named_paths(given: list[str]) -> dict[str, str]:
    """NAME=FILE.npy, several times, as a dictionary.

    Raises:
      ValueError: something else, or a name given twice.
    """
    found: dict[str, str] = {}
    for entry in given:
        name, _, path = entry.partition("=")
        if not (name and path):
            raise ValueError(f"--scores={entry} is not NAME=FILE.npy")
        if name in found:
            raise ValueError(f"--scores names {name!r} twice")
        found[name] = path
    return found
