"""Strings to token batches: fast tokenizers, words, windows and buckets of lengths."""

import dataclasses
import json
import pathlib
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import tokenizers

from fex_jax import checks
from fex_jax.token_batch import Raw, TokenBatch
from fex_jax.windows import Pair, Text, shortened, windows

Unit = Literal["token", "word"]
BUCKETS = (32, 64, 128, 256, 512, 1024, 2048, 4096)  # tokens, CLS and SEP included
_BYTES = 8  # of a string for each token of a batch, more than most have
_NO_BYTE = 255  # of UTF-8
# What BERT and RoBERTa call them: the files of some published models do not say.
_SPECIAL = {
    "cls_token": ("[CLS]", "<s>"),
    "sep_token": ("[SEP]", "</s>"),
    "pad_token": ("[PAD]", "<pad>"),
    "mask_token": ("[MASK]", "<mask>"),
}


class Group(NamedTuple):
    """Texts of one bucket."""

    index: np.ndarray  # type: ignore[assignment]  # [B] their places in the list that was encoded
    inputs: TokenBatch


@dataclasses.dataclass(frozen=True, eq=False)
class Tokenizer:
    """A fast tokenizer with the ids of its special tokens; `load` opens one."""

    backend: tokenizers.Tokenizer
    settings: dict[str, Any]  # tokenizer_config.json, which transformers needs
    cls_id: int
    sep_id: int
    pad_id: int
    mask_id: int
    raw: bool = False  # batches carry the strings, too

    @property
    def vocab_size(self) -> int:
        """One more than the largest id."""
        return max(self.backend.get_vocab().values()) + 1

    def __call__(self, texts: Sequence[str | Pair], unit: Unit = "token") -> list[Text]:
        """Tokens of whole texts, however long, with a token or a word as the unit of features.

        A word is what the tokenizer takes for one: punctuation is a word of its own.

        Raises:
          ValueError: names the first text that is neither a string nor a pair of them, or holds no
            token, and pairs that the tokenizer or a black box does not know.
        """
        if unit not in ("token", "word"):
            raise ValueError(f"unit is {unit!r}; expected 'token' or 'word'")
        found: list[Text | None] = [None] * len(texts)
        for i, text in enumerate(texts):
            _check(text, i)
            if not isinstance(text, str):
                found[i] = self._pair(text, unit, i)
        single = [i for i, text in enumerate(texts) if isinstance(text, str)]
        encodings = self.backend.encode_batch([texts[i] for i in single], add_special_tokens=False)
        for i, encoding in zip(single, encodings, strict=True):
            found[i] = self._text(texts[i], encoding, unit, i)
        return found

    def save(self, directory: str | pathlib.Path) -> None:
        """Writes tokenizer.json and tokenizer_config.json."""
        directory = pathlib.Path(directory)
        self.backend.save(str(directory / "tokenizer.json"))
        settings = json.dumps(self.settings, indent=2, ensure_ascii=False)
        (directory / "tokenizer_config.json").write_text(settings + "\n", encoding="utf-8")

    def _pair(self, pair: Pair, unit: Unit, index: int) -> Text:
        """Both as one text, between them what the tokenizer puts there."""
        if self.raw:
            raise ValueError(f"text {index} is a pair; a black box of texts reads single strings")
        whole = self.backend.encode(*pair)
        between = np.array([side is None for side in whole.sequence_ids[1:-1]])
        ends = [whole.ids[0], whole.ids[-1]] if len(whole.ids) > 1 else []
        if ends != [self.cls_id, self.sep_id] or not between.any():
            raise ValueError(
                f"text {index} is a pair, and tokenizer.json has no template of pairs from CLS to "
                "SEP: save it with transformers' save_pretrained"
            )
        sides = [
            self._text(text, self.backend.encode(text, add_special_tokens=False), unit, index)
            for text in pair
        ]
        first, second = sides
        ids = np.array(whole.ids[1:-1], np.int32)
        features = np.full(len(ids), -1, np.int32)
        later = np.where(second.features < 0, -1, second.features + len(first.spans))
        features[~between] = np.concatenate([first.features, later])
        spans = np.concatenate([first.spans, second.spans + len(pair[0]) + 1])
        types = np.array(whole.type_ids[1:], np.int32)
        return Text(ids, features, spans, "\n".join(pair), 0, (pair[0], pair[1]), types)

    def _text(self, text: str, encoding: tokenizers.Encoding, unit: Unit, index: int) -> Text:
        ids = np.array(encoding.ids, np.int32)
        units = encoding.word_ids if unit == "word" else range(len(ids))
        units = np.array([-1 if word is None else word for word in units], np.int32)
        units[np.isin(ids, [self.cls_id, self.sep_id, self.pad_id])] = -1
        numbers, features = np.unique(units, return_inverse=True)
        features = features.astype(np.int32) - (len(numbers) > 0 and numbers[0] == -1)
        count = features.max(initial=-1) + 1
        if not count:
            raise ValueError(f"text {index} is empty: it holds no token that could be explained")
        offsets = np.array(encoding.offsets, np.int32)
        spans = np.tile(np.array([offsets.max(), 0], np.int32), (count, 1))
        real = features >= 0
        np.minimum.at(spans[:, 0], features[real], offsets[real, 0])
        np.maximum.at(spans[:, 1], features[real], offsets[real, 1])
        # RoBERTa's tokens begin with the space before them.
        spans[:, 0] += [len(text[a:b]) - len(text[a:b].lstrip()) for a, b in spans]
        return Text(ids, features, spans, text)


def _check(text: Any, index: int) -> None:
    """Raises a ValueError at what is neither a string nor a pair of them."""
    parts = [text] if isinstance(text, str) else text
    if not isinstance(parts, list | tuple) or not all(isinstance(part, str) for part in parts):
        raise ValueError(f"text {index} is {type(text).__name__}; expected a string")
    if not isinstance(text, str) and len(parts) != 2:
        raise ValueError(f"text {index} has {len(parts)} strings; expected one, or a pair")
    for part in parts:
        try:
            part.encode()
        except UnicodeEncodeError as error:
            raise ValueError(
                f"text {index} is no valid Unicode at character {error.start}: half a surrogate "
                "pair; decode its source with the right encoding"
            ) from None


def load(directory: str | pathlib.Path) -> Tokenizer:
    """Opens the tokenizer of a Hugging Face directory.

    Raises:
      ValueError: files or special tokens that are missing or cannot be read.
    """
    directory = pathlib.Path(directory)
    path = checks.file_inside(directory, "tokenizer.json")
    if not path.is_file():
        raise ValueError(
            f"{directory} has no tokenizer.json: make it once with transformers, "
            "AutoTokenizer.from_pretrained(directory).save_pretrained(directory)"
        )
    try:
        backend = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises no narrower class
        raise ValueError(f"{path} cannot be read as a tokenizer: {error}") from error
    backend.no_truncation()
    backend.no_padding()
    settings: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if checks.file_inside(directory, name).is_file():
            settings |= checks.read_json(directory / name)
    ids = {}
    for name, usual in _SPECIAL.items():
        token = settings.get(name, usual)
        token = token.get("content") if isinstance(token, dict) else token
        candidates = token if token is usual else (token,) if isinstance(token, str) else ()
        found = [backend.token_to_id(t) for t in candidates if backend.token_to_id(t) is not None]
        if not found:
            raise ValueError(
                f"the tokenizer in {directory} has no {name} ({token!r}): tokenizer_config.json "
                "names it and tokenizer.json holds it; save both with save_pretrained"
            )
        ids[name] = found[0]
    return Tokenizer(
        backend, settings, ids["cls_token"], ids["sep_token"], ids["pad_token"], ids["mask_token"]
    )


def learn(texts: Sequence[str], vocab_size: int) -> Tokenizer:
    """A lower-casing WordPiece tokenizer as BERT's, with a vocabulary learned from texts."""
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    special = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    backend = tokenizers.Tokenizer(tokenizers.models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    backend.decoder = tokenizers.decoders.WordPiece()
    trainer = tokenizers.trainers.WordPieceTrainer(
        vocab_size=vocab_size, special_tokens=list(special), show_progress=False
    )
    backend.train_from_iterator(texts, trainer)
    pad, _, cls, sep, mask = (backend.token_to_id(token) for token in special)
    backend.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", cls), ("[SEP]", sep)],
    )
    settings = {"tokenizer_class": "BertTokenizer"} | dict(zip(names, special, strict=True))
    return Tokenizer(backend, settings, cls, sep, pad, mask)


def bucket(count: int, max_length: int, buckets: Sequence[int] = BUCKETS) -> int:
    """The smallest length that holds `count` tokens, CLS and SEP included.

    Raises:
      ValueError: more tokens than the model's `max_length`.
    """
    if count > max_length:
        raise ValueError(
            f"{count} tokens, CLS and SEP included, are more than the model's {max_length}"
        )
    return min([b for b in buckets if count <= b < max_length], default=max_length)


def collate(texts: Sequence[Text], length: int, tokenizer: Tokenizer) -> TokenBatch:
    """CLS, the text, SEP and padding: numpy arrays [B, length]; see `Tokenizer.raw`."""
    shape = (len(texts), length)
    ids = np.full(shape, tokenizer.pad_id, np.int32)
    attention, features = np.zeros(shape, bool), np.full(shape, -1, np.int32)
    types = np.zeros(shape, np.int32) if any(text.pair for text in texts) else None
    for row, text in enumerate(texts):
        end = len(text.ids) + 1
        if types is not None and text.types is not None:
            types[row, 1 : end + 1] = text.types
        ids[row, 0], ids[row, 1:end], ids[row, end] = tokenizer.cls_id, text.ids, tokenizer.sep_id
        attention[row, : end + 1] = True
        features[row, 1:end] = text.features
    raw = _raw(texts, length) if tokenizer.raw else None
    return TokenBatch(ids, attention, features, raw, types)


def _raw(texts: Sequence[Text], length: int) -> Raw:
    """The strings, in as many bytes as one of few sizes: XLA compiles for each."""
    encoded = [text.string.encode() for text in texts]
    size = _BYTES * length
    while size < max(map(len, encoded)):
        size *= 2
    content = np.full((len(texts), size), _NO_BYTE, np.uint8)
    spans = np.full((len(texts), length, 2), -1, np.int32)
    for row, (text, string) in enumerate(zip(texts, encoded, strict=True)):
        content[row, : len(string)] = np.frombuffer(string, np.uint8)
        spans[row, : len(text.spans)] = text.spans - text.start
    return Raw(content, spans)


def string(content: np.ndarray) -> str:
    """A row of `Raw.content`."""
    return content.tobytes().rstrip(bytes([_NO_BYTE])).decode()


def encode(
    texts: Sequence[str],
    tokenizer: Tokenizer,
    max_length: int,
    unit: Unit = "token",
    buckets: Sequence[int] = BUCKETS,
) -> list[Group]:
    """Texts as batches of a few lengths, so that XLA compiles once a bucket.

    Args:
      texts: strings.
      tokenizer: the model's own.
      max_length: the model's window, `BertConfig.max_length`.
      unit: what a feature is.
      buckets: lengths; those from `max_length` on are replaced by it.

    Raises:
      ValueError: names the first text that is empty, or longer than the window: `windows` cuts it
        into overlapping parts.
    """
    split = tokenizer(texts, unit)
    groups: dict[int, list[int]] = {}
    for i, text in enumerate(split):
        try:
            length = bucket(len(text.ids) + 2, max_length, buckets)
        except ValueError as error:
            raise ValueError(f"text {i} is too long: {error}. Explain it in windows") from None
        groups.setdefault(length, []).append(i)
    return [
        Group(np.array(index), collate([split[i] for i in index], length, tokenizer))
        for length, index in sorted(groups.items())
    ]


def within(
    texts: Sequence[str],
    tokenizer: Tokenizer,
    max_length: int,
    unit: Unit = "token",
    too_long: Literal["refuse", "cut"] = "refuse",
    buckets: Sequence[int] = BUCKETS,
) -> tuple[np.ndarray, list[Text]]:
    """The bucket of each text, [n], and its tokens, at most `max_length` with CLS and SEP.

    Raises:
      ValueError: texts that are longer and not to be cut.
    """
    if too_long not in ("refuse", "cut"):
        raise ValueError(f"too_long is {too_long!r}; expected 'refuse' or 'cut'")
    split = tokenizer(texts, unit)
    if too_long == "cut":
        split = [
            text if len(text.ids) + 2 <= max_length else _cut(text, max_length, tokenizer, unit)
            for text in split
        ]
    counts = np.array([len(text.ids) + 2 for text in split])
    if counts.max() > max_length:
        beginning = texts[int(counts.argmax())][:60]
        raise ValueError(
            f"{(counts > max_length).sum()} of {len(split)} texts are longer than the model's "
            f"{max_length} tokens, the longest, {beginning!r}…, has {counts.max()}. Cut them with "
            "too_long='cut'"
        )
    return np.array([bucket(n, max_length, buckets) for n in counts]), split


def _cut(text: Text, max_length: int, tokenizer: Tokenizer, unit: Unit) -> Text:
    """As many whole words as fit; of a pair, the last ones of the longer text are left out."""
    if text.pair is None:
        return windows(text, max_length, 0)[0][1]  # the first without overlap
    while len(text.ids) + 2 > max_length:
        (text,) = tokenizer([shortened(text, max_length)], unit)
    return text
