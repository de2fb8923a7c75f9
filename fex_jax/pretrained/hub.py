"""Hugging Face directories: finding, reading and writing their files."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

_FILES = (
    "config.json",
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "model*.safetensors",
    "model.safetensors.index.json",
)
# By model_type, the architectures that can be read; the first is what is written.
ARCHITECTURES = {
    "vit": ("ViTForImageClassification", "ViTModel"),
    "deit": ("DeiTForImageClassification", "DeiTModel"),
    "dinov2": ("Dinov2ForImageClassification", "Dinov2Model"),
    "bert": (
        "BertForSequenceClassification",
        "BertModel",
        "BertForMaskedLM",
        "BertForPreTraining",
    ),
    "distilbert": (
        "DistilBertForSequenceClassification",
        "DistilBertModel",
        "DistilBertForMaskedLM",
    ),
    "roberta": ("RobertaForSequenceClassification", "RobertaModel", "RobertaForMaskedLM"),
}


def locate(path_or_id: str) -> Path:
    """The local directory, downloaded from the hub where it is an id."""
    path_or_id = str(path_or_id)
    if Path(path_or_id).is_dir():
        return Path(path_or_id)
    if not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", path_or_id):
        raise FileNotFoundError(f"{path_or_id} is neither a directory nor a Hugging Face hub id")
    # Slow to import, and local directories do not need it.
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return Path(snapshot_download(path_or_id, allow_patterns=list(_FILES)))
    except (OSError, HfHubHTTPError) as error:
        raise ConnectionError(
            f"{path_or_id!r} is no local directory and could not be downloaded from the Hugging "
            f"Face hub ({type(error).__name__}). Check the spelling and the connection, or run "
            f"`hf download {path_or_id} --local-dir DIR` where there is one and load DIR"
        ) from error


def read_config(directory: Path) -> dict[str, Any]:
    """config.json, of an architecture that is supported."""
    path = directory / "config.json"
    if not path.exists():
        raise ValueError(
            f"{directory} has no config.json: not a Hugging Face model directory, or an incomplete "
            "one; models are saved with save_pretrained(directory)"
        )
    config = json.loads(path.read_text())
    family = config.get("model_type")
    if family not in ARCHITECTURES:
        supported = ", ".join(ARCHITECTURES)
        raise ValueError(f"model_type {family!r} is not supported; supported: {supported}")
    for architecture in config.get("architectures") or ():
        if architecture not in ARCHITECTURES[family]:
            supported = " and ".join(ARCHITECTURES[family])
            raise ValueError(
                f"architecture {architecture!r} is not supported; for model_type {family!r}, "
                f"{supported} are"
            )
    return config


def read_tensors(directory: Path) -> dict[str, np.ndarray]:
    """All tensors of a directory's safetensors files, sharded or not."""
    index = directory / "model.safetensors.index.json"
    single = directory / "model.safetensors"
    if index.exists():
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    elif single.exists():
        names = [single.name]
    else:
        pickled = " (only pickled weights)" if any(directory.glob("*.bin")) else ""
        raise ValueError(
            f"{directory} has no model.safetensors{pickled}: convert it once with transformers, "
            "model.save_pretrained(directory, safe_serialization=True)"
        )
    tensors = {}
    for name in names:
        with safe_open(directory / name, framework="np") as file:
            tensors |= {key: file.get_tensor(key) for key in file.keys()}
    return tensors


def choose_head(
    kernel: np.ndarray | None, num_classes: int | None, directory: Path
) -> tuple[bool, int]:
    """Whether a classifier gets a fresh head, and its number of classes.

    Args:
      kernel: [K, ...] the stored head's last kernel, None for a bare backbone.
      num_classes: how many are wanted; None: as many as are stored.

    Raises:
      ValueError: a bare backbone, and no number of classes.
    """
    if kernel is None and num_classes is None:
        raise ValueError(
            f"{directory} holds a backbone without a classifier: pass num_classes to attach a "
            "fresh classification head"
        )
    fresh = kernel is None or num_classes not in (None, len(kernel))
    return fresh, num_classes if fresh else len(kernel)


def read_labels(config: dict[str, Any], num_classes: int) -> tuple[str, ...]:
    """Class names by index; transformers' own placeholders where the file has none."""
    names = config.get("id2label") or {str(i): f"LABEL_{i}" for i in range(num_classes)}
    return tuple(names[key] for key in sorted(names, key=int))


def label_config(labels: tuple[str, ...]) -> dict[str, Any]:
    """Class names as config.json holds them."""
    return {
        "id2label": {str(i): label for i, label in enumerate(labels)},
        "label2id": {label: i for i, label in enumerate(labels)},
    }


def write(directory: str | Path, config: dict[str, Any], tensors: dict[str, np.ndarray]) -> Path:
    """Writes config.json and model.safetensors to a directory, which is made if not there."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    write_json(directory / "config.json", config)
    return directory


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Indented, as transformers writes it."""
    path.write_text(json.dumps(values, indent=2) + "\n")
