"""The flags of train.py and eval.py: what --help and wrong ones are answered with."""

import functools
import operator
import subprocess
import sys

import pytest

from fex_jax import settings, usage
from tests import commands


@pytest.mark.parametrize(
    "script, flag, setting",
    [("train.py", "--queries", "batch_size"), ("eval.py", "--methods", "eval.protocol")],
)
def test_help_imports_nothing_that_computes(script, flag, setting):
    """Breaks if a page of help takes the seconds that JAX or TensorFlow take, or lists nothing."""
    code = (
        f"import runpy, sys; sys.argv = [{script!r}, '--help']\n"
        f"try:\n    runpy.run_path({script!r}, run_name='__main__')\n"
        "finally:\n    assert not {'jax', 'flax', 'tensorflow'} & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=commands.ROOT
    )
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines() if line.startswith("  ")]
    first = {words[0]: words[1] for words in lines}
    assert flag in first
    default = functools.reduce(operator.getitem, setting.split("."), settings.default())
    assert first[setting] == str(default)
    assert max(map(len, done.stdout.splitlines())) <= 120


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
