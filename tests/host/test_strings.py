"""Black boxes of texts from training to tables: the same as a classifier of tokens in JAX."""

import dataclasses
import json
from types import SimpleNamespace

import jax
import numpy as np
import pytest

import eval as eval_script
import fex_jax
import train as train_script
from configs import black_box_texts
from fex_jax import explain, feeding, host, predictors, pretrained, settings, tokens
from fex_jax.host import HostError, black_box
from fex_jax.training import asking
from fex_jax.training.explainer import train
from tests import tiny_text
from tests.host.black_boxes import critic, mood

WORDS = ("a", "the", "film", "good", "bad", "great", "awful", "plot", "dull", "very")
RNG = np.random.default_rng(0)
TEXTS = [" ".join(RNG.choice(WORDS, RNG.integers(2, 9))) for _ in range(12)]


def small(**changes):
    """Three steps of a tiny BERT."""
    config = settings.default()
    config.update_from_flattened_dict(
        {
            "batch_size": 4, "epochs": 1.0, "log_every": 1, "checkpoint.every": 2, "policy": "bert",
            "objective.num_masks": 4, "objective.num_updates": 1, "objective.num_passes": 1,
            "optimizer.learning_rate": 1e-3, "optimizer.backbone_scale": 1.0,
        }
        | changes
    )  # fmt: skip
    return config


def curve(workdir) -> list[float]:
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


def of_strings(predictor):
    """Strings → probabilities: a classifier of tokens that tokenises what it is asked about."""
    predict = jax.jit(predictors.bert(predictor.config, predictor.params, 32, None).predict)
    tokenizer = predictor.tokenizer

    def call(texts: list[str]) -> np.ndarray:
        return np.asarray(predict(tokens.collate(tokenizer(texts), 32, tokenizer)))

    return host.host(call, labels=predictor.labels, input="text", digest="of tokens")


def test_the_same_as_in_jax(tmp_path):
    """Breaks if training asks other questions of strings than of tokens, or gives other scores.

    f is the same BERT; "[MASK]" in a string is the token that a removed word becomes in JAX.
    """
    predictor = tiny_text.checkpoint()
    pretrained.save(tmp_path / "bert", predictor)
    train(small(), tmp_path / "native", predictor, feeding.open_data(predictor, TEXTS)[0])
    native = explain.load(tmp_path / "native")(TEXTS, refine=8)

    f, box = of_strings(predictor), tmp_path / "box"
    own = {"removal.kind": "word", "removal.word": "[MASK]", "predictor.overlap": False}
    own["policy_backbone.path"] = str(tmp_path / "bert")
    source, _, _ = feeding.open_data(black_box.of(f), TEXTS)
    train(small(**own), box, f, source)
    np.testing.assert_allclose(curve(box), curve(tmp_path / "native"), rtol=1e-3)
    for found, expected in zip(fex_jax.load(box, f)(TEXTS, refine=8), native, strict=True):
        np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-4)
        np.testing.assert_allclose(found.scores, expected.scores, atol=1e-4)

    away = fex_jax.load(box)  # whose probabilities are its own
    (found,) = away(TEXTS[0])
    assert found.probabilities.sum() == pytest.approx(1, abs=1e-5)
    assert list(found.words) == TEXTS[0].split()
    with pytest.raises(HostError, match="^this takes queries, and the black box is not at hand"):
        away(TEXTS, refine=8)
    with pytest.raises(ValueError, match=r"has the input \(4, 4, 3\), but the black box"):
        fex_jax.load(box, host.host(len, labels=predictor.labels, input=(4, 4, 3)))


def test_a_run_learns_again_from_the_answers_of_another(tmp_path):
    """Breaks if learning again asks f, sees other masks than those that were asked about, or does
    not say that masks are missing.

    With the settings of the run whose answers they are, every loss is as it was. Texts are long and
    budgets alike, for masks are kept once, and those of all words not at all.
    """
    seen = []

    def call(texts: list[str]) -> list[float]:
        seen.extend(texts)
        return mood(texts)

    pretrained.save(tmp_path / "bert", tiny_text.checkpoint())
    texts = [" ".join(RNG.choice(WORDS, count)) for count in (16, 17, 18, 19, 20, 21, 22, 23)]
    f = host.host(call, labels=("bad", "good"), input="text", digest="mood")
    source, _, _ = feeding.open_data(black_box.of(f), texts)

    def losses(folder: str, **changes) -> list[float]:
        own = {"policy_backbone.path": str(tmp_path / "bert"), "objective.budget_range": 0.5}
        own["removal.kind"] = "delete"
        train(small(**own | changes), tmp_path / folder, f, source)
        return curve(tmp_path / folder)

    first, asked = losses("first"), len(seen)
    bank = {"predictor.bank": str(tmp_path / "first")}
    np.testing.assert_allclose(losses("again", **bank), first, rtol=1e-5)
    assert len(seen) == asked
    (tmp_path / "first" / "masks.bank").unlink()  # a run of a version that kept none
    with pytest.raises(ValueError, match=r"where no masks\.bank is: name the folder of a run"):
        losses("without", **bank)


def test_fit_from_nothing(capsys):
    """Breaks if texts need a network to start from, a budget is exceeded, or f sees odd strings."""
    seen = []

    def call(texts: list[str]) -> list[float]:
        seen.extend(texts)
        return mood(texts)

    f = host.host(call, labels=("bad", "good"), input="text", name="mood")
    options = {"text.max_length": 32, "objective.num_masks": 4}
    explainer = fex_jax.fit(f, TEXTS, queries=200, batch_size=4, settings=options)
    assert "words are deleted" in capsys.readouterr().out
    assert 80 < len(seen) <= 200 and "" in seen and set(TEXTS) & set(seen)
    assert all(text == " ".join(text.split()) for text in seen)
    (found,) = explainer("Good, bad?\n\nA  film!")
    assert found.words == ("Good", ",", "bad", "?", "A", "film", "!")
    assert seen[-1] == "Good, bad?\n\nA  film!"


@pytest.mark.parametrize("borne", ["_", "[MASK]", "[PAD]"])
def test_the_probe_chooses_what_f_can_stand(borne, tmp_path, capsys):
    """Breaks if f is asked under a removal after which it says nothing, words that f knows are not
    tried, or the choice is not kept.

    f reads the fourth word alone, and another is there when one before it is deleted; with any
    other word in a removed one's place than what it can bear, it says nothing.
    """

    def call(texts: list[str]) -> list[float]:
        words = [[w for w in text.split() if w not in {"_", "[MASK]", "[PAD]"} - {borne}]
                 for text in texts]  # fmt: skip
        return [0.9 if found[3:4] == ["good"] else 0.1 for found in words]

    known = {"words": ("[MASK]", "[PAD]"), "digest": "the fourth"}
    f = host.host(call, labels=("bad", "good"), input="text", **known)
    box, config = black_box.of(f), settings.default()
    config.removal.word = "_"
    texts = box.tokenizer(["the film is good , so they say"] * 8, "word")
    batch = tokens.collate(texts, 32, box.tokenizer)
    chosen, about = asking.choose(box, asking.candidates(config, f), batch)
    assert chosen.word == borne and 0.2 < about.at_half < 0.8
    rows = [line.split()[0] for line in capsys.readouterr().out.splitlines()[2:]]
    assert rows == ["delete", "_", "[MASK]", "[PAD]"]
    dataclasses.replace(box, removal=chosen, probe=about).save(tmp_path)
    kept = black_box.read(tmp_path)
    assert (kept.removal, kept.probe) == (chosen, about)


def test_both_commands(text_table, tmp_path, monkeypatch, capsys):
    """Breaks if train.py and eval.py cannot be pointed at a predictor of strings and a table."""
    config = black_box_texts.get_config()
    config.update_from_flattened_dict(
        {
            "predictor.path": "tests.host.black_boxes:critic", "data.path": text_table,
            "batch_size": 4, "epochs": 0.3, "eval.num_images": 2, "eval.batch_size": 2,
            "text.max_length": 32, "objective.num_masks": 4,
            "attributions.rise.num_queries": 4, "log_every": 1,
        }
    )  # fmt: skip
    given = {"config": config, "workdir": str(tmp_path), "queries": 1000}
    monkeypatch.setattr(train_script.flags, "FLAGS", SimpleNamespace(**given))
    train_script.main([])
    said = capsys.readouterr()
    assert "queries left" in said.out + said.err

    usual = {"config": None, "predictor": None, "trained": [], "scores": [], "refine": 0}
    given |= usual | {"methods": ["rise"], "write_inputs": True, "queries": None}
    monkeypatch.setattr(eval_script.flags, "FLAGS", SimpleNamespace(**given))
    eval_script.main([])
    found = json.loads((tmp_path / "eval" / "results.json").read_text())
    assert list(found["methods"]) == ["fex", "rise"]
    assert found["facts"]["Removal"] == "words are deleted"
    assert found["facts"]["Predictor"].startswith("tests.host.black_boxes:mood, 2 classes")
    assert found["facts"]["Features"].startswith("words, in texts of up to 32 tokens")
    assert (tmp_path / "eval" / "gallery.html").is_file()
    with np.load(tmp_path / "eval" / "inputs.npz", allow_pickle=False) as inputs:
        assert set(inputs) == {"texts", "targets", "ids", "attention", "features"}


def test_without_an_explainer_words_are_still_words():
    """Breaks if methods need a network to know what a word is.

    f is linear in each word but for its limits, so that occlusion gives each its own tenth.
    """
    from fex_jax import attributions

    batch = tokens.collate(
        black_box.of(critic).tokenizer(["Such a good, good film", "bad"], "word"), 32,
        black_box.of(critic).tokenizer,
    )  # fmt: skip
    model, inputs = black_box.of(critic).bind({}, batch)
    found = attributions.occlusion(model, inputs, np.array([1, 1]))
    expected = np.zeros((2, 32))
    expected[0, 4], expected[1, 0] = 0.1, -0.1  # "good," is one word to f, and no "good"
    expected[0, 3] = -0.1  # without the comma it is one
    np.testing.assert_allclose(found, expected, atol=1e-6)
    table = fex_jax.evaluate(["occlusion", "random"], critic, TEXTS[:4], batch_size=4)
    assert table.facts["Data"] == "4 texts"
    areas = {name: of["positive_auc"]["mean"] for name, of in table.methods.items()}
    assert areas["occlusion"] <= areas["random"]


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"removal.kind": "blur"}, "of words choose probe, delete or word"),
        ({"removal.kind": "word"}, "say which one with removal.word"),
        ({"policy": "unet"}, "choose small_bert, or name one with --config.policy_backbone.path"),
    ],
)
def test_what_texts_cannot_take_is_refused(settings, message):
    """Breaks if a setting of pictures is passed over in silence."""
    with pytest.raises(ValueError, match=message):
        fex_jax.fit(critic, TEXTS, settings=settings)
