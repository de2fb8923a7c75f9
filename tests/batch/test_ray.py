"""The job on a local Ray cluster; skipped where Ray is not installed."""

import threading
import time

import numpy as np
import pyarrow as pa
import pytest

from fex_jax import explain
from fex_jax.batch import Rows
from tests.batch.test_items import png
from tests.batch.test_job import MODEL, rows

ray = pytest.importorskip("ray")
psutil = pytest.importorskip("psutil")
job = pytest.importorskip("fex_jax.batch.ray")
COUNT = 60


@pytest.fixture(scope="module")
def dataset():
    # Two actors and what reads: Ray counts processors as it is told.
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False)
    contents = [png(i) if i % 10 else b"torn" for i in range(COUNT)]
    table = pa.table({"name": [f"{i:03}" for i in range(COUNT)], "file": contents})
    yield ray.data.from_arrow(table).repartition(6)
    ray.shutdown()


def test_actors_do_what_one_process_does_and_go_on(dataset, tmp_path):
    """Breaks if a row is another than `Rows` makes, or a second call explains items again."""
    call = [MODEL, dataset, tmp_path / "out", "file", "name"]
    first = job.explain_dataset(call[0], dataset.limit(20), *call[2:], part_size=8, actors=2)
    assert (first.items, first.before, first.errors) == (20, 0, 2)
    done = job.explain_dataset(*call, part_size=8, actors=2)
    assert (done.items, done.before, done.errors) == (COUNT, 20, 4)
    found = rows(tmp_path / "out")
    assert [row["id"] for row in found] == [f"{i:03}" for i in range(COUNT)]
    contents = [row["file"] for row in dataset.sort("name").take_all()]
    expected = Rows(explain.load(MODEL))([row["id"] for row in found], contents).to_pylist()
    for row, wanted in zip(found, expected, strict=True):
        assert (row["id"], row["target"], row["error"]) == tuple(
            wanted[name] for name in ("id", "target", "error")
        )
        if row["error"] is None:
            np.testing.assert_allclose(row["attributions"], wanted["attributions"], atol=2e-3)
    with pytest.raises(ValueError, match="has no column image; it has "):
        job.explain_dataset(*call[:3], "image", "name")
    with pytest.raises(ValueError, match="a job with another top_k"):
        job.explain_dataset(*call, top_k=2)


def test_actors_that_die_lose_and_double_nothing(dataset, tmp_path):
    """Breaks if a batch that Ray gives out again is written beside what the dead actor wrote."""
    killed = []

    def kill() -> None:
        while len(killed) < 3:
            time.sleep(0.2)
            workers = [p for p in psutil.Process().children(recursive=True) if "MapW" in p.name()]
            if workers and list((tmp_path / "out").glob("part-*")):
                workers[0].kill()
                killed.append(workers[0].pid)

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    big = dataset.repartition(30)
    done = job.explain_dataset(MODEL, big, tmp_path / "out", "file", "name", part_size=1, actors=2)
    assert killed and done.items == COUNT
    assert [row["id"] for row in rows(tmp_path / "out")] == [f"{i:03}" for i in range(COUNT)]
