"""Strings to batches: what a feature is, buckets, windows, and texts that cannot be explained."""

import json

import numpy as np
import pytest
import tokenizers
from tokenizers import models, pre_tokenizers

from fex_jax import tokens
from tests import tiny_text

TOKENIZER = tiny_text.tokenizer()


def test_tokens_and_words_by_hand():
    """Breaks if pieces of a word come apart, or spans do not point at the string."""
    text = "The film was Funny!"
    (by_token,), (by_word,) = TOKENIZER([text]), TOKENIZER([text], "word")
    np.testing.assert_array_equal(by_token.features, [0, 1, 2, 3, 4, 5])
    np.testing.assert_array_equal(by_word.features, [0, 1, 2, 3, 3, 4])
    words = [text[start:stop] for start, stop in by_word.spans]
    assert words == ["The", "film", "was", "Funny", "!"]
    pieces = [text[start:stop] for start, stop in by_token.spans]
    assert pieces == ["The", "film", "was", "Fun", "ny", "!"]


def test_special_tokens_are_never_features():
    """Breaks if CLS, SEP or padding, typed by a user or added here, can be removed."""
    texts = TOKENIZER(["good [SEP] film", "bad"])
    batch = tokens.collate(texts, 6, TOKENIZER)
    np.testing.assert_array_equal(batch.ids[0], [2, 11, 3, 8, 3, 0])
    np.testing.assert_array_equal(batch.features, [[-1, 0, -1, 1, -1, -1], [-1, 0] + [-1] * 4])
    np.testing.assert_array_equal(batch.attention.sum(-1), [5, 3])


def test_encode_groups_by_bucket():
    """Breaks if short texts pay for long ones, texts change places, or lengths are unbounded."""
    texts = ["bad film " * 6, "good", "plot " * 29, "great fun"]
    groups = tokens.encode(texts, TOKENIZER, 31, buckets=(8, 16, 64))
    assert [group.inputs.ids.shape for group in groups] == [(2, 8), (1, 16), (1, 31)]
    assert [list(group.index) for group in groups] == [[1, 3], [0], [2]]
    np.testing.assert_array_equal(groups[0].inputs.attention.sum(-1), [3, 4])


@pytest.mark.parametrize(
    "texts, message",
    [
        (["good", ""], "text 1 is empty"),
        (["  \n\t "], "text 0 is empty"),
        (["[SEP]"], "text 0 is empty"),
        (["good", 3], "text 1 is int; expected a string"),
        (["good", "bad \ud83d film"], "text 1 is no valid Unicode at character 4"),
        (["good", "bad " * 31], "text 1 is too long: 33 tokens.*more than the model's 32.*windows"),
        (["x" + " film" * 20_000], "text 0 is too long: 20003 tokens"),
    ],
)
def test_texts_that_cannot_be_explained(texts, message):
    """Breaks if a text is silently cut, or an empty one gets scores."""
    with pytest.raises(ValueError, match=message):
        tokens.encode(texts, TOKENIZER, 32)


def test_odd_texts_are_explained():
    """Breaks on special characters, emoji or several scripts: unknown words are features too."""
    for text in ("!!! ???", "😀 🎬", "фильм 很好 film", "naïve\u200bcafé", "x" * 500):
        (group,) = tokens.encode([text], TOKENIZER, 32, "word")
        assert (group.inputs.features >= 0).any()


@pytest.mark.parametrize("unit", ["token", "word"])
def test_windows_cover_every_feature(unit):
    """Breaks if a feature is lost, a word is split, or a window does not fit the model."""
    (text,) = TOKENIZER(["the funny plot was badly dull , not funny [SEP] ! " * 9], unit)
    seen = np.zeros(len(text.spans), int)
    for first, part in tokens.windows(text, 16, 4):
        last = first + len(part.spans)
        assert len(part.ids) <= 14
        np.testing.assert_array_equal(part.spans, text.spans[first:last])
        inside = (text.features >= first) & (text.features < last)
        np.testing.assert_array_equal(part.ids[part.features >= 0], text.ids[inside])
        np.testing.assert_array_equal(part.features[part.features >= 0],
                                      text.features[inside] - first)  # fmt: skip
        for begin, end in part.spans:
            word = part.string[begin - part.start : end - part.start]
            assert word == text.string[begin:end]
        assert 0 < len(part.string) < len(text.string)
        seen[first:last] += 1
    assert seen.min() == 1 and seen.max() == 2


def test_windows_refuse_what_cannot_be_cut():
    """Breaks by looping for ever on an overlap as large as the window, or splitting a word."""
    (text,) = TOKENIZER(["fun" + "ny" * 40], "word")
    with pytest.raises(ValueError, match="a single feature of 41 tokens.*unit='token'"):
        tokens.windows(text, 16, 4)
    with pytest.raises(ValueError, match="overlap is 14; expected 0 to 13"):
        tokens.windows(text, 16, 14)


def test_a_short_text_is_one_window():
    """Breaks if windows change a text that fits."""
    (text,) = TOKENIZER(["a good film"])
    ((first, part),) = tokens.windows(text, 16, 4)
    assert first == 0
    for ours, whole in zip(part, text, strict=True):
        np.testing.assert_array_equal(ours, whole)


def test_truncation_in_the_file_is_off(tmp_path):
    """Breaks if tokenizer.json's own truncation or padding cuts texts silently, as MiniLM's."""
    TOKENIZER.save(tmp_path)
    path = tmp_path / "tokenizer.json"
    settings = json.loads(path.read_text())
    settings["truncation"] = {
        "max_length": 4, "strategy": "LongestFirst", "stride": 0, "direction": "Right"
    }  # fmt: skip
    path.write_text(json.dumps(settings))
    (text,) = tokens.load(tmp_path)(["good film " * 10])
    assert len(text.ids) == 20


def test_learned_vocabulary(tmp_path):
    """Breaks if a classifier trained from scratch cannot read its own texts, here or saved."""
    learned = tokens.learn(["a very funny film", "a very dull film"] * 5, 60)
    learned.save(tmp_path)
    for tokenizer in (learned, tokens.load(tmp_path)):
        (text,) = tokenizer(["Funny film"], "word")
        assert len(text.spans) == 2 and learned.mask_id not in text.ids
        assert tokenizer.backend.decode(list(text.ids)) == "funny film"
    assert tokens.load(tmp_path).vocab_size == learned.vocab_size <= 60


def test_byte_level_words(tmp_path):
    """Breaks if RoBERTa's tokens, which hold the space before them, lose their words."""
    backend = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token="<unk>"))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=270, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(["a good film, good"], trainer)
    backend.post_processor = tokenizers.processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    backend.save(str(tmp_path / "tokenizer.json"))
    tokenizer = tokens.load(tmp_path)
    assert (tokenizer.cls_id, tokenizer.pad_id, tokenizer.mask_id) == (0, 1, 4)
    text = "a good film , naïve"
    (split,) = tokenizer([text], "word")
    words = [text[start:stop] for start, stop in split.spans]
    assert words == text.split()
    assert len(split.ids) > len(words)


def test_unknown_unit():
    """Breaks if a typo silently means tokens."""
    with pytest.raises(ValueError, match="expected 'token' or 'word'"):
        TOKENIZER(["good"], "words")


def test_words_of_sentence_pieces():
    """Breaks if XLM-RoBERTa's pieces, whose first has a mark for the space, are not joined."""
    pieces = ["<s>", "<pad>", "</s>", "<unk>", "▁a", "▁good", "▁fil", "m", ",", "<mask>"]
    backend = tokenizers.Tokenizer(models.Unigram([(piece, -1.0) for piece in pieces], unk_id=3))
    both = [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    backend.pre_tokenizer = pre_tokenizers.Sequence(both)
    (found,) = tokens.Tokenizer(backend, {}, 0, 2, 1, 9)(["a good  film, a"], "word")
    assert ["a good  film, a"[a:b] for a, b in found.spans] == ["a", "good", "film,", "a"]
    assert found.features.tolist() == [0, 1, 2, 2, 2, 3]
