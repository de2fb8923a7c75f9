"""ModernBERT: parity with torch, round trips, maps, training, and what is refused."""

import json

import jax
import numpy as np
import pytest

import fex_jax
from fex_jax import attributions, export, pretrained
from fex_jax.models import functional
from fex_jax.models.bert import TokenBatch
from fex_jax.models.policy import functional_policy
from tests import tiny_text
from tests.conftest import random_params

SIZES = {
    "vocab_size": 43, "hidden_size": 12, "num_hidden_layers": 3, "num_attention_heads": 3,
    "intermediate_size": 18, "max_position_embeddings": 20, "pad_token_id": 0,
}  # fmt: skip
MODERN = SIZES | {
    "bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3, "local_attention": 4
}  # fmt: skip
V3 = {
    "relative_attention": True, "position_buckets": 6, "norm_rel_ebd": "layer_norm",
    "share_att_key": True, "pos_att_type": "p2c|c2p", "position_biased_input": False,
}  # fmt: skip
VARIANTS = {
    "modernbert": ("ModernBert", MODERN),
    "modernbert mean": (
        "ModernBert",
        MODERN
        | {
            "classifier_pooling": "mean", "global_attn_every_n_layers": 2, "local_attention": 7,
            "norm_bias": True, "attention_bias": True, "mlp_bias": True, "classifier_bias": True,
            "num_hidden_layers": 4, "norm_eps": 1e-3, "hidden_activation": "silu",
            "classifier_activation": "tanh",
        },
    ),
    "modernbert angles": (
        "ModernBert",
        MODERN
        | {
            "rope_parameters": {
                "full_attention": {"rope_type": "default", "rope_theta": 50.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 7.0},
            },
            "hidden_size": 6, "num_attention_heads": 1, "num_hidden_layers": 2,
        },
    ),
    "deberta-v2 as v3": ("DebertaV2", SIZES | V3),
    "deberta-v2 unshared": (
        "DebertaV2",
        SIZES
        | {
            "relative_attention": True, "pos_att_type": ["c2p", "p2c"], "type_vocab_size": 2,
            "max_relative_positions": 5, "embedding_size": 10, "hidden_act": "relu",
            "pooler_hidden_act": "tanh", "layer_norm_eps": 1e-3,
        },
    ),
    "deberta-v2 one way": (
        "DebertaV2", SIZES | V3 | {"pos_att_type": "c2p", "position_buckets": 5, "share_att_key": False}
    ),
    "deberta-v2 absolute": ("DebertaV2", SIZES | {"pos_att_type": ["p2c"]}),
}  # fmt: skip


def torch_model(directory, variant, head="ForSequenceClassification"):
    """A tiny torch model with every parameter random, saved with a tokenizer."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    name, values = VARIANTS[variant]
    config = getattr(transformers, f"{name}Config")(num_labels=3, **values)
    torch.manual_seed(0)
    model = getattr(transformers, name + head)(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.4)
    model.save_pretrained(directory)
    tiny_text.tokenizer().save(directory)
    return model


def batch(length=16):
    """Four texts of 16, 9, 3 and 2 tokens."""
    ids = np.random.default_rng(0).integers(5, 43, (4, length)).astype(np.int32)
    attention = np.arange(length) < np.array([[length], [9], [3], [2]])
    return TokenBatch(np.where(attention, ids, 0), attention, np.where(attention, 0, -1))


def torch_logits(model, inputs):
    torch = pytest.importorskip("torch")
    with torch.no_grad():
        attention = torch.tensor(inputs.attention, dtype=torch.long)
        return model(torch.tensor(inputs.ids), attention).logits.numpy()


def logits(checkpoint, inputs):
    _, bind = functional(lambda rngs: checkpoint.config.classifier(rngs=rngs))
    return np.asarray(jax.jit(lambda params: bind(params)(inputs))(checkpoint.params))


@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_equal_torch(variant, tmp_path):
    """Breaks by a wrong rule, window, angle, bias, bucket or mask; and back in torch."""
    transformers = pytest.importorskip("transformers")
    model = torch_model(tmp_path / "torch", variant)
    expected = torch_logits(model, batch())
    assert np.std(expected) > 0.1
    checkpoint = pretrained.load(str(tmp_path / "torch"))
    np.testing.assert_allclose(logits(checkpoint, batch()), expected, rtol=1e-4, atol=1e-4)

    pretrained.save(tmp_path / "jax", checkpoint)
    again, info = transformers.AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "jax", output_loading_info=True
    )
    assert not any(info.values()), info
    assert type(again) is type(model)
    np.testing.assert_allclose(torch_logits(again.eval(), batch()), expected, atol=1e-5)
    assert pretrained.load(str(tmp_path / "jax")).config == checkpoint.config


def test_trained_for_and_explained(tmp_path, capsys):
    """Breaks if a family is no policy."""
    torch_model(tmp_path / "torch", "modernbert")
    texts = [f"the movie was {word} {'! ' * i}" for i in range(4) for word in tiny_text.WORDS[:8]]
    settings = {"text.max_length": 16}
    explainer = fex_jax.fit(str(tmp_path / "torch"), texts, epochs=1, batch_size=16, settings=settings)
    assert "On 8 held-out items" in capsys.readouterr().out
    assert explainer.backbone.family == "modernbert"


@pytest.mark.parametrize("variant", ["modernbert mean", "deberta-v2 as v3"])
def test_an_explainer_is_opened(variant, tmp_path):
    """Breaks if a family's export is not what was saved, or no map comes of it."""
    torch_model(tmp_path / "torch", variant)
    predictor = pretrained.load(str(tmp_path / "torch"))
    init, _ = functional_policy(predictor.config, 3)
    export.save_description(tmp_path / "run", predictor, predictor.config, budget=-3.0)
    params = random_params(init) | {"backbone": predictor.params["backbone"]}
    export.save_weights(tmp_path / "run", params)
    explainer = fex_jax.load(tmp_path / "run")
    assert explainer.backbone == predictor.config and explainer.shares_backbone
    (found,) = explainer(["the film was funny , not dull"])
    assert found.words == ("the", "film", "was", "funny", ",", "not", "dull")
    assert np.ptp(found.scores) > 0
    description = tmp_path / "run" / "explainer.json"
    values = json.loads(description.read_text())
    values["backbone"]["family"] = "gpt"
    description.write_text(json.dumps(values))
    with pytest.raises(ValueError, match="family is 'gpt'; expected one of 'bert', "):
        fex_jax.load(tmp_path / "run")


@pytest.mark.parametrize("variant", ["modernbert", "deberta-v2 as v3"])
def test_what_needs_attention_is_refused(variant, tmp_path):
    """Breaks if a method that reads CLS's attention gives a map of a network without it."""
    torch_model(tmp_path, variant)
    predictor, family = str(tmp_path), variant.split()[0]
    for method in attributions.TRANSFORMERS_ONLY | attributions.CONVOLUTIONS_ONLY:
        with pytest.raises(ValueError, match=f"{method} .*, and the classifier is a {family}"):
            fex_jax.attribute(method, predictor, ["a good film"])
    (found,) = fex_jax.attribute("gradient_x_input", predictor, ["a good film"])
    assert np.ptp(found.scores) > 0
