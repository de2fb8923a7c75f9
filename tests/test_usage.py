"""The flags of train.py and eval.py: what --help and wrong ones are answered with."""

import functools
import operator
import subprocess
import sys

import pytest
from ml_collections import ConfigDict

from fex_jax import metrics, settings, usage
from tests import commands


def unimported(command: list[str], modules: set[str]) -> subprocess.CompletedProcess:
    """Runs a script to its end, which fails where one of the modules was imported."""
    code = (
        f"import runpy, sys; sys.argv = {command}\n"
        f"try:\n    runpy.run_path({command[0]!r}, run_name='__main__')\n"
        f"finally:\n    assert not {modules} & set(sys.modules)\n"
    )
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=commands.ROOT
    )


@pytest.mark.parametrize(
    "script, flag, setting",
    [("train.py", "--queries", "batch_size"), ("eval.py", "--methods", "eval.protocol")],
)
def test_help_imports_nothing_that_computes(script, flag, setting):
    """Breaks if a page of help takes the seconds that JAX or TensorFlow take, or lists nothing."""
    done = unimported([script, "--help"], {"jax", "flax", "tensorflow"})
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines() if line.startswith("  ")]
    first = {words[0]: words[1] for words in lines}
    assert flag in first
    default = functools.reduce(operator.getitem, setting.split("."), settings.default())
    assert first[setting] == str(default)
    assert max(map(len, done.stdout.splitlines())) <= 120


@pytest.mark.parametrize(
    "command, message",
    [
        ("train.py --config=configs/black_box.py --workdir={tmp} --config.data.path=nowhere",
         "data.path is 'nowhere', and no file or folder is there"),
        ("train.py --config=configs/black_box.py --workdir={tmp}", "data.path is ''"),
        ("train.py --config=configs/digit_scenes.py --workdir=README.md/x", "workdir: README.md/x"),
        ("eval.py --workdir={tmp} --config=configs/black_box.py", "data.path is ''"),
        ("eval.py --workdir={tmp} --config=configs/digit_scenes.py --config.eval.protocol=foo",
         "settings: eval.protocol is 'foo'; expected one of 'fex', 'chefer', 'authors'"),
    ],
)  # fmt: skip
def test_what_is_not_there_is_said_before_jax_is_imported(command, message, tmp_path):
    """Breaks if a slip is found after the seconds that JAX and TensorFlow take."""
    done = unimported(command.format(tmp=tmp_path).split(), {"jax", "tensorflow"})
    assert done.returncode == 1 and done.stderr.startswith(f"error: {message}"), done.stderr


@pytest.mark.parametrize(
    "command, message",
    [
        ("eval.py --workdir=models/digits_fex --config=configs/digit_scenes.py --methods=rises",
         "method 'rises' is unknown; choose all, some of random"),
        ("eval.py --workdir={tmp} --config=configs/digit_scenes.py", "{tmp} holds no explainer"),
        ("eval.py --workdir=models/digits_fex --config=configs/digit_scenes.py --trained={tmp}",
         "{tmp} holds no explainer"),
    ],
)  # fmt: skip
def test_what_cannot_be_scored_is_said_before_tensorflow_is_imported(command, message, tmp_path):
    """Breaks if a slip is found after the seconds that TensorFlow and what draws take."""
    command, message = command.format(tmp=tmp_path), message.format(tmp=tmp_path)
    done = unimported(command.split(), {"tensorflow", "matplotlib", "fex_jax.evaluation"})
    assert done.returncode == 1 and done.stderr.startswith(f"error: {message}"), done.stderr


def test_settings_take_every_protocol():
    """Breaks if a protocol is added that a run's settings refuse."""
    for protocol in metrics.PROTOCOLS:
        settings.check(ConfigDict({"eval": {"protocol": protocol}}))


def test_every_setting_of_the_page_exists():
    """Breaks if a setting is renamed and the page is not."""
    for name in usage._MEANING:
        functools.reduce(operator.getitem, name.split("."), settings.default())


@pytest.mark.parametrize(
    "wrong, message",
    [
        ("--config.batch_siz=3", "error: there is no setting 'batch_siz' Did you mean \"batch_si"),
        ("--config.nope=1", "error: there is no setting 'nope'"),
        ("--workdr=x", "error: Unknown command line flag 'workdr'"),
        ("--config.batch_size=many", "error: flag --config.batch_size=many"),
    ],
)
def test_wrong_flags_end_in_one_line(wrong, message):
    """Breaks if a misspelt flag ends in a traceback."""
    config = f"--config={commands.ROOT}/configs/common.py"
    end = commands.run("train.py", config, "--workdir=x", wrong)
    assert end.startswith(message) and "\n" not in end
