"""How many queries a run takes at most, known before any is asked."""

from collections.abc import Sequence

import jax
import ml_collections

from fex_jax import objectives, shapley
from fex_jax.feeding import Source
from fex_jax.host import black_box, rows_policy
from fex_jax.host.predictor import HostPredictor
from fex_jax.host.rows import SPREAD
from fex_jax.removal import Background, Own, Removal, Words
from fex_jax.training import banks, held_out

PROBED = 32  # inputs that the probe asks about
SHARES = (0.9, 0.7, 0.5, 0.3, 0.1)  # of their features, that it keeps
COMPARED = 8  # inputs that a comparison within a budget asks about
_STEPS = 200  # of tables, at least, where a budget allows few


def of_probe(found: Sequence[Removal | Words], inputs: int) -> int:
    """Choosing among removals, and looking at the chosen one.

    Some whole inputs are asked about twice.
    """
    return inputs * (1 + 2 * len(found) + len(SHARES)) + min(inputs, banks.AGAIN)


def before(config: ml_collections.ConfigDict, f: HostPredictor, source: Source) -> int:
    """What is asked before training: by the probe, or about a table's background and the spread of
    what f says, and about all rows where a surrogate learns from them."""
    if f.modality != "tables":
        found = black_box.kind_of(f).candidates(config, f)
        return of_probe(found, min(source.size, PROBED))
    removal = _removal(config, f, source)
    return removal.rows + min(source.size, SPREAD) + removal.conditional * source.size


def of_input(config: ml_collections.ConfigDict) -> int:
    """What a step asks of f about one input: the whole one, its masks, of some the blank."""
    if config.removal.kind == "surrogate":  # which answers about all but the whole one
        return 1
    return config.objective.num_masks + objectives.trait(config.method, "UNMASKED", 1)


def of_held_out(
    config: ml_collections.ConfigDict, f: HostPredictor, source: Source, kept: int
) -> int:
    """What is asked about so many held-out inputs, once."""
    return held_out.queries(kept, _beside(_removal(config, f, source))) if kept else 0


def of_comparison(
    removal: Removal | Words | Own | Background, config: ml_collections.ConfigDict, source: Source
) -> int:
    """What `fit.compare` asks about `COMPARED` things.

    Of each the whole one and the blank, two curves of three methods in tenths, and Occlusion.
    """
    longest = len(getattr(source, "groups", ())) or config.text.max_length
    occluded = getattr(removal, "num_features", longest)
    return COMPARED * (2 + _beside(removal) * (3 * 2 * 9 + occluded))


def at_end(
    config: ml_collections.ConfigDict,
    removal: Removal | Words | Own | Background,
    source: Source,
    queries: int | None,
) -> int:
    """What saying asks how much the explainer is worth: a comparison, or, of Shapley values whose
    answers are kept, one with true ones, by a tenth of a budget at most."""
    if config.method != "shapley":
        return of_comparison(removal, config, source)
    return shapley.MOST_ASKED if queries is None else min(shapley.MOST_ASKED, queries // 10)


def affordable(
    config: ml_collections.ConfigDict, f: HostPredictor, source: Source, queries: int
) -> float:
    """As many of the config's epochs over a source as so many queries suffice for."""
    kept = held_out.count(config.method, source.size)
    batches = _inputs(config, f, source, queries) // config.batch_size
    return min(config.epochs, max(batches, 1) * config.batch_size / (source.size - kept))


def batch_size(
    config: ml_collections.ConfigDict, f: HostPredictor, source: Source, queries: int
) -> int:
    """The config's, or, of tables, whose batches are large, as many rows as leave `_STEPS`."""
    if f.modality != "tables":
        return config.batch_size
    parts = jax.device_count() * config.objective.num_updates
    rows = _inputs(config, f, source, queries) // _STEPS // parts * parts
    return max(min(config.batch_size, rows), parts)


def _inputs(
    config: ml_collections.ConfigDict, f: HostPredictor, source: Source, queries: int
) -> int:
    """How many inputs so many queries suffice to learn from.

    The comparison at the end has its own, if it takes no more than a tenth.
    """
    kept = held_out.count(config.method, source.size)
    asked = before(config, f, source) + of_held_out(config, f, source, kept)
    compared = at_end(config, _removal(config, f, source), source, queries)
    asked += compared if compared <= queries / 10 else 0
    return (queries - asked) // of_input(config)


def _removal(
    config: ml_collections.ConfigDict, f: HostPredictor, source: Source
) -> Removal | Words | Own | Background:
    """One that the config leaves to the probe; they cost alike. Of a table what it says."""
    if f.modality != "tables":
        return black_box.kind_of(f).candidates(config, f)[0]
    rows = len(rows_policy.background(config, source))
    return Background(rows, config.removal.kind == "surrogate")


def _beside(removal: Removal | Words | Own | Background) -> int:
    """Queries about a masked input: one, of a table one for each background row."""
    if not isinstance(removal, Background):
        return 1
    return 0 if removal.conditional else removal.rows
