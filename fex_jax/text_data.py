"""Data sets of texts: drawn reviews, SST-2, ERASER, TFDS sets, own files; a `Source` holds one."""

import collections
import logging
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from fex_jax import data, reviews, targets
from fex_jax.feeding import text_files
from fex_jax.feeding.given import Named, in_words

_log = logging.getLogger(__name__)
_SENTIMENT = ("negative", "positive")
_DRAWN = {"train": 40_000, "validation": 1000, "test": 1000}  # reviews of a split


class Source(NamedTuple):
    """Texts with their classes, in an order whose every prefix is a fair sample."""

    texts: list[Any]  # strings, or pairs of them
    classes: np.ndarray | None  # [n] int32; None: unknown
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
                classes=None if self.classes is None else self.classes[rows],
                rationales=self.rationales and self.rationales[rows],
            )

        return part(slice(count)), part(slice(count, None))

    def contents(self, predictor: Any) -> tuple:
        """What tells it from others."""
        return (self.texts,)


def open_source(
    name: str,
    split: str,
    path: str | None,
    names: Sequence[str] | None = None,
    column: Named = None,
) -> Source:
    """The data set that a config names.

    Args:
      name: drawn_reviews, sst2, eraser, texts, or a TFDS set of labelled texts as glue/sst2,
        movie_rationales.
      split: train, validation or test for drawn_reviews; train or validation for sst2; train, val
        or test for eraser; train, test or all for texts; else TFDS's.
      path: the folder of sst2 or eraser, a file or folder of texts, or TFDS's data_dir.
      names: the classes that a predictor knows, for texts; by default those that the texts have.
      column: of a table of texts; see `text_files.rows`.
    """
    match name:
        case "drawn_reviews":
            return drawn_reviews_source(split)
        case "sst2":
            return sst2_source(path or "", split)
        case "eraser":
            return eraser_source(path or "", split)
        case "texts":
            return texts_source(path or "", split, names, column)
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
    rows = text_files.rows(path, "sentence", collections.Counter())
    classes = _numbers(rows, ("0", "1"))
    return _shuffled([row.text for row in rows], classes, names=_SENTIMENT)


def eraser_source(directory: str, split: str) -> Source:
    """ERASER movie reviews: <split>.jsonl and docs/; DeYoung et al. 2020.

    Tokens of a rationale count the words of a document, split at white space.
    """
    root = pathlib.Path(directory).expanduser()
    path = root / f"{split}.jsonl"
    texts, classes, rationales = [], [], []
    for place, row in text_files.json_lines(path):
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
        text = text_files.content(root / "docs" / document)
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
    path: str,
    split: str,
    names: Sequence[str] | None = None,
    column: Named = None,
    held_out: float = 0.2,
    seed: int = 0,
) -> Source:
    """One's own texts, see `text_files.read`; a fixed random part of each class is held out.

    Splits: train, test (`held_out` of each class, or of all texts without labels) and all. What
    is skipped is logged. Folders that bear no class of `names` are no labels.

    Raises:
      ValueError: names the file and line that cannot be used, and why.
    """
    if split not in ("train", "test", "all"):
        raise ValueError(f"split {split!r} is unknown; texts have train, test and all")
    skipped: collections.Counter = collections.Counter()
    rows = text_files.read(path, column, skipped)
    if not rows:
        raise ValueError(f"{path} holds no texts{in_words(skipped)}")
    if skipped:
        _log.warning("%s%s", path, in_words(skipped))
    given = {row.label for row in rows} - {None}
    if names and pathlib.Path(path).expanduser().is_dir():
        given = {label for label in given if targets.named(label, names)} and given
    if names is None:
        numbers = all(label.isdecimal() for label in given)
        names = (
            [str(i) for i in range(max(map(int, given), default=-1) + 1)]
            if numbers
            else sorted(given)
        )
    texts, classes = [row.text for row in rows], _numbers(rows, names) if given else None
    kinds = np.zeros(len(rows), int) if classes is None else np.array(classes)
    chosen: list[int] = []
    for kind in range(kinds.max() + 1):
        order = np.random.default_rng((seed, kind)).permutation(np.flatnonzero(kinds == kind))
        test = round(held_out * len(order))
        chosen += list({"test": order[:test], "train": order[test:], "all": order}[split])
    if not chosen:
        raise ValueError(f"{path} holds too few texts for a {split} split: use all")
    own = None if classes is None else [classes[i] for i in chosen]
    return _shuffled([texts[i] for i in chosen], own, names=names)


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


def _numbers(rows: Sequence[text_files.Row], names: Sequence[str]) -> list[int]:
    """Class numbers; an unknown class is an error with its place."""
    classes = []
    for place, _, label in rows:
        found = [] if label is None else targets.named(label, names)
        if label is None:
            raise ValueError(f"{place} has no label, as others have")
        if len(found) > 1:
            raise ValueError(
                f"{place} has the label {label!r}, which several classes have: give the number, "
                f"one of {', '.join(map(str, found))}"
            )
        if not found and not (label.isdecimal() and int(label) < len(names)):
            raise ValueError(
                f"{place} has the label {label!r}; expected 0 to {len(names) - 1}, or one of "
                + ", ".join(names)
            )
        classes.append(found[0] if found else int(label))
    return classes


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
    texts: list[Any],
    classes: list[int] | None,
    rationales: list[np.ndarray] | None = None,
    *,
    names: Sequence[str],
) -> Source:
    order = np.random.default_rng(0).permutation(len(texts))
    return Source(
        [texts[i] for i in order],
        None if classes is None else np.array(classes, np.int32)[order],
        tuple(names),
        rationales and [rationales[i] for i in order],
    )
