"""Streams of texts: what is in a batch, and its order."""

import itertools

import jax
import numpy as np
import pytest

from fex_jax import text_data, text_streams
from tests import tiny_text

TOKENIZER = tiny_text.tokenizer()


def take(stream, count):
    return list(itertools.islice(stream, count))


def assert_same(ours, theirs):
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def stream(source, size=4, **kwargs):
    return text_streams.train_stream(
        source, TOKENIZER, 32, size, buckets=(6, 8), **{"seed": 0} | kwargs
    )


def test_batches_hold_texts_of_one_bucket(text_table):
    """Breaks if texts and classes part, or a short text is padded to the longest of all."""
    source = text_data.open_source("texts", "all", text_table)
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


def test_stream_is_resumed_where_it_stopped(text_table):
    """Breaks if a run that was stopped sees other batches than one that was not."""
    source = text_data.open_source("texts", "train", text_table)
    whole = take(stream(source), 12)
    assert_same(whole[5:], take(stream(source, start=5), 7))
    first, other = whole[0]["index"], take(stream(source, seed=1), 1)[0]["index"]
    assert list(first) != list(other)


def test_processes_share_a_batch(text_table):
    """Breaks if processes get the same texts, or batches of different lengths at one step."""
    source = text_data.open_source("texts", "all", text_table)
    whole = take(stream(source, size=4), 8)
    parts = [take(stream(source, size=4, process=(i, 2)), 8) for i in range(2)]
    joined = [jax.tree.map(lambda *x: np.concatenate(x), *b) for b in zip(*parts, strict=True)]
    assert_same(joined, whole)


def test_eval_stream_sees_every_text_once(text_table):
    """Breaks if the remainder of a bucket is dropped, or limit takes a biased part."""
    source = text_data.open_source("texts", "all", text_table)
    batches = list(text_streams.eval_stream(source, TOKENIZER, 32, 7, buckets=(6, 8)))
    assert sorted(np.concatenate([batch["index"] for batch in batches])) == list(range(40))
    few = list(text_streams.eval_stream(source, TOKENIZER, 32, 7, limit=20))
    classes = np.concatenate([batch["label"] for batch in few])
    assert len(classes) == 20 and 4 < classes.sum() < 16


def test_long_texts_are_refused_or_cut_on_demand(text_table):
    """Breaks if a text is silently cut."""
    source = text_data.open_source("texts", "all", text_table)
    with pytest.raises(ValueError, match="12 of 40 texts are longer than the model's 9.*'cut'"):
        next(text_streams.train_stream(source, TOKENIZER, 9, 4, seed=0))
    cut = list(text_streams.eval_stream(source, TOKENIZER, 9, 4, too_long="cut"))
    assert max(batch["inputs"].attention.sum(-1).max() for batch in cut) == 9
    assert all((batch["inputs"].ids == 3).sum(-1).all() for batch in cut)  # SEP is still there
