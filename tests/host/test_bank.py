"""Answers on disk: none is asked twice, none is lost, none is another question's."""

import json
import multiprocessing
import os
import re
import resource
import signal
import warnings
import zlib

import numpy as np
import pytest

from fex_jax import host
from fex_jax.host import Bank, HostError
from fex_jax.host.bank import identify

N = 10
SETTINGS = {"removal": "fill 0", "grid": (2, 5)}


class Box:
    """A black box of three values that counts what it is asked, and can die."""

    def __init__(self, dies_after: int | None = None) -> None:
        self.asked, self.dies_after = 0, dies_after

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        if self.dies_after is not None and self.asked + len(batch) > self.dies_after:
            raise ConnectionError("gone")
        self.asked += len(batch)
        return batch[:, :3] + 0.1

    def predictor(self, **options) -> host.HostPredictor:
        settings = {"labels": ("a", "b", "c"), "input": (N,), "output": "value", "digest": "box"}
        return host.host(self, **settings | {"batch_size": 4} | options)


def questions(count: int, seed: int = 0):
    """ids, masks, and the function that makes masked inputs of rows."""
    rng = np.random.default_rng(seed)
    inputs, masks = rng.normal(size=(count, N)), rng.integers(0, 2, (count, N)).astype(bool)
    return identify(inputs), masks, lambda rows: inputs[rows] * masks[rows]


def expected(asked) -> np.ndarray:
    _, masks, make = asked
    return (make(np.arange(len(masks)))[:, :3] + 0.1).astype(np.float32)


def test_an_answer_is_asked_for_once(tmp_path):
    """Breaks if f is asked twice: within a batch, in the next one, or after opening again."""
    box, asked = Box(), questions(10)
    twice = [asked[0] * 2, np.concatenate([asked[1]] * 2), lambda rows: asked[2](rows % 10)]
    with Bank(tmp_path / "bank", box.predictor(), **SETTINGS) as bank:
        answers = bank.ask(*twice)
        np.testing.assert_array_equal(answers, np.concatenate([expected(asked)] * 2))
        assert box.asked == len(bank) == 10
        bank.ask(*asked)
    with Bank(tmp_path / "bank", box.predictor(), **SETTINGS) as bank:
        np.testing.assert_array_equal(bank.ask(*asked), expected(asked))
        more = questions(3, seed=1)
        np.testing.assert_array_equal(bank.ask(*more), expected(more))
    assert box.asked == 13


def test_the_records_are_all_there_to_learn_from(tmp_path):
    """Breaks if id, mask or answer of a record is another's, or an order is lost."""
    asked = questions(9)
    with Bank(tmp_path / "bank", Box().predictor(threads=3), **SETTINGS) as bank:
        bank.ask(*asked)
        records = list(bank.records())
    answers = dict(zip(asked[0], zip(asked[1], expected(asked), strict=True), strict=True))
    assert len(records) == 9
    for identity, mask, answer in records:
        np.testing.assert_array_equal(mask, answers[identity][0])
        np.testing.assert_array_equal(answer, answers[identity][1])


def test_the_layout_of_a_record(tmp_path):
    """Breaks if the documented format changes: read here by hand."""
    ids, masks, make = questions(1)
    with Bank(tmp_path / "bank", Box().predictor(), **SETTINGS) as bank:
        bank.ask(ids, masks, make)
    header, _, body = (tmp_path / "bank").read_bytes().partition(b"\n")
    assert json.loads(header)["removal"] == "fill 0"
    assert len(body) == 16 + 2 + 12 + 4 and body[:16] == ids[0]
    bits = int.from_bytes(body[16:18], "little")
    assert [bool(bits >> i & 1) for i in range(N)] == masks[0].tolist()
    np.testing.assert_array_equal(
        np.frombuffer(body[18:30], "<f4"), expected((ids, masks, make))[0]
    )
    assert zlib.crc32(body[:-4]) == int.from_bytes(body[-4:], "little")


@pytest.mark.parametrize("lost", range(1, 36))
def test_a_torn_end_is_dropped_and_the_rest_stays(tmp_path, lost):
    """Breaks if a crash at any byte of the last record spoils the bank or passes it as whole."""
    box, asked = Box(), questions(5)
    with Bank(tmp_path / "bank", box.predictor(), **SETTINGS, sync=False) as bank:
        bank.ask(*asked)
    os.truncate(tmp_path / "bank", os.path.getsize(tmp_path / "bank") - lost)
    with Bank(tmp_path / "bank", box.predictor(), **SETTINGS, sync=False) as bank:
        assert len(bank) == (4 if lost <= 34 else 3)
        np.testing.assert_array_equal(bank.ask(*asked), expected(asked))
    with Bank(tmp_path / "bank", box.predictor(), **SETTINGS) as bank:
        assert len(bank) == 5


def test_a_damaged_record_is_asked_again(tmp_path):
    """Breaks if flipped bits are passed on as an answer, or cost the records behind them."""
    box, asked = Box(), questions(5)
    with Bank(tmp_path / "bank", box.predictor(), **SETTINGS) as bank:
        bank.ask(*asked)
    content = bytearray((tmp_path / "bank").read_bytes())
    content[-34 * 3 + 20] ^= 4  # in the answer of the third
    (tmp_path / "bank").write_bytes(content)
    with pytest.warns(UserWarning, match="1 answers inside the bank"):
        bank = Bank(tmp_path / "bank", box.predictor(), **SETTINGS)
    with bank:
        assert len(bank) == 4
        np.testing.assert_array_equal(bank.ask(*asked), expected(asked))
    assert box.asked == 6


@pytest.mark.parametrize("length", [0, 1, 40])
def test_a_torn_header_is_written_again(tmp_path, length):
    """Breaks if a crash before the first answer leaves a file that no run can open."""
    with Bank(tmp_path / "bank", Box().predictor(), **SETTINGS):
        pass
    os.truncate(tmp_path / "bank", length)
    with Bank(tmp_path / "bank", Box().predictor(), **SETTINGS) as bank:
        bank.ask(*questions(2))
    with Bank(tmp_path / "bank", Box().predictor(), **SETTINGS) as bank:
        assert len(bank) == 2


def test_a_killed_process_keeps_what_was_answered(tmp_path):
    """Breaks if answers wait in a buffer: the process ends by SIGKILL between two batches."""

    def run() -> None:
        box = Box()

        def call(batch):
            if box.asked == 8:
                os.kill(os.getpid(), signal.SIGKILL)
            return box(batch)

        predictor = host.host(
            call, labels=("a", "b", "c"), input=(N,), output="value", digest="box", batch_size=4
        )
        Bank(tmp_path / "bank", predictor, **SETTINGS).ask(*questions(20))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # JAX warns of forks; the child does not use it
        child = multiprocessing.get_context("fork").Process(target=run)
        child.start()
    child.join(30)
    assert child.exitcode == -signal.SIGKILL
    box = Box()
    with Bank(tmp_path / "bank", box.predictor(), **SETTINGS) as bank:
        assert len(bank) == 8
        np.testing.assert_array_equal(bank.ask(*questions(20)), expected(questions(20)))
    assert box.asked == 12


@pytest.mark.parametrize("threads", [1, 2])
def test_a_failing_box_stops_with_everything_saved(tmp_path, threads):
    """Breaks if answers before a failure are lost, or the message does not say they are kept."""
    box, asked = Box(dies_after=8), questions(20)
    with Bank(tmp_path / "bank", box.predictor(threads=threads), **SETTINGS) as bank:
        with pytest.raises(HostError, match="gone; all 8 answers are saved in .*bank"):
            bank.ask(*asked)
        box.dies_after = None
        np.testing.assert_array_equal(bank.ask(*asked), expected(asked))
    assert box.asked == 20


def test_the_budget_counts_what_the_bank_holds(tmp_path):
    """Breaks if opening again gives the budget again, or a spent one still asks."""
    box = Box()
    with Bank(tmp_path / "bank", box.predictor(), **SETTINGS, queries=12, price=0.5) as bank:
        assert bank.statement().endswith(
            "holds 0 answers of the black box; 12 of 12 queries are left for 6.00"
        )
        bank.ask(*questions(10))
        assert bank.left == 2
    with Bank(tmp_path / "bank", box.predictor(), **SETTINGS, queries=12, price=0.5) as bank:
        assert bank.statement().endswith("2 of 12 queries are left for 1.00")
        with pytest.raises(HostError, match="of 12 queries is spent but for 2, and 3 are needed"):
            bank.ask(*questions(3, seed=1))
        bank.ask(*questions(10))  # known ones cost nothing
        bank.ask(*questions(2, seed=1))
        assert bank.left == 0
    assert box.asked == 12


OTHERS = {
    "predictor": ({"digest": "other"}, {}),
    "output": ({"output": "sigmoid"}, {}),
    "labels": ({"labels": ("a", "b", "d")}, {}),
    "removal": ({}, {"removal": "mean"}),
    "grid": ({}, {"grid": (5, 2)}),
}


@pytest.mark.parametrize("field", OTHERS)
def test_another_question_is_refused(tmp_path, field):
    """Breaks if answers of another predictor, removal or grid are taken for this one's."""
    options, settings = OTHERS[field]
    with Bank(tmp_path / "bank", Box().predictor(), **SETTINGS) as bank:
        bank.ask(*questions(2))
    before = (tmp_path / "bank").read_bytes()
    with pytest.raises(HostError, match=f"answers of another {field}, "):
        Bank(tmp_path / "bank", Box().predictor(**options), **SETTINGS | settings)
    assert (tmp_path / "bank").read_bytes() == before


def test_another_file_is_left_alone(tmp_path):
    """Breaks if a file that is no bank is overwritten."""
    for content in (b"my notes", b"my notes\nmore", b'{"a": 1}\n', b"[]\n"):
        (tmp_path / "file").write_bytes(content)
        with pytest.raises(HostError, match="is no bank of answers"):
            Bank(tmp_path / "file", Box().predictor(), **SETTINGS)
        assert (tmp_path / "file").read_bytes() == content


def test_a_full_disk_stops_with_what_fits(tmp_path):
    """Breaks if half a record stays, or the bank is spoilt. A limit on file sizes is the disk."""
    box, asked = Box(), questions(8)
    with Bank(tmp_path / "bank", box.predictor(), **SETTINGS) as bank:
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        full = (tmp_path / "bank").stat().st_size + 34 * 5 + 7  # the second four do not fit
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (full, limits[1]))
            with pytest.raises(HostError, match="cannot keep 4 answers: .*; all 4 answers are"):
                bank.ask(*asked)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        np.testing.assert_array_equal(bank.ask(*asked), expected(asked))
    with Bank(tmp_path / "bank", box.predictor(), **SETTINGS) as bank:
        assert len(bank) == 8
    with pytest.raises(HostError, match="cannot be opened: "):
        Bank(tmp_path, Box().predictor(), **SETTINGS)


def test_a_header_of_any_length(tmp_path):
    """Breaks if a bank of many labels cannot be opened again."""
    labels = [f"{i:0200}" for i in range(10_000)]
    predictor = host.host(len, labels=labels, input=(N,), output="value", digest="long")
    for _ in range(2):
        Bank(tmp_path / "bank", predictor, **SETTINGS).close()


def test_one_process_has_the_bank(tmp_path):
    """Breaks if two writers share a file, or one that closed it still holds it."""
    with Bank(tmp_path / "bank", Box().predictor(), **SETTINGS):
        with pytest.raises(HostError, match="in use by another process"):
            Bank(tmp_path / "bank", Box().predictor(), **SETTINGS)
    Bank(tmp_path / "bank", Box().predictor(), **SETTINGS).close()


def test_a_predictor_without_a_lasting_name_is_refused(tmp_path):
    """Breaks if any two lambdas could share a bank."""
    with pytest.raises(ValueError, match="give host a digest"):
        Bank(tmp_path / "bank", Box().predictor(digest=""), **SETTINGS)
    assert not (tmp_path / "bank").exists()


def test_ids_are_of_content_type_and_shape():
    """Breaks if two inputs that differ could share an id, or a copy has another."""
    image = np.arange(12, dtype=np.uint8).reshape(1, 2, 2, 3)
    others = [image.astype(np.float32), image.reshape(1, 3, 2, 2), image[..., ::-1], image + 1]
    ids = [identify(array)[0] for array in (image, *others)] + identify(["a", "b"])
    assert len(set(ids)) == 7 and identify(image.copy())[0] == ids[0]


def test_masks_of_another_size_are_refused(tmp_path):
    """Breaks if a mask is cut or filled up silently."""
    ids, _, make = questions(2)
    with Bank(tmp_path / "bank", Box().predictor(), **SETTINGS) as bank:
        with pytest.raises(
            ValueError, match=re.escape("shape (2, 9) for 2 inputs; wanted (2, 10)")
        ):
            bank.ask(ids, np.ones((2, 9)), make)
        with pytest.raises(ValueError, match="made 1 inputs of 2 rows"):
            bank.ask(ids, np.ones((2, N)), lambda rows: make(rows)[:1])
        assert bank.ask([], np.ones((0, N)), make).shape == (0, 3)


def test_what_is_no_file_or_no_budget_is_refused(tmp_path):
    """Breaks if opening waits for a pipe, or a budget that is none fails when f is asked."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(HostError, match="pipe is no file; choose another"):
        Bank(tmp_path / "pipe", Box().predictor(), **SETTINGS)
    for wrong in ({"queries": -1}, {"queries": 2.5}, {"price": "3"}, {"price": float("nan")}):
        with pytest.raises(ValueError, match=f"Bank: {next(iter(wrong))} is .*; expected"):
            Bank(tmp_path / "bank", Box().predictor(), **SETTINGS, **wrong)
