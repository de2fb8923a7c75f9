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
