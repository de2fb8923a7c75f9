"""Pictures to explain, train on and score: the decoder, folders, sources and their streams.

TensorFlow reads data for training and scoring only. So what needs it is imported when it is used:
explaining imports `fex_jax.data.decode` alone.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fex_jax.data.sources import (
        folder_source,
        imagenet_segmentation_source,
        open_source,
        prepare_tfds,
        scene_source,
        tfds_source,
    )
    from fex_jax.data.streams import Batch, Source, eval_stream, train_stream

__all__ = [
    "Batch",
    "Source",
    "eval_stream",
    "folder_source",
    "imagenet_segmentation_source",
    "open_source",
    "prepare_tfds",
    "scene_source",
    "tfds_source",
    "train_stream",
]
_PLACES = {
    "Batch": "streams",
    "Source": "streams",
    "eval_stream": "streams",
    "train_stream": "streams",
    "folder_source": "sources",
    "imagenet_segmentation_source": "sources",
    "open_source": "sources",
    "prepare_tfds": "sources",
    "scene_source": "sources",
    "tfds_source": "sources",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_PLACES[name]}"), name)
