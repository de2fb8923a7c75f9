"""What is said where a package of an extra is not installed."""

import ast
import pathlib
import re
import subprocess
import sys
import tomllib

import pytest

from fex_jax import errors

# With jax's, flax's and Orbax's own.
ALWAYS = {
    "PIL", "filelock", "flax", "huggingface_hub", "jax", "numpy", "orbax", "safetensors", "scipy",
    "tokenizers", "tqdm",
}  # fmt: skip
PEERS = {"captum", "datasets", "lime", "quantus", "shapiq"}  # are only compared with, or given


def without(packages: str, *command: str) -> subprocess.CompletedProcess:
    """Runs a script, or Python after -c, where packages are not installed."""
    hidden = f"""
import runpy, sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {packages.split()}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Hidden())
sys.argv = {list(command)}
sys.path.insert(0, "")
if sys.argv[0] == "-c":
    exec(sys.argv[1])
else:
    runpy.run_path(sys.argv[0], run_name="__main__")
"""
    return subprocess.run([sys.executable, "-c", hidden], capture_output=True, text=True)


def test_every_package_that_is_imported_has_an_extra():
    """Breaks if a package is used that explaining does not bring, and no one says what does."""
    project = tomllib.loads(pathlib.Path("pyproject.toml").read_text())["project"]
    used = set()
    for file in pathlib.Path("fex_jax").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                used |= {name.name.partition(".")[0] for name in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                used.add(node.module.partition(".")[0])
    for name in used - ALWAYS - PEERS - sys.stdlib_module_names - {"fex_jax"}:
        said = errors.missing(ModuleNotFoundError(name=name))
        assert f"takes {name}, which is not installed: pip install '" in said, name
        extra = re.search(r"fex-jax\[(\w+)\]", said)
        assert extra is None or extra[1] in project["optional-dependencies"], said


@pytest.mark.parametrize(
    "package, command, extra",
    [
        ("ml_collections", "train.py --help", "train"),
        ("ml_collections", "eval.py --help", "train"),
        ("sklearn", "train.py --config=configs/tables_adult.py --workdir=unused", "estimator"),
        (
            "matplotlib",
            "eval.py --config=configs/digit_scenes.py --workdir=models/digits_fex",
            "plots",
        ),
        ("starlette", "fex_jax/__main__.py serve models/digits_fex", "serve"),
        ("pyarrow", "fex_jax/__main__.py explain models/digits_fex --input=a --output=b", "batch"),
    ],
)
def test_commands_name_what_to_install(package, command, extra):
    """Breaks if a command ends in a traceback where its extra is missing, or after its work."""
    done = without(package, *command.split())
    wanted = f"error: this takes {package}, which is not installed: pip install 'fex-jax[{extra}]'"
    assert (done.returncode, done.stderr.strip()) == (1, wanted)


def test_kubernetes_is_asked_by_a_package(monkeypatch):
    """Breaks if address=auto in a Pod ends in "processes do not find each other", while what is
    missing is the package by which JAX asks."""
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    code = "from fex_jax import sharding; sharding.connect('auto')"
    said = without("kubernetes", "-c", code).stderr
    assert "this takes kubernetes, which is not installed: pip install 'jax[k8s]'" in said


def test_functions_name_what_to_install():
    """Breaks if a public function ends in an import's own error where its extra is missing."""
    code = """
import fex_jax
from fex_jax.plotting import overlay
for call in (
    lambda: fex_jax.fit, lambda: fex_jax.evaluate, lambda: fex_jax.explain_files,
    lambda: fex_jax.host.open("m.onnx"), lambda: fex_jax.host.open("m.tflite"),
    lambda: fex_jax.host.open("m.keras"), lambda: overlay(None, None),
):
    try:
        call()
    except (ImportError, ValueError) as error:
        print(error)
"""
    hidden = "ml_collections pyarrow onnxruntime ai_edge_litert keras matplotlib"
    said = without(hidden, "-c", code).stdout.splitlines()
    extras = ["train", "train", "batch", "onnx", "tflite", "keras", "plots"]
    assert [line.partition("pip install ")[2] for line in said] == [
        f"'fex-jax[{extra}]'" for extra in extras
    ]
