"""The network that explains a table, and what is known of the table before f is asked."""

from typing import TYPE_CHECKING, Any

import numpy as np

from fex_jax import objectives
from fex_jax.data.tables import Source
from fex_jax.host import units
from fex_jax.host.predictor import HostPredictor
from fex_jax.models import mlp
from fex_jax.models.mlp import MLPConfig

if TYPE_CHECKING:
    from fex_jax.host.rows import Rows

_BACKGROUND = 100  # rows


def background(config: Any, source: Source) -> np.ndarray:
    """Rows that take the place of removed features, [M, D]."""
    given = source.background
    return source.values[: config.table.background or _BACKGROUND] if given is None else given


def policy(
    kind: "type[Rows]", config: Any, f: HostPredictor, source: Source
) -> tuple[MLPConfig, None, "Rows"]:
    """See `Rows.policy`."""
    if config.policy != "mlp":
        raise ValueError(f"policy is {config.policy!r}; tables are explained by an mlp")
    if (removal := config.removal.kind) not in ("probe", "background", "surrogate"):
        raise ValueError(f"removal.kind is {removal!r}; of tables choose background or surrogate")
    plain = "value" not in objectives.trait(config.method, "OUTPUTS", ["value"])
    if len(source.groups) == 1 and objectives.trait(config.method, "CENTRED"):
        raise ValueError("a table's only feature has the contrast 0: choose the preset shapley")
    wanted = None if f.input == "table" else f.input[0]
    if wanted not in (None, len(source.columns)):
        raise ValueError(
            f"{f.name} takes {wanted} columns, and the table has {len(source.columns)}: give "
            "the columns that it was fitted on"
        )
    steps = mlp.Steps.of(
        source.values,
        [column.categories is not None for column in source.columns],
        [column.missing for column in source.columns],
    )
    if not steps.size:
        raise ValueError("all rows of the table are the same: give some that differ")
    reads = kind(
        source.columns,
        source.groups,
        units.choose(config.table.unit, f.output, plain),
        f.output == "softmax" and len(f.labels) == 2,
        plain,
        wanted is not None,
        background(config, source),
        steps=steps,
    )
    return MLPConfig.of(steps.size, len(reads.features)), None, reads
