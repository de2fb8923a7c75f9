"""What f says of tables is counted, and kept where it costs something: none is paid twice."""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys

import numpy as np
import pytest

import fex_jax
from fex_jax import explain, host, settings
from fex_jax.data import tables
from fex_jax.host import Bank, HostError, black_box
from fex_jax.host.http import http
from fex_jax.training.explainer import train
from tests.host import misbehaving
from tests.host.misbehaving import serving

FULL = bool(os.environ.get("FEX_FULL_SIZE"))  # a training takes seconds to compile
PRESETS = ["contrast", "shapley"] if FULL else ["contrast"]
X = np.random.default_rng(0).normal(size=(48, 3)).round(2)
SOURCE = tables.open_table(X)
PRICED = {"predictor.price": 0.01}
PLANNED = 5 + 48 + 12 * 8 * (1 + 4)  # background, spread, 12 batches


class Box:
    """Two classes of three numbers. It notes the rows that it is asked about, and can die."""

    def __init__(self, dies_after: int | None = None) -> None:
        self.rows, self.dies_after = [], dies_after

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        if self.dies_after is not None and len(self.rows) + len(rows) > self.dies_after:
            raise ConnectionError("gone")
        self.rows += [row.tobytes() for row in rows]
        return 1 / (1 + np.exp(-rows[:, 0] - rows[:, 1] * rows[:, 2]))

    def predictor(self, **options) -> host.HostPredictor:
        own = {"labels": ("no", "yes"), "input": (3,), "digest": "box", "name": "box"}
        return host.host(self, **own | options)


def small(preset: str = "shapley", **changes):
    """Twelve steps."""
    config = settings.of_tables(preset)
    config.update_from_flattened_dict(
        {
            "batch_size": 8, "epochs": 2.0, "log_every": 1, "checkpoint.every": 5,
            "table.background": 5, "objective.num_masks": 4, "objective.num_updates": 1,
        }
        | changes
    )  # fmt: skip
    return config


def curve(workdir: pathlib.Path) -> list[float]:
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


@pytest.fixture(scope="module", params=PRESETS)
def run(request, tmp_path_factory):
    """A preset, a finished run whose answers are kept, and its f."""
    workdir, box = tmp_path_factory.mktemp(request.param), Box()
    train(small(request.param), workdir, box.predictor(costly=True), SOURCE)
    return request.param, workdir, box


def test_a_run_that_dies_and_goes_on_asks_what_the_whole_one_asks(run, tmp_path):
    """Breaks if an answered row is asked about again after a crash, or a budget forgets what was
    answered; or if a run that goes on learns from other rows than the one that never died."""
    preset, workdir, whole = run
    assert len(whole.rows) == len(set(whole.rows))
    first, second = Box(dies_after=len(whole.rows) // 2), Box()
    with pytest.raises(HostError, match=r"gone; all [\d,]+ answers are saved in .*The same call"):
        train(small(preset), tmp_path, first.predictor(), SOURCE, 100_000)
    assert len(first.rows) > 100
    train(small(preset), tmp_path, second.predictor(), SOURCE, 100_000)
    assert first.rows + second.rows == whole.rows
    np.testing.assert_allclose(curve(tmp_path), curve(workdir), rtol=1e-5)


def test_a_killed_process_goes_on_with_what_was_answered(tmp_path, capsys):
    """Breaks if SIGKILL in the middle of training loses an answer, or the same run once more
    repeats a question: what the killed process was asked about is in a file."""
    program = f"""
import os, pathlib, signal
from tests.training.test_asking_tables import Box, SOURCE, small, train
class Noting(Box):
    def __call__(self, rows):
        if len(self.rows) > 250:
            os.kill(os.getpid(), signal.SIGKILL)
        with open({str(tmp_path / "asked")!r}, "ab") as noted:
            noted.write(rows.tobytes())
        return super().__call__(rows)
train(small(**{PRICED}), pathlib.Path({str(tmp_path / "run")!r}), Noting().predictor(), SOURCE)
"""
    root = pathlib.Path(__file__).parents[2]
    given = {"cwd": root, "env": os.environ | {"PYTHONPATH": str(root)}, "capture_output": True}
    killed = subprocess.run([sys.executable, "-c", program], **given)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    asked, box = (tmp_path / "asked").read_bytes(), Box()
    train(small(**PRICED), tmp_path / "run", box.predictor(), SOURCE)
    rows = [asked[at : at + 24] for at in range(0, len(asked), 24)] + box.rows
    assert 250 < len(asked) // 24 < len(rows) == len(set(rows))
    said = f"up to {PLANNED} queries at 0.01 each, {PLANNED / 100:.2f} in all"
    assert said in capsys.readouterr().out


def test_a_run_learns_again_from_the_answers_of_another(run, tmp_path):
    """Breaks if learning again asks f, learns something else with the same settings, or other rows
    end in another error than a sentence."""
    preset, workdir, _ = run
    box = Box()

    def again(folder: str, kind: str = preset, **changes):
        given = {"predictor.bank": str(workdir)} | changes
        train(small(kind, **given), tmp_path / folder, box.predictor(), SOURCE)
        return curve(tmp_path / folder)

    np.testing.assert_allclose(again("same"), curve(workdir), rtol=1e-5)
    faster = again("faster", **{"optimizer.learning_rate": 0.02, "objective.num_passes": 2})
    assert faster[-1] != pytest.approx(curve(workdir)[-1], rel=1e-3)
    with pytest.raises(HostError, match="has no answer to .* needs the same data, seed|no more ep"):
        again("other", seed=1)
    with pytest.raises(ValueError, match="is for the presets contrast and fastshap, of tables"):
        again("wrong", "paper")
    with pytest.raises(ValueError, match="where no answers.bank is"):
        again("nowhere", **{"predictor.bank": str(tmp_path)})
    assert not box.rows


def test_what_costs_nothing_is_not_kept(tmp_path):
    """Breaks if a model in the same process pays for a bank, or an endpoint has none."""
    free = Box()
    for _ in range(2):
        train(small(), tmp_path / "free", free.predictor(), SOURCE)
    assert not list((tmp_path / "free").glob("*.bank"))
    endpoint = http("http://127.0.0.1:1/", labels=("a", "b"), input=(3,))
    for f, kept in ((free.predictor(), False), (endpoint, True)):
        assert black_box.keeps(f, black_box.of(f).reads, tmp_path, None, 0.0) == kept


def test_too_small_a_budget_is_said_before_anything_is_asked(tmp_path):
    """Breaks if a run begins that cannot be paid for."""
    box = Box()
    message = f"takes up to {PLANNED} queries, 53 of them to know the background, and 500 may"
    with pytest.raises(ValueError, match=message):
        train(small(), tmp_path, box.predictor(), SOURCE, 500)
    assert not box.rows


@pytest.mark.parametrize("preset", PRESETS)
def test_fit_trains_as_many_epochs_as_can_be_paid(preset, tmp_path, capsys):
    """Breaks if a budget is exceeded or hardly used, is not counted down, or the comparison at the
    end has no room; or if the same call once more asks anything."""
    box, budget = Box(), {"shapley": 2000, "contrast": 6000}[preset]
    given = {
        "queries": budget, "preset": preset, "background": 2, "batch_size": 8, "workdir": tmp_path,
        "settings": {"objective.num_masks": 4, "objective.num_updates": 1, "log_every": 10},
    }  # fmt: skip
    explainer = fex_jax.fit(box.predictor(), X, **given)
    said = capsys.readouterr()
    assert re.search(r"of [\d,]+ are left", said.out)
    assert re.search(r"answers, [\d,]+ queries left", said.out + said.err)
    assert "held-out" in said.out and "is not asked more" not in said.out
    planned = re.search(r"training takes up to ([\d,]+) queries", said.out)[1].replace(",", "")
    assert budget * 0.6 < int(planned) < budget and len(box.rows) == len(set(box.rows)) <= budget
    asked = len(box.rows)
    fex_jax.fit(box.predictor(), X, **given)
    assert len(box.rows) == asked
    assert explainer(X[:2]).attributions.shape == (2, 3)


@pytest.mark.parametrize(
    "preset, kind",
    [("contrast", "background"), ("paper", "surrogate")]
    + FULL * [("shapley", "background"), ("shapley", "surrogate")],
)
def test_no_more_is_asked_than_was_said(preset, kind, tmp_path):
    """Breaks if a count leaves out background rows, the spread, held-out rows or the surrogate's:
    then a budget that was said to suffice does not."""
    config = small(preset, **{"removal.kind": kind, "epochs": 0.25})
    box = Box()
    source = tables.open_table(np.random.default_rng(1).normal(size=(130, 3)))
    with pytest.raises(ValueError, match="takes up to") as said:
        train(config, tmp_path, box.predictor(), source, 1)
    needed = int(re.search(r"up to ([\d,]+) queries", str(said.value))[1].replace(",", ""))
    train(config, tmp_path, box.predictor(), source, needed)
    assert 0.2 * needed < len(box.rows) <= needed


def test_scoring_reads_and_fills_the_bank(run):
    """Breaks if eval.py asks again what training or eval.py was told, or exceeds its budget."""
    preset, workdir, trained = run
    box, (name,) = Box(), [workdir]
    f = box.predictor()

    def scored(queries=None) -> np.ndarray:
        with black_box.recorded([explain.load(name)], f, workdir, queries) as (explainer,):
            assert isinstance(explainer.predictor.f, Bank)
            fex_jax.attribute("lime", explainer, X[:4], num_queries=6)
            return explainer(X).attributions.to_numpy()

    first = scored()
    asked = len(box.rows)
    np.testing.assert_array_equal(scored(), first)
    assert 0 < asked == len(box.rows) and not set(box.rows) & set(trained.rows)
    with pytest.raises(HostError, match="the budget of 3 queries is spent"):
        with black_box.recorded([explain.load(name)], f, workdir, 3) as (explainer,):
            explainer(X + 1)


FAULTS = {
    "closes": (misbehaving.closes_at_once, "gave no answer in 2 tries"),
    "NaN": (misbehaving.rows(lambda n: [[float("nan"), 0, 1]] * n), "nan for class 0"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_an_endpoint_that_fails_in_the_middle(fault, tmp_path):
    """Breaks if an answer is lost or a wrong one kept, the stop is no sentence, or what was
    answered is asked again when the endpoint is back; faults that pass do not stop training."""
    bad, message = FAULTS[fault]
    asked, broken = [], True

    def behave(request, instances, number):
        if number % 7 == 3:
            misbehaving.status(503)(request, instances, number)
        elif broken and number > 12:
            bad(request, instances, number)
        else:
            asked.extend(map(tuple, instances))
            misbehaving.good(request, [[np.tanh(one[0])] for one in instances])

    with serving(behave) as server:
        options = {"labels": ("a", "b", "c"), "input": (3,), "retries": 1, "backoff": 0.002}
        f = http(server.url, **options, timeout=5.0, threads=1)
        with pytest.raises(HostError, match=f"{message}.*answers are saved.*The same call conti"):
            train(small(), tmp_path, f, SOURCE)
        broken, before = False, len(asked)
        assert before > 100
        f = http(server.url, **options, timeout=20.0, threads=1)
        train(small(), tmp_path, f, SOURCE)
    assert len(asked) == len(set(asked)) > before
    assert np.isfinite(curve(tmp_path)).all()
