"""Pipelines and modules of Hugging Face, against the logits of their own models."""

import numpy as np
import pytest

import fex_jax

TEXTS = ["good", "film", "good good film"]
IMAGES = np.random.default_rng(0).integers(0, 256, (5, 6, 6, 3)).astype(np.uint8)


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def text_pipeline(folder):
    """A pipeline of a tiny BERT of three classes, and its model and tokenizer."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    words = {w: i for i, w in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good"])}
    (folder / "vocab.txt").write_text("\n".join(words))
    config = transformers.BertConfig(
        vocab_size=6, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=8, num_labels=3, id2label={0: "b", 1: "a", 2: "c"},
        max_position_embeddings=16, initializer_range=2.0,
    )  # fmt: skip
    model = transformers.BertForSequenceClassification(config).eval()
    tokenizer = transformers.BertTokenizerFast(vocab=words, vocab_file=str(folder / "vocab.txt"))
    pipe = transformers.pipeline("text-classification", model=model, tokenizer=tokenizer)
    return pipe, model, tokenizer


def test_hugging_face_pipelines(tmp_path):
    """Breaks if scores, which come by falling score, are given to other labels, or a head of
    independent labels or of a value is read by a softmax, or logits twice; or if the words that
    the probe is to try are not the tokenizer's own.

    Against the logits of the pipeline's own model.
    """
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from fex_jax.host.huggingface import huggingface
    from fex_jax.host.torch_module import torch_module

    pipe, model, tokenizer = text_pipeline(tmp_path)
    words = tokenizer.get_vocab()
    predictor = huggingface(pipe)
    with torch.inference_mode():
        logits = model(**tokenizer(TEXTS, padding=True, return_tensors="pt")).logits.numpy()
    assert predictor.labels == ("b", "a", "c") and predictor.words == ("[MASK]", "[PAD]")
    first = tokenizer.backend_tokenizer.encode("[MASK] [PAD]").ids[1:-1]  # as pieces of a text
    assert first == [words["[MASK]"], words["[PAD]"]]
    np.testing.assert_allclose(predictor(TEXTS), softmax(logits), atol=1e-5)
    np.testing.assert_allclose(
        huggingface(pipe, output="logits")(TEXTS), softmax(logits), atol=1e-5
    )
    model.config.problem_type = "multi_label_classification"
    sigmoids = 1 / (1 + np.exp(-logits))
    np.testing.assert_allclose(huggingface(pipe)(TEXTS), sigmoids, atol=1e-5)
    model.config.problem_type = "regression"
    np.testing.assert_allclose(huggingface(pipe)(TEXTS), logits, atol=1e-5)

    config = transformers.ViTConfig(
        image_size=6, patch_size=3, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=8, num_labels=3,
    )  # fmt: skip
    model = transformers.ViTForImageClassification(config).eval()
    processor = transformers.ViTImageProcessor(size={"height": 6, "width": 6})
    pipe = transformers.pipeline("image-classification", model=model, image_processor=processor)
    predictor = huggingface(pipe)
    assert predictor.input == (6, 6, 3)
    pixels = torch.from_numpy(((IMAGES / 255 - 0.5) / 0.5).transpose(0, 3, 1, 2)).float()
    with torch.inference_mode():
        logits = model(pixels).logits.numpy()
    np.testing.assert_allclose(predictor(IMAGES), softmax(logits), atol=1e-4)
    model.config.problem_type = "multi_label_classification"
    module = torch_module(model, labels=list("abc"), input=(6, 6, 3), mean=0.5, std=0.5)
    np.testing.assert_allclose(module(IMAGES), 1 / (1 + np.exp(-logits)), atol=1e-4)


def test_classes_of_one_name_are_told_apart(tmp_path):
    """Breaks if labels that repeat, which other adapters take, are refused or exchanged here, or
    if the pipeline that was given has other labels afterwards."""
    from fex_jax.host.huggingface import huggingface

    pipe, model, _ = text_pipeline(tmp_path)
    expected = huggingface(pipe)(TEXTS)
    model.config.id2label = {0: "b", 1: "b", 2: "c"}
    twice = huggingface(pipe)
    assert twice.labels == ("b", "b", "c")
    np.testing.assert_array_equal(twice(TEXTS), expected)
    assert {entry["label"] for entry in pipe("good", top_k=3)} == {"b", "c"}
    with pytest.raises(ValueError, match="class 'b' is ambiguous: give one of the numbers 0, 1"):
        fex_jax.attribute("occlusion", twice, TEXTS[:1], "b")


def test_a_pipeline_is_explained_as_it_is(tmp_path):
    """Breaks if a pipeline, which has scikit-learn's `predict`, is taken for an estimator, or for
    a function of pictures; or if `labels` and options do not reach it."""
    from fex_jax.host.huggingface import huggingface
    from fex_jax.training import fit

    pipe, _, _ = text_pipeline(tmp_path)
    ours = huggingface(pipe)
    _, opened = fit._open(pipe, None, {})
    assert opened.input == "text" and opened.digest == ours.digest
    _, named = fit._open(pipe, ("x", "y", "z"), {"predictor.options": '{"name": "mine"}'})
    assert named.labels == ("x", "y", "z") and named.name == "mine"
    (found,) = fex_jax.attribute("lime", pipe, ["a good film"], num_queries=8)
    assert found.words == ("a", "good", "film")
