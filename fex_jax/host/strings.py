"""Black boxes of texts: f reads strings without some of their words, a network their tokens."""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fex_jax import checks, masking, pretrained, tokens
from fex_jax.host.bank import Bank, identify
from fex_jax.host.predictor import HostPredictor
from fex_jax.models import Params
from fex_jax.models.bert import BertConfig
from fex_jax.models.policy import Backbone
from fex_jax.outputs import Output
from fex_jax.predictors import Model
from fex_jax.removal import Words
from fex_jax.token_batch import TokenBatch

_WINDOW = 256  # tokens that a network from nothing reads
_VOCABULARY = 8000  # of its pieces of words, at most
_WIDTH, _LAYERS = 128, 2


class Masked(NamedTuple):
    """Texts, and which of their features f is to be asked about."""

    tokens: TokenBatch  # with their strings
    masks: jax.Array  # [B, N] bool


@dataclasses.dataclass(frozen=True)
class Config:
    """What the sizes of other networks follow from."""

    max_length: int
    num_classes: int
    family: ClassVar[str] = "black box"


@dataclasses.dataclass(frozen=True)
class Strings:
    """How texts are read.

    Attributes:
      tokenizer: what a network that explains reads, and says where words are; its batches carry
        the strings that f reads.
      max_length: tokens that the network reads at a time.
    """

    tokenizer: tokens.Tokenizer
    max_length: int
    modality: ClassVar[str] = "texts"
    explained: ClassVar[None] = None  # what f says
    banked: ClassVar[bool] = True  # what f says is kept
    input: ClassVar[str] = "text"  # what f takes, as `host` says it
    # What is saved of it and of its removal.
    fields: ClassVar[dict[str, checks.Check]] = {"max_length": checks.integer(3, 2**17)}
    removal: ClassVar[type[Words]] = Words
    removal_fields: ClassVar[dict[str, checks.Check]] = {"word": checks.text()}

    def __post_init__(self) -> None:
        tokenizer = dataclasses.replace(self.tokenizer, raw=True)
        object.__setattr__(self, "tokenizer", tokenizer)

    @classmethod
    def of(cls, f: HostPredictor, removal: Words | None = None) -> tuple["Strings", Words]:
        """Words as BERT splits them, of which no network knows any; removed ones are deleted."""
        return cls(tokens.learn((), 5), 512), removal or Words()

    @classmethod
    def policy(
        cls, config: Any, f: HostPredictor, source: Any
    ) -> tuple[Backbone, Params | None, "Strings"]:
        """The BERT of `policy_backbone.path`, or a small one that begins from nothing.

        The latter's pieces of words are learned from the source's texts.

        Raises:
          ValueError: a path to something else, or a policy without it that f has no network for.
        """
        path = config.policy_backbone.path
        if path:
            found = pretrained.load(path, num_classes=2)  # the head is not used
            if found.modality != "texts":
                raise ValueError(f"policy_backbone.path: {path} reads images; f's inputs are texts")
            reads = cls(found.tokenizer, found.config.max_length)
            return found.config, found.params["backbone"], reads
        if config.policy != "small_bert":
            raise ValueError(
                f"policy {config.policy!r}: a black box has no backbone to start from; choose "
                "small_bert, or name one with --config.policy_backbone.path"
            )
        reads = cls(tokens.learn(source.texts, _VOCABULARY), _WINDOW)
        backbone = BertConfig(
            "bert", reads.tokenizer.vocab_size, 2, _WIDTH, _LAYERS, _WIDTH // 32, 4 * _WIDTH,
            _WINDOW, pad_id=reads.tokenizer.pad_id,
        )  # fmt: skip
        return backbone, None, reads

    @classmethod
    def candidates(cls, config: Any, f: HostPredictor) -> list[Words]:
        """The removals that the config leaves to the probe.

        Raises:
          ValueError: another kind, or no word where one is to be used.
        """
        kind, word = config.removal.kind, config.removal.word
        if kind not in ("probe", "delete", "word"):
            raise ValueError(f"removal.kind is {kind!r}; of words choose probe, delete or word")
        if kind == "word" and not (word or f.words):
            raise ValueError("removal.kind is 'word': say which one with removal.word")
        own = (word,) if word else ()
        if kind == "word":
            return [Words(one) for one in own or f.words]
        known = dict.fromkeys(own + f.words) if kind == "probe" else ()
        return [Words(), *map(Words, known)]

    def config(self, num_classes: int, removal: Words) -> Config:
        """Sizes."""
        return Config(self.max_length, num_classes)

    def kept_by(self, removal: Words) -> dict[str, Any]:
        """What a bank knows its answers by: the strings that f saw, however they came about."""
        return {"removal": "strings as they are", "grid": (1,)}

    def fits(self, backbone: Backbone, removal: Words) -> bool:
        """Whether a network reads these tokens."""
        if not hasattr(backbone, "vocab_size"):
            return False
        size, pad_id = self.tokenizer.vocab_size, self.tokenizer.pad_id
        known = size <= backbone.vocab_size and pad_id == backbone.pad_id
        return known and self.max_length == backbone.max_length

    def bind(
        self,
        batch: TokenBatch,
        removal: Words,
        predict: Callable[[Masked], jax.Array],
        output: Output,
    ) -> tuple[Model, Masked]:
        """Texts with their strings as inputs of a `predictors.Model`.

        A mask takes the place of the one before: masks of masked inputs do not add up.
        """
        model = Model(
            predict=predict,
            output=output,
            mask=lambda inputs, masks: inputs._replace(masks=masks.astype(bool)),
            grid=batch.ids.shape[1:],
            valid=lambda inputs: masking.valid_features(inputs.tokens.features),
            view=lambda inputs: inputs.tokens,
        )
        return model, Masked(batch, jnp.ones(batch.ids.shape, bool))

    def show(self, inputs: Masked, removal: Words) -> tuple[jax.Array, ...]:
        """What `ask` needs of inputs: their strings and features, see `Raw`, and masks [B, N]."""
        return *inputs.tokens.raw, inputs.masks

    def ask(
        self,
        f: Callable[..., np.ndarray],
        removal: Words,
        content: np.ndarray,
        spans: np.ndarray,
        masks: np.ndarray,
    ) -> np.ndarray:
        """f's answers [B, K] to what `show` shows; see `BlackBox.ask`."""
        rows = zip(content, spans, masks, strict=True)
        seen = [removal.mask(tokens.string(text), where, kept) for text, where, kept in rows]
        whole = np.ones((len(seen), 1), bool)
        return f(lambda: identify(seen), whole, lambda rows: [seen[row] for row in rows])

    def noted_by(self, removal: Words, config: Any) -> dict[str, Any]:
        """What a bank of the masks of texts is known by, which a run cuts to so many tokens."""
        length = min(config.text.max_length or self.max_length, self.max_length)
        return {"removal": str(removal), "grid": (length,)}

    def note(
        self,
        bank: Bank,
        _: int,
        masks: np.ndarray,
        content: np.ndarray,
        spans: np.ndarray,
        *__: Any,
    ) -> None:
        """Keeps masks [S, B, N] of what `show` shows, in a bank of no classes.

        What a text has no feature for counts as kept, however long the batch is.
        """
        ids = identify(map(tokens.string, content))
        for one in masks:
            kept = np.ones((len(one), bank.size), bool)
            kept[:, : one.shape[1]] = one | (spans[..., 0] < 0)
            bank.ask(ids, kept, lambda rows: [""] * len(rows))

    def asked(
        self,
        bank: Bank,
        _: int,
        count: int,
        content: np.ndarray,
        spans: np.ndarray,
        masks: np.ndarray,
    ) -> np.ndarray:
        """The first masks [count, B, N] that `note` kept of what `show` shows."""
        found = bank.masks(identify(map(tokens.string, content)), count)
        return found[..., : masks.shape[1]]

    def save(self, directory: Any) -> dict[str, Any]:
        """Writes the tokenizer's files, and returns the `fields`."""
        self.tokenizer.save(directory)
        return {"max_length": self.max_length}

    @classmethod
    def read(cls, values: dict[str, Any], directory: Any) -> "Strings":
        """What `save` wrote and returned."""
        return cls(tokens.load(directory), values["max_length"])
