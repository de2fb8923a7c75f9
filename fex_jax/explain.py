"""Explanations from a trained explainer: one forward pass for each batch of images or texts.

from fex_jax import explain
explainer = explain.load("runs/digits")
result = explainer(["cat.jpg", "dog.jpg"])
result.attributions[0]  # [rows, cols], in [0, 1]
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from fex_jax import checks, export, faithfulness, modalities, predictors, programs, sharing, tokens
from fex_jax.answers import mirrored, odds_of_draw
from fex_jax.attributions.kernel_shap import normalize
from fex_jax.data.decode import Picture
from fex_jax.export import Predictor
from fex_jax.host import Bank, HostError, HostPredictor
from fex_jax.host import open as open_host
from fex_jax.modalities.images import Explanation
from fex_jax.models import Params
from fex_jax.models.policy import Backbone, MapHead, Policy, functional_policy
from fex_jax.models.unet import UNetConfig
from fex_jax.objectives import KINDS
from fex_jax.predictors import Bind
from fex_jax.refine import BUDGET_RANGE, refine_scores
from fex_jax.targets import ranked
from fex_jax.text_explanation import TextExplanation

__all__ = ["Explainer", "Explanation", "Predictor", "TextExplanation", "load"]


def load(
    path: str | pathlib.Path,
    predictor: HostPredictor | Bank | str | None = None,
    *,
    revision: str | None = None,
    dtype: str = "float32",
) -> "Explainer":
    """Opens an export, a training run's folder, or one checkpoint `<run>/checkpoints/<step>`.

    A run that has not finished is opened at its newest checkpoint.

    Args:
      path: where it is.
      revision: with a path "user/repo" of the Hugging Face hub: a commit, a tag or a branch.
      predictor: of an explainer of a black box, f: a host predictor, a name that `host.open` takes,
        or a bank of its answers. Without f its own p = softmax of the maps' means serves for f(x),
        which training has taught it; and what takes queries is refused.
      dtype: of matrix products, or "bfloat16"; heads, norms and softmax stay in float32.

    Raises:
      ValueError, FileNotFoundError, ConnectionError: what is missing or does not fit.
    """
    checks.require({"dtype": dtype}, {"dtype": checks.one_of("float32", "bfloat16")}, "load")
    found = export.read(path, revision)
    explainer = Explainer(*found[:3], **found.settings, dtype=dtype)
    return explainer if predictor is None else explainer.asking(predictor)


@dataclasses.dataclass(frozen=True, eq=False)
class Explainer:
    """A trained explainer with the predictor it explains; `load` opens one.

    The predictor's modality (`fex_jax.modalities`) turns what is to be explained into batches and
    maps into explanations. All maps come from `attribute`, of what `explain`s and of tables alike.
    """

    predictor: Predictor
    backbone: Backbone
    params: Params = dataclasses.field(repr=False)
    method: str = "fex"  # or another of `objectives`
    budget: float | None = None  # mean logit of λ, where training drew it; None: the policy's own
    temperature: float | None = None  # of FEX, α of `answers.alpha`; None: of other objectives
    contrastive: bool = False  # a map says why its class and not another; see `Policy.maps`
    map_head: MapHead = "token"  # what it reads of a patch; see `Policy`
    faithful: bool = False  # it predicts how faithful a map is: `fex_jax.faithfulness`
    fill: float = 0.0  # what a removed patch becomes
    unit: tokens.Unit = "word"  # what a feature of a text is
    removal: str = "mask"  # what becomes of a removed feature's tokens; or "delete"
    dtype: str = "float32"  # of matrix products; or "bfloat16"

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        """Explains any number of images, texts or rows: explainer(images, targets, refine=100).

        What may come, the options and the result are those of `modalities.images.explain`, or
        `.texts`, `.tables` or `.arrays`: first the `images`, `texts`, `table` or `arrays`; then
        `targets`, the classes to explain as numbers or labels, by default the predicted ones;
        `batch_size`; `progress`; of all but tables `refine`, queries that improve each map, or
        "auto", and `with_prediction`, False to leave f(x) out; of images and arrays `top_k`; of
        images also `resolution`.

        Raises:
          ValueError: names the first input or class that cannot be used, and why.
        """
        return modalities.explain(self, *inputs, **options)

    def __getstate__(self) -> dict[str, Any]:
        """The fields: compiled programs are of one process."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def asking(self, f: HostPredictor | Bank | str) -> "Explainer":
        """The same explainer of a black box with f at hand; see `load`.

        Raises:
          ValueError: another f than the one that is explained, or a predictor that is no black box.
        """
        if self.predictor.inside:
            raise ValueError("this explainer has its predictor in its folder: leave predictor out")
        if isinstance(f, str):
            f = open_host(f, labels=self.predictor.labels, input=self.predictor.reads.input)
        return dataclasses.replace(self, predictor=self.predictor.asking(f))

    @property
    def name(self) -> str:
        """What a table calls it: its method, and "-unet" if its network is one."""
        return self.method + ("-unet" if isinstance(self.backbone, UNetConfig) else "")

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of an attribution map of an image."""
        modalities.require_images(self.predictor, "grid")
        return self.backbone.grid

    @property
    def logits(self) -> bool:
        """Whether maps are logits of λ, so that attributions are their sigmoids; else φ."""
        return KINDS[self.method].logits

    @functools.cached_property
    def bind(self) -> Bind:
        """bind(predictor's parameters, batch) → (`predictors.Model`, its inputs)."""
        given = self.fill, self.removal, jnp.dtype(self.dtype)
        return predictors.from_checkpoint(self.predictor, *given)

    @functools.cached_property
    def shares_backbone(self) -> bool:
        """Whether g reads images or texts by f's own backbone, as one that was frozen does."""
        if self.backbone != self.predictor.config:
            return False
        both = self.params["backbone"], self.predictor.params["backbone"]
        mine, f = map(traverse_util.flatten_dict, both)
        return mine.keys() == f.keys() and all(np.array_equal(mine[name], f[name]) for name in f)

    def warmup(self, sizes: Sequence[int] = (1,), **options: Any) -> None:
        """Compiles what explaining so many things at a time needs; see `modalities.warmup`."""
        modalities.warmup(self, sizes, **options)

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Uploads it with a card to the Hugging Face hub; see `sharing.push`."""
        return sharing.push(self, repo_id, **options)

    def export(self, path: str | pathlib.Path, **options: Any) -> pathlib.Path:
        """Writes one file that runs elsewhere: ONNX, StableHLO, TFLite; see `portable.export`."""
        from fex_jax import portable

        return portable.export(self, path, **options)

    def explain(
        self,
        batch: Any,
        classes: np.ndarray,
        *,
        refine: int | Literal["auto"] = 0,
        with_prediction: bool = True,
        answers: np.ndarray | None = None,
    ) -> faithfulness.Found:
        """Maps [B, k, N] of a batch, the classes [B, k] that they explain, f(x) [B, K], and how
        faithful the explainer's own maps are, [B, k]; None: not learned.

        All in one program, in which a backbone that is f's own reads the batch once.

        Args:
          batch: as `attribute` takes it.
          classes: [B, k]; `targets.PREDICTED` for those that f is to choose.
          refine: queries about each map; 0: none; "auto": as `faithfulness.refine_low` says.
          with_prediction: False: f(x) is None, and not asked for where no map depends on it.
          answers: f(x), where it is known.
        """
        if refine == "auto":
            given = {"with_prediction": with_prediction, "answers": answers}
            return faithfulness.refine_low(self, batch, self.explain(batch, classes, **given))
        count = classes.shape[1]
        width = count if refine else modalities.padded(count, len(self.predictor.labels))
        if width > count:  # maps cost little, programs of their own much
            classes = np.pad(classes, ((0, 0), (0, width - count)), mode="edge")
        if answers is None and self.predictor.inside:
            given = programs.EXPLANATION, *self.weights, programs.placed(batch), classes
            found = programs.run(self, *given, refine=refine, with_prediction=with_prediction)
            maps, classes, answers, values = jax.tree.map(np.asarray, found)
        else:  # a black box is asked by a program of its own
            if with_prediction and answers is None:
                answers = np.asarray(self.answers(batch))
            classes = classes if answers is None else np.asarray(ranked(answers, classes))
            known = answers
            if answers is None and self.needs_answers:
                known = np.asarray(self.answers(batch))
            maps = np.asarray(self.attribute(batch, classes, known, refine=refine))
            given = self.weights[1], programs.placed(batch), classes, known
            values = jax.tree.map(np.asarray, programs.run(self, programs.FAITHFULNESS, *given))
        values = None if values is None else values[:, :count]
        return maps[:, :count], classes[:, :count], answers, values

    def answers(self, batch: Any) -> jax.Array:
        """f(x) of a batch, [B, K]; compiled once for each shape. Without f what `p` is."""
        return programs.run(self, programs.ANSWER, *self.weights, programs.placed(batch))

    def attribute(
        self, batch: Any, classes: Any, answers: Any = None, *, refine: int = 0
    ) -> jax.Array:
        """Maps of a batch and its classes [B, k] → [B, k, N]; compiled once for each shape.

        Args:
          batch: as `Model`'s bind takes it: pixels [B, H, W, 3] in 0..255, or a `TokenBatch`.
          classes: to explain.
          answers: f(x) [B, K]; None: asked for where a map depends on it.
          refine: queries about each map; 0: none.
        """
        batch = programs.placed(batch)
        if not self.needs_answers:
            answers = None  # one program for all callers, and so the same bits
        elif answers is None:
            answers = self.answers(batch)
        return programs.run(
            self, programs.SCORES, *self.weights, batch, classes, answers, refine=refine
        )

    def memory(self, batch: Any, classes: Any, *, refine: int = 0) -> Any:
        """XLA's account of what `attribute` takes of memory; None where it gives none."""
        batch = programs.placed(batch)
        answers = self.answers(batch) if self.needs_answers else None
        arguments = *self.weights, batch, classes, answers
        lowered = self.programs[programs.SCORES].lower(*arguments, refine=refine)
        return lowered.compile().memory_analysis()

    def picture(self, picture: Picture) -> np.ndarray:
        """What the predictor sees of a picture, uint8 [H, W, 3]: what maps should be laid over."""
        modalities.require_images(self.predictor, "picture")
        return modalities.of(self.predictor).read(self, picture)

    def maps(self, params: Params, batch: Any, classes: jax.Array) -> jax.Array:
        """The network alone, jittable: a batch and classes [B, k] → scores [B, k, N].

        They are 0 for features that an input does not have.
        """
        model, inputs = self.bind(self.predictor.params, batch)
        valid = model.features(inputs)[:, None]
        network, shown = self.network(params), model.view(inputs)
        if KINDS[self.method].one_map:
            return odds_of_draw(network.maps(shown, 0 * classes), valid)
        scores = network.maps(shown, classes, contrastive=self.contrastive)
        if self.budget is not None:
            scores = scores - scores.mean(-1, keepdims=True, where=valid) + self.budget
        return jnp.where(valid, scores, 0)

    def scores(
        self,
        predictor_params: Params,
        params: Params,
        batch: Any,
        classes: jax.Array,
        answers: jax.Array | None,
        *,
        refine: int = 0,
    ) -> jax.Array:
        """What `attribute` computes, as a pure function of arrays: [B, k, N]."""
        model, inputs = self.bind(predictor_params, batch)
        valid = model.features(inputs)[:, None]  # [B, 1, N]
        learned = self.learned(classes, answers)
        scores = self.maps(params, batch, learned)
        if refine:
            ask = functools.partial(
                refine_scores, model, inputs, key=jax.random.key(0), num_queries=refine,
                logits=self.logits, budget_range=-self.budget if self.budget else BUDGET_RANGE,
            )  # fmt: skip
            each = range(learned.shape[1])
            scores = jnp.stack([ask(learned[:, i], scores[:, i]) for i in each], 1)
        if self._mirrors:
            same = (learned == classes)[..., None]  # [B, k, 1]
            scores = jnp.where(same, scores, jnp.where(valid, mirrored(scores, self.budget), 0))
        if not self.logits:  # attributions add up to f(x) − f(∅)
            gain = answers - model.predict(model.blank(inputs))
            scores = normalize(scores, jnp.take_along_axis(gain, classes, -1), valid)
        return scores

    def answer(self, predictor_params: Params, params: Params, batch: Any) -> jax.Array:
        """What `answers` computes, as a pure function: [B, K]."""
        if self.predictor.absence:
            return self.p(params, batch)
        model, inputs = self.bind(predictor_params, batch)
        return model.predict(inputs)

    def p(self, params: Params, batch: Any) -> jax.Array:
        """What the network itself holds f(x) to be, jittable: [B, K].

        Raises:
          HostError: training has taught it no such thing.
        """
        if not self.estimates:
            raise HostError(self.predictor.absence)
        model, inputs = self.bind(self.predictor.params, batch)
        classes = jnp.zeros((jax.tree.leaves(batch)[0].shape[0], 1), int)
        means = self.network(params)(model.view(inputs), classes)[1]
        return (jax.nn.softmax if self.predictor.output == "softmax" else jax.nn.sigmoid)(means)

    @property
    def estimates(self) -> bool:
        """Whether training has taught the network f(x)."""
        return self.budget is not None and predictors.output(self.predictor) != "value"

    @property
    def network(self) -> Callable[[Params], Policy]:
        classes = len(self.predictor.labels)
        head = {"map_head": self.map_head, "faithful": self.faithful}
        return functional_policy(self.backbone, classes, jnp.dtype(self.dtype), **head)[1]

    def learned(self, classes: jax.Array, answers: jax.Array | None) -> jax.Array:
        """The classes whose maps are read: where it is mirrored, the more probable one's."""
        return answers.argmax(-1, keepdims=True) if self._mirrors else classes

    @property
    def _mirrors(self) -> bool:
        """Whether the map of one of two classes is the other's, mirrored; see `mirrored`."""
        excluding = self.predictor.output == "softmax" and len(self.predictor.labels) == 2
        return self.estimates and excluding

    @property
    def needs_answers(self) -> bool:
        """Whether a map depends on f(x)."""
        return self._mirrors or not self.logits

    # setdefault is atomic, and what is made before the first call costs nothing.
    @property
    def weights(self) -> tuple[Params, Params]:
        """f's parameters and the network's, on each device."""
        own = self.__dict__
        return own.get("_placed") or own.setdefault("_placed", programs.weights(self))

    @property
    def programs(self) -> tuple[Any, ...]:
        """What `programs.jitted` made."""
        own = self.__dict__
        return own.get("_jitted") or own.setdefault("_jitted", programs.jitted(self))
