"""What names lead to, looked for before what opens it is imported, for JAX takes seconds.

All commands ask here, as soon as `settings` has checked the values. Of a black box's name
`host.check` knows.
"""

import os
import re
import reprlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fex_jax import escape, host

if TYPE_CHECKING:  # of training
    import ml_collections

# Of attribution methods, functions of `attributions`.
METHODS = (
    # From queries alone:
    "random", "occlusion", "rise", "smooth_rise", "lime", "kernel_shap", "greedy", "empirical",
    # From gradients with respect to the input:
    "gradient_x_input", "integrated_gradients", "grad_shap", "smooth_grad", "agi", "deeplift",
    # From inside a convolutional network:
    "gradcam_features",
    # From inside a transformer:
    "gradcam_attention", "gradcam_norm1", "rollout", "attcat", "attlrp",
)  # fmt: skip
# Of what `portable` writes, by a file's ending the module that does.
FORMATS = {".onnx": "onnx", ".stablehlo": "stablehlo", ".tflite": "tflite"}

# What is downloaded.
_EXPLAINER = (
    "explainer.json", "explainer.safetensors", "predictor/*.json", "predictor/*.safetensors"
)  # fmt: skip
_CLASSIFIER = (
    "config.json",
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "model*.safetensors",
    "model.safetensors.index.json",
)
_ID = r"[\w-][\w.-]{0,95}(/[\w-][\w.-]{0,95})?"
_FILE_SUFFIXES = {".safetensors", ".json", ".bin", ".msgpack"}
_OF_TORCH = (
    "build the module, load its weights, and give fex_jax.host.torch_module.torch_module(module, …)"
)
_OF_PYTHON = "load it, and give what was in it: an estimator as it is, a function in fex_jax.host"
# Files of one's own model that are no folder of Hugging Face's, by their ending: what to do.
_OBJECTS = {
    **dict.fromkeys((".pt", ".pth", ".ckpt"), _OF_TORCH),
    **dict.fromkeys((".pkl", ".pickle", ".joblib"), _OF_PYTHON),
    **dict.fromkeys((".h5", ".hdf5"), "save it by Keras 3 as .keras"),
}


def of_config(config: "ml_collections.ConfigDict") -> None:
    """Looks for the classifier that a config names, and for other networks.

    Raises:
      ValueError, FileNotFoundError, ConnectionError: what is missing.
    """
    given = config.predictor
    if config.method != "id_expo" or config.policy != "mlp":  # which begins with nothing
        if host.is_name(predictor_path(config)):
            host.check(given.path, black_box_options(config))
        else:
            classifier(given.path)
    for path in (given.surrogate, config.policy_backbone.path):
        if path:
            classifier(path)


def predictor_path(config: "ml_collections.ConfigDict") -> str:
    """What is to be explained; a ValueError where none is named."""
    if not config.predictor.path:
        raise ValueError(
            "no classifier is named: say with --config.predictor.path which to explain"
        )
    return config.predictor.path


def black_box_options(config: "ml_collections.ConfigDict") -> dict[str, Any]:
    """Those of `host.open`; a ValueError where `predictor.options` is no JSON object."""
    given = config.predictor
    labels = {"labels": given.labels} if given.labels else {}
    return labels | host.parse_options(given.options)


def explainer(path: str | Path) -> Path:
    """The `folder` of what `explain.load` opens.

    Raises:
      ValueError, FileNotFoundError: no path, or no explainer there.
    """
    if not isinstance(path, str | os.PathLike):
        raise ValueError(f"{reprlib.repr(path)} is no path; expected the folder of an explainer")
    path = Path(os.path.expanduser(path))
    export = folder(path)
    if not os.path.isfile(export / "explainer.json"):
        if os.path.isfile(path / "config.json") and any(path.glob("*.safetensors")):
            raise FileNotFoundError(
                f"{escape.terminal(path)} is a classifier: fex_jax.fit trains an explainer of it, "
                "fex_jax.attribute explains it without one"
            )
        raise FileNotFoundError(
            f"{escape.terminal(path)} holds no explainer: expected an export (explainer.json, "
            "explainer.safetensors, predictor/), the --workdir of train.py, or user/repo of the "
            "hub with its revision"
        )
    return export


def folder(path: Path) -> Path:
    """Where the export lies of a training run, or of one checkpoint; of an export, itself."""
    is_step = path.parent.name == "checkpoints" and path.name.isdecimal()
    run = path.parent.parent if is_step else path
    # Unlike pathlib's, os.path's functions never raise, whatever the name.
    return run if os.path.isfile(run / "explainer.json") else run / "export"


def local(path: Any, revision: str | None = None) -> Any:
    """A path as it is, or with a revision the local copy of what "user/repo" has on the hub.

    So a path with a slip in it never becomes a download.

    Raises:
      ValueError: a revision of something that is here, or that cannot be a repository.
      ConnectionError: the hub has it not, or cannot be reached.
    """
    if revision is None:
        return path
    if not (isinstance(path, str) and "/" in path and is_id(path)):
        raise ValueError(
            f"revision is {revision!r}, of a repository user/repo of the hub; {path!r:.99} is "
            "none, or here is a folder of that name"
        )
    return classifier(path, _EXPLAINER, revision)


def is_id(name: str) -> bool:
    """Whether a name may be one of the hub's, and nothing here has it."""
    local = os.path.exists(os.path.expanduser(name)) or os.path.isdir(name.split("/")[0])
    is_file = os.path.splitext(name)[1].lower() in {*_FILE_SUFFIXES, *_OBJECTS}
    return bool(re.fullmatch(_ID, name)) and not local and not is_file


def classifier(
    path_or_id: str, files: Sequence[str] = _CLASSIFIER, revision: str | None = None
) -> Path:
    """The local directory of one, downloaded from the hub where it is an id.

    What looks like a path is never asked of the hub: one that begins with ".", "/" or "~", has a
    backslash, a second slash or the ending of a file, or begins with a folder that is here.

    Args:
      path_or_id: where to look.
      files: patterns of what is downloaded.
      revision: of the hub: a commit, a tag or a branch; None: the newest.

    Raises:
      ValueError: neither a path nor a string.
      FileNotFoundError: no directory, and no hub id.
      ConnectionError: the hub has it not, or cannot be reached.
    """
    if not isinstance(path_or_id, str | os.PathLike):
        raise ValueError(f"{path_or_id!r:.99} is neither a directory nor a Hugging Face hub id")
    path_or_id = str(path_or_id)
    path = os.path.expanduser(path_or_id)  # unlike pathlib's, os.path's functions never raise
    if os.path.isdir(path):
        return Path(path)
    if not is_id(path_or_id):
        exists = os.path.exists(path)
        if advice := _OBJECTS.get(os.path.splitext(path)[1].lower()):
            raise FileNotFoundError(
                f"{path_or_id!r} is no directory, but the name of a file: {advice}"
            )
        reason = "a file" if exists else "there is no such directory"
        if re.fullmatch(_ID, path_or_id) and not exists:
            reason += (
                "; if the hub has a model of this name, run "
                f"`hf download {path_or_id} --local-dir DIR` and load DIR"
            )
        raise FileNotFoundError(
            f"{path_or_id!r} is neither a directory nor a Hugging Face hub id: {reason}"
        )
    # Slow to import, and local directories do not need it.
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        return Path(snapshot_download(path_or_id, revision=revision, allow_patterns=list(files)))
    except (OSError, HfHubHTTPError, HFValidationError) as error:
        raise ConnectionError(
            f"{path_or_id!r} is no local directory and could not be downloaded from the Hugging "
            f"Face hub ({type(error).__name__}). Check the spelling and the connection, or run "
            f"`hf download {path_or_id} --local-dir DIR` where there is one and load DIR"
        ) from error


def methods(names: Iterable[str]) -> None:
    """Raises a ValueError at a name that `eval.py --methods` has no meaning for."""
    for name in names:
        module, colon, _ = name.partition(":")
        if colon:
            try:
                host.find_module(module)
            except Exception as error:  # of packages' own code, too
                raise ValueError(f"there is no method {name}: {error}") from None
        elif name != "all" and name not in METHODS:
            raise ValueError(
                f"method {name!r} is unknown; choose all, some of "
                + ", ".join(METHODS)
                + ", or one of your own as package.module:function"
            )


def export(path: str | Path) -> Path:
    """The file that `portable.export` is to write.

    Raises:
      ValueError: another ending, or a folder that is not there.
    """
    path = Path(path).expanduser()
    if path.suffix not in FORMATS:
        raise ValueError(f"{path} ends in no format that is known; choose {', '.join(FORMATS)}")
    if not path.parent.is_dir():
        raise ValueError(f"{path} cannot be written: there is no folder {path.parent}")
    return path
