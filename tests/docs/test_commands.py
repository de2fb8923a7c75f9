"""What the documents tell a reader to type exists: flags, settings, targets of make, extras."""

import pathlib
import re
import runpy
import shlex
import sys
import tomllib

import pytest
from absl import app, flags
from absl.testing import flagsaver

from fex_jax import cli, settings
from fex_jax.training import fit

ROOT = pathlib.Path(__file__).resolve().parents[2]
# docs/notebook.md is dated: its commands are those of their day. One line a command.
PAGES = {
    path.relative_to(ROOT).as_posix(): re.sub(r"\s*\\?\n\s+(?=--)", " ", path.read_text())
    for path in [*ROOT.glob("*.md"), *sorted((ROOT / "docs").rglob("*.md"))]
    if path.name not in ("notebook.md", "CHANGELOG.md")
}
TEXT = "\n".join(PAGES.values())
_SCRIPT = re.compile(r"python ((?:train|eval|scripts/\w+|benchmarks/\w+)\.py)([^`\n]*)")
_FEX_JAX = re.compile(r"(?:fex-jax|python -m fex_jax) ((?:serve|export|explain) [^`\n]*--[^`\n]*)")
_DEFINED = re.compile(r"(?:DEFINE_\w+|add_argument)\(\s*[\"'](?:--)?([\w-]+)")


def words(line: str) -> list[str]:
    """A command's arguments as a shell splits them."""
    return shlex.split(line.replace("$JOB_COMPLETION_INDEX", "1"), comments=True)


class Parsed(Exception):
    """The flags were taken."""


def parse(script: str, arguments: list[str]) -> None:
    """A script up to its flags, which it reads as always; what it would then do is left out."""

    def run(_, flags_parser=flags.FLAGS):
        flags_parser(sys.argv)
        if flags.FLAGS.config:
            settings.check(flags.FLAGS.config)
        raise Parsed

    with pytest.MonkeyPatch.context() as patch, flagsaver.flagsaver():
        patch.chdir(ROOT)
        patch.setattr(sys, "argv", [script, *arguments])
        patch.setattr(app, "run", run)
        with pytest.raises(Parsed):
            runpy.run_path(str(ROOT / script), run_name="__main__")


def test_commands_have_flags_that_exist():
    """Breaks if a page prints a flag or a setting that train.py, eval.py or a script refuses."""
    found = {line for line in _SCRIPT.findall(TEXT) if not line[0].startswith("benchmarks")}
    assert {script for script, _ in found} >= {"train.py", "eval.py", "scripts/train_predictor.py"}
    for script, line in sorted(found):
        if script != "scripts/docs.py":  # it takes none
            parse(script, words(line))


@pytest.mark.parametrize("wrong", ["--config.epoch=1", "--epochs=1", "--config.epochs=many"])
def test_a_wrong_flag_is_found(wrong):
    """Breaks if the test above passes whatever the pages print."""
    given = ["--config=configs/digit_scenes.py", "--workdir=runs/x"]
    parse("train.py", given)
    with pytest.raises(SystemExit, match="error: "):
        parse("train.py", [*given, wrong])


def test_benchmarks_define_the_flags_that_are_printed():
    """Breaks if a page prints a flag that a benchmark, or what it imports of others, has not."""
    files = {path.stem: path.read_text() for path in (ROOT / "benchmarks").glob("*.py")}
    found = [line for line in _SCRIPT.findall(TEXT) if line[0].startswith("benchmarks")]
    assert len(found) > 20
    for script, line in found:
        own = files[pathlib.Path(script).stem]
        used = [text for name, text in files.items() if f"benchmarks import {name}" in own]
        defined = {"config", *_DEFINED.findall("".join([own, *used]))}
        given = {word[2:].partition("=")[0] for word in words(line) if word.startswith("--")}
        assert {name for name in given if not name.startswith("config.")} <= defined, script


def test_fex_jax_takes_what_is_printed():
    """Breaks if a page prints a command or an option that fex-jax refuses."""
    found = _FEX_JAX.findall(TEXT)
    assert len(found) > 3
    for line in found:
        if "--help" not in line:
            cli._parser().parse_args(words(line))


def test_settings_that_are_printed_exist():
    """Breaks if a page names a setting, `--config.x.y`, that there is not."""
    known = {name for preset in settings.PRESETS for name in fit._names(settings.default(preset))}
    names = set(re.findall(r"--config\.([a-z_]+(?:\.[a-z_]+)*)", TEXT))
    assert len(names) > 20
    parts = {name.rpartition(".")[0] for name in known}
    assert names <= known | parts


def test_targets_and_extras_that_are_printed_exist():
    """Breaks if `make X`, or an extra of `pip install`, is not there."""
    makefile = (ROOT / "Makefile").read_text()
    for name in set(re.findall(r"(?:`|^    )make ([a-z-]+)", TEXT, re.M)):
        assert f"\n{name}:" in makefile, name
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for given in set(re.findall(r"pip install (?:-e )?[\"']?(?:\.|fex-jax)\[([\w,]+)\]", TEXT)):
        assert set(given.split(",")) <= set(project["optional-dependencies"]), given
