"""Text classifiers in Hugging Face directories: BERT, DistilBERT, RoBERTa, ELECTRA, their like."""

import dataclasses
import re
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from fex_jax import checks, tokens
from fex_jax.host.answers import Output
from fex_jax.models import Params, shapes
from fex_jax.models.bert import NETWORKS, BertClassifier, BertConfig, Head
from fex_jax.pretrained import hub, rules

# Transformers leaves keys with default values out of some config.json files.
_CONFIG_DEFAULTS = {
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
_CONFIG_DEFAULTS["roberta"] = _CONFIG_DEFAULTS["bert"] | {"vocab_size": 50265, "pad_token_id": 1}
_CONFIG_DEFAULTS["electra"] = _CONFIG_DEFAULTS["bert"] | {
    "embedding_size": 128,
    "hidden_size": 256,
    "num_attention_heads": 4,
    "intermediate_size": 1024,
}
# DistilBERT's names for the same settings.
_CONFIG_NAMES = {
    "hidden_size": "dim",
    "num_hidden_layers": "n_layers",
    "num_attention_heads": "n_heads",
    "intermediate_size": "hidden_dim",
    "hidden_act": "activation",
}
_SIZES = {
    "hidden_size": checks.integer(1, 2**15),
    "num_hidden_layers": checks.integer(1, 1000),
    "num_attention_heads": checks.integer(1, 1024),
    "intermediate_size": checks.integer(1, 2**18),
    "hidden_act": checks.text(),
}
_CONFIG_CHECKS = {
    "vocab_size": checks.integer(1, 2**24),
    "max_position_embeddings": checks.integer(1, 2**20),
    "type_vocab_size": checks.integer(1, 1024),
    "pad_token_id": checks.integer(0, 2**24),
    "embedding_size": checks.integer(1, 2**15),
    "is_decoder": checks.flag(),
    "position_embedding_type": checks.text(),
    **_SIZES,
    **{hf_name: _SIZES[name] for name, hf_name in _CONFIG_NAMES.items()},
}


@dataclasses.dataclass(frozen=True)
class TextCheckpoint:
    """A `BertClassifier`'s parameters with what is needed to feed it and to name its outputs."""

    config: BertConfig
    params: Params = dataclasses.field(repr=False)
    labels: tuple[str, ...]
    tokenizer: tokens.Tokenizer
    output: Output = "softmax"  # what answers are, see `predictors.Model`
    modality: ClassVar[str] = "texts"  # of `fex_jax.modalities`
    inside: ClassVar[bool] = True  # methods may look inside
    absence: ClassVar[str] = ""  # why it cannot be asked

    def __post_init__(self) -> None:
        if len(self.labels) != self.config.num_classes:
            raise ValueError(f"{len(self.labels)} labels for {self.config.num_classes} classes")
        if self.tokenizer.vocab_size > self.config.vocab_size:
            raise ValueError(
                f"the tokenizer has {self.tokenizer.vocab_size} tokens, but the model embeds "
                f"{self.config.vocab_size}: they do not belong together"
            )
        if self.tokenizer.pad_id != self.config.pad_id:
            raise ValueError(
                f"the tokenizer pads with token {self.tokenizer.pad_id}, but the model's "
                f"pad_token_id is {self.config.pad_id}: they do not belong together"
            )

    @property
    def identity(self) -> tuple:
        """Everything that its answers depend on."""
        reads = self.tokenizer.backend.to_str()
        return self.params, repr(self.config), self.labels, reads

    def save(self, directory: str | Path) -> None:
        """Writes a directory that transformers opens; it is made if not there."""
        save(directory, self)


def load(
    directory: Path, hf_config: dict[str, Any], num_classes: int | None = None
) -> TextCheckpoint:
    """Loads a directory whose config.json holds `hf_config`; see `pretrained.load`."""
    family = NETWORKS.get(hf_config["model_type"], hf_config["model_type"])
    tensors = _normalize_keys(hub.read_tensors(directory), family)
    two_layers = family in ("roberta", "electra")
    kernel_name = "classifier.out_proj.weight" if two_layers else "classifier.weight"
    kernel = tensors.get(kernel_name)
    fresh_head, num_classes = hub.choose_head(kernel, num_classes, hf_config, directory)
    head_says = {} if fresh_head else hf_config
    labels = hub.read_labels(head_says, num_classes)
    tokenizer = tokens.load(directory)
    config = _config_from_hf(hf_config, num_classes, directory)
    norm = f"{family}.embeddings.LayerNorm.weight"
    hub.check_sizes(tensors, config.num_layers, config.width, norm, directory)
    if fresh_head:
        for name in (kernel_name, kernel_name.replace("weight", "bias")):
            tensors.pop(name, None)
        tensors = _fresh_head(config) | tensors  # BERT's pooler is kept where there is one

    template = shapes(lambda rngs: BertClassifier(config, rngs=rngs))
    params = rules.from_hf(tensors, template, _RULES[family], config, _IGNORED[family], directory)
    return TextCheckpoint(
        config=config,
        params=jax.tree.map(jnp.asarray, params),
        labels=labels,
        tokenizer=tokenizer,
        output=hub.read_output(head_says, num_classes),
    )


def save(directory: str | Path, checkpoint: TextCheckpoint) -> None:
    """Writes config.json, model.safetensors and the tokenizer's files."""
    config = checkpoint.config
    tensors = rules.to_hf(checkpoint.params, _RULES[config.network], config)
    directory = hub.write(directory, _config_to_hf(checkpoint), tensors)
    checkpoint.tokenizer.save(directory)


# --- Parameter names ---------------------------------------------------------------------------

_BLOCK = r"backbone/blocks/(\d+)/"
_EMBEDDING_RULES = [
    rules.Rule("backbone/(word|position)_embedding", r"{family}.embeddings.\1_embeddings.weight"),
    rules.Rule("backbone/type_embedding", "{family}.embeddings.token_type_embeddings.weight"),
    *rules.norm("backbone/norm", "{family}.embeddings.LayerNorm"),
]
_BERT_LAYER = r"{family}.encoder.layer.\1."
_BERT_BLOCK_RULES = [
    *rules.linear(_BLOCK + "attention/(query|key|value)", _BERT_LAYER + r"attention.self.\2"),
    *rules.linear(_BLOCK + "attention/out", _BERT_LAYER + "attention.output.dense"),
    *rules.norm(_BLOCK + "norm1", _BERT_LAYER + "attention.output.LayerNorm"),
    *rules.linear(_BLOCK + "mlp/fc1", _BERT_LAYER + "intermediate.dense"),
    *rules.linear(_BLOCK + "mlp/fc2", _BERT_LAYER + "output.dense"),
    *rules.norm(_BLOCK + "norm2", _BERT_LAYER + "output.LayerNorm"),
]
_DISTILBERT_LAYER = r"{family}.transformer.layer.\1."
_DISTILBERT_BLOCK_RULES = [
    *(
        rule
        for name, hf_name in (("query", "q"), ("key", "k"), ("value", "v"), ("out", "out"))
        for rule in rules.linear(
            _BLOCK + f"attention/{name}", _DISTILBERT_LAYER + f"attention.{hf_name}_lin"
        )
    ),
    *rules.norm(_BLOCK + "norm1", _DISTILBERT_LAYER + "sa_layer_norm"),
    *rules.linear(_BLOCK + "mlp/fc([12])", _DISTILBERT_LAYER + r"ffn.lin\2"),
    *rules.norm(_BLOCK + "norm2", _DISTILBERT_LAYER + "output_layer_norm"),
]
_RULES = {
    "bert": [
        *_EMBEDDING_RULES,
        *_BERT_BLOCK_RULES,
        *rules.linear("head/dense", "bert.pooler.dense"),
        *rules.linear("head/out", "classifier"),
    ],
    "distilbert": [
        *_EMBEDDING_RULES,
        *_DISTILBERT_BLOCK_RULES,
        *rules.linear("head/dense", "pre_classifier"),
        *rules.linear("head/out", "classifier"),
    ],
    "roberta": [
        *_EMBEDDING_RULES,
        *_BERT_BLOCK_RULES,
        *rules.linear("head/dense", "classifier.dense"),
        *rules.linear("head/out", "classifier.out_proj"),
    ],
}
_RULES["electra"] = [
    *_RULES["roberta"],
    *rules.linear("backbone/projection", "{family}.embeddings_project"),
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
_HEADS = r"(pre_)?classifier\..*|cls\..*|lm_head\..*|vocab_.*|(discriminator|generator)_.*"


def _normalize_keys(tensors: dict[str, np.ndarray], family: str) -> dict[str, np.ndarray]:
    """Adds the prefix that bare backbones (`BertModel`) leave out; renames gamma and beta."""
    old = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}
    for before, after in old.items():
        tensors = {k.replace(before, after): v for k, v in tensors.items()}
    if any(key.startswith(f"{family}.") for key in tensors):
        return tensors
    return {k if re.fullmatch(_HEADS, k) else f"{family}.{k}": v for k, v in tensors.items()}


def _fresh_head(config: BertConfig) -> dict[str, np.ndarray]:
    """Hugging Face tensors of a newly initialised head, the same at every call."""
    head = nnx.to_pure_dict(nnx.state(Head(config, nnx.Rngs(0))))
    return rules.to_hf({"head": head}, _RULES[config.network], config)


# --- config.json -------------------------------------------------------------------------------


def _config_from_hf(hf_config: dict[str, Any], num_classes: int, source: Path) -> BertConfig:
    family = hf_config["model_type"]
    values = _CONFIG_DEFAULTS[NETWORKS.get(family, family)] | hf_config
    checks.require(values, _CONFIG_CHECKS, source / "config.json")
    if family == "distilbert":
        values |= {name: values[hf_name] for name, hf_name in _CONFIG_NAMES.items()}
        values |= {"type_vocab_size": 0, "layer_norm_eps": 1e-12}  # DistilBERT has no choice
    for name, wanted in (
        ("hidden_act", "gelu"),
        ("position_embedding_type", "absolute"),
        ("is_decoder", False),
    ):
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
    )


def _config_to_hf(checkpoint: TextCheckpoint) -> dict[str, Any]:
    config = checkpoint.config
    values = {
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "intermediate_size": config.mlp_dim,
        "hidden_act": "gelu",
    }
    if config.family == "distilbert":
        values = {_CONFIG_NAMES[name]: value for name, value in values.items()}
    else:
        values |= {
            "type_vocab_size": config.num_types,
            "layer_norm_eps": config.layer_norm_eps,
        }
    if config.family == "electra":
        values |= {"embedding_size": config.width}
    return {
        "architectures": [hub.architectures(config.family)[0]],
        "model_type": config.family,
        "dtype": "float32",
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.max_positions,
        "pad_token_id": config.pad_id,
        **hub.head_config(checkpoint.labels, checkpoint.output),
        **values,
    }
