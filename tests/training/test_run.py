"""The folder of a run: locked by real processes, compared with what is wanted."""

import json
import os
import signal
import subprocess
import sys

import pytest

from fex_jax.training import run


def test_one_process_trains_in_a_folder(tmp_path):
    """Breaks if two runs may write one folder, or a killed one leaves it locked."""
    script = (
        "import pathlib, sys, time\n"
        "from fex_jax.training import run\n"
        "with run.lock(pathlib.Path(sys.argv[1])):\n"
        "    print('locked', flush=True)\n"
        "    time.sleep(600)\n"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert other.stdout.readline() == "locked\n"
    with pytest.raises(ValueError, match=f"process {other.pid} is training in {tmp_path}"):
        with run.lock(tmp_path):
            pass
    other.send_signal(signal.SIGKILL)
    other.communicate()
    with run.lock(tmp_path):
        assert (tmp_path / "lock").read_text() == str(os.getpid())
        with pytest.raises(ValueError, match="is training in"), run.lock(tmp_path):
            pass  # nor may two threads of one process


@pytest.mark.parametrize("name", ["run [1]", "a\\b"])
def test_a_folder_from_which_no_checkpoint_comes_back_is_refused(name, tmp_path):
    """Breaks if a run is trained where Orbax takes the path for a pattern: all of it is lost."""
    with pytest.raises(ValueError, match="in its path, where checkpoints can be written, but not"):
        with run.lock(tmp_path / name / "run"):
            pass
    assert not list(tmp_path.iterdir())
    with run.lock(tmp_path / "run] [1"):
        pass


def test_a_full_disk_is_said_with_the_folder(tmp_path):
    """Breaks if all that is said is "No space left on device", of which file system is unknown."""
    with pytest.raises(OSError, match=f"{tmp_path} cannot be written .*No space left"):
        with run.lock(tmp_path), open("/dev/full", "w") as full:
            full.write("x" * 2**20)


def test_other_settings_are_named(tmp_path, capsys):
    """Breaks if a run continues as another one, or says nothing of its new learning rate."""
    path = tmp_path / "config.json"
    old = {"seed": 0, "optimizer": {"learning_rate": 1e-3, "clip": 1.0}, "mesh": {"fsdp": 1}}
    run.write_json(path, old)
    check = run.check_same
    new = json.loads(json.dumps(old))
    new["mesh"]["fsdp"] = 4
    check(path, new, ("mesh.",), "optimizer.learning_rate")
    assert capsys.readouterr().out == ""
    new["optimizer"]["learning_rate"] = 1e-4
    check(path, new, ("mesh.",), "optimizer.learning_rate")
    assert "is 0.0001 from here on; it was 0.001" in capsys.readouterr().out
    with pytest.raises(ValueError, match="other settings of optimizer.learning_rate "):
        check(path, new, ("mesh.",))
    new["seed"], new["more"] = 1, 2
    with pytest.raises(ValueError, match="other settings of more, seed "):
        check(path, new, ("mesh.",), "optimizer.learning_rate")
    for damaged in ('{"seed": 0,', "", "null", "[1]", "\xff"):
        path.write_bytes(damaged.encode("latin1"))
        with pytest.raises(ValueError, match="config.json .*: choose another folder, or delete"):
            check(path, new)


def test_signals_are_caught_and_handed_back():
    """Breaks if Ctrl-C in a notebook stays caught after a run, or ends it with no checkpoint."""
    before = signal.getsignal(signal.SIGINT)
    with run.catch_signals() as stopped:
        os.kill(os.getpid(), signal.SIGINT)
        assert stopped == [signal.SIGINT]
    assert signal.getsignal(signal.SIGINT) is before
    with pytest.raises(KeyboardInterrupt):
        run.exit_if_stopped(stopped, 3)
    with pytest.raises(SystemExit, match="143"):
        run.exit_if_stopped([signal.SIGTERM], 3)
