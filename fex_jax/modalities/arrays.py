"""Arrays of any form, as series or spectra, whose features a function of one's own removes.

All that the house asks of a modality is in this file: explaining, how a black box's arrays are
read, data to train on, and scoring. An explainer is a network of dense layers from nothing.

Shapes: B arrays of a form, D numbers each, N features.
"""

import dataclasses
import math
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save_file
from scipy.special import expit

from fex_jax import checks, modalities
from fex_jax.host.model import identified
from fex_jax.host.predictor import HostPredictor
from fex_jax.host.rows import Config
from fex_jax.modalities.images import Explanation
from fex_jax.models.mlp import MLPConfig
from fex_jax.outputs import Output
from fex_jax.predictors import Model
from fex_jax.removal import Own

if TYPE_CHECKING:  # of training and scoring
    from fex_jax.evaluation.tasks import Reading, Task
    from fex_jax.explain import Explainer

BATCH_SIZE = 64
THING, THINGS = "array", "arrays"
ONCE, PRESET, OPTIONS, PIXELS = True, "contrast", (), False
AT_PATH = {"data.name": "arrays"}
_MOST = 2**16  # numbers of an array that a network of dense layers reads
_TRIED, _FAR = 8, 10.0  # arrays that f's function is tried on; standard deviations that are read
_FILE, _COUNT = "arrays.safetensors", checks.integer(1, _MOST)
Fields: TypeAlias = dict[str, checks.Check]


def explain(
    explainer: "Explainer",
    arrays: Any,
    targets: Any = None,
    *,
    top_k: int | None = None,
    refine: int | Literal["auto"] = 0,
    with_prediction: bool = True,
    batch_size: int = BATCH_SIZE,
    progress: bool = True,
) -> Explanation:
    """Explains any number of arrays: attributions [B, N], with `top_k` [B, k, N].

    Args:
      explainer: of a predictor of arrays.
      arrays: one or many of f's form, as anything that NumPy makes an array of, or an .npy file.
      targets, top_k, refine, with_prediction, batch_size, progress: as of `images.explain`.

    Raises:
      ValueError: names the first array or class that cannot be used, and why.
      HostError: f failed, or is not at hand.
    """
    values = values_of(arrays, explainer.predictor.reads.input)
    options = {"refine": refine, "batch_size": batch_size, "with_prediction": with_prediction}
    given = explainer, values, len(values), targets, top_k, THINGS
    maps, chosen, answers, faith = modalities.each(*given, progress=progress, **options)
    attributions, labels = expit(maps) if explainer.logits else maps, explainer.predictor.labels
    return Explanation(attributions, maps, chosen, answers, labels, faithfulness=faith)


def examples(explainer: "Explainer", size: int) -> list[np.ndarray]:
    """A batch of each form that explaining `size` arrays can need: one."""
    return [np.zeros((size, *explainer.predictor.reads.input), np.float32)]


def features(explainer: "Explainer") -> str:
    """What a map tells of."""
    return f"{explainer.backbone.num_features} features of one's own"


def arrays(explainer: "Explainer", length: int | None) -> modalities.Arrays:
    """Numbers as they are, for exports; a length, which they have not, is not read."""
    form, count = explainer.predictor.reads.input, explainer.backbone.num_features
    words = f"float32 [{', '.join(map(str, ('B', *form)))}], as the classifier reads them"
    inputs = {"values": (form, np.float32)}
    return modalities.Arrays(inputs, (count,), lambda values: values, {"values": words})


def as_list(arrays: Any) -> np.ndarray:
    """Their numbers, of one or many: which, only f's form says. Of an .npy file its content."""
    path = isinstance(arrays, str | os.PathLike)
    try:
        return np.load(arrays, "r", allow_pickle=False) if path else np.asarray(arrays)
    except (OSError, ValueError, EOFError) as error:
        kind = f"{arrays} is no .npy file" if path else f"{error}: the arrays are no array"
        raise ValueError(f"{kind} of numbers") from None


def values_of(given: Any, form: tuple[int, ...]) -> np.ndarray:
    """One or many arrays of a form as float32 [B, *form].

    Raises:
      ValueError: no numbers, another form, NaN or infinity, or no arrays at all.
    """
    values = as_list(given)
    values = values[None] if values.shape == form else values
    if values.dtype.kind not in "fiub" or values.shape[1:] != form or not len(values):
        raise ValueError(
            f"the arrays are {values.dtype}{list(values.shape)}; expected one or more of numbers "
            f"{list(form)}, [{', '.join(map(str, ('B', *form)))}]"
        )
    with np.errstate(over="ignore"):
        values = np.ascontiguousarray(values, np.float32)
    finite = np.isfinite(values).all(tuple(range(1, values.ndim)))
    if not finite.all():
        raise ValueError(
            f"array {finite.argmin()} holds NaN, infinity or a number beyond float32: replace it"
        )
    return values


class Masked(NamedTuple):
    """Arrays, and which of their features f is to be asked about."""

    values: jax.Array  # float32 [B, *form]
    ids: jax.Array  # uint8 [B, 16]
    masks: jax.Array  # bool [B, N]


@dataclasses.dataclass(frozen=True, eq=False)
class Reads:
    """How arrays are read; see `host.black_box`.

    Attributes:
      input: the form of an array, as `host` says it.
      mean, scale: float32 [D], by which a network sees the numbers; None: not known yet.
    """

    input: tuple[int, ...]
    mean: np.ndarray | None = dataclasses.field(default=None, repr=False)
    scale: np.ndarray | None = dataclasses.field(default=None, repr=False)
    modality, explained, banked, removal = "arrays", None, True, Own
    fields: ClassVar[Fields] = {"input": checks.several(_COUNT, at_least=1)}
    removal_fields: ClassVar[Fields] = {"num_features": _COUNT, "trace": checks.text()}

    @classmethod
    def of(cls, f: HostPredictor, removal: Own | None = None) -> tuple["Reads", Own]:
        """Arrays of which nothing is known but their form."""
        return cls(f.input), removal or f.features.removal(f.input)

    @classmethod
    def policy(
        cls, config: Any, f: HostPredictor, source: "Source"
    ) -> tuple[MLPConfig, None, "Reads"]:
        """A network of dense layers from nothing, which sees standardised numbers.

        Raises:
          ValueError: another policy or removal, too many numbers, or equal arrays.
          HostError: f's function does not remove; see `OwnMask.check`.
        """
        size, own = math.prod(map(int, f.input)), f.features
        given = config.policy, config.policy_backbone.path, config.removal.kind
        if given != ("mlp", "", "probe"):
            raise ValueError(
                f"policy, policy_backbone.path and removal.kind are {given}; of arrays the policy "
                "is mlp, and f's own function removes: leave the others out"
            )
        if size > _MOST:
            raise ValueError(
                f"{f.name} takes arrays of {size:,} numbers, and a network reads at most "
                f"{_MOST:,}: let f take coarser ones, and make them finer itself"
            )
        own.check(source.values[:_TRIED])
        flat = source.values.reshape(source.size, -1)
        spread = flat.std(0, dtype=np.float64)
        if not spread.any():
            raise ValueError("all arrays are the same: give some that differ")
        both = flat.mean(0, dtype=np.float64), np.where(spread > 0, spread, 1.0)
        reads = cls(f.input, *(array.astype(np.float32) for array in both))
        return MLPConfig.of(size, own.num_features), None, reads

    @classmethod
    def candidates(cls, config: Any, f: HostPredictor) -> list[Own]:
        """The removal: f's own."""
        return [f.features.removal(f.input)]

    def config(self, num_classes: int, removal: Own) -> Config:
        """Sizes."""
        return Config(num_classes, (removal.num_features,))

    def kept_by(self, removal: Own) -> dict[str, Any]:
        """What a bank knows its answers by."""
        return {"removal": str(removal), "grid": (removal.num_features,)}

    def fits(self, backbone: Any, removal: Own) -> bool:
        """Whether a network reads these arrays, and has an output for each feature."""
        return backbone == MLPConfig.of(math.prod(self.input), removal.num_features)

    def bind(
        self, batch: Any, removal: Own, predict: Callable[[Masked], jax.Array], output: Output
    ) -> tuple[Model, Masked]:
        """Arrays [B, *form] as inputs of a `predictors.Model`.

        A mask takes the place of the one before: masks of masked inputs do not add up.
        """

        def view(inputs: Masked) -> jax.Array:
            flat = inputs.values.reshape(inputs.values.shape[0], -1)
            return jnp.clip((flat - self.mean) / self.scale, -_FAR, _FAR)

        values = jnp.asarray(batch, jnp.float32)
        whole = jnp.ones((values.shape[0], removal.num_features), bool)
        model = Model(
            predict=predict,
            mask=lambda inputs, masks: inputs._replace(masks=masks.astype(bool)),
            grid=whole.shape[1:],
            output=output,
            view=view,
        )
        return model, Masked(values, identified(values), whole)

    def show(self, inputs: Masked, removal: Own) -> tuple[jax.Array, ...]:
        """What `ask` needs of inputs."""
        return inputs.ids, inputs.masks, inputs.values

    def ask(self, f: Callable, removal: Own, ids: Any, masks: Any, values: Any) -> np.ndarray:
        """f's answers [B, K] to what `show` shows; see `BlackBox.ask`."""
        return f(lambda: [row.tobytes() for row in ids], masks, lambda rows: values[rows])

    def save(self, directory: pathlib.Path) -> dict[str, Any]:
        """Writes mean and scale, and returns the `fields`."""
        save_file({"mean": self.mean, "scale": self.scale}, directory / _FILE)
        return {"input": list(self.input)}

    @classmethod
    def read(cls, values: dict[str, Any], directory: pathlib.Path) -> "Reads":
        """What `save` wrote and returned.

        Raises:
          ValueError: arrays that do not fit the input.
        """
        path, size = checks.file_inside(directory, _FILE), math.prod(values["input"])
        found = checks.read_tensors(path)
        forms = {name: (array.dtype, array.shape) for name, array in found.items()}
        right = forms == dict.fromkeys(("mean", "scale"), (np.float32, (size,)))
        if not right or checks.not_finite_floats(found) or found["scale"].min() <= 0:
            raise ValueError(f"{path} holds no mean and scale of {size} numbers")
        return cls(values["input"], found["mean"], found["scale"])


class Source(NamedTuple):
    """Arrays, the order of which says nothing."""

    values: np.ndarray  # float32 [n, *form]

    @property
    def size(self) -> int:
        """How many there are."""
        return len(self.values)

    def split(self, count: int) -> tuple["Source", "Source"]:
        """The first `count`, and the others."""
        return Source(self.values[:count]), Source(self.values[count:])

    def contents(self, predictor: Any) -> tuple:
        """What tells it from others."""
        return (self.values,)


def SETTINGS(preset: str) -> Any:
    """Those that a run starts from."""
    from fex_jax import settings

    config = settings.default(preset)
    config.policy, config.map_head = "mlp", "token"
    config.optimizer.learning_rate = 2e-3
    return config


def open_source(predictor: Any, config: Any, split: str) -> Source:
    """A split of the .npy file that a config names: of every five the last is of "test"."""
    from fex_jax.data import table_sets

    values = values_of(config.data.path, predictor.reads.input)
    return Source(table_sets.part(values, split))


def open_data(predictor: Any, given: Any, limit: int | None) -> tuple[Source, dict, str]:
    """See `feeding.open_data`."""
    values = values_of(given, predictor.reads.input)
    order = np.random.default_rng(0).permutation(len(values))[:limit]
    return Source(values[order]), {}, ""


def suit(config: Any, predictor: Any, source: Source) -> None:
    """Batch size and epochs."""
    from fex_jax.feeding.lengths import suit_length

    suit_length(config, source.size)


def stream(_: Any, source: Source, config: Any, **options: Any) -> Callable[[int], Iterator]:
    """Arrays in a new order every epoch, as `feeding.open_stream` has them."""
    from fex_jax.data import table_sets

    (index, count), values = options["process"], source.values[: options["limit"]]
    given = len(values), options["batch_size"], options["seed"]
    part = slice(given[1] // count * index, given[1] // count * (index + 1))
    return lambda start: (values[rows[part]] for rows in table_sets.shuffled(*given, start))


def in_order(predictor: Any, source: Source, config: Any) -> Iterator[np.ndarray]:
    """Eight at a time."""
    return (source.values[i : i + 8] for i in range(0, source.size, 8))


def first(predictor: Any, source: Source, config: Any, count: int) -> np.ndarray:
    """A batch of so many."""
    return source.values[:count]


def open_task(
    predictor: Any, bind: Any, predict: Callable, data: Any, true_classes: Any, reading: "Reading"
) -> "Task":
    """Arrays as `explain` takes them, or a `Source`."""
    from fex_jax.evaluation import inputs, tasks

    form = predictor.reads.input
    values = data.values if isinstance(data, Source) else values_of(data, form)
    known = inputs.numbers(true_classes, len(values), predictor.labels, THINGS)
    some = slice(reading.limit or None)
    given = values[some], known if known is None else known[some], predictor.labels, reading
    found = tasks.answers(predictor, predict, *given)
    return tasks.Task(grid=(predictor.removal.num_features,), **found)


def explanations(task: "Task", scores: np.ndarray, predictor: Any) -> Explanation:
    """Scores [n, N] as they are."""
    return Explanation(scores, scores, task.targets, task.probabilities, predictor.labels)


def scored(task: "Task", predictor: Any, unit: str) -> str:
    """What scores are of."""
    return f"{task.grid[0]} features of one's own"
