"""Rows measured later join the published ones."""

import copy

import pytest

from benchmarks import tables

PUBLISHED = {
    "protocol": "fex",
    "num_inputs": 4,
    "num_pairs": 0,
    "accuracy": 0.5,
    "command": "the whole table",
    "methods": {"fex": {"map": {"mean": 0.9}}, "lime": {"map": {"mean": 0.1}}},
    "efficiency": {"fex": {"predictions": 1.0}, "lime": {"predictions": 500.0}},
}
MADE = {"date": "2026-11-29", "command": "again", "versions": "jax 0.10.2"}


def test_named_rows_are_replaced_and_say_how_they_were_made():
    """Breaks if a merge takes over a row that was not asked for, or loses the others."""
    new = copy.deepcopy(PUBLISHED) | {"empty_map": {"map": 0.5}}
    new["methods"] = {name: {"map": {"mean": 0.3}} for name in ("fex", "lime", "rise")}
    merged = tables.merge(PUBLISHED, new, ["lime", "rise"], MADE)
    assert {name: row["map"]["mean"] for name, row in merged["methods"].items()} == {
        "fex": 0.9, "lime": 0.3, "rise": 0.3,
    }  # fmt: skip
    assert merged["made"] == {"lime": MADE, "rise": MADE}
    assert merged["command"] == "the whole table" and merged["empty_map"] == {"map": 0.5}
    assert "made" not in PUBLISHED  # what came is left as it was


def test_rows_of_another_task_are_refused():
    """Breaks if a row about another classifier joins a table in silence."""
    with pytest.raises(ValueError, match="accuracy is 0.6 here and 0.5 in the published results"):
        tables.merge(PUBLISHED, PUBLISHED | {"accuracy": 0.6}, ["lime"], MADE)
    with pytest.raises(ValueError, match="no row 'rise' was made"):
        tables.merge(PUBLISHED, PUBLISHED, ["rise"], MADE)
