"""fex-jax at a command line, and how soon commands say what is wrong."""

import socket
import subprocess
import sys

import numpy as np
import pytest

from fex_jax import cli, explain


def run(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True)


def test_wrong_settings_are_refused_before_jax_is_imported():
    """Breaks if an error of a flag or a setting waits for seconds of imports: of the commands at
    their top, of configs, or of what checks settings."""
    script = (
        "import sys, train, eval, configs.digit_scenes\n"
        "from fex_jax import settings\n"
        "config = configs.digit_scenes.get_config(); config.batch_size = 0\n"
        "try: settings.check(config)\n"
        "except ValueError as error: print(error)\n"
        "print(sorted({'jax', 'tensorflow', 'distrax', 'optax', 'flax'} & set(sys.modules)))"
    )
    done = run("-c", script)
    assert done.stdout.split("\n")[0].startswith("settings: batch_size is 0"), done.stderr
    assert done.stdout.split("\n")[1] == "[]"


_TRAIN = "train.py --workdir={folder} --config=configs/digit_scenes.py"
_BOX = "train.py --workdir={folder} --config=configs/black_box.py --config.data.path=docs"
_EVAL = "eval.py --workdir=models/digits_fex --config=configs/digit_scenes.py"
_FEX = "models/digits_fex"


@pytest.mark.parametrize(
    "command, message",
    [
        ("fex_jax serve nothere", "nothere holds no explainer"),
        ("fex_jax explain nothere x", "nothere holds no explainer"),
        ("fex_jax serve models/digits_vit", "models/digits_vit is a classifier: fex_jax.fit"),
        (f"fex_jax serve {_FEX} --revision=v1", "revision is 'v1', of a repository"),
        (f"fex_jax serve {_FEX} --predictor=no.onnx", "cannot read no.onnx: No such fi"),
        (f"fex_jax serve {_FEX} --predictor=google/vit", "'google/vit' names no black box"),
        (f"fex_jax explain {_FEX} docs/scene.png no.png", "there is no picture no.png"),
        (f"fex_jax export {_FEX} x.foo", "x.foo ends in no format that is known"),
        (f"fex_jax export {_FEX} no/x.onnx", "there is no folder no"),
        (f"fex_jax explain {_FEX} --input=no --output=out", "--input: there is no no,"),
        (f"{_TRAIN} --config.predictor.path=./no", "'./no' is neither a directory nor a Hugging"),
        (f"{_TRAIN} --config.predictor.path=", "no classifier is named"),
        (f"{_TRAIN} --config.policy_backbone.path=./no", "'./no' is neither a directory nor"),
        (f"{_BOX} --config.predictor.path=no.onnx", "cannot read no.onnx: No such file"),
        (f"{_BOX} --config.predictor.path=nomod:f", "nomod:f: importing nomod failed: Module"),
        (f"{_BOX} --config.predictor.path=configs.nomod:f", "importing configs.nomod failed"),
        (f"{_BOX} --config.predictor.path=http://127.0.0.1:9/x", "cannot be opened so: http() m"),
        (f"{_BOX} --config.predictor.path=x:f --config.predictor.labels=no", "labels: cannot"),
        (f"{_EVAL} --methods=foo", "method 'foo' is unknown; choose all, some of random"),
        (f"{_EVAL} --methods=no.such:f", "there is no method no.such:f: No module named 'no'"),
        (f"{_EVAL} --trained=nothere", "nothere holds no explainer"),
        (f"{_EVAL} --predictor=no.onnx", "cannot read no.onnx"),
    ],
)  # fmt: skip
def test_names_that_lead_nowhere_are_said_before_jax_is_imported(command, message, tmp_path):
    """Breaks if somebody who misspelt a folder, a file, a method or a module waits for seconds of
    imports to be told."""
    script, *arguments = command.format(folder=tmp_path).split()
    way = "run_module" if script == "fex_jax" else "run_path"
    code = (
        f"import runpy, sys; sys.argv = {[script, *arguments]}; sys.path.insert(0, '')\n"
        f"try: runpy.{way}({script!r}, run_name='__main__')\n"
        "except SystemExit as end: print(end.code)\n"
        "print(sorted({'jax', 'flax', 'tensorflow', 'distrax', 'optax'} & set(sys.modules)))"
    )
    done = run("-c", code)
    assert message in done.stdout + done.stderr, done.stderr
    assert "Traceback" not in done.stderr and done.stdout.split("\n")[-2] == "[]"


def test_wrong_numbers_are_said_in_words(capsys):
    """Breaks if a flag that is no number, or a help, names a function or says None."""
    for flag, message in (
        ("--port=abc", "argument --port: abc is no port; give 0 to 65535"),
        ("--max-things=0", "argument --max-things: 0 is no whole number from 1 on"),
    ):
        with pytest.raises(SystemExit):
            cli.main(["serve", "models/digits_fex", flag])
        assert message in capsys.readouterr().err
    for command in ("serve", "export", "explain"):
        with pytest.raises(SystemExit):
            cli.main([command, "--help"])
        said = " ".join(capsys.readouterr().out.split())
        assert "default: None" not in said and "default: False" not in said
        assert command == "export" or "(default: float32)" in said


def test_help_names_the_commands():
    """Breaks if python -m fex_jax is no command, or a command is missing from its help."""
    done = run("-m", "fex_jax", "--help")
    assert done.returncode == 0
    for command in ("serve", "export", "explain"):
        assert command in done.stdout


def test_commands_do_what_the_library_does(tmp_path, capsys):
    """Breaks if a command hands its arguments to the wrong place, or wrong ones end in a
    traceback."""
    pytest.importorskip("onnx")
    file = tmp_path / "m.onnx"
    assert cli.main(["export", "models/digits_fex", str(file)]) == 0 and file.is_file()
    assert capsys.readouterr().out.strip() == str(file)
    command = ["explain", "models/digits_fex", "docs/scene.png", "--target=8"]
    assert cli.main(command) == 0
    first, *rows = capsys.readouterr().out.strip().split("\n")
    expected = explain.load("models/digits_fex")("docs/scene.png", "8").attributions[0]
    assert first == "docs/scene.png: 8 (7%)"
    shown = np.array([[float(value.strip("%")) for value in row.split()] for row in rows])
    np.testing.assert_allclose(shown, 100 * expected, atol=0.51)
    assert cli.main([*command, "--dtype=bfloat16"]) == 0
    _, *other = capsys.readouterr().out.strip().split("\n")
    rounded = np.array([[float(value.strip("%")) for value in row.split()] for row in other])
    assert 1 <= np.abs(rounded - shown).max() <= 4  # of 100
    assert cli.main(["explain", str(tmp_path), "x"]) == 1
    assert "holds no explainer" in capsys.readouterr().err
    assert cli.main(["explain", "models/digits_vit", "x"]) == 1
    assert "is a classifier: fex_jax.fit trains" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main(["serve"])


def test_a_port_that_cannot_be_had_is_said(capsys):
    """Breaks if a port that is taken, or that is none, ends in a number of the system or a
    traceback."""
    pytest.importorskip("uvicorn")
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert cli.main(["serve", "models/digits_fex", f"--port={port}"]) == 1
    said = f"error: port {port} of 127.0.0.1 is taken; choose another with --port"
    assert said in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main(["serve", "models/digits_fex", "--port=99999"])
    assert "99999 is no port; give 0 to 65535" in capsys.readouterr().err
