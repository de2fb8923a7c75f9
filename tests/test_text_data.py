"""Text sources: their splits and formats, and files that cannot be read."""

import json

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from fex_jax import reviews, text_data


def test_splits_of_own_texts(text_table):
    """Breaks if test texts are trained on, or a class is missing from a split."""
    train, test, everything = (
        text_data.open_source("texts", split, text_table) for split in ("train", "test", "all")
    )
    assert (train.size, test.size) == (32, 8) and test.classes.sum() == 4
    assert sorted(train.texts + test.texts) == sorted(everything.texts)
    with pytest.raises(ValueError, match="texts have train, test and all"):
        text_data.open_source("texts", "validation", text_table)


def test_formats_of_own_texts(tmp_path):
    """Breaks if one of the four ways of keeping texts is read otherwise than the others."""
    rows = [("a, b", "neg"), ('say "good"', "pos"), ("naïve 很好", "pos")]
    (tmp_path / "t.csv").write_text(
        '\ufefftext,label\n"a, b",neg\n"say ""good""",pos\nnaïve 很好,pos\n', encoding="utf-8"
    )
    (tmp_path / "t.tsv").write_text(
        "label\ttext\n" + "".join(f"{label}\t{text}\n" for text, label in rows), encoding="utf-8"
    )
    (tmp_path / "t.jsonl").write_text(
        "".join(json.dumps({"text": t, "label": label}) + "\n\n" for t, label in rows)
    )
    for i, (text, label) in enumerate(rows):
        (tmp_path / "t" / label).mkdir(parents=True, exist_ok=True)
        (tmp_path / "t" / label / f"{i}.txt").write_text(text, encoding="utf-8")
    for name in ("t.csv", "t.tsv", "t.jsonl", "t"):
        source = text_data.open_source("texts", "all", str(tmp_path / name))
        assert source.names == ("neg", "pos")
        read = {
            (t, source.names[label]) for t, label in zip(source.texts, source.classes, strict=True)
        }
        assert read == set(rows), name


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("t.csv", "text,label\ngood,1\ncaf\xe9,0\n".encode("latin1"),
         r"t.csv, line 3, is not UTF-8 \(byte 0xe9\).*iconv"),
        ("t.csv", b"text,label\ngood,1\nbad,7\n", "line 3, has the label '7'.*0 to 1.*no, yes"),
        ("t.csv", b"text,label\ngood,maybe\n", "line 2, has the label 'maybe'"),
        ("t.csv", b"text,label\ngood, really,1\n", "line 2, has not the 2 columns"),
        ("t.csv", b"title,class\ngood,1\n", "columns title, class: name the one to read"),
        ("t.csv", b"text,label\n", "holds no texts$"),
        ("t.csv", b"text,label\n,0\n", "holds no texts; skipped 1: 1 without text"),
        ("t.jsonl", b'{"text": "a", "label": 0}\n{"text": \n', "line 2, is not JSON"),
        ("t.jsonl", b'{"text": "a", "label": 1}\n{"text": "b"}\n', "line 2, has no label, as oth"),
        ("t.jsonl", b"[1]\n", "line 1, is no JSON object"),
        ("t.docx", b"", "no file of texts: expected .csv"),
    ],
)  # fmt: skip
def test_files_that_cannot_be_read(name, content, message, tmp_path):
    """Breaks if a bad line is skipped, guessed at, or cannot be found by its message."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        text_data.open_source("texts", "all", str(tmp_path / name), names=("no", "yes"))


def test_drawn_reviews(monkeypatch):
    """Breaks if reviews, classes and rationales part, or splits begin with the same reviews."""
    monkeypatch.setattr(text_data, "_DRAWN", {"train": 300, "test": 200})
    train, test = (text_data.open_source("drawn_reviews", split, "") for split in ("train", "test"))
    assert (train.size, test.size) == (300, 200) and train.names == ("negative", "positive")
    assert not set(train.texts) & set(test.texts)
    assert 100 < train.classes.sum() < 200
    for i, text in enumerate(test.texts):
        expected = reviews.write(0, "test", i)
        assert (text, test.classes[i]) == expected[:2]
        np.testing.assert_array_equal(test.rationales[i], expected.rationale)
    with pytest.raises(ValueError, match="'dev' is unknown; drawn reviews have train, test"):
        text_data.open_source("drawn_reviews", "dev", "")


def test_sst2_layout(tmp_path):
    """Breaks if quotes, which SST-2 does not escape, swallow the lines that follow."""
    (tmp_path / "dev.tsv").write_text('sentence\tlabel\n" good film\t1\nbad " film\t0\n')
    source = text_data.open_source("sst2", "validation", str(tmp_path))
    assert source.names == ("negative", "positive")
    assert set(zip(source.texts, source.classes, strict=True)) == {
        ('" good film', 1), ('bad " film', 0)
    }  # fmt: skip
    with pytest.raises(ValueError, match="there is no file .*train.tsv; its folder holds dev.tsv$"):
        text_data.open_source("sst2", "train", str(tmp_path))


def _review(evidences, name="negR_0.txt"):
    spans = [[{"start_token": a, "end_token": b, "text": "", "docid": name}] for a, b in evidences]
    return json.dumps({"annotation_id": name, "classification": "NEG", "evidences": spans})


def test_eraser_layout(tmp_path):
    """Breaks if rationales are off by one word, or lines of a document count as words."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "negR_0.txt").write_text("the plot was\nvery dull .\nawful film\n")
    (tmp_path / "val.jsonl").write_text(_review([(3, 5), (6, 7), (2, 2)]) + "\n")
    source = text_data.open_source("eraser", "val", str(tmp_path))
    np.testing.assert_array_equal(source.rationales[0], [0, 0, 0, 1, 1, 0, 1, 0])
    with pytest.raises(ValueError, match="its folder holds val.jsonl"):  # the name of TFDS
        text_data.open_source("eraser", "validation", str(tmp_path))
    assert list(source.classes) == [0]
    (tmp_path / "val.jsonl").write_text(_review([(7, 9)]) + "\n")
    with pytest.raises(ValueError, match="line 1, marks words 7 to 9 of negR_0.txt, which has 8"):
        text_data.open_source("eraser", "val", str(tmp_path))
    (tmp_path / "val.jsonl").write_text('{"annotation_id": "negR_0.txt"}\n')
    with pytest.raises(ValueError, match="line 1, is no annotated review"):
        text_data.open_source("eraser", "val", str(tmp_path))


def test_tfds_sets(tmp_path):
    """Breaks if the features of glue/sst2 or movie_rationales are not what is read."""
    label = tfds.features.ClassLabel(names=["NEG", "POS"])
    text = tfds.features.Text()
    for name, features, examples in (
        ("tiny_sentences", {"sentence": text, "label": label},
         {"sentence": ["good film", "bad film"], "label": [1, 0]}),
        ("tiny_reviews",
         {"review": text, "label": label, "evidences": tfds.features.Sequence(text)},
         {"review": ["a very\ngood film , good", "bad"], "label": [1, 0],
          "evidences": tf.ragged.constant([["very good", ","], ["bad"]])}),
    ):  # fmt: skip
        tfds.dataset_builders.store_as_tfds_dataset(
            name=name, version="1.0.0", features=tfds.features.FeaturesDict(features),
            split_datasets={"train": tf.data.Dataset.from_tensor_slices(examples)},
            data_dir=tmp_path,
        )  # fmt: skip
    source = text_data.open_source("tiny_sentences", "train", str(tmp_path))
    assert source.names == ("NEG", "POS") and source.rationales is None
    assert dict(zip(source.texts, source.classes, strict=True)) == {"good film": 1, "bad film": 0}
    source = text_data.open_source("tiny_reviews", "train", str(tmp_path))
    marked = dict(zip(source.classes, source.rationales, strict=True))
    np.testing.assert_array_equal(marked[1], [0, 1, 1, 0, 1, 0])
    np.testing.assert_array_equal(marked[0], [1])
