"""Texts to train on and to score: files, folders, lists, tables and iterators of them."""

import collections
import itertools
import json
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import ml_collections
import numpy as np

from fex_jax import settings, text_data, text_streams, tokens
from fex_jax.feeding.given import Named, choose, from_table, shuffled, source_of, walk
from fex_jax.feeding.lengths import suit_length
from fex_jax.windows import Pair

if TYPE_CHECKING:
    from fex_jax.export import Predictor

PRESET, SETTINGS = "contrast", settings.default
OPTIONS = ("column",)
THINGS, ONCE = "texts", True
_FILES = ".csv, .tsv, .jsonl, .parquet or .txt (a text a line)"
# Names of a column where none is given.
_COLUMNS = "text", "sentence", "review", "content", "document"
_FROM_ITERATORS = 100_000  # texts that are taken of an iterator without a limit


def open_source(
    predictor: "Predictor", config: ml_collections.ConfigDict, split: str
) -> text_data.Source:
    """A split of the data that a config names."""
    return text_data.open_source(config.data.name, split, config.data.path, predictor.labels)


def open_data(
    predictor: "Predictor", given: Any, limit: int | None, *, column: Named = None
) -> tuple[text_data.Source, dict, str]:
    """See `feeding.open_data`; `column` holds texts, two of them pairs."""
    if (source := source_of(given, text_data.Source, limit)) is not None:
        return source, {}, ""
    given = from_table(given, column, _COLUMNS, text_data.PAIRS, files=True)
    if isinstance(given, Iterator):
        given = itertools.islice(given, limit or _FROM_ITERATORS)
    skipped: collections.Counter = collections.Counter()
    items = _texts(given, column, skipped)
    if not predictor.inside and not all(isinstance(text, str) for text in items):
        raise ValueError("the data are pairs; a black box of texts reads single strings")
    order, words = shuffled(given, len(items), limit, skipped)
    classes = np.zeros(len(order), np.int32)
    return text_data.Source([items[i] for i in order], classes, predictor.labels), {}, words


def suit(
    config: ml_collections.ConfigDict,
    predictor: "Predictor",
    source: text_data.Source,
) -> None:
    """The predictor's own kind of network or a small BERT, long texts cut, and a run's length."""
    config.policy = "bert" if predictor.inside else "small_bert"
    config.text.too_long = "cut"
    suit_length(config, source.size)


def stream(
    predictor: "Predictor",
    source: text_data.Source,
    config: ml_collections.ConfigDict,
    **options: Any,
) -> Callable[[int], Iterator[Any]]:
    """Tokens, as `feeding.open_stream` has them."""
    options |= _reading(predictor, config)

    def batches(start: int) -> Iterator[Any]:
        found = text_streams.train_stream(source, start=start, **options)
        return (batch["inputs"] for batch in found)

    return batches


def in_order(
    predictor: "Predictor", source: text_data.Source, config: ml_collections.ConfigDict
) -> Iterator[Any]:
    """Eight texts at a time, in their order."""
    found = text_streams.eval_stream(source, batch_size=8, **_reading(predictor, config))
    return (batch["inputs"] for batch in found)


def first(
    predictor: "Predictor",
    source: text_data.Source,
    config: ml_collections.ConfigDict,
    count: int,
) -> Any:
    """The first `count` texts together."""
    options = _reading(predictor, config)
    lengths, texts = tokens.within(source.texts[:count], **options)
    return tokens.collate(texts, int(lengths.max()), options["tokenizer"])


def _reading(predictor: "Predictor", config: ml_collections.ConfigDict) -> dict[str, Any]:
    """How `text_streams` reads texts."""
    window = predictor.config.max_length
    return {
        "tokenizer": predictor.tokenizer,
        "max_length": min(config.text.max_length or window, window),
        "unit": config.text.unit,
        "too_long": config.text.too_long,
    }


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
        return [_read(file) for file in walk(path, {".txt"}, "texts", skipped)]
    if not path.is_file():
        raise ValueError(f"there is no file or folder {path}; a text of your own goes in a list")
    suffix = path.suffix.lower()
    if suffix == ".txt":
        return _read(path).removesuffix("\n").split("\n")  # a text may hold other separators
    if suffix == ".parquet":
        try:
            from pyarrow import parquet
        except ModuleNotFoundError:
            raise ValueError(f"{path} needs pyarrow: pip install pyarrow") from None
        try:
            table = parquet.read_table(path)
        except (OSError, ValueError) as error:  # as Arrow's own errors are
            raise ValueError(f"{path} cannot be read as Parquet: {error}") from None
        names = table.column_names
    elif suffix in (".jsonl", ".ndjson"):
        rows = list(_json_rows(path))
        names = list(dict.fromkeys(name for row in rows for name in row))
    elif suffix in (".csv", ".tsv"):
        cells, names = text_data.separated(path, _read(path), tabs=suffix == ".tsv")
        rows = list(cells.values())
    else:
        raise ValueError(f"{path} is no file of texts: expected {_FILES}, or a folder of .txt")
    name = choose(names, column, _COLUMNS, text_data.PAIRS, str(path))
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
    if not os.path.isfile(path):  # of a pipe or a device, reading might not end
        raise ValueError(f"{path} is no file to read")
    try:
        return pathlib.Path(path).read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not UTF-8 (byte {error.start}): convert it, as with iconv -t UTF-8"
        ) from None
