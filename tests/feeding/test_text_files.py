"""One reader of texts: what `fit` trains on, train.py, eval.py, `evaluate` and jobs read, too."""

import collections
import json
import pathlib

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from fex_jax import feeding, settings, text_data
from fex_jax.batch.items import open_input
from fex_jax.evaluation import texts as evaluated
from fex_jax.feeding import text_files
from tests import tiny_text

TEXTS = [f"a {word} film" for word in ("good", "bad", "dull", "fine", "long")]
LABELS = ["1", "0", "0", "1", "0"]
FORMS = "csv", "tsv", "jsonl", "ndjson", "parquet"


class Rows(list):
    """As a `datasets.Dataset` is read: rows by number."""

    @property
    def column_names(self) -> list[str]:
        return list(self[0])


def write(path: pathlib.Path, columns: dict) -> pathlib.Path:
    """A table of the kind that its name ends in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    frame = pd.DataFrame(columns)
    match path.suffix:
        case ".csv" | ".tsv":
            frame.to_csv(path, index=False, sep="," if path.suffix == ".csv" else "\t")
        case ".parquet":
            parquet.write_table(pa.Table.from_pandas(frame), path)
        case _:
            path.write_text("\n".join(map(json.dumps, frame.to_dict("records"))))
    return path


def read_by_all(path: pathlib.Path, column=None) -> list[text_data.Source]:
    """The sources of `fit`, of the run's own config under train.py and eval.py, of `evaluate`."""
    predictor = tiny_text.checkpoint()
    fitted, own, _ = feeding.open_data(predictor, path, column=column)
    config = settings.default()
    config.update_from_flattened_dict(own)
    settings.check_data(config)
    return [
        fitted,
        feeding.of(predictor).open_source(predictor, config, "all"),
        evaluated._source(predictor, str(path), None, column),
    ]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["text", "review", "body"])
def test_all_read_the_same_file_without_labels(tmp_path, form, name):
    """Breaks if a file that can be trained on cannot be scored or explained, or needs labels."""
    path = write(tmp_path / f"texts.{form}", {"id": range(5), name: TEXTS})
    column = "body" if name == "body" else None
    for source in read_by_all(path, column):
        assert sorted(source.texts) == sorted(TEXTS) and source.classes is None
    items = open_input(path, "texts", column).items()
    assert [item.thing for item in items] == TEXTS
    sizes = [text_data.texts_source(path, part, column=column).size for part in ("train", "test")]
    assert sizes == [4, 1]


@pytest.mark.parametrize("form", FORMS)
def test_labels_are_read_where_they_are(tmp_path, form):
    """Breaks if the labels of one kind of file are lost, or part from their texts."""
    path = write(tmp_path / f"texts.{form}", {"content": TEXTS, "label": map(int, LABELS)})
    _, *scored = read_by_all(path)
    for source in scored:
        found = zip(source.texts, source.classes, strict=True)
        assert sorted(found) == sorted(zip(TEXTS, map(int, LABELS), strict=True))


def test_pairs_by_their_columns(tmp_path):
    """Breaks if two named columns are not read by what reads the config that `fit` wrote."""
    path = write(tmp_path / "pairs.parquet", {"first": TEXTS, "second": TEXTS[::-1]})
    for source in read_by_all(path, ("first", "second")):
        assert sorted(source.texts) == sorted(zip(TEXTS, TEXTS[::-1], strict=True))


def test_folders_of_tables_and_of_texts(tmp_path):
    """Breaks if a folder of Parquet files holds nothing, or folders that are no classes count."""
    for number in range(2):
        write(tmp_path / "shards" / f"{number}.parquet", {"text": TEXTS[number::2]})
    (tmp_path / "years").mkdir()
    for number, text in enumerate(TEXTS):
        file = tmp_path / "years" / f"of {number}" / "a.txt"
        file.parent.mkdir()
        file.write_text(text)
    write(tmp_path / "years" / "other.csv", {"text": ["another"]})
    for folder in ("shards", "years"):
        for source in read_by_all(tmp_path / folder):
            assert sorted(source.texts) == sorted(TEXTS) and source.classes is None
    skipped: collections.Counter = collections.Counter()
    text_files.read(tmp_path / "years", None, skipped)
    assert skipped == {".csv": 1}
    named = text_data.texts_source(tmp_path / "years", "all")  # no predictor knows better
    assert named.names == tuple(f"of {number}" for number in range(5))
    assert text_files.read(tmp_path / "years", "text", skipped)[0].text == "another"


def test_what_is_no_text_is_counted(tmp_path, caplog):
    """Breaks if half a surrogate gets as far as the tokenizer, or what is skipped is not said."""
    path = tmp_path / "texts.jsonl"
    path.write_text("\n".join(json.dumps({"text": text}) for text in [*TEXTS, "a \ud83d", " "]))
    for source in read_by_all(path):
        assert sorted(source.texts) == sorted(TEXTS)
    said = "skipped 2: 1 with half a surrogate, which UTF-8 has not, 1 without text"
    assert said in feeding.open_data(tiny_text.checkpoint(), path)[2] and said in caplog.text
    things = [item.thing for item in open_input(path, "texts").items()]
    assert [str(thing) for thing in things[5:6]] == ["it is not UTF-8"]
    listed = feeding.open_data(tiny_text.checkpoint(), [*TEXTS, "\udce9"])
    assert listed[0].size == 5 and "skipped 1" in listed[2]


@pytest.mark.parametrize("form", FORMS)
def test_numbers_are_no_texts(tmp_path, form):
    """Breaks if a column of stars is trained on, of one kind of file or another."""
    path = write(tmp_path / f"stars.{form}", {"text": TEXTS, "stars": [1, 2, 3, 4, 5]})
    with pytest.raises(ValueError, match="the column 'stars' holds numbers; name that of the text"):
        feeding.open_data(tiny_text.checkpoint(), path, column="stars")
    path = write(tmp_path / f"mixed.{form}", {"text": ["7", *TEXTS]})
    assert feeding.open_data(tiny_text.checkpoint(), path)[0].size == 6


@pytest.mark.parametrize("form", ["csv", "frame", "arrow", "datasets"])
def test_a_pair_beside_a_text_is_refused(tmp_path, form):
    """Breaks if one of two things that may be meant is taken in silence."""
    columns = {"text": TEXTS, "premise": TEXTS, "hypothesis": TEXTS}
    match form:
        case "csv":
            given = write(tmp_path / "t.csv", columns)
        case "frame":
            given = pd.DataFrame(columns)
        case "arrow":
            given = pa.table(columns)
        case "datasets":
            given = Rows(pd.DataFrame(columns).to_dict("records"))
    predictor = tiny_text.checkpoint()
    with pytest.raises(ValueError, match="hypothesis, of which several may be meant: name the one"):
        feeding.open_data(predictor, given)
    assert sorted(feeding.open_data(predictor, given, column="text")[0].texts) == sorted(TEXTS)
    pairs = feeding.open_data(predictor, given, column=("premise", "hypothesis"))[0].texts
    assert sorted(pairs) == sorted(zip(TEXTS, TEXTS, strict=True))
    assert evaluated._source(predictor, given, None, "text").size == 5


def test_labels_beside_a_file_are_refused(tmp_path):
    """Breaks if labels are given to texts whose order is the reader's."""
    path = write(tmp_path / "t.csv", {"text": TEXTS})
    with pytest.raises(
        ValueError, match="true_classes came beside a file: write them into its column"
    ):
        evaluated._source(tiny_text.checkpoint(), path, np.zeros(5, int), None)


def test_a_column_of_what_has_none_is_refused(tmp_path):
    """Breaks if a column is named and silently ignored."""
    path = tmp_path / "lines.txt"
    path.write_text("\n".join(TEXTS))
    with pytest.raises(ValueError, match="column is 'text', but .*lines.txt is no table"):
        text_files.read(path, "text", collections.Counter())
    (tmp_path / "folder").mkdir()
    path.rename(tmp_path / "folder" / "lines.txt")
    with pytest.raises(ValueError, match="holds no texts; skipped 1: 1 .txt"):
        text_data.texts_source(tmp_path / "folder", "all", column="text")
    with pytest.raises(ValueError, match="too few texts for a test split: use all"):
        text_data.texts_source(tmp_path / "folder", "test")
