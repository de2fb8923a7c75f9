"""A black box on the host: any function that answers batches of numpy arrays or of strings."""

import concurrent.futures
import dataclasses
import pathlib
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np

from fex_jax import checks
from fex_jax.errors import HostError
from fex_jax.host.answers import SomeRows, brief, check, same
from fex_jax.outputs import Output

Batch = Any  # an array, a list of strings or a data frame

Input = tuple[int, ...] | Literal["text", "table"]

_OUTPUTS: dict[str, tuple[Output, bool]] = {
    "softmax": ("softmax", False),
    "sigmoid": ("sigmoid", False),
    "value": ("value", False),
    "logits": ("softmax", True),
    "sigmoid_logits": ("sigmoid", True),
}
_CHECKS = {
    "batch_size": checks.either(checks.integer(1, 2**31 - 1), checks.nothing()),
    "threads": checks.integer(1, 2**16),
    "tolerance": checks.number(0, 1e6),
    "costly": checks.flag(),
}


@runtime_checkable
class Features(Protocol):
    """What removes features of arrays: a `features.OwnMask`, for which this file needs no JAX."""

    num_features: int

    def remove(self, things: np.ndarray, kept: np.ndarray) -> np.ndarray:
        """Things without what is not kept."""

    def check(self, things: np.ndarray) -> None:
        """Tries it on some things."""

    def removal(self, shape: tuple[int, ...]) -> Any:
        """What can be kept of it."""


@dataclasses.dataclass(frozen=True, eq=False)
class HostPredictor:
    """A classifier that is asked by calling it; made by `host`, which explains the fields.

    Calling it answers a batch of any size: float32 [B, K], probabilities of a softmax or of
    sigmoids, or values. Any number of threads may do so at a time.
    """

    call: Callable[[Any], Any]
    labels: tuple[str, ...]
    input: Input
    output: Output
    logits: bool
    name: str
    digest: str
    batch_size: int | None
    fixed: bool
    threads: int
    tolerance: float
    columns: tuple[str | int, ...] | None
    features: Features | None
    words: tuple[str, ...]
    costly: bool
    _free: threading.Semaphore = dataclasses.field(repr=False)

    def __getstate__(self) -> dict[str, Any]:
        """What can be sent to another process, where others call."""
        return vars(self) | {"_free": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _free=threading.BoundedSemaphore(state["threads"]))

    @property
    def modality(self) -> str:
        """Of `fex_jax.modalities`: what its inputs are."""
        if self.features is not None:
            return "arrays"
        if self.input == "text":
            return "texts"
        return "tables" if self.input == "table" or len(self.input) == 1 else "images"

    def __call__(self, inputs: Any) -> np.ndarray:
        """Answers [B, K] to B inputs, in their order.

        Raises:
          HostError: inputs of another kind than `input`, a call that failed, or an answer that
            cannot be used.
        """
        inputs = self.checked(inputs)
        answers = np.empty((len(inputs), len(self.labels)), np.float32)
        for rows, some in self.each(inputs):
            answers[rows] = some
        return answers

    def each(self, inputs: Any) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(rows [n], their answers [n, K]) of one call after the other, as they come.

        After a call fails no other is made; its HostError is raised when all answers that still
        came have been given, so that none that was paid for is lost. Nor are those of a call that
        answered some of its inputs with NaN.
        """
        inputs = self.checked(inputs)
        size = self.batch_size or max(len(inputs), 1)
        pieces = [slice(i, min(i + size, len(inputs))) for i in range(0, len(inputs), size)]
        numbers = np.arange(len(inputs))
        if min(self.threads, len(pieces)) <= 1:
            for piece in pieces:
                try:
                    answers = self._ask(inputs[piece])
                except SomeRows as error:
                    yield _usable(error, numbers[piece])
                    raise
                yield numbers[piece], answers
            return
        failure = None
        with concurrent.futures.ThreadPoolExecutor(self.threads) as pool:
            waiting = {pool.submit(self._ask, inputs[piece]): numbers[piece] for piece in pieces}
            try:
                for done in concurrent.futures.as_completed(waiting):
                    if done.cancelled():
                        continue
                    if error := done.exception():
                        failure = failure or error
                        for other in waiting:
                            other.cancel()
                        if isinstance(error, SomeRows):
                            yield _usable(error, waiting[done])
                    else:
                        yield waiting[done], done.result()
            finally:
                pool.shutdown(wait=False, cancel_futures=True)
        if failure:
            raise failure

    def check(self, inputs: Any) -> None:
        """Asks about a few inputs together, in reverse, and each alone: 3 B queries.

        Raises:
          HostError: an input's answer depends on its batch. Rows come back in another order, or f
            is random (dropout), or reads the batch (batch normalisation in training mode).
        """
        inputs = self.checked(inputs)
        together = self(inputs)
        alone = [self(inputs[i : i + 1]) for i in range(len(inputs))]
        for how, again in (
            ("in reverse order", self(inputs[::-1])[::-1]),
            ("one at a time", np.concatenate(alone) if alone else together),
        ):
            if not same(together, again):
                worst = np.abs(together - again).max()
                raise HostError(
                    f"{self.name} answers the same inputs differently when asked {how}, by up to "
                    f"{worst:.3g}; wanted answers that depend on the input alone, in the order of "
                    "the inputs"
                )

    def checked(self, inputs: Any) -> Batch:
        """The inputs as this predictor takes them, or a HostError that says what it takes."""
        if self.input == "text":
            texts = inputs if isinstance(inputs, str) else list(inputs)
            if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
                raise HostError(
                    f"{self.name} takes a list of strings; got "
                    + ("one string" if isinstance(texts, str) else _kinds(texts))
                )
            return texts
        if self.input == "table":
            if not (hasattr(inputs, "iloc") and hasattr(inputs, "columns")):
                raise HostError(
                    f"{self.name} takes a pandas DataFrame; got {type(inputs).__name__}"
                )
            return inputs
        try:
            values = np.asarray(inputs)
        except ValueError:  # as of pictures of several sizes
            values = np.empty(len(inputs), object)
        images = len(self.input) == 3 and self.features is None
        right = values.dtype == np.uint8 if images else values.dtype.kind in "fiub"
        if values.shape[1:] != self.input or not values.ndim or not right:
            wanted = ", ".join(map(str, ("B", *self.input)))
            raise HostError(
                f"{self.name} takes {'uint8 images' if images else 'numbers'} [{wanted}]; got "
                f"{values.dtype} {list(values.shape)}"
            )
        return values

    def _ask(self, batch: Batch) -> np.ndarray:
        rows = len(batch)
        asked = self.batch_size if self.fixed and rows else rows
        places = np.minimum(np.arange(asked), rows - 1)  # the last again, where more are wanted
        # A copy: f may write into it.
        if self.input == "text":
            batch = [batch[place] for place in places]
        else:
            batch = batch.take(places, axis=0)
        with self._free:
            try:
                answer = self.call(batch)
            except SomeRows as error:  # rows of a call within
                raise HostError(str(error)) from error
            except HostError:
                raise
            except Exception as error:
                raise HostError(
                    f"{self.name} failed when asked about {asked} inputs: {brief(error)}"
                ) from error
            # Inside: a callee may answer in a buffer that its next call overwrites.
            return check(
                answer, asked, self.labels, self.output, self.logits, self.tolerance, self.name
            )[:rows]


def host(
    call: Callable[[Any], Any],
    *,
    labels: Sequence[str] | str | pathlib.Path,
    input: Input,
    output: Literal["softmax", "sigmoid", "value", "logits", "sigmoid_logits"] = "softmax",
    batch_size: int | None = None,
    fixed: bool = False,
    threads: int = 1,
    tolerance: float = 0.01,
    columns: Sequence[str | int] | None = None,
    features: Features | None = None,
    words: Sequence[str] = (),
    costly: bool = False,
    name: str | None = None,
    digest: str | None = None,
) -> HostPredictor:
    """Makes a predictor of any function that answers batches; nothing of it need know JAX.

    Args:
      call: batch → answers [B, K], as anything that numpy makes an array of. One column is enough
        where `output` is a softmax of two classes: it is the second one's.
      labels: names of the K classes, or a file with one on each line. Where several have one name,
        as in lists of ImageNet's, their numbers name them.
      input: what a batch is. (height, width, channels): a uint8 array [B, H, W, C]; (columns,): an
        array of numbers [B, D]; "table": a pandas DataFrame of B rows; "text": a list of B strings;
        with `features` the shape of any array of numbers, [B, ...].
      output: what answers are. "softmax": probabilities of classes that exclude each other;
        "sigmoid": a probability for each label; "value": any number, as of a regression; "logits"
        and "sigmoid_logits": what softmax or sigmoids are still to be taken of.
      batch_size: inputs in a call at most; None: all that are there.
      fixed: a call must have exactly `batch_size` inputs; the last is filled up.
      threads: calls at the same time. `call` must bear it.
      tolerance: by how much probabilities of a softmax may miss the sum 1, rounded ones for one.
      columns: of a table, those that `call` takes, in its order; None: all that a table has.
      features: `fex_jax.host.OwnMask(mask, N)` removes what is removed of arrays.
      words: of texts, such as f knows to stand for any other, "[MASK]": the probe tries them in the
        place of removed ones.
      costly: answers cost money or time, as an endpoint's: those about tables are kept, too.
      name: what messages call it; None: the qualified name of a function.
      digest: what changes when the answers change: banks of answers compare it. None: the
        qualified name of a function; an object, a method or a lambda has none.

    Raises:
      ValueError: an argument that cannot be.
    """
    if not callable(call):
        raise ValueError(f"host takes a function of a batch; got {type(call).__name__}")
    if isinstance(labels, str | pathlib.Path):
        labels = read_labels(labels)
    if isinstance(labels, Mapping | Set) or not isinstance(labels, Iterable):
        raise ValueError(  # a set has no order, and of a mapping the names may be either side
            f"labels are of type {type(labels).__name__}; give a list, one name for each class in "
            "the order of the answers"
        )
    labels = tuple(str(label) for label in labels)
    if not labels:
        raise ValueError("labels are empty; give one name for each class")
    if not isinstance(output, str) or output not in _OUTPUTS:
        raise ValueError(f"output is {output!r}; choose {', '.join(_OUTPUTS)}")
    if output in ("softmax", "logits") and len(labels) == 1:
        raise ValueError(
            f"a {output} of one class is always 1; give two labels, or output='sigmoid' or 'value'"
        )
    if not (isinstance(input, str) and input in ("text", "table")):
        shape = tuple(input) if isinstance(input, tuple | list | np.ndarray) else ()
        known = len(shape) in (1, 3) or (shape and features is not None)
        if not known or not all(map(checks.integer(1, 2**31 - 1).fits, shape)):
            raise ValueError(
                f"input is {input!r}; give (height, width, channels) of images, (columns,) of "
                "arrays, 'table' or 'text', or with features the shape of an array"
            )
        input = tuple(map(int, shape))
    if features is not None and (not isinstance(features, Features) or isinstance(input, str)):
        raise ValueError(
            f"features are {features!r} of input {input!r}; give fex_jax.host.OwnMask(mask, N) "
            "beside the shape of an array, or leave them out"
        )
    given = {"batch_size": batch_size, "threads": threads, "tolerance": tolerance, "costly": costly}
    checks.require(given, _CHECKS, "host")
    if fixed and batch_size is None:
        raise ValueError("fixed needs batch_size: how many inputs a call must have")
    output, logits = _OUTPUTS[output]
    found = qualified_name(call)
    return HostPredictor(
        call, labels, input, output, logits, name or found or "the black box",
        found if digest is None else digest, batch_size, fixed, threads, tolerance,
        None if columns is None else tuple(columns), features, tuple(words), costly,
        threading.BoundedSemaphore(threads),
    )  # fmt: skip


def qualified_name(call: Callable[..., Any]) -> str:
    """package.module:function, or "" for what a name does not find again."""
    name = getattr(call, "__qualname__", "<none>")
    module = getattr(call, "__module__", None)
    if "<" in name or module is None or hasattr(call, "__self__"):  # a method's object has state
        return ""
    if module == "__main__":
        module = pathlib.Path(getattr(sys.modules[module], "__file__", module)).stem
    return f"{module}:{name}"


def read_labels(path: str | pathlib.Path) -> tuple[str, ...]:
    """One label a line, in the order of the classes.

    Raises:
      ValueError: no such file, or an empty one.
    """
    try:
        labels = pathlib.Path(path).read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"labels: cannot read {path} as lines of text: {error}") from error
    if not labels:
        raise ValueError(f"labels: {path} is empty; give one label a line")
    return tuple(label.strip() for label in labels)


def _usable(error: SomeRows, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What can be used of a call about these rows, without what filled it up."""
    asked = error.rows < len(rows)
    return rows[error.rows[asked]], error.answers[asked]


def _kinds(values: list[Any]) -> str:
    return "a list of " + ", ".join(sorted({type(value).__name__ for value in values}))
