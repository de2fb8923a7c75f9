"""Pictures to explain, train on and score: the decoder, folders, sources and their streams.

TensorFlow reads data for training and scoring only. So what needs it is imported when it is used:
explaining imports `fex_jax.data.decode` alone.
"""

import importlib

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


def __getattr__(name: str):
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_PLACES[name]}"), name)
