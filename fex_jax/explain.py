"""Explanations from a trained explainer: one forward pass for each batch of images.

from fex_jax import explain
explainer = explain.load("runs/digits")
result = explainer(["cat.jpg", "dog.jpg"])
result.attributions[0]  # [rows, cols], in [0, 1]
"""

import dataclasses
import functools
import pathlib
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from fex_jax import export, pictures, predictors, pretrained
from fex_jax.answers import mirrored
from fex_jax.attributions.kernel_shap import normalize
from fex_jax.explain_text import TextExplainer
from fex_jax.models import Params
from fex_jax.models.policy import MapHead, functional_policy
from fex_jax.models.unet import UNetConfig
from fex_jax.models.vit import ViTConfig
from fex_jax.pictures import Picture
from fex_jax.refine import refine_scores
from fex_jax.targets import Target, class_numbers


class Explanation(NamedTuple):
    """Attributions of B images; with `top_k`, attributions and targets have an axis [B, k, …]."""

    attributions: np.ndarray  # [B, rows, cols], or [B, H, W]: FEX's λ in [0, 1], FastSHAP's φ
    logits: np.ndarray  # [B, rows, cols] of λ, additive as scores of LIME are; or φ
    targets: np.ndarray  # [B] the explained classes
    probabilities: np.ndarray  # [B, K] f(x)
    labels: tuple[str, ...]  # names of the K classes


def load(path: str | pathlib.Path) -> "Explainer | TextExplainer":
    """Opens an export, a training run's folder, or one checkpoint `<run>/checkpoints/<step>`.

    A run that has not finished is opened at its newest checkpoint.

    Raises:
      ValueError, FileNotFoundError: what is missing or does not fit.
    """
    found = export.read(path)
    kind = TextExplainer if isinstance(found.predictor, pretrained.TextCheckpoint) else Explainer
    return kind(found.predictor, found.backbone, found.params, **found.settings)


@dataclasses.dataclass(frozen=True, eq=False)
class Explainer:
    """A trained explainer with the predictor it explains; `load` opens one."""

    predictor: pretrained.Checkpoint
    backbone: ViTConfig | UNetConfig
    params: Params
    method: str = "fex"  # or "fastshap"
    budget: float | None = None  # mean logit of λ, where training drew it; None: the policy's own
    contrastive: bool = False  # a map says why its class and not another; see `Policy.maps`
    map_head: MapHead = "token"  # what it reads of a patch; see `Policy`
    fill: float = 0.0  # what a removed patch becomes

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of an attribution map."""
        return self.backbone.grid

    def __call__(
        self,
        images: Picture | Sequence[Picture],
        targets: Target | Sequence[Target] | np.ndarray | None = None,
        *,
        top_k: int | None = None,
        resolution: Literal["patch", "pixel"] = "patch",
        refine: int = 0,
        batch_size: int = 64,
        progress: bool = False,
    ) -> Explanation:
        """Explains any number of images.

        Args:
          images: one picture or many, as file paths, PIL images, or arrays [H, W, 3] or
            [B, H, W, 3] of uint8 or of floats in [0, 1]. Pictures are resized and cropped as the
            predictor's preprocessing says; arrays of exactly its input size are taken as they are.
          targets: the class to explain, for all or for each image, as a number or a label; by
            default the predicted one.
          top_k: explain the k most probable classes of each image instead.
          resolution: "patch" for the policy's grid, "pixel" for maps upsampled bilinearly to the
            predictor's input size.
          refine: queries to the predictor about each map, that improve it: an even number; 0 for
            the explainer's own. See `fex_jax.refine`.
          batch_size: images at a time; every batch is padded to it, so XLA compiles once.
          progress: show a bar.

        Raises:
          ValueError: names the first picture or class that cannot be used, and why.
        """
        listed = pictures.as_list(images)
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; expected at least 1")
        if resolution not in ("patch", "pixel"):
            raise ValueError(f"resolution is {resolution!r}; expected 'patch' or 'pixel'")
        num_classes = self.predictor.config.num_classes
        if top_k is not None and (targets is not None or not 1 <= top_k <= num_classes):
            raise ValueError(
                f"top_k is {top_k}; expected 1 to {num_classes}, and no targets beside it"
            )
        labels = self.predictor.labels
        classes = None
        if targets is not None:
            classes = class_numbers(targets, len(listed), labels, "images")[:, None]
        parts = []
        starts = range(0, len(listed), batch_size)
        for start in tqdm(starts, unit="batch", disable=not progress):
            stop = min(start + batch_size, len(listed))
            batch = np.stack([self._prepare(listed[i], i) for i in range(start, stop)])
            given = None if classes is None else _pad(classes[start:stop], batch_size)
            part = self._compiled(
                self.predictor.params,
                self.params,
                _pad(batch, batch_size),
                given,
                top_k or 1,
                refine,
            )
            parts.append(jax.tree.map(lambda x, n=stop - start: np.asarray(x)[:n], part))
        logits, chosen, probabilities = (
            np.concatenate(arrays) for arrays in zip(*parts, strict=True)
        )
        logits = logits.reshape(*logits.shape[:2], *self.grid)
        if top_k is None:
            logits, chosen = logits[:, 0], chosen[:, 0]
        attributions = np.asarray(jax.nn.sigmoid(logits)) if self.method == "fex" else logits
        if resolution == "pixel":
            attributions = self._upsample(attributions)
        return Explanation(attributions, logits, chosen, probabilities, labels)

    def maps(self, params: Params, pixels: jax.Array, classes: jax.Array) -> jax.Array:
        """The network alone, jittable: pixels in 0..255, classes [B, k] → scores [B, k, N]."""
        num_classes = self.predictor.config.num_classes
        _, network = functional_policy(self.backbone, num_classes, map_head=self.map_head)
        images = self.predictor.preprocessing.normalize(pixels)
        scores = network(params).maps(images, classes, contrastive=self.contrastive)
        if self.budget is not None:
            scores = scores - scores.mean(-1, keepdims=True) + self.budget
        return scores

    def picture(self, picture: Picture) -> np.ndarray:
        """What the predictor sees of a picture, uint8 [S, S, 3]: what maps should be laid over."""
        return np.rint(self._prepare(picture, 0)).astype(np.uint8)

    def _prepare(self, picture: Picture, index: int) -> np.ndarray:
        """A picture as float32 [S, S, 3] in 0..255, before normalisation."""
        return pictures.prepare(picture, f"image {index}", self.predictor.preprocessing)

    @functools.cached_property
    def _compiled(self) -> Any:
        """(both networks' parameters, pixels, classes, k, refine) → logits, classes, f(x)."""
        bind = predictors.from_checkpoint(self.predictor, self.fill)

        @functools.partial(jax.jit, static_argnums=(4, 5))
        def run(predictor_params, params, pixels, classes, k, refine):
            model, inputs = bind(predictor_params, pixels)
            probabilities = model.predict(inputs)
            if classes is None:
                classes = jax.lax.top_k(probabilities, k)[1]  # [B, k]
            learned = classes
            if self.budget is not None and len(self.predictor.labels) == 2:
                learned = probabilities.argmax(-1, keepdims=True)  # [B, 1]
            logits = self.maps(params, pixels, learned)
            if refine:
                options = {"num_queries": refine, "logits": self.method == "fex"}
                maps = [
                    refine_scores(model, inputs, *of_class, jax.random.key(0), **options)
                    for of_class in zip(learned.T, jnp.swapaxes(logits, 0, 1), strict=True)
                ]
                logits = jnp.stack(maps, 1)
            if learned is not classes:
                same = (learned == classes)[..., None]  # [B, k, 1]
                logits = jnp.where(same, logits, mirrored(logits, self.budget))
            if self.method == "fastshap":  # attributions add up to f(x) − f(∅)
                gain = probabilities - model.predict(model.blank(inputs[:1]))
                total = jnp.take_along_axis(gain, classes, -1)
                logits = normalize(logits, total, model.features(inputs)[:, None])
            return logits, classes, probabilities

        return run

    def _upsample(self, maps: np.ndarray) -> np.ndarray:
        """[..., rows, cols] → [..., S, S], bilinear."""
        side = self.predictor.preprocessing.image_size
        return np.asarray(jax.image.resize(maps, (*maps.shape[:-2], side, side), "bilinear"))


def _pad(array: np.ndarray, size: int) -> np.ndarray:
    """Repeats the last entry so that every batch has the same shape."""
    return np.concatenate([array, np.repeat(array[-1:], size - len(array), 0)])
