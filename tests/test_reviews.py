"""Drawn reviews: deterministic, labelled by their opinions, with exact rationales."""

import itertools
import re

import numpy as np
import pytest

from fex_jax import review_words, reviews

_NOUNS = {noun.removeprefix("a ") for topic in review_words.TOPICS for noun in topic.nouns}
_NOUN = f"({'|'.join(sorted(_NOUNS, key=len, reverse=True))})"
# "The plot was really dull": the noun stands before; "a dull plot", "I loved this film": behind.
_BEFORE = re.compile(rf".*?\b{_NOUN}( is| are| was| were)?( really| simply| truly)?")
_BEHIND = re.compile(rf"(this )?{_NOUN}\b")


def opinions(split, index):
    """(sign, expression, noun) of each opinion of a review, found in its words alone."""
    words, found, stop = reviews.draft(0, split, index).split(), [], 0
    for sign, run in itertools.groupby(words, lambda word: word[0] if word[0] in "+-" else ""):
        start, stop = stop, stop + len(list(run))
        if sign:
            expression = " ".join(word.lstrip("+-") for word in words[start:stop]).rstrip(".,;")
            before = _BEFORE.fullmatch(" ".join(words[max(0, start - 5) : start]))
            noun = before[1] if before else _BEHIND.match(" ".join(words[stop:]))[2]
            found.append((sign, expression, noun))
    return found


def test_a_review_is_a_function_of_seed_split_and_index():
    """Breaks if writing depends on what was written before, or ignores one of the three."""
    first = reviews.write(0, "train", 7)
    others = {reviews.write(*place).text for place in ((0, "train", 8), (1, "train", 7),
                                                       (0, "test", 7))}  # fmt: skip
    again = reviews.write(0, "train", 7)
    assert again.text == first.text and again.label == first.label
    np.testing.assert_array_equal(again.rationale, first.rationale)
    assert len(others) == 3 and first.text not in others
    with pytest.raises(ValueError, match="split 'dev' is unknown; choose one of train"):
        reviews.write(0, "dev", 0)


def test_label_and_rationale_follow_the_opinions():
    """Breaks if a label is not what most opinions say, or other words than theirs are marked."""
    mixed = 0
    for index in range(500):
        review, signed = reviews.write(0, "train", index), reviews.draft(0, "train", index).split()
        signs = [sign for sign, *_ in opinions("train", index)]
        balance = signs.count("+") - signs.count("-")
        assert balance and review.label == (balance > 0)
        mixed += len(set(signs)) == 2
        words = review.text.split()
        assert len(words) == len(signed) == len(review.rationale)
        for word, marked, with_sign in zip(words, review.rationale, signed, strict=True):
            sign = with_sign.removesuffix(word)
            assert sign in ("", "+", "-")
            assert marked == (sign == "-+"[review.label])
    assert 150 < mixed < 400


def test_a_negator_turns_an_adjective_round():
    """Breaks if "not funny" counts as praise, or its "not" is left out of the rationale."""
    denied, plain = {}, {}
    for index in range(2000):
        for sign, expression, *_ in opinions("train", index):
            *negator, adjective = expression.split()
            if " ".join(negator) in review_words.NEGATORS:
                denied.setdefault(adjective, set()).add(sign)
            elif not negator:
                plain.setdefault(adjective, set()).add(sign)
    both = denied.keys() & plain.keys()
    assert len(both) > 80
    for adjective in both:
        assert sorted(denied[adjective] | plain[adjective]) == ["+", "-"]
        assert len(denied[adjective]) == len(plain[adjective]) == 1


def test_splits_share_no_opinion():
    """Breaks if an expression is said of the same noun in two splits, or a test has new words."""
    said = {
        split: {
            tuple(pair)
            for index in range(2500 if split == "train" else 600)
            for _, *pair in opinions(split, index)
        }
        for split in reviews.SPLITS
    }
    for one, two in itertools.combinations(said.values(), 2):
        assert len(one) > 300 and not one & two
    known, *other = (
        {word for pair in pairs for text in pair for word in text.split()}
        for pairs in said.values()
    )
    assert all(words <= known for words in other)


def test_reviews_are_many_and_short():
    """Breaks if reviews repeat themselves, or are longer than the classifier's window."""
    texts = [reviews.write(0, "train", index).text for index in range(3000)]
    assert len(set(texts)) == len(texts)
    counts = [len(text.split()) for text in texts]
    assert min(counts) >= 8 and max(counts) < 100 and 30 < np.mean(counts) < 60
    for text in texts:
        sentences = re.findall("[A-Z0-9][^.]*[.]", text)
        assert " ".join(sentences) == text and 2 <= len(sentences) <= 5
        assert "{" not in text and "  " not in text
