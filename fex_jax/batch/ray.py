"""The same job on a Ray cluster: actors that hold an explainer turn a dataset into parts.

dataset = ray.data.read_binary_files("/shared/pictures", include_paths=True)
explain_dataset("/shared/run", dataset, "/shared/maps", "bytes", "path", actors=8, num_gpus=1)
"""

import hashlib
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray

from fex_jax import explain, locks
from fex_jax.batch import parts
from fex_jax.batch.job import Summary, digest_of
from fex_jax.batch.readers import cell
from fex_jax.batch.rows import Rows
from fex_jax.targets import Target

_PREFIX = "part-ray-"


def explain_dataset(
    explainer: str | os.PathLike,
    dataset: "ray.data.Dataset",
    output: str | os.PathLike,
    column: str,
    key: str,
    *,
    targets: Target | Sequence[Target] | None = None,
    top_k: int | None = None,
    refine: int = 0,
    batch_size: int | None = None,
    overlays: str | os.PathLike | None = None,
    part_size: int = 1024,
    actors: int = 1,
    **resources: Any,
) -> Summary:
    """Explains a dataset of pictures or texts to Parquet files; the same call goes on.

    An actor writes a part for each batch, named by the ids in it, before the batch counts as done.
    A batch that Ray gives out again, because its actor died, replaces its part or finds it done.

    Args:
      explainer: the path that `explain.load` takes, on a disk that all nodes share.
      dataset: its items are known by their ids from one call to the next.
      output: a folder, on a disk that all nodes share.
      column: what holds the items: contents or paths of pictures, or texts.
      key: what holds their ids, no two the same.
      targets, top_k, refine, batch_size, overlays: see `rows.Rows`, which also names the columns.
      part_size: items of a part.
      actors: how many hold an explainer.
      **resources: of each, as `map_batches` takes them: num_gpus=1.

    Raises:
      ValueError: what cannot be used; another job's output, or one that is at work.
    """
    asked = {"targets": targets, "top_k": top_k, "refine": refine, "overlays": overlays}
    opened = explain.load(explainer)
    rows = Rows(opened, **asked, batch_size=batch_size)  # says what cannot be
    for name in (column, key):
        if name not in dataset.columns():
            raise ValueError(
                f"the dataset has no column {name}; it has {', '.join(dataset.columns())}"
            )
    settings = {
        "explainer": digest_of(opened),
        "targets": None if targets is None else rows.classes.tolist(),
        "top_k": top_k,
        "refine": refine,
        "overlays": None if overlays is None else os.fspath(overlays),
        "column": column,
        "key": key,
        "processes": "ray",
    }
    folder, _ = parts.open_folder(output, settings, {})
    busy = f"is at work on {folder}: wait for it, end it, or choose another"
    with locks.hold(folder / "_lock-0", busy):
        before = len(set(parts.ids(folder, _PREFIX)))
        done = dataset.select_columns([column, key]).map_batches(
            _Actor,
            fn_constructor_kwargs={
                "path": os.path.abspath(explainer) if os.path.exists(explainer) else explainer,
                "asked": asked | {"batch_size": batch_size},
                "folder": folder.absolute(),
                "column": column,
                "key": key,
            },
            batch_size=part_size,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=actors),
            **resources,
        )
        errors, first = 0, ""
        for batch in done.iter_batches(batch_format="pyarrow"):
            errors += pc.sum(batch["errors"]).as_py()
            first = first or next(filter(None, batch["first"].to_pylist()), "")
        return Summary(len(set(parts.ids(folder, _PREFIX))), before, errors, first, False)


class _Actor:
    """Holds an explainer, and the ids that were there when it began."""

    def __init__(
        self, path: str, asked: dict[str, Any], folder: pathlib.Path, column: str, key: str
    ) -> None:
        self.rows = Rows(explain.load(path), **asked)
        self.folder, self.column, self.key = folder, column, key
        self.done = set(parts.ids(folder, _PREFIX))

    def __call__(self, batch: pa.Table) -> pa.Table:
        modality = self.rows.explainer.predictor.modality
        items = {
            str(name): cell(value.as_py(), modality, "")
            for name, value in zip(batch[self.key].to_pylist(), batch[self.column], strict=True)
            if str(name) not in self.done
        }
        errors, first = 0, ""
        if items:
            table = self.rows(list(items), list(items.values()))
            digest = hashlib.blake2b("\n".join(items).encode(), digest_size=16).hexdigest()
            parts.write(self.folder, f"{_PREFIX}{digest}.parquet", table)
            failed = table.filter(pc.is_valid(table["error"]))
            errors = len(failed)
            first = f"{failed['id'][0]}: {failed['error'][0]}" if errors else ""
        return pa.table({"errors": [errors], "first": [first]})
