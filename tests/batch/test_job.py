"""Jobs against the explainer itself, through kills, shares and damaged pictures."""

import dataclasses
import itertools
import json
import multiprocessing
import pathlib
import resource
import time

import jax
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from fex_jax import batch, cli, explain, host, locks
from fex_jax.batch.job import shard_of
from fex_jax.errors import HostError
from fex_jax.host import black_box
from fex_jax.models.policy import functional_policy
from fex_jax.models.unet import UNetConfig
from fex_jax.removal import Removal
from tests import tiny_text
from tests.conftest import random_params

MODEL = str(pathlib.Path(__file__).resolve().parents[2] / "models" / "digits_fex")


@pytest.fixture(scope="module")
def explainer() -> explain.Explainer:
    return explain.load(MODEL)


def draw(folder: pathlib.Path, names) -> list[pathlib.Path]:
    files = []
    for seed, name in enumerate(names):
        files.append(folder / name)
        files[-1].parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 256, (70, 80, 3), np.uint8)
        Image.fromarray(pixels).save(files[-1])
    return files


def rows(folder) -> list[dict]:
    """Of all parts, by id and class."""
    paths = sorted(pathlib.Path(folder).glob("*.parquet"))
    found = [row for path in paths for row in pq.read_table(path).to_pylist()]
    return sorted(found, key=lambda row: (row["id"], row["target"] or 0))


def test_rows_are_what_the_explainer_says(explainer, tmp_path):
    """Breaks if a map lands beside another picture's id, a class or probability is another's, a
    picture that cannot be read ends the job, or the command's options go astray."""
    files = draw(tmp_path / "in", ["a.png", "b/c.png", "d.png", "e.png", "f.png"])
    (tmp_path / "in" / "ca.png").write_bytes(files[0].read_bytes()[:300])
    command = ["explain", MODEL, f"--input={tmp_path}/in", f"--output={tmp_path}/out"]
    command += ["--top_k=2", "--batch-size=4", f"--overlays={tmp_path}/maps"]
    assert cli.main(command) == 0
    expected = explainer([str(file) for file in files], top_k=2, batch_size=4)
    found = {(row["id"], row["target"]): row for row in rows(tmp_path / "out")}
    assert len(found) == 11
    error = found.pop(("ca.png", None))["error"]
    assert error.startswith("it cannot be read as an image")
    for i, rank in itertools.product(range(5), range(2)):
        row = found[str(files[i].relative_to(tmp_path / "in")), int(expected.targets[i, rank])]
        assert row["label"] == expected.labels[row["target"]] and row["error"] is None
        assert np.isclose(row["probability"], expected.probabilities[i, row["target"]], atol=1e-6)
        attributions = np.array(row["attributions"], np.float16).reshape(row["shape"])
        np.testing.assert_allclose(attributions, expected.attributions[i, rank], atol=1e-3)
    assert len(list((tmp_path / "maps").glob("*.png"))) == 10
    assert cli.main([*command, "--targets=1"]) == 1  # and top_k


def test_texts_have_their_words(tmp_path):
    """Breaks if words and scores of texts part, the second class is the first again, or a text
    that cannot be explained ends the job."""
    predictor = tiny_text.checkpoint(num_classes=3)
    init, _ = functional_policy(predictor.config, 3)
    reader = explain.Explainer(predictor, predictor.config, random_params(init), budget=-3.0)
    texts = ["a funny film , very good !", "", "dull plot .", "the movie was not bad " * 20]
    (tmp_path / "t.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    done = batch.explain_files(reader, tmp_path / "t.jsonl", tmp_path / "out", top_k=3)
    assert done[:3] == (4, 0, 1) and done.first == "t.jsonl:2: there is none"
    found = rows(tmp_path / "out")
    for i in (0, 2, 3):
        mine = [row for row in found if row["id"] == f"t.jsonl:{i + 1}"]
        assert sorted(row["target"] for row in mine) == [0, 1, 2]
        for row in mine:
            (expected,) = reader(texts[i], row["target"])
            assert tuple(row["words"]) == expected.words and row["shape"] == [len(expected.words)]
            np.testing.assert_allclose(row["attributions"], expected.scores, atol=2e-3)
            assert np.isclose(row["probability"], expected.probabilities[row["target"]], atol=1e-4)


def on_two_devices(*arguments, **options) -> None:
    jax.config.update("jax_num_cpu_devices", 2)
    batch.explain_files(*arguments, **options)


def test_kills_lose_and_double_nothing(tmp_path):
    """Breaks if a kill at any moment tears a part, loses one or lets an item be written again; or
    if a second device changes a map.

    Processes are forked from one that has imported all; each is killed a moment after it has
    written a part of its own, the last may end.
    """
    draw(tmp_path / "in", [f"{i:03}.png" for i in range(120)])
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["fex_jax.batch"])
    options = {"part_seconds": 0.0, "batch_size": 4}

    def start(output: str, target=batch.explain_files) -> multiprocessing.Process:
        arguments = (MODEL, str(tmp_path / "in"), str(tmp_path / output))
        process = processes.Process(target=target, args=arguments, kwargs=options)
        process.start()
        return process

    def parts() -> set[pathlib.Path]:
        return set((tmp_path / "out").glob("*.parquet"))

    alone = start("alone", on_two_devices)
    for delay in (0.0, 0.003, 0.01):
        before, process = parts(), start("out")
        deadline = time.monotonic() + 300
        while len(parts()) == len(before):
            assert process.is_alive() and time.monotonic() < deadline
            time.sleep(0.001)
        time.sleep(delay)
        process.kill()
        process.join()
    assert 3 <= len(parts()) < 30, "the kills came too late to test anything"
    last = start("out")
    for process in (alone, last):
        process.join(300)
        assert process.exitcode == 0
    assert rows(tmp_path / "out") == rows(tmp_path / "alone")
    assert len(rows(tmp_path / "out")) == 120


def test_a_black_box_that_fails_loses_nothing(tmp_path):
    """Breaks if an answer that was paid for is lost with the one that failed, or the failure is
    taken for that of a picture."""
    asked = []

    def brightness(images: np.ndarray) -> np.ndarray:
        asked.append(len(images))
        if len(asked) == 3:
            raise OSError("the line is dead")
        return images.mean((1, 2, 3)) / 255

    f = host.host(brightness, labels=("dark", "bright"), input=(32, 32, 3), digest="brightness")
    box = black_box.of(f, Removal(grid=(4, 4)))
    backbone = UNetConfig(32, 8)
    init, _ = functional_policy(backbone, 2)
    reader = explain.Explainer(box, backbone, random_params(init), budget=-3.0)
    draw(tmp_path / "in", [f"{i}.png" for i in range(10)])
    call = [reader, tmp_path / "in", tmp_path / "out"]
    with pytest.raises(HostError, match="the line is dead"):
        batch.explain_files(*call, batch_size=2)
    assert len(rows(tmp_path / "out")) == 4
    asked += [0]  # and from here on f answers
    done = batch.explain_files(*call, batch_size=2)
    assert done == (10, 4, 0, "", False) and sum(asked) == 12
    assert [row["id"] for row in rows(tmp_path / "out")] == [f"{i}.png" for i in range(10)]


def test_processes_share_the_work_and_what_comes_later(explainer, tmp_path):
    """Breaks if two processes explain one item, leave one out, or pictures that come later move
    those that are done from one process to the other."""
    names = [f"{i}.png" for i in range(20)]
    draw(tmp_path / "in", names)
    output, done = tmp_path / "out", []
    for index in (0, 1):
        done.append(batch.explain_files(explainer, tmp_path / "in", output, shard=f"{index}/2"))
    assert [row["id"] for row in rows(output)] == sorted(names)
    assert all(summary.items > 4 for summary in done)
    draw(tmp_path / "in", [*names, "010.png", "x.png"])
    again = [
        batch.explain_files(explainer, tmp_path / "in", output, shard=f"{index}/2")
        for index in (0, 1)
    ]
    assert sorted(row["id"] for row in rows(output)) == sorted([*names, "010.png", "x.png"])
    assert [summary.before for summary in again] == [summary.items for summary in done]


def test_limit_is_of_all_calls(explainer, tmp_path):
    """Breaks if a limit counts only what is new, so that the same command does more each time."""
    draw(tmp_path / "in", [f"{i}.png" for i in range(6)])
    for limit, items in ((2, 2), (2, 2), (5, 5), (None, 6)):
        done = batch.explain_files(explainer, tmp_path / "in", tmp_path / "out", limit=limit)
        assert done.items == items == len(rows(tmp_path / "out"))


def test_what_does_not_fit_is_refused(explainer, tmp_path):
    """Breaks if one folder could hold two jobs' rows, or wrong options are found out late."""
    draw(tmp_path / "in", ["a.png"])
    call = [explainer, tmp_path / "in", tmp_path / "out"]
    batch.explain_files(*call)
    with pytest.raises(ValueError, match="a job with another top_k "):
        batch.explain_files(*call, top_k=2)
    params = {**explainer.params, "extra": np.zeros(1)}
    other = dataclasses.replace(explainer, params=params)
    with pytest.raises(ValueError, match="a job with another explainer "):
        batch.explain_files(other, *call[1:])
    with pytest.raises(ValueError, match="another processes "):
        batch.explain_files(*call, shard="0/2")
    with locks.hold(tmp_path / "out" / "_lock-0", ""):
        with pytest.raises(ValueError, match=r"process \d+ is at work on 0/1 of"):
            batch.explain_files(*call)
    with pytest.raises(ValueError, match="output is .*, inside .*/in, which is read"):
        batch.explain_files(*call[:2], tmp_path / "in" / "out")
    (part,) = (tmp_path / "out").glob("*.parquet")
    (tmp_path / "other").mkdir()
    part.rename(tmp_path / "other" / part.name)
    with pytest.raises(ValueError, match="Parquet files of something else"):
        batch.explain_files(*call[:2], tmp_path / "other")
    part.write_bytes(b"PAR1 torn")
    with pytest.raises(ValueError, match=f"{part.name} cannot be read .*: delete it"):
        batch.explain_files(*call)
    for options, match in (
        ({"targets": "cat"}, "class 'cat' is unknown"),
        ({"targets": []}, "targets is empty"),
        ({"top_k": 0}, "top_k is 0"),
        ({"top_k": 11}, "top_k is 11; expected an integer from 1 to 10"),
        ({"limit": 0}, "limit is 0; expected an integer"),
        ({"refine": -1}, "refine is -1"),
    ):
        with pytest.raises(ValueError, match=match):
            batch.explain_files(*call[:2], tmp_path / "new", **options)
    assert not (tmp_path / "new").exists()


def test_a_full_disk_stops_a_job_with_a_word(explainer, tmp_path, capsys):
    """Breaks if it makes an item's error or names no folder; here a limit of a file's size."""
    draw(tmp_path / "in", ["a.png"])
    command = ["explain", MODEL, f"--input={tmp_path}/in"]
    assert cli.main([*command, f"--output={tmp_path}/compiles"]) == 0
    command.append(f"--output={tmp_path}/out")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (512, before[1]))
    try:
        assert cli.main(command) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert f"error: {tmp_path}/out cannot be written to" in capsys.readouterr().err
    assert cli.main(command) == 0 and [row["id"] for row in rows(tmp_path / "out")] == ["a.png"]


def test_a_share_is_told_by_hand_or_by_the_launcher(monkeypatch):
    """Breaks if a process explains another's share."""
    assert shard_of("3/8") == (3, 8)
    for wrong in ("8/8", "-1/2", "1", "", "auto"):
        with pytest.raises(ValueError, match=f"shard is '{wrong}'; expected"):
            shard_of(wrong)
    monkeypatch.setenv("SLURM_PROCID", "2")
    monkeypatch.setenv("SLURM_NTASKS", "4")
    assert shard_of("auto") == (2, 4)
