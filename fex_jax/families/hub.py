"""Hugging Face directories: finding, reading and writing their files."""

import collections
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from fex_jax import checks, families
from fex_jax.outputs import Output

# By problem_type, what a head's outputs are read by.
_OUTPUTS: dict[str, Output] = {
    "single_label_classification": "softmax",
    "multi_label_classification": "sigmoid",
    "regression": "value",
}
_ANY_FAMILY = {
    "model_type": checks.text(),
    "architectures": checks.several(checks.text()),
    "problem_type": checks.one_of(*_OUTPUTS),
    "num_labels": checks.integer(1, 1_000_000),
    "id2label": checks.mapping(),
    "hidden_act": checks.text(),
    "layer_norm_eps": checks.number(0, 1),
}


def cached(hub_id: str) -> Path | None:
    """The directory of an id's newest snapshot in the hub's cache, if all of it is there.

    Nobody is asked.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        found = Path(snapshot_download(hub_id, local_files_only=True))
    except LocalEntryNotFoundError:
        return None
    files = "config.json", "preprocessor_config.json", "model.safetensors"
    return found if all((found / file).is_file() for file in files) else None


def architectures(model_type: str) -> tuple[str, ...]:
    """The classes of transformers that can be read; the first is what is written."""
    return families.of(model_type).ARCHITECTURES[model_type]


def read_config(directory: Path) -> dict[str, Any]:
    """config.json without its nulls, of an architecture that is supported.

    Raises:
      ValueError: the file or what it says of the architecture.
    """
    path = checks.file_inside(directory, "config.json")
    if not path.exists():
        raise ValueError(
            f"{directory} has no config.json: not a Hugging Face model directory, or an incomplete "
            "one; models are saved with save_pretrained(directory)"
        )
    config = {name: value for name, value in checks.read_json(path).items() if value is not None}
    checks.require(config, _ANY_FAMILY, path)
    family = config.get("model_type")
    if family not in families.MODULES:
        supported = ", ".join(families.MODULES)
        raise ValueError(f"model_type {family!r} is not supported; supported: {supported}")
    for architecture in config.get("architectures") or ():
        if architecture not in architectures(family):
            supported = " and ".join(architectures(family))
            raise ValueError(
                f"architecture {architecture!r} is not supported; for model_type {family!r}, "
                f"{supported} are"
            )
    return config


def read_tensors(directory: Path) -> dict[str, np.ndarray]:
    """All tensors of a directory's safetensors files, sharded or not.

    Raises:
      ValueError: a file that is missing, damaged, or not in the directory.
    """
    index = checks.file_inside(directory, "model.safetensors.index.json")
    single = checks.file_inside(directory, "model.safetensors")
    if index.exists():
        shards = checks.read_json(index).get("weight_map")
        if not isinstance(shards, dict) or not shards:
            raise ValueError(f"{index} has no weight_map of tensors to files")
        paths = dict.fromkeys(checks.file_inside(directory, name) for name in shards.values())
    elif single.exists():
        paths = [single]
    else:
        pickled = " (only pickled weights)" if any(directory.glob("*.bin")) else ""
        raise ValueError(
            f"{directory} has no model.safetensors{pickled}: convert it once with transformers, "
            "model.save_pretrained(directory, safe_serialization=True)"
        )
    tensors = {}
    for path in paths:
        tensors |= checks.read_tensors(path)
    return tensors


def check_sizes(
    tensors: dict[str, np.ndarray], num_layers: int, width: int, norm: str, source: Path
) -> None:
    """Compares config.json with the tensors before anything of its sizes is built.

    Args:
      tensors: under their Hugging Face names.
      num_layers: how many config.json says.
      width: the hidden size that it says.
      norm: name of a LayerNorm's weight [hidden size].
      source: the directory, for errors.

    Raises:
      ValueError: the tensors have another number of layers, or another width.
    """
    stored = {match[1] for name in tensors if (match := re.search(r"\.layers?\.(\d+)\.", name))}
    if len(stored) != num_layers:
        raise ValueError(
            f"config.json in {source} says {num_layers} layers, but its tensors have {len(stored)}"
        )
    if norm not in tensors:
        raise ValueError(f"{source} has no tensor {norm}: is it of the model_type in config.json?")
    if tensors[norm].shape != (width,):
        raise ValueError(
            f"config.json in {source} says a hidden size of {width}, but the tensor {norm} is "
            f"{list(tensors[norm].shape)}"
        )


def choose_head(
    kernel: np.ndarray | None, num_classes: int | None, config: dict[str, Any], directory: Path
) -> tuple[bool, int]:
    """Whether a classifier gets a fresh head, and its number of classes.

    Args:
      kernel: [K, ...] the stored head's last kernel, None for a bare backbone.
      num_classes: how many are wanted; None: as many as are stored.
      config: config.json.
      directory: for errors.

    Raises:
      ValueError: a bare backbone, and no number of classes; a head of another number of outputs
        than config.json says.
    """
    if num_classes is not None and (type(num_classes) is not int or num_classes < 2):
        raise ValueError(f"num_classes is {num_classes!r}; expected an integer of at least 2")
    stored = None if kernel is None else kernel.shape[0] if kernel.ndim else 0
    if stored is None and num_classes is None:
        raise ValueError(
            f"{directory} holds a backbone without a classifier: pass num_classes to attach a "
            "fresh classification head"
        )
    if stored is None or num_classes not in (None, stored):
        return True, num_classes
    said = config.get("num_labels", stored)
    if said != stored:
        raise ValueError(
            f"config.json in {directory} says num_labels {said}, but its head has {stored} outputs"
        )
    return False, stored


def read_output(config: dict[str, Any], num_classes: int) -> Output:
    """What a head's outputs are read by, as a pipeline of transformers does.

    problem_type says it; else a single output is read by a sigmoid, several by a softmax.
    """
    output = _OUTPUTS[config.get("problem_type", "single_label_classification")]
    return "sigmoid" if num_classes == 1 and output == "softmax" else output


def read_labels(config: dict[str, Any], num_classes: int) -> tuple[str, ...]:
    """Class names by number; transformers' own placeholders where the file has none.

    id2label alone is read: two classes of one name have one key in label2id.

    Raises:
      ValueError: id2label does not name each class once.
    """
    names = config.get("id2label") or {str(i): f"LABEL_{i}" for i in range(num_classes)}
    if len(names) != num_classes:
        raise ValueError(f"config.json: id2label has {len(names)} labels for {num_classes} classes")
    numbers = [str(i) for i in range(num_classes)]
    if set(names) != set(numbers) or not all(isinstance(name, str) for name in names.values()):
        raise ValueError(
            f"config.json: id2label must name classes 0 to {num_classes - 1}, each by a string"
        )
    return tuple(names[number] for number in numbers)


def head_config(labels: tuple[str, ...], output: Output) -> dict[str, Any]:
    """Class names and problem_type as config.json holds them.

    In label2id, equal names are told apart by number.
    """
    counts = collections.Counter(labels)
    numbers: dict[str, int] = {}
    for i, label in enumerate(labels):
        key = label if counts[label] == 1 else f"{label} ({i})"
        while key in numbers or (key != label and key in counts):
            key += f" ({i})"
        numbers[key] = i
    problem = next(problem for problem, read in _OUTPUTS.items() if read == output)
    names = {str(i): label for i, label in enumerate(labels)}
    return {"id2label": names, "label2id": numbers, "problem_type": problem}


def write(directory: str | Path, checkpoint: Any, tensors: dict[str, np.ndarray]) -> Path:
    """Writes config.json and model.safetensors to a directory, which is made if not there."""
    directory, config = Path(directory), checkpoint.config
    values = {
        "architectures": [architectures(config.family)[0]],
        "model_type": config.family,
        "dtype": "float32",
        **families.of(config.family).write_config(config),
        **head_config(checkpoint.labels, checkpoint.output),
    }
    directory.mkdir(parents=True, exist_ok=True)
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    write_json(directory / "config.json", values)
    return directory


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Indented, as transformers writes it."""
    path.write_text(json.dumps(values, indent=2) + "\n")
