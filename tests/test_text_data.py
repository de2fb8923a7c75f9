"""Text sources and streams: what is in a batch, its order, and files that cannot be read."""

import itertools
import json

import jax
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from fex_jax import reviews, text_data
from tests import tiny_text

TOKENIZER = tiny_text.tokenizer()


def take(stream, count):
    return list(itertools.islice(stream, count))


def assert_same(ours, theirs):
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


@pytest.fixture
def table(tmp_path):
    """A file of 40 texts of 1 to 10 words; the label tells whether "good" begins it."""
    path = tmp_path / "own.csv"
    rows = [f"{'good' if i % 2 else 'bad'}{' film' * (i % 10)},{i % 2}\n" for i in range(40)]
    path.write_text("text,label\n" + "".join(rows))
    return str(path)


def stream(source, size=4, **kwargs):
    return text_data.train_stream(
        source, TOKENIZER, 32, size, buckets=(6, 8), **{"seed": 0} | kwargs
    )


def test_batches_hold_texts_of_one_bucket(table):
    """Breaks if texts and labels part, or a short text is padded to the longest of all."""
    source = text_data.open_source("texts", "all", table)
    assert source.size == 40 and source.names == ("0", "1")
    lengths = set()
    for batch in take(stream(source), 30):
        inputs = batch["inputs"]
        assert inputs.ids.shape[0] == 4
        np.testing.assert_array_equal(inputs.ids[:, 1] == 11, batch["label"] == 1)  # "good"
        sizes = inputs.attention.sum(-1)
        longest = inputs.ids.shape[1]
        lengths.add(longest)
        assert sizes.max() <= longest and sizes.min() > {6: 0, 8: 6, 32: 8}[longest]
        for i, size in zip(batch["index"], sizes, strict=True):
            assert len(source.texts[i].split()) == size - 2
    assert lengths == {6, 8, 32}


def test_stream_is_resumed_where_it_stopped(table):
    """Breaks if a run that was stopped sees other batches than one that was not."""
    source = text_data.open_source("texts", "train", table)
    whole = take(stream(source), 12)
    assert_same(whole[5:], take(stream(source, start=5), 7))
    first, other = whole[0]["index"], take(stream(source, seed=1), 1)[0]["index"]
    assert list(first) != list(other)


def test_processes_share_a_batch(table):
    """Breaks if processes get the same texts, or batches of different lengths at one step."""
    source = text_data.open_source("texts", "all", table)
    whole = take(stream(source, size=4), 8)
    parts = [take(stream(source, size=2, process=(i, 2)), 8) for i in range(2)]
    for batch, one, two in zip(whole, *parts, strict=True):
        assert set(batch["index"]) == set(one["index"]) | set(two["index"])
        assert (
            one["inputs"].ids.shape == two["inputs"].ids.shape == (2, batch["inputs"].ids.shape[1])
        )


def test_eval_stream_sees_every_text_once(table):
    """Breaks if the remainder of a bucket is dropped, or limit takes a biased part."""
    source = text_data.open_source("texts", "all", table)
    batches = list(text_data.eval_stream(source, TOKENIZER, 32, 7, buckets=(6, 8)))
    assert sorted(np.concatenate([batch["index"] for batch in batches])) == list(range(40))
    few = list(text_data.eval_stream(source, TOKENIZER, 32, 7, limit=20))
    labels = np.concatenate([batch["label"] for batch in few])
    assert len(labels) == 20 and 4 < labels.sum() < 16


def test_long_texts_are_refused_or_cut_on_demand(table):
    """Breaks if a text is silently cut."""
    source = text_data.open_source("texts", "all", table)
    with pytest.raises(ValueError, match="12 of 40 texts are longer than the model's 9.*'cut'"):
        next(text_data.train_stream(source, TOKENIZER, 9, 4, seed=0))
    cut = list(text_data.eval_stream(source, TOKENIZER, 9, 4, too_long="cut"))
    assert max(batch["inputs"].attention.sum(-1).max() for batch in cut) == 9
    assert all((batch["inputs"].ids == 3).sum(-1).all() for batch in cut)  # SEP is still there


def test_splits_of_own_texts(table):
    """Breaks if test texts are trained on, or a class is missing from a split."""
    train, test, everything = (
        text_data.open_source("texts", split, table) for split in ("train", "test", "all")
    )
    assert (train.size, test.size) == (32, 8) and test.labels.sum() == 4
    assert sorted(train.texts + test.texts) == sorted(everything.texts)
    with pytest.raises(ValueError, match="texts have train, test and all"):
        text_data.open_source("texts", "validation", table)


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
            (t, source.names[label]) for t, label in zip(source.texts, source.labels, strict=True)
        }
        assert read == set(rows), name


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("t.csv", "text,label\ngood,1\ncaf\xe9,0\n".encode("latin1"),
         r"t.csv, line 3, is not UTF-8 \(byte 0xe9\).*iconv"),
        ("t.csv", b"text,label\ngood,1\n,0\n", "line 3, has no text"),
        ("t.csv", b"text,label\ngood,1\nbad,7\n", "line 3, has the label '7'.*0 to 1.*no, yes"),
        ("t.csv", b"text,label\ngood,maybe\n", "line 2, has the label 'maybe'"),
        ("t.csv", b"text,label\ngood, really,1\n", "line 2, has not the 2 columns"),
        ("t.csv", b"sentence,class\ngood,1\n", "expected text and label in line 1"),
        ("t.csv", b"text,label\n", "holds no texts"),
        ("t.jsonl", b'{"text": "a", "label": 0}\n{"text": \n', "line 2, is not JSON"),
        ("t.jsonl", b'{"text": "a"}\n', "line 1, has the label ''"),
        ("t.jsonl", b"[1]\n", "line 1, is no JSON object"),
        ("t.docx", b"", "no source of texts"),
    ],
)  # fmt: skip
def test_files_that_cannot_be_read(name, content, message, tmp_path):
    """Breaks if a bad line is skipped, guessed at, or cannot be found by its message."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        text_data.open_source("texts", "all", str(tmp_path / name), names=("no", "yes"))


def test_drawn_reviews(monkeypatch):
    """Breaks if reviews, labels and rationales part, or splits begin with the same reviews."""
    monkeypatch.setattr(text_data, "_DRAWN", {"train": 300, "test": 200})
    train, test = (text_data.open_source("drawn_reviews", split, "") for split in ("train", "test"))
    assert (train.size, test.size) == (300, 200) and train.names == ("negative", "positive")
    assert not set(train.texts) & set(test.texts)
    assert 100 < train.labels.sum() < 200
    for i, text in enumerate(test.texts):
        expected = reviews.write(0, "test", i)
        assert (text, test.labels[i]) == expected[:2]
        np.testing.assert_array_equal(test.rationales[i], expected.rationale)
    with pytest.raises(ValueError, match="'dev' is unknown; drawn reviews have train, test"):
        text_data.open_source("drawn_reviews", "dev", "")


def test_sst2_layout(tmp_path):
    """Breaks if quotes, which SST-2 does not escape, swallow the lines that follow."""
    (tmp_path / "dev.tsv").write_text('sentence\tlabel\n" good film\t1\nbad " film\t0\n')
    source = text_data.open_source("sst2", "validation", str(tmp_path))
    assert source.names == ("negative", "positive")
    assert set(zip(source.texts, source.labels, strict=True)) == {
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
    assert list(source.labels) == [0]
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
    assert dict(zip(source.texts, source.labels, strict=True)) == {"good film": 1, "bad film": 0}
    source = text_data.open_source("tiny_reviews", "train", str(tmp_path))
    marked = dict(zip(source.labels, source.rationales, strict=True))
    np.testing.assert_array_equal(marked[1], [0, 1, 1, 0, 1, 0])
    np.testing.assert_array_equal(marked[0], [1])
