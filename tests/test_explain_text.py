"""Explanations of texts, from a tiny BERT with random weights."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from configs import bert_movies
from fex_jax import explain, predictors, pretrained, tokens
from fex_jax.models.policy import functional_policy
from fex_jax.training.explainer import train
from tests import tiny_text
from tests.conftest import random_params

TEXTS = ["a funny film , very good !", "dull plot .", "The movie was not bad"]


@pytest.fixture(scope="module")
def explainer() -> explain.Explainer:
    predictor = tiny_text.checkpoint()
    init, _ = functional_policy(predictor.config, 2)
    return explain.Explainer(predictor, predictor.config, random_params(init), budget=-3.0)


def test_words_are_the_texts_own(explainer):
    """Breaks if a word loses its pieces, its capitals or its place."""
    found = explainer(TEXTS)
    assert found[0].words == ("a", "funny", "film", ",", "very", "good", "!")
    assert found[2].words == ("The", "movie", "was", "not", "bad")
    for explanation in found:
        assert explanation.scores.shape == (len(explanation.words),)
        assert explanation.target == explanation.probabilities.argmax()
        assert explanation.num_windows == 1


def test_texts_have_no_pictures(explainer):
    """Breaks if what explainers of pictures have ends in an error about a module's attributes."""
    with pytest.raises(ValueError, match="picture is of explainers of images, and this one exp"):
        explainer.picture("docs/scene.png")
    with pytest.raises(ValueError, match="grid is of explainers of images"):
        _ = explainer.grid


def test_batches_do_not_matter(explainer):
    """Breaks if padding or a neighbour changes a text's scores."""
    together = explainer(TEXTS)
    for text, expected in zip(TEXTS, together, strict=True):
        alone = explainer(text, batch_size=2)[0]
        np.testing.assert_allclose(alone.scores, expected.scores, atol=1e-5)
        np.testing.assert_allclose(alone.probabilities, expected.probabilities, atol=1e-5)


def test_warmup_compiles_all_that_calls_need(explainer):
    """Breaks if a text's first explanation compiles after a warmup, or scores need f where it is
    left out and other than mirrored ones do not."""
    fresh = dataclasses.replace(explainer)
    fresh.warmup([1, 2])
    programs = [program._cache_size() for program in fresh.programs]
    assert sum(programs) > 0
    for count in (1, 2):
        fresh(TEXTS[:count])
    assert [program._cache_size() for program in fresh.programs] == programs
    (silent,) = fresh(TEXTS[0], 1, with_prediction=False)
    assert silent.probabilities is None and "class 1<" in silent.to_html()
    np.testing.assert_allclose(silent.scores, explainer(TEXTS[0], 1)[0].scores, atol=1e-6)


def test_targets(explainer):
    """Breaks if the explained class is not the one asked for."""
    named = explainer(TEXTS[0])[0]
    other = 1 - named.target
    found = explainer(TEXTS[0], f"class {other}")[0]
    assert found.target == other
    np.testing.assert_array_equal(np.argsort(found.scores), np.argsort(-named.scores))


def test_of_two_classes_one_map_is_the_other_mirrored(explainer):
    """Breaks if the class that f does not name gets the map that hardly learned."""
    likely = explainer(TEXTS)
    for refine in (0, 8):
        both = [explainer(TEXTS, f"class {k}", refine=refine) for k in (0, 1)]
        for one, other in zip(*both, strict=True):
            logits = [np.log(e.scores / (1 - e.scores)) for e in (one, other)]
            np.testing.assert_allclose(sum(logits), 2 * explainer.budget, atol=1e-4)
        if not refine:
            for i, explanation in enumerate(likely):
                np.testing.assert_allclose(both[explanation.target][i].scores, explanation.scores)


def test_long_texts_are_read_in_windows(explainer):
    """Breaks if the end of a long text is cut off, or a window's words are counted twice."""
    text = " ".join(TEXTS * 9)  # far more than 32 tokens
    found = explainer(text)[0]
    assert found.num_windows > 3
    assert found.words == tuple(w for t in TEXTS * 9 for w in explainer(t)[0].words)
    assert ((found.scores > 0) & (found.scores < 1)).all()
    np.testing.assert_allclose(found.probabilities.sum(), 1, atol=1e-5)


@pytest.mark.parametrize("method", ["fex", "fastshap"])
def test_a_word_in_two_windows_has_the_mean_of_both(explainer, method):
    """Breaks if windows are put together at the wrong words, or a sum stands for a mean."""
    explainer = dataclasses.replace(explainer, method=method)
    text = " ".join(TEXTS * 5)
    whole = explainer(text, 1)[0]
    (split,) = explainer.predictor.tokenizer([text], "word")
    parts = tokens.windows(split, 32, 8)
    seen = [[] for _ in whole.words]
    for first, part in parts:
        alone = explainer(text[part.spans[0, 0] : part.spans[-1, 1]], 1)[0]
        assert alone.num_windows == 1
        scores = alone.scores
        # FEX's λ is the sigmoid of the mean logit.
        scores = np.log(scores / (1 - scores)) if method == "fex" else scores
        for word, score in enumerate(scores, start=first):
            seen[word].append(score)
    assert {len(found) for found in seen} == {1, 2}
    expected = np.array([np.mean(found) for found in seen])
    expected = 1 / (1 + np.exp(-expected)) if method == "fex" else expected
    np.testing.assert_allclose(whole.scores, expected, atol=1e-5)


@pytest.mark.parametrize(
    "texts, targets, message",
    [
        ([], None, "the batch is empty"),
        (pd.DataFrame({"text": ["good"]}), None, "DataFrame is no text: .* a column of a data"),
        ({"good", "bad"}, None, "set is no text: expected one string or a list"),
        (["good", ""], None, "text 1 is empty"),
        (["good", 3], None, "text 1 is int; expected a string"),
        ("good", "great", "class 'great' is unknown; classes: class 0, class 1"),
        ("good", 2, "class 2 is out of range; expected 0 to 1"),
    ],
)
def test_bad_input_is_named(explainer, texts, targets, message):
    """Breaks if bad input ends in a traceback from deep inside, or in a silent answer."""
    with pytest.raises(ValueError, match=message):
        explainer(texts, targets)


def test_refining_asks_the_classifier(explainer):
    """Breaks if queries change nothing, depend on the batch, or λ leaves [0, 1]."""
    plain, found = explainer(TEXTS), explainer(TEXTS, refine=16)
    for text, before, after in zip(TEXTS, plain, found, strict=True):
        assert after.target == before.target
        assert ((after.scores >= 0) & (after.scores <= 1)).all()
        spread = before.scores.std()
        assert np.abs(after.scores - before.scores).max() > 0.1 * spread
        alone = explainer(text, refine=16)[0].scores
        np.testing.assert_allclose(alone, after.scores, rtol=0, atol=0.05 * spread)


def train_on_texts(config, tmp_path):
    """The explainer of three steps, and the lines of its log."""
    pretrained.save(tmp_path / "predictor", tiny_text.checkpoint())
    rows = [{"text": TEXTS[i % 3], "label": f"class {i % 2}"} for i in range(24)]
    (tmp_path / "texts.jsonl").write_text("\n".join(map(json.dumps, rows)))
    config.update_from_flattened_dict(
        {
            "data.name": "texts", "data.path": str(tmp_path / "texts.jsonl"),
            "data.train_split": "all", "predictor.path": str(tmp_path / "predictor"),
            "batch_size": 8, "epochs": 1.0, "log_every": 1,
        }
    )  # fmt: skip
    train(config, tmp_path / "run")
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    log = [json.loads(line) for line in lines]
    assert [line["step"] for line in log] == [1, 2, 3]
    return explain.load(tmp_path / "run"), log


def test_training_on_texts_ends_in_an_explainer(tmp_path):
    """Breaks if texts cannot go through the trainer, the export or `explain.load`."""
    explainer, log = train_on_texts(bert_movies.get_config(), tmp_path)
    assert 3 <= log[-1]["policy/num_features"] <= 7  # words, not 32 places
    assert explainer.unit == "word" and explainer.budget == -3
    assert len(explainer(TEXTS)[1].scores) == 3


def test_fastshap_explains_texts(tmp_path):
    """Breaks if φ of a text does not add up to f(x) − f(∅), in the way that training removed."""
    config = bert_movies.get_config("fastshap")
    config.text.removal = "delete"
    explainer, log = train_on_texts(config, tmp_path)
    assert np.isfinite(log[-1]["loss"])
    assert (explainer.method, explainer.budget) == ("fastshap", None)
    predictor = explainer.predictor
    inputs = tokens.collate(predictor.tokenizer(TEXTS, "word"), 32, predictor.tokenizer)
    model = predictors.bert(predictor.config, predictor.params, 32, None)
    blank = model.mask(inputs, jnp.zeros((3, 32), bool))
    gain = np.asarray(model.predict(inputs) - model.predict(blank))
    assert np.abs(gain).max() > 1e-4
    for row, explanation in enumerate(explainer(TEXTS)):
        np.testing.assert_allclose(
            explanation.scores.sum(), gain[row, explanation.target], atol=1e-6
        )
        assert explanation.to_html().count("<span") == len(explanation.words)


def test_maps_are_of_the_features_that_exist(explainer):
    """Breaks if padding moves the centre of a map, or has a score."""
    predictor = explainer.predictor
    split = predictor.tokenizer(TEXTS, "word")
    classes = np.array([[0, 1], [1, 0], [1, 1]])
    long, short = (
        np.asarray(
            explainer.maps(
                explainer.params, tokens.collate(split, length, predictor.tokenizer), classes
            )
        )
        for length in (32, 12)
    )
    assert long.shape == (3, 2, 32)
    np.testing.assert_allclose(long[..., :12], short, atol=1e-5)
    for row, text in enumerate(split):
        size = len(text.spans)
        np.testing.assert_allclose(long[row, :, :size].mean(-1), -3, atol=1e-6)
        assert not long[row, :, size:].any() and long[row, :, :size].std() > 1e-4
