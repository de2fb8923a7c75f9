"""What training and scoring are fed with: a source of things, and its batches.

What differs between images, texts and tables is a module here, named by a predictor's `modality`,
or, where there is none, the module of `modalities`:

    THINGS: what they are called
    ONCE: whether a batch holds a thing at most once
    PRESET: the objective of `fex_jax.fit` where none is chosen
    SETTINGS: a preset -> the settings that a run starts from
    OPTIONS: those of `open_data` that are its own
    AT_PATH: settings with which `open_split` reads the path that `open_data` was given
    open_source(predictor, config, split) -> the data that a config names
    open_data(predictor, given, limit, **options) -> source, settings, what was skipped
    suit(config, predictor, source) -> sets what depends on both in the config
    stream(predictor, source, config, **options) -> from a number on, batches without end
    in_order(predictor, source, config) -> batches of eight
    first(predictor, source, config, count) -> a batch of so many

Of tables there is no `first`: their removal is not chosen.
"""

import os
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol, Self

import jax
import ml_collections

from fex_jax import modalities

if TYPE_CHECKING:
    from fex_jax.export import Predictor


HELD_OUT = "held-out"  # a split: what a run of `fex_jax.fit` measures itself on at its end


class Source(Protocol):
    """Things to learn from, of whatever kind, in an order whose every prefix is a fair sample."""

    @property
    def size(self) -> int:
        """How many there are."""

    def split(self, count: int) -> tuple[Self, Self]:
        """The first `count`, and the others."""

    def contents(self, predictor: Any) -> tuple:
        """What tells it from others."""


def of(predictor: Any) -> ModuleType:
    """The module of what a predictor takes."""
    return modalities.named(predictor.modality, __name__)


def open_data(
    predictor: "Predictor", given: Any, limit: int | None = None, **options: Any
) -> tuple[Source, dict[str, Any], str]:
    """A source of what `fex_jax.fit` was given, in a fixed random order.

    Args:
      predictor: says what the data are.
      given: see `fex_jax.fit`.
      limit: items to use; None: all.
      options: those of one modality only; None, as if they were not there.

    Returns:
      The source, settings that the options stand for, and in words what was skipped.

    Raises:
      ValueError: what cannot be used, and why.
    """
    module = of(predictor)
    options = {name: value for name, value in options.items() if value is not None}
    for name in options.keys() - set(module.OPTIONS):
        raise ValueError(f"{name} is no option for {predictor.modality}: leave it out")
    source, own, skipped = module.open_data(predictor, given, limit, **options)
    if isinstance(given, str | os.PathLike):
        at_path = {"data.path": str(given), "data.limit": limit or 0, "data.eval_split": HELD_OUT}
        own |= module.AT_PATH | at_path
    return source, own, skipped


def held_out(source: Source) -> tuple[Source, Source]:
    """What `fex_jax.fit` holds out of a source, and the rest.

    A thirtieth of the items in whole eights, 8 to 64; a quarter of a handful.
    """
    return source.split(min(64, max(8, source.size // 30 // 8 * 8), source.size // 4))


def open_split(predictor: "Predictor", config: ml_collections.ConfigDict) -> Source:
    """What a config's `data.eval_split` says is scored; of a run of `fit` what it held out.

    That needs the file or folder as it was: others in it are other items.
    """
    given = config.data
    if given.eval_split != HELD_OUT:
        return of(predictor).open_source(predictor, config, given.eval_split)
    found = open_data(predictor, given.path, given.limit or None, column=column(config))
    return held_out(found[0])[0]


def column(config: ml_collections.ConfigDict) -> str | list[str] | None:
    """The column of a table of texts that a config names, or two of pairs; None: none."""
    names = config.data.get("column", "").split(",")  # of runs before there was one, too
    return None if names == [""] else names[0] if len(names) == 1 else names


def open_stream(
    predictor: "Predictor", source: Source, config: ml_collections.ConfigDict
) -> Callable[[int], Iterator[Any]]:
    """stream(start): this process's batches, as `Model`'s bind takes them, from that one on."""
    return of(predictor).stream(
        predictor,
        source,
        config,
        batch_size=config.batch_size,
        seed=config.seed,
        limit=config.data.limit or None,
        process=(jax.process_index(), jax.process_count()),
    )
