"""Data sets of texts: drawn reviews, SST-2, ERASER, TFDS sets, own files; a `Source` holds one."""

import csv
import io
import json
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from fex_jax import data, reviews, targets
from fex_jax.data.folders import class_files

_SENTIMENT = ("negative", "positive")
_DRAWN = {"train": 40_000, "validation": 1000, "test": 1000}  # reviews of a split


# Columns of pairs.
PAIRS = ("premise", "hypothesis"), ("sentence1", "sentence2"), ("text", "text_pair")


class Source(NamedTuple):
    """Texts with their classes, in an order whose every prefix is a fair sample."""

    texts: list[Any]  # strings, or pairs of them
    classes: np.ndarray  # [n] int32
    names: tuple[str, ...]  # of the classes
    # what people marked as the reason for the label: bool for every word of `text.split()`
    rationales: list[np.ndarray] | None = None

    @property
    def size(self) -> int:
        """n."""
        return len(self.texts)

    def split(self, count: int) -> tuple["Source", "Source"]:
        """The first `count` texts, and the others."""

        def part(rows: slice) -> "Source":
            return self._replace(
                texts=self.texts[rows],
                classes=self.classes[rows],
                rationales=self.rationales and self.rationales[rows],
            )

        return part(slice(count)), part(slice(count, None))

    def contents(self, predictor: Any) -> tuple:
        """What tells it from others."""
        return (self.texts,)


def open_source(
    name: str, split: str, path: str | None, names: Sequence[str] | None = None
) -> Source:
    """The data set that a config names.

    Args:
      name: drawn_reviews, sst2, eraser, texts, or a TFDS set of labelled texts as glue/sst2,
        movie_rationales.
      split: train, validation or test for drawn_reviews; train or validation for sst2; train, val
        or test for eraser; train, test or all for texts; else TFDS's.
      path: the folder of sst2 or eraser, a file or folder of texts, or TFDS's data_dir.
      names: the classes that a predictor knows, for texts; by default those that the texts have.
    """
    match name:
        case "drawn_reviews":
            return drawn_reviews_source(split)
        case "sst2":
            return sst2_source(path or "", split)
        case "eraser":
            return eraser_source(path or "", split)
        case "texts":
            return texts_source(path or "", split, names)
        case _:
            return tfds_source(name, split, path)


def drawn_reviews_source(split: str, seed: int = 0) -> Source:
    """Reviews of `fex_jax.reviews` with their exact rationales; made in seconds, never stored."""
    if split not in _DRAWN:
        raise ValueError(f"split {split!r} is unknown; drawn reviews have {', '.join(_DRAWN)}")
    drawn = [reviews.write(seed, split, i) for i in range(_DRAWN[split])]
    classes = np.array([review.label for review in drawn], np.int32)
    return Source([r.text for r in drawn], classes, _SENTIMENT, [r.rationale for r in drawn])


def sst2_source(directory: str, split: str) -> Source:
    """SST-2 as GLUE lays it out: <split>.tsv with the columns sentence and label, 0 or 1."""
    root = pathlib.Path(directory).expanduser()
    files = {"validation": ["validation.tsv", "dev.tsv"]}.get(split, [f"{split}.tsv"])
    path = next((root / file for file in files if (root / file).is_file()), root / files[0])
    rows = _read_table(path, "sentence")
    return _shuffled(*_unzip(rows, ("0", "1")), names=_SENTIMENT)


def eraser_source(directory: str, split: str) -> Source:
    """ERASER movie reviews: <split>.jsonl and docs/; DeYoung et al. 2020.

    Tokens of a rationale count the words of a document, split at white space.
    """
    root = pathlib.Path(directory).expanduser()
    path = root / f"{split}.jsonl"
    texts, classes, rationales = [], [], []
    for place, row in _read_json_lines(path):
        try:
            label = ("NEG", "POS").index(row["classification"])
            document = row["annotation_id"]
            spans = [
                (e["start_token"], e["end_token"]) for group in row["evidences"] for e in group
            ]
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{place} is no annotated review: expected annotation_id, classification NEG or "
                f"POS, and evidences with start_token and end_token ({error!r})"
            ) from None
        text = _read(root / "docs" / document)
        marked = np.zeros(len(text.split()), bool)
        for start, stop in spans:
            if not 0 <= start <= stop <= len(marked):  # some public spans are empty
                raise ValueError(
                    f"{place} marks words {start} to {stop} of {document}, which has {len(marked)}"
                )
            marked[start:stop] = True
        texts.append(text)
        classes.append(label)
        rationales.append(marked)
    return _shuffled(texts, classes, rationales, names=_SENTIMENT)


def texts_source(
    path: str, split: str, names: Sequence[str] | None = None, held_out: float = 0.2, seed: int = 0
) -> Source:
    """One's own texts; a fixed random part of each class is held out.

    A .csv or .tsv file has the columns text and label, or those of pairs (`PAIRS`) and label, a
    .jsonl file objects with those keys, and a folder <class>/<any>.txt. Labels are class numbers
    or names. Splits: train, test (`held_out` of each class) and all.

    Raises:
      ValueError: names the file and line that cannot be used, and why.
    """
    root = pathlib.Path(path).expanduser()
    if split not in ("train", "test", "all"):
        raise ValueError(f"split {split!r} is unknown; texts have train, test and all")
    if root.is_dir():
        found = class_files(root, {".txt"})
        rows = [(str(file), _read(file), name) for name in found for file in found[name]]
    elif root.suffix in (".csv", ".tsv"):
        rows = _read_table(root, "text")
    elif root.suffix == ".jsonl":
        rows = [
            (place, _text_of(row, "text"), str(row.get("label", "")))
            for place, row in _read_json_lines(root)
        ]
    else:
        raise ValueError(
            f"{path!r} is no source of texts: expected a .csv, .tsv or .jsonl file, or a folder "
            "<class>/<name>.txt"
        )
    if not rows:
        raise ValueError(f"{path} holds no texts")
    if names is None:
        given = {label for _, _, label in rows}
        numbers = all(label.isdecimal() for label in given)
        names = (
            [str(i) for i in range(max(map(int, given)) + 1)] if numbers else sorted(given - {""})
        )
    texts, classes = _unzip(rows, names)
    chosen = []
    for label in range(len(names)):
        members = np.flatnonzero(np.array(classes) == label)
        order = np.random.default_rng((seed, label)).permutation(members)
        test = round(held_out * len(order))
        chosen += list({"test": order[:test], "train": order[test:], "all": order}[split])
    return _shuffled([texts[i] for i in chosen], [classes[i] for i in chosen], names=names)


def tfds_source(name: str, split: str, data_dir: str | None = None) -> Source:
    """One split of a TFDS set of labelled texts; it is prepared first if it is not there yet.

    Rationales are read where a set has `evidences`: each marks the first place of the text where
    its words stand.
    """
    import tensorflow_datasets as tfds

    own = "--config.data.name=texts --config.data.path=FILE"
    builder = data.prepare_tfds(name, data_dir, own)
    fields = builder.info.features
    field = next((key for key in ("text", "sentence", "review") if key in fields), None)
    if field is None or "label" not in fields:
        raise ValueError(
            f"TFDS set {name!r} has {sorted(fields)}; expected label and text, sentence or review"
        )
    records = list(tfds.as_numpy(builder.as_dataset(split=split)))
    texts = [record[field].decode() for record in records]
    classes = [int(record["label"]) for record in records]
    names = tuple(fields["label"].names)
    if "evidences" not in fields:
        return _shuffled(texts, classes, names=names)
    rationales = [
        _mark(text, [evidence.decode() for evidence in record["evidences"]])
        for text, record in zip(texts, records, strict=True)
    ]
    return _shuffled(texts, classes, rationales, names=names)


def _read(path: pathlib.Path) -> str:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        beside = sorted(f.name for f in path.parent.glob(f"*{path.suffix}"))
        if len(beside) > 5:
            beside[5:] = ["…"]
        found = f"; its folder holds {', '.join(beside)}" if beside else ""
        raise ValueError(f"there is no file {path}{found}") from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{path}, line {line}, is not UTF-8 (byte 0x{data[error.start]:02x}). Convert the "
            f"file: iconv -f LATIN1 -t UTF-8, or whatever encoding it has"
        ) from None


def _text_of(row: dict[str, Any], column: str) -> Any:
    """A row's text, or its pair of them."""
    pair = next((pair for pair in PAIRS if column == "text" and set(pair) <= row.keys()), None)
    found = tuple(str(row.get(name) or "") for name in pair or (column,))
    return found if pair else found[0]


def _read_table(path: pathlib.Path, column: str) -> list[tuple[str, Any, str]]:
    """(place, text, label) of each row of a .csv file, or of a .tsv file without quoting."""
    cells, names = separated(path, _read(path), tabs=path.suffix == ".tsv")
    found = set(names)
    paired = column == "text" and any(set(pair) <= found for pair in PAIRS)
    if "label" not in found or not (paired or column in found):
        raise ValueError(f"{path} has the columns {names}; expected {column} and label in line 1")
    return [
        (f"{path}, line {line},", _text_of(row, column), row["label"].strip())
        for line, row in cells.items()
    ]


def separated(
    path: pathlib.Path, content: str, tabs: bool
) -> tuple[dict[int, dict[str, str]], list[str]]:
    """The rows, by their lines, and the columns of .csv, or of .tsv, which has no quoting.

    Raises:
      ValueError: a column that is there twice; a row with more or fewer cells than line 1; a quote
        that does not end, for all that follows would be one text.
    """
    style: dict[str, Any] = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if tabs else {}
    csv.field_size_limit(2**31 - 1)
    reader = csv.DictReader(io.StringIO(content, newline=""), strict=True, **style)
    rows, begin = {}, 1
    try:
        names = list(reader.fieldnames or ())
        if twice := [name for name in names if name and names.count(name) > 1]:
            raise ValueError(f"{path} has the column {twice[0]!r} twice: rename one")
        for row in reader:
            begin = reader.line_num
            if None in row or None in row.values():
                raise ValueError(
                    f"{path}, line {begin}, has not the {len(names)} columns of line 1; a text "
                    "that holds the separator needs quotes, in .csv only"
                )
            rows[begin] = row
    except csv.Error as error:
        raise ValueError(
            f"{path}, after line {begin}, is no CSV: {error}; a quote in a text is written twice"
        ) from None
    return rows, names


def _read_json_lines(path: pathlib.Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, object) of each line."""
    for number, line in enumerate(_read(path).split("\n"), 1):
        if not line.strip():
            continue
        place = f"{path}, line {number},"
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{place} is not JSON: {error}") from None
        if not isinstance(row, dict):
            raise ValueError(f"{place} is no JSON object")
        yield place, row


def _unzip(
    rows: Sequence[tuple[str, Any, str]], names: Sequence[str]
) -> tuple[list[Any], list[int]]:
    """Texts and class numbers; an empty text and an unknown class are errors with their place."""
    texts, classes = [], []
    for place, text, label in rows:
        if not all(part.strip() for part in ([text] if isinstance(text, str) else text)):
            raise ValueError(f"{place} has no text")
        found = targets.named(label, names)
        if len(found) == 1:
            classes += found
        elif found:
            raise ValueError(
                f"{place} has the label {label!r}, which several classes have: give the number, "
                f"one of {', '.join(map(str, found))}"
            )
        elif label.isdecimal() and int(label) < len(names):
            classes.append(int(label))
        else:
            raise ValueError(
                f"{place} has the label {label!r}; expected 0 to {len(names) - 1}, or one of "
                + ", ".join(names)
            )
        texts.append(text)
    return texts, classes


def _mark(text: str, evidences: Sequence[str]) -> np.ndarray:
    """bool [words], True at the first occurrence of each evidence's words."""
    words = text.split()
    marked = np.zeros(len(words), bool)
    for evidence in evidences:
        wanted = evidence.split()
        places = range(len(words) - len(wanted) + 1)
        start = next((i for i in places if words[i : i + len(wanted)] == wanted), None)
        if start is None:
            raise ValueError(f"the evidence {evidence!r} is not in the text {text[:60]!r}…")
        marked[start : start + len(wanted)] = True
    return marked


def _shuffled(
    texts: list[str],
    classes: list[int],
    rationales: list[np.ndarray] | None = None,
    *,
    names: Sequence[str],
) -> Source:
    order = np.random.default_rng(0).permutation(len(texts))
    return Source(
        [texts[i] for i in order],
        np.array(classes, np.int32)[order],
        tuple(names),
        rationales and [rationales[i] for i in order],
    )
