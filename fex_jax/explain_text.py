"""Explanations of texts: words with scores, on a terminal or as HTML.

from fex_jax import explain
explainer = explain.load("runs/movies")
for explanation in explainer(["a dull plot, a great cast"]):
    print(explanation)
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from fex_jax import masking, predictors, pretrained, tokens
from fex_jax.answers import mirrored
from fex_jax.attributions.kernel_shap import normalize
from fex_jax.models import Params
from fex_jax.models.bert import BertConfig, TokenBatch
from fex_jax.models.policy import functional_policy
from fex_jax.refine import refine_scores
from fex_jax.targets import Target, class_numbers
from fex_jax.text_explanation import TextExplanation

_OVERLAP = 64  # tokens that two windows of a long text share


@dataclasses.dataclass(frozen=True, eq=False)
class TextExplainer:
    """A trained explainer with the text classifier it explains; `explain.load` opens one."""

    predictor: pretrained.TextCheckpoint
    backbone: BertConfig
    params: Params
    method: str = "fex"  # or "fastshap"
    budget: float | None = None  # mean logit of λ, where training drew it; None: the policy's own
    contrastive: bool = False  # scores say why the class and not another; see `Policy.maps`
    unit: tokens.Unit = "word"
    removal: str = "mask"  # what becomes of a removed feature's tokens; or "delete"

    def __call__(
        self,
        texts: str | Sequence[str],
        targets: Target | Sequence[Target] | None = None,
        *,
        refine: int = 0,
        batch_size: int = 32,
        progress: bool = False,
    ) -> list[TextExplanation]:
        """Explains any number of texts of any length.

        A text longer than the model's window is read in overlapping windows: its probabilities and
        the score of a word in several windows (of FEX: the logit of λ) are means over them.

        Args:
          texts: one string or many.
          targets: the class to explain, for all or for each text, as a number or a label; by
            default the predicted one.
          refine: queries to the predictor about each window, that improve its scores: an even
            number; 0 for the explainer's own. See `fex_jax.refine`.
          batch_size: windows at a time; every batch is padded to it, so that XLA compiles once for
            each of a few lengths.
          progress: show a bar.

        Raises:
          ValueError: names the first text or class that cannot be used, and why.
        """
        listed = [texts] if isinstance(texts, str) else list(texts)
        if not listed:
            raise ValueError("there are no texts to explain: the batch is empty")
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; expected at least 1")
        split = self.predictor.tokenizer(listed, self.unit)
        window = self.predictor.config.max_length
        parts = [tokens.windows(text, window, min(_OVERLAP, window // 4)) for text in split]
        ends = np.cumsum([0, *map(len, parts)])  # windows ends[i] to ends[i + 1] are of text i
        owners = np.repeat(np.arange(len(split)), np.diff(ends))
        windows = [part for group in parts for _, part in group]

        found = self._run(windows, None, 0, batch_size, progress)
        probabilities = np.stack(
            [np.mean(found[ends[i] : ends[i + 1]], 0) for i in range(len(split))]
        )
        if targets is None:
            classes = probabilities.argmax(-1)
        else:
            classes = class_numbers(targets, len(listed), self.predictor.labels, "texts")
        asked = learned = classes[owners]
        if self.budget is not None and len(self.predictor.labels) == 2:
            learned = np.stack(found).argmax(-1)
        logits = self._run(windows, learned, refine, batch_size, progress)
        logits = [
            values if same else mirrored(values, self.budget)
            for values, same in zip(logits, asked == learned, strict=True)
        ]
        explanations = []
        for i, text in enumerate(split):
            total, count = np.zeros((2, len(text.spans)))
            for (first, part), values in zip(parts[i], logits[ends[i] : ends[i + 1]], strict=True):
                size = len(part.spans)
                total[first : first + size] += values[:size]
                count[first : first + size] += 1
            scores = total / count
            scores = 1 / (1 + np.exp(-scores)) if self.method == "fex" else scores
            explanations.append(
                TextExplanation(
                    listed[i],
                    text.spans,
                    scores,
                    int(classes[i]),
                    probabilities[i],
                    self.predictor.labels,
                    len(parts[i]),
                )
            )
        return explanations

    def maps(self, params: Params, inputs: TokenBatch, classes: jax.Array) -> jax.Array:
        """The network alone, jittable: texts and classes [B, k] → scores [B, k, N].

        They are 0 for features beyond a text's own.
        """
        _, network = functional_policy(self.backbone, self.predictor.config.num_classes)
        scores = network(params).maps(inputs, classes, contrastive=self.contrastive)
        valid = masking.valid_features(inputs.features)[:, None]
        if self.budget is not None:
            scores = scores - scores.mean(-1, keepdims=True, where=valid) + self.budget
        return jnp.where(valid, scores, 0)

    def _run(
        self,
        windows: list[tokens.Text],
        classes: np.ndarray | None,
        refine: int,
        batch_size: int,
        progress: bool,
    ) -> list[np.ndarray]:
        """Of each window: f's probabilities [K], or the map [N] of the given class."""
        lengths = np.array(
            [tokens.bucket(len(w.ids) + 2, self.predictor.config.max_length) for w in windows]
        )
        batches = [
            (int(length), numbers[start : start + batch_size])
            for length in np.unique(lengths)
            for numbers in [np.flatnonzero(lengths == length)]
            for start in range(0, len(numbers), batch_size)
        ]
        results: list[np.ndarray] = [np.zeros(0)] * len(windows)
        for length, numbers in tqdm(batches, unit="batch", disable=not progress):
            filled = np.resize(numbers, batch_size)
            inputs = tokens.collate([windows[w] for w in filled], length, self.predictor.tokenizer)
            if classes is None:
                values = self._predict(self.predictor.params, inputs)
            else:
                both = self.predictor.params, self.params
                values = self._explain(*both, inputs, classes[filled], refine)
            for w, value in zip(numbers, np.asarray(values), strict=False):
                results[w] = value
        return results

    @functools.cached_property
    def _predict(self) -> Any:
        bind = predictors.from_checkpoint(self.predictor, removal=self.removal)
        return jax.jit(lambda params, inputs: bind(params, inputs)[0].predict(inputs))

    @functools.cached_property
    def _explain(self) -> Any:
        """(both networks' parameters, texts, classes [B], refine) → λ's logits, or φ, [B, N]."""
        bind = predictors.from_checkpoint(self.predictor, removal=self.removal)

        @functools.partial(jax.jit, static_argnums=4)
        def run(predictor_params, params, inputs, targets, refine):
            scores = self.maps(params, inputs, targets[:, None])[:, 0]
            model, _ = bind(predictor_params, inputs)
            if refine:
                options = {"num_queries": refine, "logits": self.method == "fex"}
                scores = refine_scores(model, inputs, targets, scores, jax.random.key(0), **options)
            if self.method == "fastshap":  # attributions add up to f(x) − f(∅)
                gain = model.predict(inputs) - model.predict(model.blank(inputs))
                total = jnp.take_along_axis(gain, targets[:, None], -1)[:, 0]
                scores = normalize(scores, total, model.features(inputs))
            return scores

        return run
