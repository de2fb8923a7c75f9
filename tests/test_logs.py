"""What a run logs, after it was interrupted anywhere."""

import json

from fex_jax import logs


def test_lines_are_never_torn_or_twice(tmp_path, capsys):
    """Breaks if a torn line ends a run, or steps that run again are logged twice."""
    path = tmp_path / "metrics.jsonl"
    lines = [json.dumps({"step": step, "loss": 1.0}) for step in (5, 10, 10, 15)]
    path.write_text("\n".join([*lines, '{"step": 20, "lo']))
    write = logs.open_log(tmp_path, start=10)
    write({"step": 15, "loss": 2.0})
    found = [json.loads(line) for line in path.read_text().splitlines()]
    assert found == [{"step": 5, "loss": 1.0}, {"step": 10, "loss": 1.0}, {"step": 15, "loss": 2.0}]
    assert """line 5, is torn and dropped: '{"step": 20, "lo'""" in capsys.readouterr().out


def test_lines_that_name_no_step_are_dropped(tmp_path):
    """Breaks if a line that is JSON of another kind, or endless, ends in `int` or `json`."""
    path = tmp_path / "metrics.jsonl"
    lines = ['{"step": Infinity}', '{"step": NaN}', '{"step": null}', "[1]", "3", "[" * 10**5]
    path.write_text("\n".join([*lines, '{"step": 5}', "\0" * 4096]))
    assert logs.read(path) == {5: {"step": 5}}
