"""Tables to train on: rows, those that are mixed of two among them."""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import ml_collections
import numpy as np

from fex_jax import settings
from fex_jax.data import table_sets, tables

if TYPE_CHECKING:
    from fex_jax.export import Predictor

PRESET, SETTINGS = "shapley", settings.of_tables
OPTIONS = "groups", "background", "unit"
AT_PATH = {"data.name": "table"}
THINGS, ONCE = "rows", False
_MIX = 0.15  # of a row's features are another's
_ROWS, _NUMBERS = 1024, 2**23  # in a batch, and in what f is asked about it
_EXAMPLES = 100_000, 500_000  # rows to learn from, mixed ones with them


def open_source(
    predictor: "Predictor", config: ml_collections.ConfigDict, split: str
) -> tables.Source:
    """A split of the data that a config names."""
    given = config.data.name, split, config.data.path
    own = config.table.drop, config.table.groups, _columns(predictor)
    return table_sets.open_source(*given, *own)


def open_data(
    predictor: "Predictor",
    given: Any,
    limit: int | None,
    *,
    groups: Mapping[str, Sequence[str]] | None = None,
    background: Any = None,
    unit: str | None = None,
) -> tuple[tables.Source, dict, str]:
    """See `feeding.open_data`, and for the options `fex_jax.fit`."""
    own: dict[str, Any] = {"table.unit": unit} if unit else {}
    rows = background
    if isinstance(background, int):
        own["table.background"], rows = background, None
    elif isinstance(background, str) and background == "surrogate":
        own["removal.kind"], rows = background, None
    return tables.open_table(given, groups, rows, limit, _columns(predictor)), own, ""


def _columns(box: Any) -> Sequence[str | int] | None:
    """Those that an explainer knows; before there is one, those that f takes, if it says so."""
    return box.reads.columns.names or box.f.columns


def suit(config: ml_collections.ConfigDict, predictor: "Predictor", source: tables.Source) -> None:
    """Large batches, for rows are small, and many epochs, for mixed rows come without end."""
    parts = jax.device_count() * config.objective.num_updates
    widest = _NUMBERS // (config.objective.num_masks * len(source.columns))
    config.batch_size = parts * max(1, min(_ROWS, widest) // parts)
    config.epochs = float(np.clip(20 * source.size, *_EXAMPLES) / source.size)


def stream(
    predictor: Any, source: tables.Source, config: ml_collections.ConfigDict, **options: Any
) -> Callable[[int], Iterator[Any]]:
    """Rows and the values that were encoded, as `feeding.open_stream` has them."""
    options["mix"] = _MIX if config.data.augment else 0.0
    rows = functools.partial(table_sets.train_stream, source, **options)
    return lambda start: map(predictor.reads.batch, rows(start=start))


def in_order(
    predictor: Any, source: tables.Source, config: ml_collections.ConfigDict
) -> Iterator[Any]:
    """Eight rows at a time, in their order."""
    starts = range(0, source.size, 8)
    return (predictor.reads.batch(source.values[start : start + 8]) for start in starts)
