"""Tables from per-image statistics."""

import copy

import numpy as np
import pytest

from fex_jax import report


def run(shift: float = 0.0) -> dict[str, dict]:
    # True and false positives, false and true negatives, average precision of two images.
    segmentation = np.array([[8, 0, 0, 2, 1.0], [0, 50, 40, 0, 0.0]])
    values = np.array([0.0, 1.0, 1.0, 1.0]) + shift
    return report.summarise(
        {"positive_auc": values, "insertion": values, "segmentation": segmentation}
    )


def test_summary_holds_means_with_their_intervals():
    """Breaks if a metric is lost, or pooled segmentation scores are averaged over images."""
    summary = run()
    assert list(summary) == ["positive_auc", "insertion", "pixel_accuracy", "map", "miou"]
    assert summary["positive_auc"]["mean"] == 0.75
    assert summary["positive_auc"]["low"] < 0.75 < summary["positive_auc"]["high"]
    np.testing.assert_allclose(summary["pixel_accuracy"]["mean"], 10 / 100)
    np.testing.assert_allclose(summary["miou"]["mean"], (8 / 98 + 2 / 92) / 2)
    assert summary["map"]["mean"] == 0.5


def test_seeds_are_averaged_and_kept():
    """Breaks if several explainers of one method show one seed, or a spread over images."""
    merged = report.over_seeds([run(), run(0.2)])
    np.testing.assert_allclose(merged["positive_auc"]["mean"], 0.85)
    np.testing.assert_allclose(merged["positive_auc"]["seeds"], [0.75, 0.95])
    assert report.cell(merged["positive_auc"]) == "0.850 ± 0.141"
    assert report.over_seeds([run()]) == run()


def test_markdown_marks_the_best_of_each_column():
    """Breaks if an arrow points the wrong way, or a method without a metric shifts the row."""
    good, bad = run(), run(0.5)
    del bad["map"]
    cost = {"predictions": 1.02, "seconds_per_1000": 0.5, "peak_bytes": 2.0**21}
    results = {"methods": {"a": good, "b": bad}, "efficiency": {"a": cost}}
    lines = report.markdown(results, {"Data": "four numbers"}).splitlines()
    assert lines[0] == "- Data: four numbers"
    head, first, second = (line.split(" | ") for line in (lines[2], lines[4], lines[5]))
    assert head[1:3] == ["Positive AUC ↓", "Insertion ↑"]
    assert first[1].startswith("**0.750 ± ") and not second[1].startswith("**")
    assert second[2].startswith("**1.250 ± ") and not first[2].startswith("**")
    assert second[4] == "–" and len(second) == len(head)
    assert lines[-1] == "| a | 1.02× | 0.50 | 2 |"


def test_an_empty_map_is_a_row_beside_pixel_accuracy():
    """Breaks if it is worked out from another method's hits, or counts as the best of a column.

    Ten pixels of two images show the object in the first, fifty of ninety in the second.
    """
    values = {"segmentation": np.array([[8, 0, 0, 2, 1.0], [0, 50, 40, 0, 0.0]])}
    empty = report.empty_map([{}, values])
    np.testing.assert_allclose(list(empty.values()), [52 / 100, 0.5, (0 + 52 / 100) / 2])
    assert report.empty_map([{}]) == {}
    results = {"methods": {"a": run()}, "empty_map": empty}
    head, _, first, last = report.table(results, columns=["pixel_accuracy", "insertion"])
    assert last == "| an empty map | 0.520 | – |" and first.startswith("| a | **0.100 ± ")


def test_a_table_shows_what_was_asked_for():
    """Breaks if rows or columns are reordered, or an unknown one is left out in silence."""
    results = {
        "methods": {"a": run(), "b": run(0.5)},
        "efficiency": {"b": {"predictions": 7.04, "seconds_per_1000": 1.0, "peak_bytes": 1.0}},
    }
    lines = report.table(results, ["b", "empty_map", "a"], ["price", "insertion"], str.upper)
    assert lines[0] == "| Method | Price | Insertion ↑ |"
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| B", "| A"]
    assert lines[2].split(" | ")[1] == "7.04×" and lines[3].split(" | ")[1] == "–"
    with pytest.raises(ValueError, match="no row 'c'; there are a, b, empty_map"):
        report.table(results, ["c"])
    with pytest.raises(ValueError, match="no column 'deletion'; there are price, positive_auc"):
        report.table(results, columns=["deletion"])


def test_a_column_that_most_rows_lack_has_no_best():
    """Breaks if rows merged later are bold for want of others in a column of their own."""
    methods = {"a": {"map": {"mean": 0.5}}, "b": {}, "c": {}}
    assert report.best(methods) == {"map": set()}
    del methods["c"]
    assert report.best(methods) == {"map": {"a"}}


def test_a_black_box_costs_queries():
    """Breaks if a black box's table says nothing of what its rows cost, or calls it a price."""
    results = {"methods": {"a": run(), "b": run()}, "efficiency": {"a": {"queries": 100.0}}}
    head, _, first, second = report.table(results)
    assert head.startswith("| Method | Queries | Positive AUC ↓ |")
    assert first.startswith("| a | 100 |") and second.startswith("| b | – |")
    assert "Price" not in report.markdown(results, {})
    assert (
        report.console(results["methods"], results["efficiency"]).split("\n")[0][-7:] == "queries"
    )


def test_a_recorded_spread_is_shown():
    """Breaks if a standard deviation whose seeds are not kept is shown as half an interval."""
    assert report.cell({"mean": 0.5, "spread": 0.25}) == "0.500 ± 0.250"


def test_console_shows_every_method():
    """Breaks if a method without a cost, as scores from elsewhere, cannot be shown."""
    text = report.console({"a": run(), "mine": run(0.1)}, {}).splitlines()
    assert text[0].startswith("method  Positive AUC ↓") and len({len(line) for line in text}) == 1


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
    merged = report.merge(PUBLISHED, new, ["lime", "rise"], MADE)
    assert {name: row["map"]["mean"] for name, row in merged["methods"].items()} == {
        "fex": 0.9, "lime": 0.3, "rise": 0.3,
    }  # fmt: skip
    assert merged["made"] == {"lime": MADE, "rise": MADE}
    assert merged["command"] == "the whole table" and merged["empty_map"] == {"map": 0.5}
    assert "made" not in PUBLISHED  # what came is left as it was


def test_rows_of_another_task_are_refused():
    """Breaks if a row about another classifier joins a table in silence."""
    with pytest.raises(ValueError, match="accuracy is 0.6 here and 0.5 in the published results"):
        report.merge(PUBLISHED, PUBLISHED | {"accuracy": 0.6}, ["lime"], MADE)
    with pytest.raises(ValueError, match="no row 'rise' was made"):
        report.merge(PUBLISHED, PUBLISHED, ["rise"], MADE)
