"""Shared by all tests: a small machine, and tiny models written as users' models are."""

import atexit
import gc
import json
import os
import pathlib
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator

# Containers like to forbid bytecode files. Without them each worker and each script reads all of
# TensorFlow's sources, which takes ten seconds.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
# Before JAX is imported: tests compile many small programs and run each of them briefly. Without
# MLIR's fusions, and each program in one piece, compiling takes a third of the time.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false "
    "--xla_cpu_parallel_codegen_split_count=1",
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["HF_HUB_OFFLINE"] = "1"  # no test may reach the network
# TensorFlow looks for this Keras, which is not there, and so imports none: that of today brings
# scikit-learn, pandas and matplotlib, which take each script 3 seconds.
os.environ["TF_USE_LEGACY_KERAS"] = "1"
# What one worker or script has compiled, the others need not: most of the time is compilation.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="fex_jax_tests_")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402

from fex_jax import pretrained  # noqa: E402
from fex_jax.export import save_description, save_weights  # noqa: E402
from fex_jax.models import ONCE, Params, shapes  # noqa: E402
from fex_jax.models.policy import functional_policy, make_backbone  # noqa: E402
from fex_jax.models.vit import ViTClassifier, ViTConfig  # noqa: E402
from fex_jax.preprocessing import Preprocessing  # noqa: E402

ONCE["xla_backend_optimization_level"] = 0  # as above


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The slowest files come first, so that no worker is left with one while the others idle."""
    slowest = {"test_train.py", "test_distributed.py", "test_sharding.py"}
    items.sort(key=lambda item: item.path.name not in slowest)


def pytest_collection_finish() -> None:
    """Libraries stay: a tenth of the time went into looking for garbage among their objects."""
    gc.freeze()
    gc.set_threshold(10_000, 20, 10)


def random_like(shapes: Params) -> Params:
    """Normal arrays: much faster than a module's own initial values, whose draws XLA compiles."""
    rng = np.random.default_rng(0)

    def draw(path: tuple, x: jax.ShapeDtypeStruct) -> jax.Array:
        scale = 1.5 / np.sqrt(np.prod(x.shape[:-1])) if len(x.shape) > 1 else 0.3
        drawn = rng.normal(0, scale, x.shape)
        # A variance below zero makes all that a network says NaN, which equals NaN in comparisons.
        return jnp.asarray(1 + abs(drawn) if path[-1].key == "var" else drawn, jnp.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def random_params(init: Callable[[jax.Array], Params]) -> Params:
    """The same for the parameters that `init(key)` would return."""
    return random_like(jax.eval_shape(init, jax.random.key(0)))


def random_checkpoint(
    num_classes: int = 10, image_size: int = 32, grid: int = 4, num_layers: int = 1
) -> pretrained.Checkpoint:
    """A ViT with random weights and grid x grid patches; each block is compiled for itself."""
    config = ViTConfig(
        family="vit", image_size=image_size, patch_size=image_size // grid, num_classes=num_classes,
        hidden_size=16, num_layers=num_layers, num_heads=2, mlp_dim=32,
    )  # fmt: skip
    params = random_like(shapes(ViTClassifier, config))
    preprocessing = Preprocessing(size=(image_size, image_size))
    return pretrained.Checkpoint(
        config, params, tuple(f"class {i}" for i in range(num_classes)), preprocessing
    )


# What is functions of arrays. Elsewhere flax and optax promote: a LayerNorm asks what bfloat16 and
# float32 have in common, a schedule multiplies floats by numbers of steps.
PURE = {
    "attributions", "metrics", "test_algorithm.py", "test_answers.py", "test_contrast.py",
    "test_draws.py", "test_faithfulness.py", "test_fastshap.py", "test_id_expo.py",
    "test_linear.py", "test_masking.py", "test_ppo.py", "test_probing.py", "test_refine.py",
    "test_removal.py", "test_shapley.py", "test_surrogate.py", "test_table_classifier.py",
    "test_targets.py", "test_updates.py",
}  # fmt: skip


@pytest.fixture(autouse=True)
def promotion(request: pytest.FixtureRequest) -> Iterator[None]:
    """Pure functions say which type they want: no bool or whole number becomes a float unasked."""
    pure = PURE & {request.path.name, request.path.parent.name}
    with jax.numpy_dtype_promotion("strict" if pure else "standard"):
        yield


@pytest.fixture(scope="session")
def predictor() -> pretrained.Checkpoint:
    """A predictor of ten classes for 32-pixel images."""
    return random_checkpoint()


@pytest.fixture(scope="session")
def predictor_directory(predictor, tmp_path_factory) -> str:
    """The same as a Hugging Face directory."""
    directory = tmp_path_factory.mktemp("predictor")
    pretrained.save(directory, predictor)
    return str(directory)


@pytest.fixture(scope="session")
def export(predictor, tmp_path_factory) -> pathlib.Path:
    """An export of an untrained policy."""
    directory = tmp_path_factory.mktemp("run") / "export"
    backbone = make_backbone("vit", predictor.config)
    init, _ = functional_policy(backbone, 10)
    save_description(directory, predictor, backbone, budget=-3.0)
    save_weights(directory, random_params(init))
    return directory


@pytest.fixture
def reviews(tmp_path) -> str:
    """Five short reviews and a long one, in ERASER's layout."""
    texts = ["the film was great !", "a dull plot , not fun", "good", "very awful movie", "not bad"]
    texts.append("the plot is dull . " * 30)
    (tmp_path / "docs").mkdir()
    rows = []
    for i, text in enumerate(texts):
        (tmp_path / "docs" / f"{i}.txt").write_text(text)
        span = {"start_token": 0, "end_token": 1, "docid": f"{i}.txt", "text": ""}
        label = "NEG" if i in (1, 3, 5) else "POS"
        rows.append({"annotation_id": f"{i}.txt", "classification": label, "evidences": [[span]]})
    (tmp_path / "test.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return str(tmp_path)


@pytest.fixture
def text_table(tmp_path):
    """A file of 40 texts of 1 to 10 words; the label tells whether "good" begins it."""
    path = tmp_path / "own.csv"
    rows = [f"{'good' if i % 2 else 'bad'}{' film' * (i % 10)},{i % 2}\n" for i in range(40)]
    path.write_text("text,label\n" + "".join(rows))
    return str(path)


def peak(size: int = 8) -> np.ndarray:
    """One important place, row 2 and column 5, and exact zeros in the lower half."""
    attribution = np.zeros((size, size))
    attribution[2, 5] = 1.0
    return attribution
