"""Tiny text models shared by the tests: a vocabulary of a few words, random weights."""

import numpy as np
import pytest
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, processors

from fex_jax import pretrained, tokens
from fex_jax.models import shapes
from fex_jax.models.bert import BertClassifier, BertConfig
from fex_jax.token_batch import TokenBatch
from tests.conftest import random_like

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORDS = "a the movie film was is good bad great awful fun ##ny ##ly not very , . ! plot dull"
WORDS = WORDS.split()
# Four texts of 16, 9, 3 and 2 tokens.
_REAL = np.arange(16) < np.array([[16], [9], [3], [2]])
_IDS = np.random.default_rng(0).integers(5, 40, _REAL.shape).astype(np.int32)
BATCH = TokenBatch(np.where(_REAL, _IDS, 0), _REAL, np.where(_REAL, 0, -1))


def tokenizer() -> tokens.Tokenizer:
    """A WordPiece tokenizer as BERT's: "funny" is fun, ##ny."""
    vocabulary = {word: i for i, word in enumerate([*SPECIAL, *WORDS])}
    backend = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.add_special_tokens(list(SPECIAL))
    ends = [(name, vocabulary[name]) for name in ("[CLS]", "[SEP]")]
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ends
    )
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    settings = {"tokenizer_class": "BertTokenizer"} | dict(zip(names, SPECIAL, strict=True))
    return tokens.Tokenizer(backend, settings, cls_id=2, sep_id=3, pad_id=0, mask_id=4)


def config(family: str = "bert", num_classes: int = 2, **overrides) -> BertConfig:
    """One block of width 16, for 32 tokens."""
    values = dict(
        family=family, vocab_size=len(SPECIAL) + len(WORDS), num_classes=num_classes,
        hidden_size=16, num_layers=1, num_heads=2, mlp_dim=32,
        max_positions=33 if family == "roberta" else 32,
        num_types=0 if family == "distilbert" else 2,
    )  # fmt: skip
    return BertConfig(**values | overrides)


def checkpoint(
    family: str = "bert", num_classes: int = 2, num_layers: int = 1
) -> pretrained.TextCheckpoint:
    """A classifier with random weights."""
    architecture = config(family, num_classes, num_layers=num_layers)
    params = random_like(shapes(BertClassifier, architecture))
    labels = tuple(f"class {i}" for i in range(num_classes))
    return pretrained.TextCheckpoint(architecture, params, labels, tokenizer())


def torch_model(directory, name: str, head: str, **values):
    """A model of transformers with every parameter random, saved with a tokenizer."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    made = getattr(transformers, f"{name}Config")(**values)
    model = getattr(transformers, name + head)(made).eval()
    # Zeros and ones, as initialised, would hide a rule that swaps biases or norms.
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.4)
    model.save_pretrained(directory)
    tokenizer().save(directory)
    return model


def torch_run(model, inputs: TokenBatch):
    """What a torch model says of a batch."""
    torch = pytest.importorskip("torch")
    with torch.no_grad():
        return model(torch.tensor(inputs.ids), torch.tensor(inputs.attention, dtype=torch.long))
