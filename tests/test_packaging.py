"""What `pip install ".[train]"` brings."""

import pathlib
import re
import tomllib

DEVELOPERS = {"pytest", "hypothesis", "pytest-xdist", "ruff", "mypy"}
OTHERS = {"tfp-nightly"}  # distrax asks for it


def names(lines: list[str]) -> set[str]:
    found = {re.split(r"[^\w.-]", line, maxsplit=1)[0].lower() for line in lines}
    return {name.removesuffix("-cpu") for name in found}  # TensorFlow without CUDA is TensorFlow


def test_what_is_pinned_is_in_an_extra():
    """Breaks if the tests run with a package that users who install an extra do not get, as
    TensorBoard: TensorFlow does not bring it, and training stops at its first step without."""
    project = tomllib.loads(pathlib.Path("pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    offered = names(project["dependencies"] + [one for extra in extras.values() for one in extra])
    pinned = pathlib.Path("requirements-cpu.txt").read_text().splitlines()
    used = names([line for line in pinned if line[:1].isalpha()]) - DEVELOPERS - OTHERS
    assert used - offered == set()
    assert "tensorboard" in names(extras["train"])
