"""Hugging Face checkpoints to parameters and back: image and text classifiers."""

from pathlib import Path

from fex_jax import families, finding
from fex_jax.families import hub
from fex_jax.pretrained import image, text
from fex_jax.pretrained.image import Checkpoint
from fex_jax.pretrained.text import TextCheckpoint

__all__ = ["Checkpoint", "TextCheckpoint", "load", "save"]


def load(
    path_or_id: str,
    image_size: int | tuple[int, int] | None = None,
    num_classes: int | None = None,
) -> Checkpoint | TextCheckpoint:
    """Loads a local directory, or a Hugging Face hub id, in safetensors format.

    The model_type in config.json says which kind of checkpoint it is.

    Args:
      path_or_id: where to look.
      image_size: side in pixels of an image model's input, or its (height, width), by default
        what the preprocessor produces; position embeddings are interpolated to it.
      num_classes: puts a fresh head on a bare backbone, or on a classifier of another number of
        classes.

    Raises:
      ValueError: what does not fit.
    """
    directory = finding.classifier(path_or_id)
    config = hub.read_config(directory)
    if config["model_type"] in families.IMAGES:
        return image.load(directory, config, image_size, num_classes)
    if image_size is not None:
        raise ValueError(
            f"{directory} holds a text model ({config['model_type']}): it takes no image_size"
        )
    return text.load(directory, config, num_classes)


def save(directory: str | Path, checkpoint: Checkpoint | TextCheckpoint) -> None:
    """Writes a directory that transformers opens; it is made if not there."""
    checkpoint.save(directory)
