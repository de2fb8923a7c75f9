"""Scripts as `python script.py --flag=value` runs them, but in this process.

Another process takes ten seconds to import TensorFlow and distrax, which this one has already.
"""

import pathlib
import runpy
import sys

import pytest
from absl import app  # noqa: F401  its flags must be there before they are saved
from absl.testing import flagsaver

ROOT = pathlib.Path(__file__).resolve().parent.parent


def run(script: str, *arguments: str) -> int | str | None:
    """What the script hands to `sys.exit`: None at a good end, else a code or its last words.

    Any other exception, which would end the script in a traceback, goes through.
    """
    path = str(ROOT / script)
    with pytest.MonkeyPatch.context() as patch, flagsaver.flagsaver():
        patch.setattr(sys, "argv", [path, *arguments])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(path, run_name="__main__")
    return end.value.code
