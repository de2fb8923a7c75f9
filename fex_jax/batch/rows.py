"""Explanations as rows of a table: a row for each map, or one that says why there is none."""

import dataclasses
import functools
import hashlib
import pathlib
import re
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa

from fex_jax import checks, escape, modalities
from fex_jax.batch.readers import MOST
from fex_jax.data.ahead import ahead
from fex_jax.targets import PREDICTED, Target, class_numbers


@dataclasses.dataclass(frozen=True, eq=False)
class Rows:
    """Explains things with one explainer, asked in one way; a table comes out.

    Its columns are `id`; `target`, `label` and `probability` of the explained class;
    `attributions`, a list of float16, which `shape` makes a map of; of texts `words`, one for
    each; and `error`. A thing has a row for each class that is asked for, or one with an error.

    Attributes:
      explainer: an `explain.Explainer` of images or texts.
      targets: the class or classes to explain of every thing, as numbers or labels; None: the
        predicted one.
      top_k: explain the k most probable classes instead.
      refine: queries about each map; see `explain.Explainer`.
      batch_size: things at a time; None: as `explainer(…)` has it.
      overlays: a folder for a picture of each map over its image.

    Raises:
      ValueError: an option that cannot be.
    """

    explainer: Any
    targets: Target | Sequence[Target] | None = None
    top_k: int | None = None
    refine: int = 0
    batch_size: int | None = None
    overlays: str | pathlib.Path | None = None

    def __post_init__(self) -> None:
        predictor = self.explainer.predictor
        if not hasattr(self._modality, "ranked"):
            raise ValueError(
                f"jobs explain what files hold, and this explainer is of "
                f"{predictor.modality}: call it in Python, fex_jax.load(…)({self._modality.THING})"
            )
        options = {"refine": self.refine, "batch_size": self._size, "with_prediction": True}
        options["top_k"] = 1 if self.top_k is None else self.top_k
        own = {"top_k": checks.integer(1, len(predictor.labels))}
        modalities.check_options(options, own, self.targets)
        if self.targets is not None and self.top_k is not None:
            raise ValueError(f"top_k is {self.top_k}; expected no targets beside it")
        if self.overlays is not None:
            if not hasattr(self._modality, "overlay"):
                raise ValueError(
                    f"overlays are of images, and this explainer is of {predictor.modality}"
                )
            try:
                import matplotlib  # noqa: F401
            except ModuleNotFoundError:
                raise ValueError("overlays need matplotlib: pip install 'fex-jax[plots]'") from None
            checks.folder(self.overlays, "overlays")
        if not len(self.classes):  # which also names one that is not there
            raise ValueError("targets is empty; expected classes, or None for the predicted one")

    @functools.cached_property
    def classes(self) -> np.ndarray:
        """Numbers [k] of the classes to explain, `PREDICTED` for those that f is to choose."""
        if self.targets is None:
            return np.full(self.top_k or 1, PREDICTED, np.int32)
        one = isinstance(self.targets, str | int | np.integer)
        given: list[Any] = [self.targets] if one else list(self.targets)
        labels = self.explainer.predictor.labels
        numbers = class_numbers(given, len(given), labels, "classes")
        return np.array(list(dict.fromkeys(numbers)), np.int32)

    @property
    def at_once(self) -> int:
        """How many things `explain` should get: more make no better batches."""
        return self._size * self._modality.TOGETHER

    @property
    def schema(self) -> pa.Schema:
        """Of the table."""
        columns = {
            "id": pa.string(),
            "target": pa.int32(),
            "label": pa.string(),
            "probability": pa.float32(),
            "attributions": pa.list_(pa.float16()),
            "shape": pa.list_(pa.int32()),
            "words": pa.list_(pa.string()),
            "error": pa.string(),
        }
        if not self._modality.WORDS:
            del columns["words"]
        return pa.schema(columns)

    def read(self, thing: Any) -> Any:
        """What `explain` takes of a thing, or the ValueError that says why it is none.

        Several threads may call it at once.

        Args:
          thing: the path of a file, its content, an array [H, W, 3], a text, or a ValueError.
        """
        if isinstance(thing, ValueError):
            return thing
        try:
            thing = _content(thing) if isinstance(thing, pathlib.Path) else thing
            return self._modality.read(self.explainer, thing)
        except ValueError as error:
            return ValueError(re.sub(r"^\w+ 0\b", "it", str(error)))

    def explain(self, ids: Sequence[str], things: Sequence[Any]) -> pa.Table:
        """Rows of things that `read` has read, in their order.

        Raises:
          HostError: a black box failed, or is not at hand.
        """
        good = [thing for thing in things if not isinstance(thing, ValueError)]
        asked = self.classes, self.refine, self._size
        maps = iter(self._modality.ranked(self.explainer, good, *asked) if good else [])
        rows: list[dict[str, Any]] = []
        for name, thing in zip(ids, things, strict=True):
            if isinstance(thing, ValueError):
                rows.append({"id": name, "error": escape.terminal(thing)})
                continue
            for one in next(maps):
                rows.append(
                    {
                        "id": name,
                        "target": one.target,
                        "label": self.explainer.predictor.labels[one.target],
                        "probability": one.probability,
                        "attributions": one.attributions.astype(np.float16).ravel(),
                        "shape": one.attributions.shape,
                        "words": one.words,
                    }
                )
                if self.overlays is not None:
                    self._overlay(name, thing, one)
        return pa.Table.from_pylist(rows, self.schema)

    def __call__(self, ids: Sequence[str], things: Sequence[Any]) -> pa.Table:
        """Rows of any number of things, as `read` takes them."""
        if len(ids) != len(things):
            raise ValueError(f"{len(ids)} ids for {len(things)} things; expected one for each")
        found, read = [], ahead(self.read, things, 2 * self.at_once)
        for start in range(0, len(ids), self.at_once):
            part = ids[start : start + self.at_once]
            found.append(self.explain(part, [next(read) for _ in part]))
        return pa.concat_tables(found) if found else self.schema.empty_table()

    @property
    def _modality(self) -> ModuleType:
        return modalities.of(self.explainer.predictor)

    @property
    def _size(self) -> int:
        return self._modality.BATCH_SIZE if self.batch_size is None else self.batch_size

    def _overlay(self, name: str, thing: Any, one: modalities.Map) -> None:
        # A name that is a file's on every system, and of two items never the same.
        plain = re.sub(r"[^\w.-]+", "_", name)[-80:].lstrip(".")
        digest = hashlib.blake2b(name.encode(), digest_size=4).hexdigest()
        file = pathlib.Path(self.overlays) / f"{plain}_{digest}_{one.target}.png"
        self._modality.overlay(thing, one.attributions).save(file)


def _content(path: pathlib.Path) -> bytes:
    """Of a file; of a pipe or a device, reading might not end."""
    try:
        if not path.is_file():
            raise ValueError(f"there is no file {path}")
        if path.stat().st_size > MOST:
            raise ValueError(f"it has {path.stat().st_size:,} bytes; at most {MOST:,} are read")
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"the file cannot be read: {error.strerror}") from error
