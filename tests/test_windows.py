"""Pairs of texts: tokens and types as transformers', masks over both, cuts, maps."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest
from tokenizers import processors

import fex_jax
from fex_jax import feeding, masking, predictors, pretrained, text_data, tokens
from fex_jax.families import deberta
from fex_jax.models import shapes
from tests import tiny_text
from tests.conftest import random_like

PAIR = "the movie was funny", "a good film ."


def _roberta():
    """The tiny tokenizer with the template of RoBERTa: <s> A </s></s> B </s>."""
    found = tiny_text.tokenizer()
    ends = ("[SEP]", 3), ("[CLS]", 2)
    found.backend.post_processor = processors.RobertaProcessing(*ends, add_prefix_space=False)
    return found


@pytest.mark.parametrize(
    "family, tokenizer", [("bert", tiny_text.tokenizer), ("electra", tiny_text.tokenizer),
                          ("roberta", _roberta)]
)  # fmt: skip
def test_logits_of_pairs_equal_torch(family, tokenizer, tmp_path):
    """Breaks if types, the tokens between two texts, or their order are not transformers'."""
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    checkpoint = dataclasses.replace(tiny_text.checkpoint(family, 3), tokenizer=tokenizer())
    pretrained.save(tmp_path, checkpoint)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    theirs = checkpoint.tokenizer.backend.encode(*PAIR)
    (text,) = checkpoint.tokenizer([PAIR])
    batch = tokens.collate([text], 20, checkpoint.tokenizer)
    count = len(theirs.ids)
    np.testing.assert_array_equal(batch.ids[0, :count], theirs.ids)
    np.testing.assert_array_equal(batch.types[0, :count], theirs.type_ids)
    given = {"input_ids": theirs.ids, "attention_mask": theirs.attention_mask}
    if family != "roberta":
        given |= {"token_type_ids": theirs.type_ids}
        assert max(theirs.type_ids) == 1
    with torch.no_grad():
        expected = model(**{k: torch.tensor([v]) for k, v in given.items()}).logits.softmax(-1)
    f = predictors.bert(checkpoint.config, checkpoint.params, 20, mask_id=4)
    np.testing.assert_allclose(f.predict(batch), expected, atol=1e-5)
    if family == "bert":  # the types count
        other = f.predict(batch._replace(types=None))
        assert np.abs(other - expected.numpy()).max() > 1e-3


def test_transformers_tokenizer_says_the_same(tmp_path):
    """Breaks if what pairs become here is not what a pipeline of transformers would be fed."""
    transformers = pytest.importorskip("transformers")
    tiny_text.checkpoint().save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)(*PAIR)
    (text,) = tokens.load(tmp_path)([PAIR])
    assert theirs["input_ids"] == [2, *text.ids, 3]
    assert theirs["token_type_ids"] == [0, *text.types]


def test_features_are_of_both_texts():
    """Breaks if a word's number or place is another's, or what stands between can be removed."""
    (text,) = tiny_text.tokenizer()([PAIR], "word")
    assert text.string == "the movie was funny\na good film ."
    assert [text.string[a:b] for a, b in text.spans] == "the movie was funny a good film .".split()
    assert text.second == 4
    # funny is two tokens, then SEP
    np.testing.assert_array_equal(text.features, [0, 1, 2, 3, 3, -1, 4, 5, 6, 7])
    batch = tokens.collate([text], 12, tiny_text.tokenizer())
    masked = masking.tokens(batch, jnp.zeros((1, 12)), 4)
    np.testing.assert_array_equal(masked.ids[0], [2, 4, 4, 4, 4, 4, 3, 4, 4, 4, 4, 3])
    np.testing.assert_array_equal(masked.types, batch.types)


def test_a_batch_of_texts_and_pairs():
    """Breaks if a single text gets the types of its neighbour."""
    tokenizer = tiny_text.tokenizer()
    batch = tokens.collate(tokenizer(["a film", PAIR]), 14, tokenizer)
    assert not batch.types[0].any() and batch.types[1].sum() == 5
    assert tokens.collate(tokenizer(["a film"]), 14, tokenizer).types is None


@pytest.mark.parametrize("tokenizer", [tiny_text.tokenizer, _roberta])
def test_cut_pairs_lose_the_ends_of_the_longer(tokenizer):
    """Breaks if a pair is cut in another place than transformers cuts it, word by word."""
    pair = "a movie was fun " * 3 + "!", "the film was dull"
    ends = len(tokenizer().backend.encode("a", "a").ids) - 2
    lengths, (text,) = tokens.within([pair], tokenizer(), 12, "word", "cut")
    count = 12 - ends
    kept = len(text.pair[0].split()), len(text.pair[1].split())
    assert kept == (count - 4, 4) and lengths == [12]
    assert text.pair[0] == " ".join(pair[0].split()[: kept[0]])
    with pytest.raises(ValueError, match="1 of 1 texts are longer"):
        tokens.within([pair], tokenizer(), 12)
    with pytest.raises(ValueError, match="a pair cannot be cut to 4 tokens"):
        tokens.within([pair], tokenizer(), 4, "word", "cut")


@pytest.mark.parametrize(
    "given, message",
    [
        ([("a", "b", "c")], "text 0 has 3 strings; expected one, or a pair"),
        ([("a", 1)], "text 0 is tuple; expected a string"),
        ([("a film", " ")], "text 0 is empty"),
        ([("a \ud800", "b")], "text 0 is no valid Unicode"),
    ],
)
def test_what_is_no_pair(given, message):
    """Breaks if something else than two strings ends in a traceback from inside."""
    with pytest.raises(ValueError, match=message):
        tiny_text.tokenizer()(given)


def test_pairs_that_cannot_be_read():
    """Breaks if a black box gets half of a pair, or a tokenizer without a template joins them."""
    box = dataclasses.replace(tiny_text.tokenizer(), raw=True)
    with pytest.raises(ValueError, match="text 0 is a pair; a black box .* reads single strings"):
        box([PAIR])
    plain = tiny_text.tokenizer()
    plain.backend.post_processor = processors.ByteLevel()
    with pytest.raises(ValueError, match="no template of pairs"):
        plain([PAIR])
    f = fex_jax.host(lambda texts: np.full((len(texts), 2), 0.5), labels=["a", "b"], input="text")
    with pytest.raises(ValueError, match="the data are pairs; a black box"):
        fex_jax.fit(f, [PAIR] * 40)


@pytest.mark.parametrize("kind", ["csv", "jsonl", "named", "frame", "list"])
def test_two_columns_are_pairs(kind, tmp_path):
    """Breaks if the second column is lost, or another is taken for it."""
    rows = [{"premise": f"film {i}", "hypothesis": "a plot", "label": i % 2} for i in range(4)]
    column = None
    match kind:
        case "jsonl":
            given = tmp_path / "own.jsonl"
            given.write_text("\n".join(map(json.dumps, rows)))
        case "frame":
            given = pytest.importorskip("pandas").DataFrame(rows)
        case "list":
            given = [[row["premise"], row["hypothesis"]] for row in rows] + [("a", " ")]
        case _:
            given, column = tmp_path / "own.csv", ("first", "second") if kind == "named" else None
            head = "first,second,label" if column else "premise,hypothesis,label"
            lines = [",".join(map(str, row.values())) for row in rows]
            given.write_text("\n".join([head, *lines]))
    source, _, skipped = feeding.open_data(tiny_text.checkpoint(), given, column=column)
    assert sorted(source.texts) == [(f"film {i}", "a plot") for i in range(4)]
    assert skipped == ("; skipped 1: 1 without text" if kind == "list" else "")
    if kind in ("csv", "jsonl"):
        labelled = text_data.texts_source(str(given), "all")
        assert sorted(zip(labelled.texts, labelled.classes, strict=True)) == [
            ((f"film {i}", "a plot"), i % 2) for i in range(4)
        ]


def test_maps_of_both_texts():
    """Breaks if a method's map of a pair lacks one side, or a notebook shows them as one."""
    predictor = tiny_text.checkpoint()
    (found,) = fex_jax.attribute("occlusion", predictor, [PAIR])
    assert found.words[: found.second] == ("the", "movie", "was", "funny")
    assert found.words[found.second :] == ("a", "good", "film", ".")
    assert (np.abs(found.scores) > 0).all()
    assert "<br>" in found.to_html().split("</strong><br>")[1]
    f = predictors.from_checkpoint(predictor)
    model, inputs = f(
        predictor.params, tokens.collate(predictor.tokenizer([PAIR]), 20, predictor.tokenizer)
    )
    np.testing.assert_allclose(found.probabilities, model.predict(inputs)[0], atol=1e-6)


def test_an_explainer_of_pairs():
    """Breaks if training, or an explanation, reads a pair in another way than the predictor.

    Here a DeBERTa, as another text family that is trained for.
    """
    config = deberta.DebertaConfig(
        2, len(tiny_text.SPECIAL) + len(tiny_text.WORDS), 16, 1, 2, 32, 32, num_types=2,
        relative=True, buckets=6, shared=True, c2p=True, p2c=True, norm_positions=True,
    )  # fmt: skip
    params = random_like(shapes(type(config).classifier, config))
    tokenizer = tiny_text.tokenizer()
    predictor = pretrained.TextCheckpoint(config, params, ("no", "yes"), tokenizer)
    words = [word for word in tiny_text.WORDS if word.isalpha()]
    pairs = [(f"the {a} film", f"a {b} plot") for a in words[:6] for b in words[6:12]]
    explainer = fex_jax.fit(predictor, pairs, epochs=1, batch_size=16)
    (found,) = explainer([PAIR])
    batch = tokens.collate(tokenizer([PAIR]), 20, tokenizer)
    f = predictors.bert(config, params, 20, mask_id=4)
    assert explainer.backbone == config and found.second == 4 and len(found.scores) == 8
    np.testing.assert_allclose(found.probabilities, f.predict(batch)[0], atol=1e-6)
    with pytest.raises(ValueError, match="text 0: a pair of 35 tokens is longer than the window"):
        explainer([("film " * 30, "a plot")])
