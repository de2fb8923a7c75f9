"""Any function as a predictor: what it is asked, and which answers pass."""

import re
import threading
import time

import numpy as np
import pytest

from fex_jax import host
from fex_jax.host import HostError

LABELS = ("a", "b", "c")
ROW = np.zeros((1, 2))


def table(call, labels=LABELS, columns=2, **options) -> host.HostPredictor:
    return host.host(call, labels=labels, input=(columns,), **options)


def answering(answer, **options) -> host.HostPredictor:
    return table(lambda batch: answer, **options)


def test_batches_are_bounded_and_come_back_in_order():
    """Breaks if rows are exchanged, lost, or asked more than `batch_size` at a time."""
    sizes = []

    def call(batch):
        sizes.append(len(batch))
        return batch[:, :1] * [1.0, 0, -1] + [0, 1, 0]

    inputs = np.arange(14.0).reshape(7, 2)
    answers = table(call, output="value", batch_size=3)(inputs)
    assert sizes == [3, 3, 1] and answers.dtype == np.float32
    np.testing.assert_array_equal(answers[:, 0], inputs[:, 0])
    np.testing.assert_array_equal(answers[:, 2], -inputs[:, 0])


def test_threads_keep_the_order_and_their_number():
    """Breaks if answers are assembled as they arrive, or more calls run at once than allowed."""
    running, most, lock = 0, 0, threading.Lock()

    def call(batch):
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.002 * (7 - batch[0, 0] % 7))  # later ones come sooner
        with lock:
            running -= 1
        return batch[:, :1]

    predictor = table(call, ("x",), output="value", batch_size=1, threads=3)
    inputs = np.arange(40.0).reshape(20, 2)
    found = []
    askers = [threading.Thread(target=lambda: found.append(predictor(inputs))) for _ in range(3)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    assert len(found) == 3 and most == 3
    for answers in found:
        np.testing.assert_array_equal(answers, inputs[:, :1])


def test_one_thread_is_never_called_twice_at_once():
    """Breaks if several callers reach a function that bears one."""
    busy = threading.Lock()

    def call(batch):
        assert busy.acquire(blocking=False)
        time.sleep(0.002)
        busy.release()
        return batch

    predictor = table(call, ("x", "y"), output="value", batch_size=1)
    failures = []

    def ask():
        try:
            predictor(np.zeros((5, 2)))
        except HostError as error:
            failures.append(error)

    askers = [threading.Thread(target=ask) for _ in range(4)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    assert not failures


@pytest.mark.parametrize("threads", [1, 2])
def test_a_fixed_batch_is_filled_up_and_its_padding_dropped(threads):
    """Breaks if a callee of a fixed batch size sees another, or padding is answered."""

    def call(batch):
        assert batch.shape == (4, 2)
        return batch[:, :1]

    predictor = table(call, ("x",), output="value", batch_size=4, fixed=True, threads=threads)
    inputs = np.arange(18.0).reshape(9, 2)
    np.testing.assert_array_equal(predictor(inputs), inputs[:, :1])
    texts = host.host(
        lambda batch: [float(len(t)) for t in batch] if len(batch) == 2 else [],
        labels=("n",), input="text", output="value", batch_size=2, fixed=True,
    )  # fmt: skip
    np.testing.assert_array_equal(texts(["a", "bb", "ccc"])[:, 0], [1, 2, 3])


def test_no_inputs_ask_nothing():
    """Breaks if an empty batch reaches f, or has another shape."""
    assert table(lambda batch: 1 / 0)(np.zeros((0, 2))).shape == (0, 3)


def test_f_may_spoil_its_input_and_reuse_its_buffer():
    """Breaks if f gets the caller's own array, or its buffer is read after the next call."""
    buffer = np.zeros((2, 1))

    def call(batch):
        batch *= 2
        buffer[: len(batch)] = batch[:, :1]
        return buffer[: len(batch)]

    inputs = np.arange(8.0).reshape(4, 2)
    answers = table(call, ("x",), output="value", batch_size=2)(inputs)
    np.testing.assert_array_equal(answers[:, 0], [0, 4, 8, 12])
    np.testing.assert_array_equal(inputs, np.arange(8.0).reshape(4, 2))


def test_logits_by_hand():
    """Breaks if softmax or sigmoid is not taken; the values are ln 1, ln 2, ln 5 over 8."""
    logits = np.log([[1.0, 2.0, 5.0]])
    np.testing.assert_allclose(
        answering(logits, output="logits")(np.zeros((1, 2))), [[1 / 8, 2 / 8, 5 / 8]], rtol=1e-6
    )
    np.testing.assert_allclose(
        answering(logits, output="sigmoid_logits")(np.zeros((1, 2))),
        [[1 / 2, 2 / 3, 5 / 6]],
        rtol=1e-6,
    )
    far = answering([[1e4, -1e4, 0.0]], output="sigmoid_logits")(np.zeros((1, 2)))
    np.testing.assert_array_equal(far, [[1, 0, 0.5]])


@pytest.mark.parametrize("column", [[0.25, 1.0], [[0.25], [1.0]]])
def test_one_column_is_the_second_of_two_classes(column):
    """Breaks if a binary network's single output is refused or read as the first class's."""
    two = {"labels": ("no", "yes")}
    inputs = np.zeros((2, 2))
    np.testing.assert_allclose(answering(column, **two)(inputs), [[0.75, 0.25], [0, 1]])
    logits = answering(np.log(3) * np.ones((2, 1)), output="logits", **two)(inputs)
    np.testing.assert_allclose(logits, [[0.25, 0.75]] * 2, rtol=1e-6)
    sigmoid = answering(column, labels=("yes",), output="sigmoid")(inputs)
    np.testing.assert_array_equal(sigmoid, [[0.25], [1]])


GOOD = [0.2, 0.3, 0.5]
WRONG = {
    "too few rows": ([GOOD], "shape (1, 3) to 2 inputs; wanted one row of 3"),
    "too many rows": ([GOOD] * 3, "shape (3, 3) to 2 inputs"),
    "too few classes": ([[0.5, 0.5]] * 2, "shape (2, 2) to 2 inputs"),
    "one row without its axis": (GOOD, "shape (3,) to 2 inputs"),
    "nested once more": ([[GOOD] * 2], "shape (1, 2, 3)"),
    "a number": (0.5, "shape ()"),
    "nothing": (None, "values of type object"),
    "text": ([["a", "b", "c"]] * 2, "values of type <U1"),
    "numbers as text": ([["0.2", "0.3", "0.5"]] * 2, "values of type <U3"),
    "true and false": ([[True, False, False]] * 2, "values of type bool"),
    "complex": ([[1j, 0, 0]] * 2, "values of type complex128"),
    "a hole": ([[0.2, None, 0.8]] * 2, "values of type object"),
    "rows of two lengths": ([GOOD, [0.5, 0.5]], "no array of numbers"),
    "a dict": ({"p": GOOD}, "values of type object"),
    "masked": (
        np.ma.masked_array([GOOD, GOOD], [[0] * 3, [1, 0, 0]]),
        "nan for class 0 of input 1",
    ),
    "nan": ([GOOD, [np.nan, 0.5, 0.5]], "nan for class 0 of input 1"),
    "infinity": ([GOOD, [0, np.inf, 0]], "inf for class 1 of input 1"),
    "beyond float32": ([GOOD, [0, 1e300, 0]], "inf for class 1 of input 1"),
    "beyond 64 bits": ([[10**30, 0, 0]] * 2, "values of type object"),
    "negative": ([GOOD, [-0.5, 0.5, 1.0]], "answered -0.5; wanted probabilities"),
    "above one": ([GOOD, [2.0, 0, 0]], "answered 2; wanted probabilities"),
    "sums to .9": ([GOOD, [0.2, 0.2, 0.5]], "sum to 0.9; wanted 1 within 0.01"),
    "all zero": ([GOOD, [0, 0, 0]], "sum to 0;"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_answer_is_one_sentence(what):
    """Breaks if such an answer passes, or its message does not say what came."""
    answer, message = WRONG[what]
    with pytest.raises(HostError, match=re.escape(message)) as caught:
        answering(answer, name="f")(np.zeros((2, 2)))
    assert str(caught.value).startswith("f answered") and "\n" not in str(caught.value)


def test_rounded_probabilities_pass_with_a_tolerance():
    """Breaks if `tolerance` does not widen the sum, or widens single values too."""
    thirds = [[0.33, 0.33, 0.3]]
    np.testing.assert_allclose(answering(thirds, tolerance=0.05)(np.zeros((1, 2))), thirds)
    with pytest.raises(HostError, match="answered -0.4"):
        answering([[-0.4, 0.7, 0.7]], tolerance=0.5)(np.zeros((1, 2)))


def test_sigmoids_need_not_sum_to_one_and_values_are_free():
    """Breaks if multi-label or regression answers are held to a softmax's sum."""
    inputs = np.zeros((1, 2))
    np.testing.assert_allclose(answering([[1, 0.9, 0.0]], output="sigmoid")(inputs), [[1, 0.9, 0]])
    np.testing.assert_array_equal(answering([[-7, 0, 9]], output="value")(inputs), [[-7, 0, 9]])
    with pytest.raises(HostError, match="1.5; wanted probabilities"):
        answering([[1.5, 0, 0]], output="sigmoid")(inputs)


def test_a_call_that_fails_says_what_it_said():
    """Breaks if f's own exception comes out bare, or its answers before are lost."""
    calls = []

    def call(batch):
        calls.append(len(batch))
        if batch[0, 0] == 4:
            raise KeyError("weights")
        return batch[:, :1]

    predictor = table(call, ("x",), output="value", batch_size=2, name="f")
    inputs = np.arange(12.0).reshape(6, 2)
    with pytest.raises(HostError, match="f failed when asked about 2 inputs: KeyError: 'weights'"):
        predictor(inputs)
    came = []
    with pytest.raises(HostError):
        for rows, answers in predictor.each(inputs):
            came.append((rows, answers))
    assert [rows.tolist() for rows, _ in came] == [[0, 1]]


def test_threads_give_what_came_before_they_fail():
    """Breaks if one call's failure loses another's answer, or more calls are started after it."""
    calls = []

    def call(batch):
        calls.append(batch[0, 0])
        if batch[0, 0] == 0:
            time.sleep(0.01)
            raise RuntimeError("gone")
        time.sleep(0.03)
        return batch[:, :1]

    predictor = table(call, ("x",), output="value", batch_size=1, threads=2)
    came = []
    with pytest.raises(HostError, match="gone"):
        for rows, _ in predictor.each(np.arange(100.0).reshape(50, 2)):
            came.append(rows[0])
    assert len(came) == len(calls) - 1 < 10  # all that were asked but the failed one


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (np.zeros((2, 4, 4, 3), np.float32), "takes uint8 images [B, 4, 4, 3]; got float32"),
        (np.zeros((2, 4, 5, 3), np.uint8), "got uint8 [2, 4, 5, 3]"),
        (np.zeros((4, 4, 3), np.uint8), "got uint8 [4, 4, 3]"),
        (np.uint8(0), "got uint8 []"),
    ],
)
def test_other_images_are_refused(inputs, message):
    """Breaks if pictures of another size or kind reach f."""
    predictor = host.host(lambda batch: 1 / 0, labels=LABELS, input=(4, 4, 3))
    with pytest.raises(HostError, match=re.escape(message)):
        predictor(inputs)


def test_other_texts_are_refused():
    """Breaks if one string is taken for many, or something else for a string."""
    predictor = host.host(lambda batch: 1 / 0, labels=LABELS, input="text")
    with pytest.raises(HostError, match="got one string"):
        predictor("good film")
    with pytest.raises(HostError, match="got a list of NoneType, str"):
        predictor(["good", None])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": ()}, "labels are empty"),
        ({"labels": ("one",)}, "a softmax of one class is always 1"),
        ({"output": "probability"}, "output is 'probability'; choose softmax"),
        ({"input": (2, 2)}, "input is (2, 2)"),
        ({"input": "tables"}, "input is 'tables'"),
        ({"input": (0,)}, "input is (0,)"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"batch_size": 2.5}, "batch_size is 2.5"),
        ({"labels": {0: "x", 1: "y"}}, "labels are of type dict; give a list"),
        ({"labels": {"x", "y"}}, "labels are of type set; give a list"),
        ({"labels": 2}, "labels are of type int"),
        ({"input": (True, 8, 3)}, "input is"),
        ({"threads": 0}, "threads is 0"),
        ({"fixed": True}, "fixed needs batch_size"),
        ({"tolerance": float("nan")}, "tolerance is nan"),
        ({"call": 3}, "got int"),
        ({"labels": "no/such/file"}, "cannot read no/such/file"),
    ],
)
def test_arguments_that_cannot_be_are_named(options, message):
    """Breaks if one is taken and fails in the first call."""
    good = {"call": lambda batch: batch, "labels": LABELS, "input": (2,)}
    with pytest.raises(ValueError, match=re.escape(message)):
        host.host(**good | options)


def test_the_digest_names_functions_only():
    """Breaks if two lambdas, or the methods of two objects, would share a bank."""
    assert table(np.linalg.norm).digest == "numpy.linalg:norm"
    assert table(lambda batch: batch).digest == ""
    assert table(np.random.default_rng(0).normal).digest == ""
    assert table(lambda batch: batch, digest="mine").digest == "mine"


def test_check_finds_rows_in_another_order_and_chance():
    """Breaks if answers that depend on the batch pass: shuffled rows look right one by one."""
    inputs = np.arange(8.0).reshape(4, 2)
    table(lambda batch: batch[:, :1], ("x",), output="value").check(inputs)
    by_size = table(lambda batch: np.sort(batch[:, :1], 0), ("x",), output="value")
    with pytest.raises(HostError, match="differently when asked in reverse order, by up to 6"):
        by_size.check(inputs)
    centred = table(lambda batch: batch[:, :1] - batch[:, :1].mean(), ("x",), output="value")
    with pytest.raises(HostError, match="one at a time"):
        centred.check(inputs)


@pytest.mark.parametrize("library", ["pandas.DataFrame", "polars.DataFrame", "pyarrow.table"])
def test_columns_with_names_are_the_labels(library):
    """Breaks if a table's answers are read by position, so that classes are exchanged."""
    library, kind = library.split(".")
    table_of = getattr(pytest.importorskip(library), kind)

    def says(**columns) -> np.ndarray:
        return answering(table_of({name: [p] for name, p in columns.items()}))(ROW)

    np.testing.assert_array_equal(says(C=0.25, a=0.5, b=0.25), says(a=0.5, b=0.25, c=0.25))
    with pytest.raises(HostError, match="answered x, a, b by name; wanted the labels, a, b, c"):
        says(x=0.25, a=0.5, b=0.25)
    # Numbers, or the only column, name no class.
    numbered = answering(table_of({"0": [0.25], "1": [0.5], "2": [0.25]}))(ROW)
    np.testing.assert_array_equal(numbered, [[0.25, 0.5, 0.25]])
    alone = table(lambda batch: table_of({"score": [7.0]}), ("price",), output="value")
    assert alone(ROW) == 7
    second = table(lambda batch: table_of({"score": [0.75]}), ("no", "yes"))
    np.testing.assert_array_equal(second(ROW), [[0.25, 0.75]])
    first = table(lambda batch: table_of({"No": [0.75]}), ("no", "yes"))
    with pytest.raises(HostError, match="answered No by name; wanted the labels, no, yes"):
        first(ROW)


def test_labels_beside_numbers():
    """Breaks if answers by label, as APIs give them, the first sorted, are refused or exchanged."""
    by_label = [{"c": 0.5, "a": 0.25, "b": 0.25}, {"b": 0.75, "a": 0.25, "c": 0.0}]
    scored = [[{"label": k, "score": p} for k, p in row.items()] for row in by_label]
    for answer in (by_label, scored):
        np.testing.assert_array_equal(
            answering(answer)(np.zeros((2, 2))), [[0.25, 0.25, 0.5], [0.25, 0.75, 0]]
        )
    best = [[{"label": "c", "score": 1.0}], [{"label": "b", "score": 1.0}]]
    with pytest.raises(HostError, match="other labels to one input than to another"):
        answering(best)(np.zeros((2, 2)))
    with pytest.raises(HostError, match="answered label, score by name; wanted the labels, a, b"):
        answering([{"label": "c", "score": 1.0}])(ROW)
    for only in ("no", "yes"):
        top = table(lambda batch, label=only: [[{"label": label, "score": 0.9}]], ("no", "yes"))
        with pytest.raises(HostError, match=f"answered {only} by name; wanted the labels, no, yes"):
            top(ROW)
