"""Black boxes of tables: f reads rows whose removed features come from rows of a background.

What f says is explained in a unit of choice, and inside in standard deviations of what it says of
rows: networks and losses then meet numbers of one size, whatever f predicts. Published objectives
of FEX meet f's probabilities.

Shapes: B rows, D columns, N ≤ D features, M background rows, R of them that are drawn, K answers.
"""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from fex_jax import checks
from fex_jax.data.columns import Columns
from fex_jax.data.tables import Source
from fex_jax.host import rows_file, rows_policy, units
from fex_jax.host.bank import Bank, identify
from fex_jax.host.predictor import HostPredictor
from fex_jax.host.units import Unit
from fex_jax.models import mlp
from fex_jax.models.mlp import MLPConfig
from fex_jax.outputs import Output
from fex_jax.predictors import Model
from fex_jax.removal import Background
from fex_jax.surrogate import Surrogate

SPREAD = 100  # rows over which the spread of what f says is taken
_ROWS, _BYTES = 2**17, 2**26  # that f is asked about at a time
_SAVED = "unit", "pair", "plain", "array"  # as they are


class Batch(NamedTuple):
    """Rows of a table."""

    values: jax.Array  # float32 [B, D], as `mlp.Steps` scales them
    bits: jax.Array  # uint32 [B, D, 2] float64, as f reads them


class Masked(NamedTuple):
    """Rows, and which of their features f is to be asked about."""

    rows: Batch
    masks: jax.Array  # [B, N] bool
    drawn: jax.Array  # int32 [B, R] background rows that take the place of others; R = 0: all


@dataclasses.dataclass(frozen=True)
class Config:
    """What the sizes of other networks follow from."""

    num_classes: int
    grid: tuple[int]
    family: ClassVar[str] = "black box"


@dataclasses.dataclass(frozen=True, eq=False)
class Rows:
    """How tables are read.

    Attributes:
      columns: of the table.
      features: their names, and numbers of their columns.
      unit: of what is explained; None: it is not chosen yet.
      pair: whether f answers with the probabilities of two classes that exclude each other.
      plain: whether `Model` answers with f's probabilities; else standardised, in the unit.
      array: whether f takes arrays [B, D] of numbers; else data frames.
      background: rows that take the place of removed features, [M, D].
      answers: what f says of them, in the unit, [M, K].
      scale: standard deviations of what f says of rows, in the unit, [K].
      steps: what a network reads of a row.
      surrogate: what says v(S) in the place of background rows, of which one is left that stands
        for none, with the mean of what f says of all rows.
    """

    columns: Columns = dataclasses.field(default=Columns(), repr=False)
    features: tuple[tuple[str, tuple[int, ...]], ...] = ()
    unit: Unit | None = None
    pair: bool = False
    plain: bool = False
    array: bool = False
    background: np.ndarray | None = dataclasses.field(default=None, repr=False)
    answers: np.ndarray | None = dataclasses.field(default=None, repr=False)
    scale: np.ndarray | None = dataclasses.field(default=None, repr=False)
    steps: mlp.Steps | None = dataclasses.field(default=None, repr=False)
    surrogate: Surrogate | None = dataclasses.field(default=None, repr=False)
    modality: ClassVar[str] = "tables"
    banked: ClassVar[bool] = False  # f may answer faster than a file finds what it said
    # What is saved of it and of its removal.
    fields: ClassVar[dict[str, checks.Check]] = {
        "columns": checks.several(checks.mapping()),
        "features": checks.several(checks.several(checks.either(checks.text(), checks.several(
            checks.integer(0, 2**24))), 2)),
        "unit": checks.one_of(*get_args(Unit)),
        "pair": checks.flag(),
        "plain": checks.flag(),
        "array": checks.flag(),
    }  # fmt: skip
    removal: ClassVar[type[Background]] = Background
    removal_fields: ClassVar[dict[str, checks.Check]] = {
        "rows": checks.integer(1, 2**24),
        "conditional": checks.flag(),
    }

    @classmethod
    def of(cls, f: HostPredictor, removal: Background | None = None) -> tuple["Rows", Background]:
        """Tables of which nothing is known but what f takes."""
        return cls(array=f.input != "table"), removal or Background()

    @classmethod
    def policy(
        cls, config: Any, f: HostPredictor, source: Source
    ) -> tuple[MLPConfig, None, "Rows"]:
        """A network of dense layers from nothing, and what is known of the table without f.

        Raises:
          ValueError: another policy or unit, or a table of another width than f's arrays.
        """
        return rows_policy.policy(cls, config, f, source)

    def with_answers(self, f: Callable[..., np.ndarray], source: Source) -> "Rows":
        """With what f, as `ask` takes it, says of the background, and its spread over rows."""
        answers = self.ask_all(f, self.background)
        spread = 0 if self.plain else self.ask_all(f, source.values[:SPREAD]).std(0)
        scale = np.where(spread > 0, spread, np.ones(answers.shape[1]))
        return dataclasses.replace(self, answers=answers, scale=scale)

    @property
    def input(self) -> Any:
        """What f takes, as `host` says it."""
        return (len(self.columns),) if self.array else "table"

    @property
    def base(self) -> np.ndarray:
        """v(∅) [K], in the unit."""
        return self.answers.mean(0)

    @property
    def explained(self) -> Output | None:
        """What `Model` answers with; None: what f does."""
        return None if self.plain else "value"

    def said(self, answers: Any) -> Any:
        """Answers of `Model` [..., K] in the unit."""
        return answers * self.scale + (0 if self.plain else self.base)

    def standard(self, said: np.ndarray) -> np.ndarray:
        """What is said in the unit [..., K] as `Model` answers: the inverse of `said`."""
        return ((said - (0 if self.plain else self.base)) / self.scale).astype(np.float32)

    @property
    def removed(self) -> Background:
        """What becomes of removed features."""
        return Background(len(self.background), self.surrogate is not None)

    @property
    def quantity(self) -> str:
        """What attributions are of, in words."""
        what = "the predicted value" if self.unit == "value" else f"the {self.unit} of the class"
        return f"{what}; {self.removed}"

    @property
    def owner(self) -> np.ndarray:
        """The feature of each column, [D]."""
        owner = np.zeros(len(self.columns), np.int32)
        for number, (_, members) in enumerate(self.features):
            owner[list(members)] = number
        return owner

    def config(self, num_classes: int, removal: Background) -> Config:
        """Sizes."""
        return Config(num_classes, (len(self.features),))

    def kept_by(self, removal: Background) -> dict[str, Any]:
        """What a bank knows its answers by: the rows that f saw, however they came about."""
        named = hashlib.sha256(json.dumps(self.columns.to_list()).encode()).hexdigest()[:16]
        return {"removal": f"rows as they are, of columns {named}", "grid": (1,)}

    def noted_by(self, removal: Background, config: Any) -> dict[str, Any]:
        """What a bank of masks is known by: one record of all masks of a row in a step, and a 0."""
        grid = (config.objective.num_masks * len(self.features) + 1,)
        return {"removal": str(removal), "grid": grid}

    def note(
        self, bank: Bank, step: int, masks: np.ndarray, bits: np.ndarray, _: Any, drawn: np.ndarray
    ) -> None:
        """Keeps the masks [S, B, N] of a step of what `show` shows, in a bank of no classes."""
        found = np.pad(np.swapaxes(masks, 0, 1).reshape(len(bits), -1), ((0, 0), (0, 1)))
        bank.ask(_shown(step, bits, drawn), found, lambda rows: [""] * len(rows))

    def asked(
        self, bank: Bank, step: int, count: int, bits: np.ndarray, _: Any, drawn: np.ndarray
    ) -> np.ndarray:
        """The masks [count, B, N] that `note` kept of what `show` shows."""
        found = bank.masks(_shown(step, bits, drawn), 1)[0, :, :-1]
        return np.swapaxes(found.reshape(len(bits), count, -1), 0, 1)

    def fits(self, backbone: Any, removal: Background) -> bool:
        """Whether a network reads these tables, and has an output for each feature."""
        if not isinstance(backbone, MLPConfig):
            return False
        sizes = backbone.num_inputs, backbone.num_features
        return sizes == (self.steps.size, len(self.features))

    def batch(self, values: np.ndarray) -> Batch:
        """float64 [B, D] as JAX takes them."""
        values = np.ascontiguousarray(values, np.float64) + 0.0
        values[np.isnan(values)] = np.nan  # equal numbers have equal bits
        bits = values.view(np.uint32).reshape(*values.shape, 2)
        return Batch(self.steps.scaled(values), bits)

    def bind(
        self,
        batch: Batch,
        removal: Background,
        predict: Callable[[Masked], jax.Array],
        output: Output,
    ) -> tuple[Model, Masked]:
        """Rows as inputs of a `predictors.Model`, whose answers are standardised, or `plain`.

        A feature that has the value of all background rows, or of all that a surrogate has seen, is
        no feature: its Shapley value is 0.
        A mask takes the place of the one before: masks of masked inputs do not add up.
        """
        shown, owner = self.batch(self.background), self.owner
        first = shown.bits[0]
        constant = (shown.bits == first).all((0, 2))  # [D]
        if self.surrogate:
            constant = ~np.isin(np.arange(len(owner)), self.steps.columns)

        def valid(inputs: Masked) -> jax.Array:
            equal = constant & (inputs.rows.bits == first).all(-1)
            return jax.ops.segment_max(1 - equal.T.astype(int), owner, len(self.features)).T > 0

        def inputs_of(rows: Batch) -> Masked:
            size = len(rows.values)
            whole = jnp.ones((size, len(self.features)), bool)
            return Masked(rows, whole, jnp.zeros((size, 0), jnp.int32))

        def conditional(inputs: Masked) -> jax.Array:
            masks, read = inputs.masks, self.steps(inputs.rows.values)
            known = masks.all(-1) | ~masks.any(-1)
            rest = self.surrogate(read, masks)
            rest = jnp.clip(rest, 0, 1) if self.plain else rest
            return jnp.where(known[:, None], predict(inputs), rest)

        rows: dict = {"background": inputs_of(shown), "of_background": self.standard(self.answers)}
        rows |= {"rows": lambda x: x.drawn, "against": lambda x, drawn: x._replace(drawn=drawn)}
        model = Model(
            predict=conditional if self.surrogate else predict,
            mask=lambda inputs, masks: inputs._replace(masks=masks.astype(bool)),
            grid=(len(self.features),),
            output=self.explained or output,
            valid=valid,
            view=lambda inputs: self.steps(inputs.rows.values),
            **({} if self.surrogate else rows),
        )
        return model, inputs_of(batch)

    def show(self, inputs: Masked, removal: Background) -> tuple[jax.Array, ...]:
        """What `ask` needs of inputs."""
        return inputs.rows.bits, inputs.masks, inputs.drawn

    def ask(
        self,
        f: Callable[..., np.ndarray],
        removal: Background,
        bits: np.ndarray,
        masks: np.ndarray,
        drawn: np.ndarray,
    ) -> np.ndarray:
        """v(S), the mean of f over background rows, as `standard` has it: [B, K].

        Of whole rows f is asked once, and of those without any feature it has been asked already; a
        surrogate says the rest. Beside one background row all are asked about together.
        """
        values = np.ascontiguousarray(bits).view(np.float64)[..., 0]
        if not drawn.shape[1]:
            every = np.arange(len(self.background))
            drawn = np.broadcast_to(every, (len(values), len(every)))
        found = self.answers[drawn].mean(1)  # right where nothing is kept
        whole, kept, count = masks.all(-1), masks[:, self.owner], drawn.shape[1]
        asked = masks.any(-1) if self.surrogate is None else whole
        if count > 1 and whole.any():
            found[whole], asked = self.ask_whole(f, values[whole]), asked & ~whole
        rest = np.flatnonzero(asked)
        size = max(1, min(_ROWS, _BYTES // (8 * values.shape[1])) // count)
        for start in range(0, len(rest), size):
            rows = rest[start : start + size]
            mixed = np.where(kept[rows, None], values[rows, None], self.background[drawn[rows]])
            answers = self.ask_whole(f, mixed.reshape(-1, values.shape[1]))
            found[rows] = answers.reshape(len(rows), count, -1).mean(1)
        return self.standard(found)

    def ask_all(self, f: Callable[..., np.ndarray], values: np.ndarray) -> np.ndarray:
        """`ask_whole` of any number of rows, a part at a time."""
        size = max(1, min(_ROWS, _BYTES // (8 * values.shape[1])))
        parts = tqdm(range(0, len(values), size), "rows", leave=False, disable=len(values) <= size)
        return np.concatenate([self.ask_whole(f, values[start : start + size]) for start in parts])

    def ask_whole(self, f: Callable[..., np.ndarray], values: np.ndarray) -> np.ndarray:
        """What f says of rows [B, D], in the unit: float64 [B, K]."""

        def make(rows: np.ndarray) -> Any:
            return values[rows] if self.array else self.columns.decode(values[rows])

        every = np.ones((len(values), 1), bool)
        answers = f(lambda: identify(values + 0.0), every, make)  # -0 is 0
        return units.convert(answers.astype(np.float64), self.unit, self.pair)

    def save(self, directory: pathlib.Path) -> dict[str, Any]:
        """Writes its arrays, and returns the `fields`."""
        own = {name: getattr(self, name) for name in ("background", "answers", "scale")}
        rows_file.save(directory, own, self.steps, self.surrogate)
        return {
            "columns": self.columns.to_list(),
            "features": [[name, list(members)] for name, members in self.features],
        } | {name: getattr(self, name) for name in _SAVED}

    @classmethod
    def read(cls, values: dict[str, Any], directory: pathlib.Path) -> "Rows":
        """What `save` wrote and returned.

        Raises:
          ValueError: arrays or features that do not fit the columns.
        """
        columns = Columns.from_list(values["columns"], directory)
        features = tuple((name, tuple(members)) for name, members in values["features"])
        members = sorted(i for _, members in features for i in members)
        named = all(isinstance(name, str) for name, _ in features)
        if not named or members != list(range(len(columns))):
            raise ValueError(f"{directory}: the features are of another table than the columns")
        found = cls(columns, features, *(values[name] for name in _SAVED))
        arrays, steps, learned = rows_file.read(directory, found.owner, len(values["labels"]))
        return dataclasses.replace(found, **arrays, steps=steps, surrogate=learned)


def _shown(step: int, bits: np.ndarray, drawn: np.ndarray) -> list[bytes]:
    """Ids of rows in a step, each with the background rows that it is asked about with."""
    return identify(np.c_[np.full(len(bits), step), bits.reshape(len(bits), -1), drawn])
