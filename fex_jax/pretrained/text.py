"""Text classifiers in Hugging Face directories, of all `families`."""

import dataclasses
import re
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from fex_jax import families, predictors, tokens
from fex_jax.families import hub, rules
from fex_jax.models import Params, shapes
from fex_jax.outputs import Output, told
from fex_jax.token_batch import TokenBatch


@dataclasses.dataclass(frozen=True)
class TextCheckpoint:
    """A classifier's parameters with what is needed to feed it and to name its outputs."""

    config: Any  # a `BertConfig`, or that of another of the `families`
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
        return self.params, repr(self.config), self.labels, reads, *told(self.output)

    def model(
        self, params: Params, batch: TokenBatch, _: float, removal: str, dtype: jnp.dtype
    ) -> tuple[predictors.Model, TokenBatch]:
        """See `predictors.from_checkpoint`."""
        mask_id = self.tokenizer.mask_id if removal == "mask" else None
        length = batch.ids.shape[-1]
        return predictors.bert(self.config, params, length, mask_id, dtype, self.output), batch

    def save(self, directory: str | Path) -> None:
        """Writes a directory that transformers opens; it is made if not there."""
        save(directory, self)


def load(
    directory: Path, hf_config: dict[str, Any], num_classes: int | None = None
) -> TextCheckpoint:
    """Loads a directory whose config.json holds `hf_config`; see `pretrained.load`."""
    model_type = hf_config["model_type"]
    family = families.of(model_type)
    tensors = _normalize_keys(hub.read_tensors(directory), family, model_type)
    last = family.HEAD[model_type]
    kernel = tensors.get(f"{last}.weight")
    fresh_head, num_classes = hub.choose_head(kernel, num_classes, hf_config, directory)
    head_says = {} if fresh_head else hf_config
    labels = hub.read_labels(head_says, num_classes)
    tokenizer = tokens.load(directory)
    config = family.read_config(hf_config, num_classes, directory)
    family.check(tensors, config, directory)
    if fresh_head:
        for name in (f"{last}.weight", f"{last}.bias"):
            tensors.pop(name, None)
        tensors = rules.fresh_head(config, family) | tensors  # whose pooler, BERT's, is kept

    template = shapes(type(config).classifier, config)
    ignored = family.ignored(config)
    params = rules.from_hf(tensors, template, family.rules(config), config, ignored, directory)
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
    tensors = rules.to_hf(checkpoint.params, families.of(config.family).rules(config), config)
    checkpoint.tokenizer.save(hub.write(directory, checkpoint, tensors))


def _normalize_keys(
    tensors: dict[str, np.ndarray], family: ModuleType, model_type: str
) -> dict[str, np.ndarray]:
    """Adds the prefix that bare backbones (`BertModel`) leave out; renames gamma and beta."""
    old = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}
    for before, after in old.items():
        tensors = {k.replace(before, after): v for k, v in tensors.items()}
    prefix = family.PREFIX[model_type]
    if any(key.startswith(f"{prefix}.") for key in tensors):
        return tensors
    return {
        k if re.fullmatch(family.OUTSIDE, k) else f"{prefix}.{k}": v for k, v in tensors.items()
    }
