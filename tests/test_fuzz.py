"""Whatever comes in, a right map or one clear sentence comes out, soon and within bounds."""

import html
import io
import re
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fex_jax import escape, explain
from fex_jax.models.policy import functional_policy
from tests import tiny_text
from tests.conftest import random_params
from tests.fuzzing import NASTY, SEEDS, bounded, fuzz, outcome

__all__ = ["bounded"]  # a fixture of every test here


def check(found: explain.Explanation | None, count: int | None = None) -> None:
    """A right result: of so many pictures, finite, with λ in [0, 1]."""
    if found is None:
        return
    count = len(found.attributions) if count is None else count
    assert found.attributions.shape == (count, 8, 8)
    assert np.isfinite(found.logits).all() and np.isfinite(found.probabilities).all()
    assert ((found.attributions >= 0) & (found.attributions <= 1)).all()
    assert ((found.targets >= 0) & (found.targets < 10)).all()


@pytest.fixture(scope="module")
def explainer() -> explain.Explainer:
    """Of images of 64 px and ten classes."""
    return explain.load("models/digits_fex")


@pytest.fixture(scope="module")
def reader() -> explain.Explainer:
    """Of texts, tiny and with random weights."""
    predictor = tiny_text.checkpoint()
    init, _ = functional_policy(predictor.config, 2)
    return explain.Explainer(predictor, predictor.config, random_params(init), budget=-3.0)


# --- Pictures ----------------------------------------------------------------------------------

SHAPES = [
    (64, 64, 3), (1, 64, 64, 3), (2, 64, 64, 3), (64, 64), (64, 64, 1), (64, 64, 4), (3, 64, 64),
    (1, 3, 64, 64), (), (3,), (0, 64, 64, 3), (64, 0, 3), (1, 1, 3), (1, 900, 3), (7, 5, 3),
    (1, 1, 1, 1, 3), (40, 90, 3),
]  # fmt: skip
DTYPES = ["u1", "f4", "f8", "f2", "?", "i1", "i8", "u2", "c8", "O", "U3", "S3", "M8[s]", "bfloat16"]
SPECIAL = [
    None,
    0.0,
    1.0,
    1 + 1e-7,
    -1e-7,
    1.0001,
    -0.01,
    1.01,
    2.0,
    255.0,
    np.nan,
    np.inf,
    -np.inf,
]


def array(shape: tuple[int, ...], dtype: str, special: float | None, seed: int) -> np.ndarray:
    """Random values in [0, 1], or to 255 where they are whole, one of them a special one."""
    values = np.random.default_rng(seed).random(shape)
    values = np.where(values < 0.2, special, values) if special is not None else values
    if dtype in ("u1", "i1", "i8", "u2"):
        values = np.nan_to_num(values * 100, posinf=0, neginf=0).clip(0, 120)
    with np.errstate(all="ignore"):
        return values.astype("i8").astype(dtype) if dtype == "M8[s]" else values.astype(dtype)


def content(kind: str, seed: int, flips: list[tuple[int, int]], stop: float) -> bytes:
    """An encoded picture with some bytes replaced and its end cut off."""
    rng = np.random.default_rng(seed)
    picture = Image.fromarray(rng.integers(0, 256, (20, 24, 3), np.uint8))
    file = io.BytesIO()
    picture.save(file, kind)
    damaged = bytearray(file.getvalue())
    for place, value in flips:
        damaged[place % len(damaged)] = value
    return bytes(damaged[: round(stop * len(damaged))])


arrays = st.builds(
    array, st.sampled_from(SHAPES), st.sampled_from(DTYPES), st.sampled_from(SPECIAL), SEEDS
)
contents = st.builds(
    content,
    st.sampled_from(["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "TGA"]),
    SEEDS,
    st.lists(
        st.tuples(st.integers(0, 200) | st.integers(0, 2000), st.integers(0, 255)), max_size=4
    ),
    st.sampled_from([1.0, 1.0, 1.0, 0.99, 0.5, 0.1, 0.0]),
)
CONTAINERS = [
    lambda x: x, lambda x: [x], lambda x: (x, x), jnp.asarray, np.ma.masked_invalid, iter,
    lambda x: np.ma.masked_greater(x, 0.5), lambda x: {"image": x}, lambda x: x.tolist(),
    lambda x: np.broadcast_to(x, (1, *x.shape)), lambda x: [[x]], lambda x: x[..., ::-1],
]  # fmt: skip


@fuzz(100)
@given(arrays, st.sampled_from(CONTAINERS))
def test_arrays(explainer, picture, container):
    """Breaks if an array is scaled or read along other axes without a word, or ends in NumPy."""
    try:
        images = container(picture)
    except (TypeError, ValueError):  # JAX and NumPy cannot make that of it
        return
    check(outcome(lambda: explainer(images, batch_size=1)))


@fuzz(100)
@given(contents, st.sampled_from([bytes, io.BytesIO, bytearray, memoryview]))
def test_encoded_pictures(explainer, encoded, kind):
    """Breaks if a damaged file ends in PIL, or asks for gigabytes."""
    check(outcome(lambda: explainer(kind(encoded), batch_size=1)), 1)


@fuzz(60)
@given(st.text(st.characters(exclude_categories=()), max_size=40), st.booleans())
def test_names_of_files(explainer, tmp_path_factory, name, folder):
    """Breaks if a file's name ends in the system's error, or steers a terminal."""
    path = str(tmp_path_factory.getbasetemp() / "x") + "/" + name if folder else name
    assert outcome(lambda: explainer(path, batch_size=1)) is None


# --- Targets and options -----------------------------------------------------------------------


def forms(value: Any) -> list[Any]:
    """A value alone, in lists and as arrays of NumPy and JAX."""
    found = [value, [value], (value, value), {value} if isinstance(value, int | str) else [[value]]]
    for make in (np.array, jnp.asarray, np.ma.masked_invalid, lambda x: jnp.asarray([x])):
        try:
            found.append(make(value))
        except (TypeError, ValueError, OverflowError):
            pass
    return found


TARGETS = [*NASTY, 6, 9, 10, 6.9, 6.0, "6", "\ud800", b"6", 1j, np.bool_(True), np.uint8(3)]


@fuzz(100)
@given(st.sampled_from(TARGETS), st.integers(0, 7))
def test_targets(explainer, value, form):
    """Breaks if 6.9, True or NaN names a class, or anything ends in a traceback."""
    pixels = np.zeros((1, 64, 64, 3), np.uint8)
    targets = (shapes := forms(value))[form % len(shapes)]
    found = outcome(lambda: explainer(pixels, targets, batch_size=1))
    check(found, 1)
    if found is not None and targets is not None:
        (meant,) = np.asarray(value).ravel().tolist()
        number = explainer.predictor.labels.index(meant) if isinstance(meant, str) else meant
        assert type(number) is int and number == found.targets[0]


OPTIONS = {
    "refine": {0, 8},
    "batch_size": {1},
    "top_k": {None, 1},
    "resolution": {"patch"},
}


@fuzz(100)
@given(
    st.sampled_from(sorted(OPTIONS)), st.sampled_from([*NASTY, np.int64(8), np.float32(8), b"8"])
)
def test_options(explainer, name, value):
    """Breaks if 8.0, "8" or True passes for a number, or a wrong option ends in JAX."""
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if name != "resolution" and whole and 1 < value < 65_000 and (name, value) != ("refine", 8):
        return  # right, and each a program of its own
    options = {"batch_size": 1} | {name: value}
    found = outcome(lambda: explainer(np.zeros((64, 64, 3), np.uint8), **options))
    if found is not None:
        assert value in OPTIONS[name] and not isinstance(value, bool | float)


# --- Texts -------------------------------------------------------------------------------------

pieces = st.sampled_from(
    [*tiny_text.WORDS, " ", "\n", "\x00", "\x1b[2J", "\u202e", "[MASK]", "<b>", "é"]
)
texts = st.text(st.characters(exclude_categories=()), max_size=60) | st.lists(pieces).map(" ".join)


@fuzz(100)
@given(texts)
def test_texts(reader, text):
    """Breaks if a character is lost, printed twice or obeyed, or a text ends in the tokenizer."""
    found = outcome(lambda: reader(text, batch_size=2))
    if found is None:
        return
    (explanation,) = found
    assert np.isfinite(explanation.scores).all()
    assert ((explanation.scores >= 0) & (explanation.scores <= 1)).all()
    shown = re.sub(r"\x1b\[(0|33|1;31)m", "", str(explanation))
    assert escape.terminal(shown) == shown
    page = explanation.to_html()
    assert html.unescape(re.sub("<[^>]+>", "", page.split("<br>")[1])) == escape.terminal(text)


@fuzz(60)
@given(st.sampled_from(TARGETS), st.integers(0, 7))
def test_things_that_are_no_texts(reader, value, form):
    """Breaks if None, bytes or numbers are read as texts, or end in a traceback."""
    things = (shapes := forms(value))[form % len(shapes)]
    found = outcome(lambda: reader(things, batch_size=2))
    if found is not None:
        assert all(isinstance(explanation.text, str) for explanation in found)


def test_a_million_characters(reader):
    """Breaks if a text's length is not bounded by its words: this is a single one."""
    (explanation,) = reader("x" * 10**6, batch_size=2)
    assert explanation.spans.tolist() == [[0, 10**6]] and np.isfinite(explanation.scores).all()
