"""What people have to train on, as a source: folders, files, lists, arrays, tables, iterators."""

import collections
import concurrent.futures
import csv
import io
import itertools
import json
import math
import os
import pathlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf
from PIL import Image
from tqdm import tqdm

from fex_jax import data, text_data
from fex_jax.data import folders, tables
from fex_jax.data.decode import MAX_PIXELS, SUFFIXES, decode
from fex_jax.export import Predictor
from fex_jax.windows import Pair

Source: TypeAlias = data.Source | text_data.Source | tables.Source
Named: TypeAlias = str | Sequence[str] | None  # a column, or two of pairs; None: see `_choose`

_TEXT_FILES = ".csv, .tsv, .jsonl, .parquet or .txt (a text a line)"
# Names that a column of texts or of images has where none is given.
_COLUMNS = {
    text_data.Source: ("text", "sentence", "review", "content", "document"),
    data.Source: ("image", "img", "picture", "pixels"),
}
_CHECKED = 20_000  # files that are opened before training starts
# Items that are taken of an iterator without a limit, and the shortest side of its pictures in
# longest sides of the predictor's input: at 224 pixels some 4 GiB.
_FROM_ITERATORS = {text_data.Source: 100_000, data.Source: 10_000}
_SHRUNK_TO = 1.5


def open_data(
    predictor: Predictor, given: Any, column: Named = None, limit: int | None = None
) -> tuple[Source, str]:
    """A source of what `fex_jax.fit` was given, in a fixed random order, and what was skipped.

    Args:
      predictor: says whether the data are images or texts.
      given: see `fex_jax.fit`.
      column: of a table; by default the one that is named like what it holds, or the only one. Of
        pairs of texts, two.
      limit: items to use; None: all.

    Raises:
      ValueError: what cannot be used, and why.
    """
    if isinstance(given, str) and not given.strip():
        raise ValueError(f"the data is {given!r}; expected the path of a file or a folder")
    kind = text_data.Source if predictor.modality == "texts" else data.Source
    is_path = isinstance(given, str | os.PathLike)
    if isinstance(given, data.Source | text_data.Source):
        if not isinstance(given, kind):
            raise ValueError("the data is a source of images or texts, the predictor takes others")
        return (given.split(limit)[0] if limit and limit < given.size else given), ""
    if (names := _columns(given)) is not None:
        given = _column(given, _choose(names, column, _COLUMNS[kind]))
    elif column is not None and not (kind is text_data.Source and is_path):
        raise ValueError(f"column is {column!r}, but the data is no table: leave it out")
    if isinstance(given, Iterator):
        given = itertools.islice(given, limit or _FROM_ITERATORS[kind])
        if kind is data.Source:
            side = _SHRUNK_TO * max(predictor.preprocessing.sides)
            given = [_shrink(_decode(x, f"image {i}"), side) for i, x in enumerate(given)]
    skipped: collections.Counter = collections.Counter()
    if kind is text_data.Source:
        items = _texts(given, column, skipped)
        if not predictor.inside and not all(isinstance(text, str) for text in items):
            raise ValueError("the data are pairs; a black box of texts reads single strings")
    else:
        items = _images(given, skipped)
    words = f"; skipped {skipped.total()}: " if skipped else ""
    words += ", ".join(f"{count} {reason}" for reason, count in skipped.most_common(10))
    if not len(items):
        raise ValueError(f"the data holds nothing to train on{words}")
    order = np.random.default_rng(0).permutation(len(items))[:limit]
    if kind is text_data.Source:
        labels = np.zeros(len(order), np.int32)
        return text_data.Source([items[i] for i in order], labels, predictor.labels), words
    return _image_source(items, order, predictor.labels), words


# ---------------------------------------------------------------- images


def _images(given: Any, skipped: collections.Counter) -> Any:
    """Pictures, or files of pictures that open."""
    if isinstance(given, str | os.PathLike):
        given = _walk(pathlib.Path(given).expanduser(), SUFFIXES, "images", skipped)
    if isinstance(given, _Column):
        return given
    if hasattr(given, "ndim"):
        if given.ndim != 4:
            raise ValueError(
                f"the images are an array of shape {tuple(given.shape)}; expected [B, H, W, 3]"
            )
        return np.asanyarray(given)  # of masked arrays, `decode` says what to do
    if not isinstance(given, Iterable):
        raise ValueError(
            f"{type(given).__name__} cannot be trained on: expected a folder, a list of pictures "
            "or paths, an array [B, H, W, 3], an iterator, a table or a source"
        )
    items = list(given)
    if all(isinstance(item, str | os.PathLike) for item in items[:_CHECKED]):
        checked = tqdm(items[:_CHECKED], "files", leave=False)
        with concurrent.futures.ThreadPoolExecutor() as pool:
            whole = list(pool.map(_opens, checked)) + [True] * (len(items) - _CHECKED)
        broken = [item for item, fine in zip(items, whole, strict=False) if not fine]
        if broken:
            shown = ", ".join(map(str, broken[:3])) + (", …" if len(broken) > 3 else "")
            skipped[f"that cannot be read as images ({shown})"] += len(broken)
        items = [item for item, fine in zip(items, whole, strict=False) if fine]
    return items


def _decode(picture: Any, where: str) -> np.ndarray:
    if isinstance(picture, dict):  # an image of `datasets` that is not decoded
        picture = picture.get("bytes") or picture.get("path")
    return decode(picture, where)


def _image_source(items: Sequence, order: np.ndarray, labels: tuple[str, ...]) -> data.Source:
    def read(i: np.ndarray) -> np.ndarray:
        return _decode(items[int(i)], f"image {i}")

    def example(record: dict) -> dict:
        image = tf.numpy_function(read, [record["index"]], tf.uint8)
        return {"image": tf.ensure_shape(image, (None, None, 3)), "label": tf.zeros((), tf.int32)}

    files = [b""] * len(order)
    if isinstance(items, list):
        paths = (items[i] if isinstance(items[i], str | os.PathLike) else "" for i in order)
        files = [os.fsencode(path) for path in paths]
    records = tf.data.Dataset.from_tensor_slices({"index": order, "file": np.array(files)})
    return data.Source(records, example, len(order), len(order), labels)


def _opens(file: str | os.PathLike) -> bool:
    """Whether a file is a whole picture; JPEGs are decoded at an eighth of their size."""
    try:
        with Image.open(file) as image:
            if math.prod(image.size) > MAX_PIXELS:
                return False
            image.draft("RGB", (64, 64))
            image.load()
    except Exception:  # PIL's readers raise anything at a damaged file
        return False
    return True


def _shrink(pixels: np.ndarray, side: float) -> np.ndarray:
    """A picture whose shortest side is at most `side`: what an iterator yields stays in memory."""
    ratio = side / min(pixels.shape[:2])
    if ratio >= 1:
        return pixels
    size = [max(1, round(ratio * n)) for n in pixels.shape[1::-1]]
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))


# ---------------------------------------------------------------- texts


def _texts(given: Any, column: Named, skipped: collections.Counter) -> list[str | Pair]:
    """The texts that are not blank, and the pairs of them."""
    if isinstance(given, str | os.PathLike):
        found = _read_texts(pathlib.Path(given).expanduser(), column, skipped)
    elif isinstance(given, Iterable):
        found = [_read(x) if isinstance(x, os.PathLike) else x for x in given]
    else:
        raise ValueError(
            f"{type(given).__name__} cannot be trained on: expected a list of texts, a file, a "
            "folder of .txt files, an iterator, a table or a source"
        )
    texts: list[str | Pair] = []
    for i, text in enumerate(found):
        is_pair = isinstance(text, list | tuple) and len(text) == 2
        parts = list(text) if is_pair else [text]
        if any(map(_is_blank, parts)):
            skipped["without text"] += 1
        elif all(isinstance(part, str) for part in parts):
            texts.append((parts[0], parts[1]) if is_pair else text)
        else:
            raise ValueError(
                f"text {i} is of type {type(text).__name__}; expected a string, or a pair of them"
            )
    return texts


def _is_blank(text: Any) -> bool:
    """Whether there is no text; NaN is how pandas has a missing one."""
    return text is None or text != text or (isinstance(text, str) and not text.strip())


def _read_texts(path: pathlib.Path, column: Named, skipped: collections.Counter) -> list:
    """The texts of a folder or a file, blank ones included."""
    if path.is_dir():
        return [_read(file) for file in _walk(path, {".txt"}, "texts", skipped)]
    if not path.is_file():
        raise ValueError(f"there is no file or folder {path}; a text of your own goes in a list")
    suffix = path.suffix.lower()
    if suffix == ".txt":
        return _read(path).splitlines()
    if suffix == ".parquet":
        try:
            from pyarrow import parquet
        except ModuleNotFoundError:
            raise ValueError(f"{path} needs pyarrow: pip install pyarrow") from None
        try:
            table = parquet.read_table(path)
        except OSError as error:  # as Arrow's own errors are
            raise ValueError(f"{path} cannot be read as Parquet: {error}") from None
        names = table.column_names
    elif suffix in (".jsonl", ".ndjson"):
        rows = list(_json_rows(path))
        names = list(dict.fromkeys(name for row in rows for name in row))
    elif suffix in (".csv", ".tsv"):
        csv.field_size_limit(2**31 - 1)
        tabs: dict[str, Any] = {"delimiter": "\t", "quoting": csv.QUOTE_NONE}
        style = tabs if suffix == ".tsv" else {}
        reader = csv.DictReader(io.StringIO(_read(path), newline=""), **style)
        rows, names = list(reader), list(reader.fieldnames or ())
    else:
        raise ValueError(f"{path} is no file of texts: expected {_TEXT_FILES}, or a folder of .txt")
    name = _choose(names, column, _COLUMNS[text_data.Source], str(path))
    if suffix == ".parquet":
        rows = table.select([name] if isinstance(name, str) else list(name)).to_pylist()
    if isinstance(name, tuple):
        return [tuple(map(row.get, name)) for row in rows]
    return [row.get(name) for row in rows]


def _json_rows(path: pathlib.Path) -> Iterator[dict]:
    for number, line in enumerate(_read(path).split("\n"), 1):
        if line.strip():
            try:
                row = json.loads(line)
            except ValueError as error:
                raise ValueError(f"{path}, line {number}, is not JSON: {error}") from None
            if not isinstance(row, dict):
                raise ValueError(f"{path}, line {number}, is no JSON object")
            yield row


def _read(path: str | os.PathLike) -> str:
    try:
        return pathlib.Path(path).read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not UTF-8 (byte {error.start}): convert it, as with iconv -t UTF-8"
        ) from None


# ---------------------------------------------------------------- both


class _Column(Sequence):
    """A column of a table whose cells are read when they are asked for."""

    def __init__(self, cell: Callable[[int], Any], size: int):
        self._cell, self._size = cell, size

    def __getitem__(self, i: int) -> Any:
        return self._cell(int(i))

    def __len__(self) -> int:
        return self._size


def _columns(given: Any) -> list[str] | None:
    """The columns of a `datasets.Dataset` or a pandas DataFrame; None: it is no table."""
    if isinstance(given, dict):
        names = ", ".join(map(str, given)) or "nothing"
        raise ValueError(f"the data is a dict of {names}: choose one of its values")
    names = getattr(given, "column_names", None)
    if names is None and hasattr(given, "iloc") and hasattr(given, "columns"):
        names = given.columns
    return None if names is None else list(names)


def _column(table: Any, name: str | Pair) -> Sequence | Iterator:
    def cell(row: Any) -> Any:
        return tuple(row[part] for part in name) if isinstance(name, tuple) else row[name]

    if hasattr(table, "iloc"):
        pairs = isinstance(name, tuple)
        return list(zip(*(table[part] for part in name), strict=True) if pairs else table[name])
    if hasattr(table, "__len__"):
        return _Column(lambda i: cell(table[i]), len(table))
    return (cell(row) for row in table)  # a data set that is streamed


def _choose(
    names: Sequence[str], column: Named, known: Sequence[str], where: str = "the data"
) -> str | Pair:
    """The column that is asked for, or is named like what it holds, or the only one.

    Raises:
      ValueError: there is none, or it is not there.
    """
    pairs = [(column[0], column[1])] if isinstance(column, list | tuple) else []
    if column is None and known is _COLUMNS[text_data.Source]:
        pairs = [pair for pair in text_data.PAIRS if set(pair) <= set(names)]
    if pairs and set(pairs[0]) <= set(names):
        return pairs[0]
    likely = [name for name in known if name in names] + list(names) * (len(names) == 1)
    chosen = column if column is not None else next(iter(likely), None)
    if not isinstance(chosen, str) or chosen not in names:
        asked = f" but no {column!r}" if column is not None else ""
        raise ValueError(
            f"{where} has the columns {', '.join(map(str, names)) or 'of nothing'}{asked}: name "
            "the one to train on with column="
        )
    return chosen


def _walk(
    root: pathlib.Path, suffixes: Collection[str], what: str, skipped: collections.Counter
) -> list[pathlib.Path]:
    """All files below a folder with one of the endings, sorted; hidden ones are passed over."""
    if not root.is_dir():
        kind = "a file" if root.exists() else "not there"
        raise ValueError(f"{root} is {kind}; expected a folder of {what}")
    found = []
    for file in folders.walk(root, skipped):
        suffix = file.suffix.lower()
        if suffix in suffixes:
            found.append(file)
        else:
            skipped[suffix or "without an ending"] += 1
    return sorted(found)
