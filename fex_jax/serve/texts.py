"""Texts over HTTP: strings in, scores of words out."""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.special import logit

from fex_jax import tokens
from fex_jax.modalities import texts
from fex_jax.serve.found import Found
from fex_jax.serve.kserve import EACH, Tensor
from fex_jax.token_batch import TokenBatch

FIELD = "texts"
INPUTS = (Tensor("texts", "BYTES", (*EACH, (-1, 2))),)  # [B, 2]: pairs
OUTPUTS = (Tensor("words", "BYTES", ((-1, -1),)),)  # beside those of all modalities
_MAX_CHARACTERS = 20_000


def read(explainer: Any, given: Any, where: str, shown: bool = False) -> Any:
    """A text, or a list of two that are a pair, that can be explained.

    Raises:
      ValueError: says what is wrong with it.
    """
    parts = given if isinstance(given, list) else [given]
    size = sum(len(part) for part in parts if isinstance(part, str))
    if size > _MAX_CHARACTERS:
        raise ValueError(f"{where} has {size:,} characters; at most {_MAX_CHARACTERS:,}")
    try:
        explainer.predictor.tokenizer([given], explainer.unit)
    except ValueError as error:
        raise ValueError(str(error).replace("text 0", where, 1)) from None
    return given


def explain(
    explainer: Any, things: Sequence[Any], targets: list[Any] | None, top_k: int
) -> list[Found]:
    """Scores for the targets, or for the `top_k` most probable classes of each."""
    ask = functools.partial(explainer, list(things), progress=False)
    columns = texts.most_probable(ask, top_k) if targets is None else [ask(targets)]
    rows = []
    for found in zip(*columns, strict=True):
        scores = np.stack([one.scores for one in found])
        logits = logit(np.clip(scores, 1e-7, 1 - 1e-7)) if explainer.logits else scores
        classes = np.array([one.target for one in found])
        own = {"words": list(found[0].words), "spans": found[0].spans.tolist()}
        rows.append(Found(classes, scores, logits, found[0].probabilities, own))
    return rows


def sizes(explainer: Any) -> tuple[int, ...]:
    """Of the scores: any number of words."""
    return (-1,)


def batch(explainer: Any, thing: Any) -> TokenBatch:
    """One text as a batch.

    Raises:
      ValueError: it is longer than what the network reads at a time.
    """
    predictor = explainer.predictor
    (text,) = predictor.tokenizer([thing], explainer.unit)
    length = tokens.bucket(len(text.ids) + 2, predictor.config.max_length)
    return tokens.collate([text], length, predictor.tokenizer)


def shown(explainer: Any, thing: Any) -> dict[str, Any]:
    """The text."""
    return {"text": thing}
