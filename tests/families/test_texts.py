"""ModernBERT: parity with torch, round trips, maps, training, and what is refused."""

import functools
import json
import shutil

import jax
import numpy as np
import pytest

import fex_jax
from fex_jax import attributions, export, pretrained, tokens
from fex_jax.families import deberta
from fex_jax.models import functional
from fex_jax.models.policy import functional_policy
from tests import tiny_text
from tests.conftest import random_params
from tests.tiny_text import BATCH, torch_run

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
        "DebertaV2",
        SIZES | V3 | {"pos_att_type": "c2p", "position_buckets": 5, "share_att_key": False},
    ),
    "deberta-v2 absolute": ("DebertaV2", SIZES | {"pos_att_type": ["p2c"]}),
}  # fmt: skip


def torch_model(directory, variant, head="ForSequenceClassification"):
    """A tiny torch model with every parameter random, saved with a tokenizer."""
    name, values = VARIANTS[variant]
    return tiny_text.torch_model(directory, name, head, num_labels=3, **values)


def torch_logits(model, inputs):
    return torch_run(model, inputs).logits.numpy()


def logits(checkpoint, inputs):
    """Of the texts, and again from their words' embeddings."""
    _, bind = functional(type(checkpoint.config).classifier, checkpoint.config)

    @jax.jit
    def run(params):
        network = bind(params)
        return network(inputs), network.from_embeddings(network.backbone.embed(inputs), inputs)

    found, again = run(checkpoint.params)
    np.testing.assert_array_equal(found, again)
    return np.asarray(found)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """saved(variant) → the directory of a torch model."""

    @functools.cache
    def directory(variant):
        found = tmp_path_factory.mktemp("saved") / "model"
        torch_model(found, variant)
        return found

    return directory


@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_equal_torch(variant, tmp_path):
    """Breaks by a wrong rule, window, angle, bias, bucket or mask; and back in torch."""
    transformers = pytest.importorskip("transformers")
    model = torch_model(tmp_path / "torch", variant)
    expected = torch_logits(model, BATCH)
    assert np.std(expected) > 0.1
    checkpoint = pretrained.load(str(tmp_path / "torch"))
    np.testing.assert_allclose(logits(checkpoint, BATCH), expected, rtol=1e-4, atol=1e-4)

    pretrained.save(tmp_path / "jax", checkpoint)
    again, info = transformers.AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "jax", output_loading_info=True
    )
    assert not any(info.values()), info
    assert type(again) is type(model)
    np.testing.assert_allclose(torch_logits(again.eval(), BATCH), expected, atol=1e-5)
    assert pretrained.load(str(tmp_path / "jax")).config == checkpoint.config


@pytest.mark.parametrize("variant", ["modernbert mean", "deberta-v2 as v3"])
def test_an_explainer_is_opened(variant, saved, tmp_path):
    """Breaks if a family's export is not what was saved, or no map comes of it; in ONNX, too."""
    predictor = pretrained.load(str(saved(variant)))
    init, _ = functional_policy(predictor.config, 3)
    export.save_description(tmp_path / "run", predictor, predictor.config, budget=-3.0)
    params = random_params(init) | {"backbone": predictor.params["backbone"]}
    export.save_weights(tmp_path / "run", params)
    explainer = fex_jax.load(tmp_path / "run")
    assert explainer.backbone == predictor.config and explainer.shares_backbone
    (found,) = explainer(["the film was funny , not dull"])
    assert found.words == ("the", "film", "was", "funny", ",", "not", "dull")
    assert np.ptp(found.scores) > 0
    onnx = pytest.importorskip("onnxruntime")
    file = explainer.export(tmp_path / "explainer.onnx", length=12)
    inputs = tokens.collate(predictor.tokenizer([found.text], "word"), 12, predictor.tokenizer)
    given = {name: getattr(inputs, name) for name in ("ids", "attention", "features")}
    given |= {"classes": np.array([found.target], np.int32)}
    exported, *_ = onnx.InferenceSession(str(file)).run(None, given)
    np.testing.assert_allclose(exported[0, : len(found.scores)], found.scores, atol=1e-5)
    description = tmp_path / "run" / "explainer.json"
    values = json.loads(description.read_text())
    values["backbone"]["family"] = "gpt"
    description.write_text(json.dumps(values))
    with pytest.raises(ValueError, match="family is 'gpt'; expected one of 'bert', "):
        fex_jax.load(tmp_path / "run")


@pytest.mark.parametrize("variant", ["modernbert", "deberta-v2 as v3"])
def test_what_needs_attention_is_refused(variant, saved):
    """Breaks if a method that reads CLS's attention gives a map of a network without it."""
    predictor, family = str(saved(variant)), variant.split()[0]
    for method in attributions.TRANSFORMERS_ONLY | attributions.CONVOLUTIONS_ONLY:
        with pytest.raises(ValueError, match=f"{method} .*, and the classifier is a {family}"):
            fex_jax.attribute(method, predictor, ["a good film"])


@pytest.mark.parametrize("buckets, farthest", [(256, 512), (6, 20), (5, 64), (-1, 9)])
def test_distances_fall_into_the_same_buckets(buckets, farthest):
    """Breaks by a distance that rounding puts into the next bucket, at the length of real texts."""
    torch = pytest.importorskip("torch")
    theirs = pytest.importorskip("transformers.models.deberta_v2.modeling_deberta_v2")
    config = deberta.DebertaConfig(2, buckets=buckets, max_relative=farthest)
    texts = torch.zeros(1, min(farthest, 512), 1)
    expected = theirs.build_relative_position(texts, texts, buckets, farthest)[0].numpy()
    found = deberta.relative_positions(texts.shape[1], config) - config.span
    np.testing.assert_array_equal(found, np.clip(expected, -config.span, config.span - 1))


@pytest.mark.parametrize(
    "variant, changes, message",
    [
        ("modernbert", {"layer_types": ["sliding_attention"] * 3}, "every n-th of the 3 layers"),
        ("modernbert", {"rope_scaling": {"factor": 2}}, "rope_scaling is .*; expected none"),
        (
            "modernbert",
            {"rope_parameters": {"full_attention": {"rope_type": "yarn"}}},
            "full_attention: rope_type is 'yarn'; expected one of 'default'",
        ),
        ("modernbert", {"hidden_activation": "prelu"}, "hidden_activation is 'prelu'"),
        ("modernbert", {"num_attention_heads": 4}, "12 does not divide into 4 heads of an even"),
        ("modernbert", {"num_hidden_layers": 2, "layer_types": None}, "says 2 layers"),
        ("deberta-v2 as v3", {"conv_kernel_size": 3}, "conv_kernel_size is 3; expected one of 0"),
        ("deberta-v2 as v3", {"pos_att_type": ["p2p"]}, "pos_att_type is"),
        (
            "deberta-v2 as v3",
            {"attention_head_size": 8},
            "attention_head_size is 8; expected one of 4",
        ),
        ("deberta-v2 as v3", {"position_buckets": 40}, "40 position_buckets of up to 20"),
        ("deberta-v2 as v3", {"vocab_size": 44}, r"43, 12\], expected \[44, 12"),
    ],
)
def test_a_config_of_another_network(variant, changes, message, saved, tmp_path):
    """Breaks if what is not computed as transformers does is loaded all the same."""
    shutil.copytree(saved(variant), tmp_path / "changed")
    path = tmp_path / "changed" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(ValueError, match=message):
        pretrained.load(str(path.parent))


def test_a_config_of_an_old_version(saved, tmp_path):
    """Breaks if ModernBERT's published files, of other names, are read with defaults."""
    shutil.copytree(saved("modernbert"), tmp_path / "old")
    path = tmp_path / "old" / "config.json"
    values = json.loads(path.read_text())
    del values["layer_types"], values["rope_parameters"]
    values |= {"global_attn_every_n_layers": 2, "global_rope_theta": 99.0, "local_rope_theta": 5}
    path.write_text(json.dumps(values))
    config = pretrained.load(str(path.parent)).config
    assert (config.global_every, config.global_theta, config.local_theta) == (2, 99.0, 5.0)


@pytest.mark.parametrize("head", ["Model", "ForMaskedLM"])
@pytest.mark.parametrize("variant", ["modernbert", "deberta-v2 as v3"])
def test_a_backbone_gets_a_head(variant, head, tmp_path):
    """Breaks if bare and masked models do not load, or not with the weights that are there."""
    model = torch_model(tmp_path, variant, head)
    with pytest.raises(ValueError, match="pass num_classes"):
        pretrained.load(str(tmp_path))
    checkpoint = pretrained.load(str(tmp_path), num_classes=5)
    _, bind = functional(type(checkpoint.config).encoder, checkpoint.config, remat=True)
    found = jax.jit(lambda params: bind(params)(BATCH))(checkpoint.params["backbone"])
    expected = torch_run(getattr(model, model.base_model_prefix, model), BATCH)
    real = BATCH.attention
    np.testing.assert_allclose(found[real], expected.last_hidden_state[real], rtol=1e-4, atol=1e-4)
