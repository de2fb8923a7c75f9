"""ID-ExpO of tables: a classifier is trained from nothing so that LIME or KernelSHAP explain it.

What is written is `table_classifier`'s folder. λ₁ = 0 trains the plain classifier.
"""

import pathlib
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from fex_jax import id_expo, linear
from fex_jax.data import table_sets
from fex_jax.data.tables import Source
from fex_jax.models import Params
from fex_jax.table_classifier import TableClassifier, logits
from fex_jax.training import explainer, identity, joint

_TRIED = 10_000  # held-out rows of the accuracies


def train(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> None:
    """From the last checkpoint or the start to the end.

    Writes `<workdir>/predictor`, which `fex_jax.table_classifier.open` opens.

    Raises:
      ValueError: settings that do not go together, or a folder of another run.
      OSError, FloatingPointError: as `explainer.train`.
    """
    joint.require(config, joint.LINEAR)
    if config.predictor.path:
        raise ValueError(
            f"predictor.path is {config.predictor.path!r}; a classifier of tables is trained from "
            "nothing: leave it out"
        )
    source, labels, classes = open_split(config, config.data.train_split)
    f = TableClassifier.of(source, labels)
    scaled, targets = f.steps.scaled(source.values), np.eye(len(labels), dtype=np.float32)
    size = min(config.data.limit or source.size, source.size)

    def batches(start: int) -> Iterator[tuple]:
        for rows in table_sets.shuffled(size, config.batch_size, config.seed, start):
            yield scaled[rows], targets[classes[rows]]

    joint.fit(
        config,
        workdir,
        {"f": f.init(jax.random.key(config.seed))},
        make_loss(config, f),
        batches,
        explainer.num_steps(config, source),
        data={"size": source.size, "digest": identity.digest(*source.contents(f), classes)},
        accuracy=make_accuracy(config, f),
        save=lambda params: f.save(workdir / "predictor", params["f"]),
    )


def open_split(
    config: ml_collections.ConfigDict, split: str
) -> tuple[Source, tuple[str, ...], np.ndarray]:
    """Rows, the names of their classes, and a number of these for each row.

    Raises:
      ValueError: as `table_sets.open_source` and `table_sets.open_classes`.
    """
    own, data = config.table, config.data
    labels, classes = table_sets.open_classes(data.name, split, data.path, own.label)
    drop = f"{own.drop},{own.label}"
    source = table_sets.open_source(data.name, split, data.path, drop, own.groups)
    return source, labels, classes


def make_loss(
    config: ml_collections.ConfigDict, f: TableClassifier
) -> Callable[[Params, tuple, jax.Array, jax.Array], jax.Array]:
    """loss({"f": …}, (rows as steps scale them, probabilities [B, K]), key, _) → scalar."""
    settings = config.id_expo
    method = getattr(linear, settings.explainer)

    def loss(params: Params, batch: tuple, key: jax.Array, _: jax.Array) -> jax.Array:
        scaled, targets = batch
        model, inputs = f.model(params["f"]), f.steps(scaled)
        for_shares, for_map = jax.random.split(key)

        def explain(classes: jax.Array) -> jax.Array:
            return method(model, inputs, classes, for_map, settings.num_queries)

        def log_predict(inputs: jax.Array) -> jax.Array:
            return jax.nn.log_softmax(logits(params["f"], inputs))

        return id_expo.loss(
            log_predict, f.keep, inputs, targets, explain, for_shares, **joint.weights(settings)
        )

    return loss


def make_accuracy(
    config: ml_collections.ConfigDict, f: TableClassifier
) -> Callable[[Params, float], float]:
    """accuracy(params, share of the features that is removed at random) on the evaluation split."""
    source, _, classes = open_split(config, config.data.eval_split)
    inputs = f.steps(f.steps.scaled(source.values[:_TRIED]))

    def accuracy(params: Params, removed: float) -> float:
        model = f.model(params["f"])
        drawn = jax.random.uniform(jax.random.key(0), (len(inputs), model.num_features))
        found = model.predict(model.mask(inputs, drawn >= removed)).argmax(-1)
        return float(jnp.mean(found == classes[:_TRIED]))

    return accuracy
