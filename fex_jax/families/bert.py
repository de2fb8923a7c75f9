"""BERT, DistilBERT, RoBERTa, ELECTRA and their like, as transformers has them: `models.bert`."""

from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx

from fex_jax import checks
from fex_jax.families import hub
from fex_jax.families import rules as names
from fex_jax.models import bert
from fex_jax.models.activations import NAMED
from fex_jax.models.bert import NETWORKS, BertConfig

CONFIG = BertConfig
SIZES: dict[str, checks.Check] = {}
ARCHITECTURES = {
    "bert": (
        "BertForSequenceClassification",
        "BertModel",
        "BertForMaskedLM",
        "BertForPreTraining",
    ),
    "distilbert": (
        "DistilBertForSequenceClassification",
        "DistilBertModel",
        "DistilBertForMaskedLM",
    ),
    "roberta": ("RobertaForSequenceClassification", "RobertaModel", "RobertaForMaskedLM"),
    "xlm-roberta": (
        "XLMRobertaForSequenceClassification",
        "XLMRobertaModel",
        "XLMRobertaForMaskedLM",
    ),
    "electra": ("ElectraForSequenceClassification", "ElectraModel", "ElectraForPreTraining"),
    "camembert": ("CamembertForSequenceClassification", "CamembertModel", "CamembertForMaskedLM"),
}
PREFIX = {family: NETWORKS.get(family, family) for family in ARCHITECTURES}
HEAD = dict.fromkeys(("bert", "distilbert"), "classifier") | dict.fromkeys(
    ("roberta", "xlm-roberta", "camembert", "electra"), "classifier.out_proj"
)
OUTSIDE = r"(pre_)?classifier\..*|cls\..*|lm_head\..*|vocab_.*|(discriminator|generator)_.*"
# Transformers leaves keys with default values out of some config.json files.
_DEFAULTS = {
    "bert": {
        "vocab_size": 30522,
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
        "hidden_act": "gelu",
        "max_position_embeddings": 512,
        "type_vocab_size": 2,
        "layer_norm_eps": 1e-12,
        "pad_token_id": 0,
    },
    "distilbert": {
        "vocab_size": 30522,
        "dim": 768,
        "n_layers": 6,
        "n_heads": 12,
        "hidden_dim": 3072,
        "activation": "gelu",
        "max_position_embeddings": 512,
        "pad_token_id": 0,
    },
}
_DEFAULTS["roberta"] = _DEFAULTS["bert"] | {"vocab_size": 50265, "pad_token_id": 1}
_DEFAULTS["electra"] = _DEFAULTS["bert"] | {
    "embedding_size": 128,
    "hidden_size": 256,
    "num_attention_heads": 4,
    "intermediate_size": 1024,
}
# DistilBERT's names for the same settings.
_OF_DISTILBERT = {
    "hidden_size": "dim",
    "num_hidden_layers": "n_layers",
    "num_attention_heads": "n_heads",
    "intermediate_size": "hidden_dim",
    "hidden_act": "activation",
}
_OF_ALL = {
    "hidden_size": checks.integer(1, 2**15),
    "num_hidden_layers": checks.integer(1, 1000),
    "num_attention_heads": checks.integer(1, 1024),
    "intermediate_size": checks.integer(1, 2**18),
    "hidden_act": NAMED,
}
_CHECKS = {
    "vocab_size": checks.integer(1, 2**24),
    "max_position_embeddings": checks.integer(1, 2**20),
    "type_vocab_size": checks.integer(1, 1024),
    "pad_token_id": checks.integer(0, 2**24),
    "embedding_size": checks.integer(1, 2**15),
    "is_decoder": checks.flag(),
    "position_embedding_type": checks.text(),
    **_OF_ALL,
    **{hf_name: _OF_ALL[name] for name, hf_name in _OF_DISTILBERT.items()},
}


def read_config(hf_config: dict[str, Any], num_classes: int, source: Path) -> BertConfig:
    """config.json."""
    family = hf_config["model_type"]
    values = _DEFAULTS[NETWORKS.get(family, family)] | hf_config
    checks.require(values, _CHECKS, source / "config.json")
    if family == "distilbert":
        values |= {name: values[hf_name] for name, hf_name in _OF_DISTILBERT.items()}
        values |= {"type_vocab_size": 0, "layer_norm_eps": 1e-12}  # DistilBERT has no choice
    for name, wanted in (("position_embedding_type", "absolute"), ("is_decoder", False)):
        if values.get(name) not in (wanted, None):
            raise ValueError(f"{name} {values[name]!r} is not supported, only {wanted!r}")
    narrower = values["embedding_size"] if family == "electra" else 0
    return BertConfig(
        family=family,
        vocab_size=values["vocab_size"],
        num_classes=num_classes,
        hidden_size=values["hidden_size"],
        num_layers=values["num_hidden_layers"],
        num_heads=values["num_attention_heads"],
        mlp_dim=values["intermediate_size"],
        max_positions=values["max_position_embeddings"],
        num_types=values["type_vocab_size"],
        pad_id=values["pad_token_id"],
        layer_norm_eps=values["layer_norm_eps"],
        embedding_size=0 if narrower == values["hidden_size"] else narrower,
        activation=values["hidden_act"],
    )


def write_config(config: BertConfig) -> dict[str, Any]:
    """What config.json says of the architecture."""
    values: dict[str, Any] = {
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "intermediate_size": config.mlp_dim,
        "hidden_act": config.activation,
    }
    if config.family == "distilbert":
        values = {_OF_DISTILBERT[name]: value for name, value in values.items()}
    else:
        values |= {
            "type_vocab_size": config.num_types,
            "layer_norm_eps": config.layer_norm_eps,
        }
    if config.family == "electra":
        values |= {"embedding_size": config.width}
    return values | {
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.max_positions,
        "pad_token_id": config.pad_id,
    }


def head(config: BertConfig, rngs: nnx.Rngs) -> bert.Head:
    """The head, of first values."""
    return bert.Head(config, rngs)


def check(tensors: dict[str, np.ndarray], config: BertConfig, source: Path) -> None:
    """Raises a ValueError where the tensors are of other sizes."""
    norm = f"{config.network}.embeddings.LayerNorm.weight"
    hub.check_sizes(tensors, config.num_layers, config.width, norm, source)


# --- Parameter names ---------------------------------------------------------------------------

_BLOCK = r"backbone/blocks/(\d+)/"
_EMBEDDING_RULES = [
    names.Rule("backbone/(word|position)_embedding", r"{family}.embeddings.\1_embeddings.weight"),
    names.Rule("backbone/type_embedding", "{family}.embeddings.token_type_embeddings.weight"),
    *names.norm("backbone/norm", "{family}.embeddings.LayerNorm"),
]
_BERT_LAYER = r"{family}.encoder.layer.\1."
_BERT_BLOCK_RULES = [
    *names.linear(_BLOCK + "attention/(query|key|value)", _BERT_LAYER + r"attention.self.\2"),
    *names.linear(_BLOCK + "attention/out", _BERT_LAYER + "attention.output.dense"),
    *names.norm(_BLOCK + "norm1", _BERT_LAYER + "attention.output.LayerNorm"),
    *names.linear(_BLOCK + "mlp/fc1", _BERT_LAYER + "intermediate.dense"),
    *names.linear(_BLOCK + "mlp/fc2", _BERT_LAYER + "output.dense"),
    *names.norm(_BLOCK + "norm2", _BERT_LAYER + "output.LayerNorm"),
]
_DISTILBERT_LAYER = r"{family}.transformer.layer.\1."
_DISTILBERT_BLOCK_RULES = [
    *(
        rule
        for name, hf_name in (("query", "q"), ("key", "k"), ("value", "v"), ("out", "out"))
        for rule in names.linear(
            _BLOCK + f"attention/{name}", _DISTILBERT_LAYER + f"attention.{hf_name}_lin"
        )
    ),
    *names.norm(_BLOCK + "norm1", _DISTILBERT_LAYER + "sa_layer_norm"),
    *names.linear(_BLOCK + "mlp/fc([12])", _DISTILBERT_LAYER + r"ffn.lin\2"),
    *names.norm(_BLOCK + "norm2", _DISTILBERT_LAYER + "output_layer_norm"),
]
_RULES = {
    "bert": [
        *_EMBEDDING_RULES,
        *_BERT_BLOCK_RULES,
        *names.linear("head/dense", "bert.pooler.dense"),
        *names.linear("head/out", "classifier"),
    ],
    "distilbert": [
        *_EMBEDDING_RULES,
        *_DISTILBERT_BLOCK_RULES,
        *names.linear("head/dense", "pre_classifier"),
        *names.linear("head/out", "classifier"),
    ],
    "roberta": [
        *_EMBEDDING_RULES,
        *_BERT_BLOCK_RULES,
        *names.linear("head/dense", "classifier.dense"),
        *names.linear("head/out", "classifier.out_proj"),
    ],
}
_RULES["electra"] = [
    *_RULES["roberta"],
    *names.linear("backbone/projection", "{family}.embeddings_project"),
]
# Unused by classifiers: the heads of masked pre-training, RoBERTa's pooler, and the position
# numbers that old versions of transformers stored.
_IGNORED = {
    "bert": r"cls\..*|bert\.embeddings\.position_ids",
    "distilbert": r"vocab_(transform|layer_norm|projector)\..*"
    r"|distilbert\.embeddings\.position_ids",
    "electra": r"(discriminator|generator)_(predictions|lm_head)\..*"
    r"|electra\.embeddings\.position_ids",
    "roberta": r"lm_head\..*|roberta\.(pooler\..*|embeddings\.position_ids)",
}


def rules(config: BertConfig) -> list[names.Rule]:
    """Names here and there."""
    return _RULES[config.network]


def ignored(config: BertConfig) -> str:
    """What classifiers do not use."""
    return _IGNORED[config.network]
