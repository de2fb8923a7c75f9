"""Held-out answers, the yardstick of a fit: of inputs that nothing learns from, asked for once."""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from fex_jax import contrast, export, faithfulness, objectives
from fex_jax.contrast import Answered, Objective
from fex_jax.feeding import Source
from fex_jax.models import Params
from fex_jax.models.policy import Policy
from fex_jax.ppo import PolicyOutput
from fex_jax.predictors import Bind
from fex_jax.training import run
from fex_jax.updates import TrainState

_LEAST, _MOST = 8, 64  # inputs
_ONE_OF = 16  # of the training inputs, at most
_MASKS = 20  # of each
_MEASURES = 20  # in a run
_BEST = "held_out.json"
_BLOB = 0.25  # standard deviation of the blob, in sides of the grid
_RIDGES = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)


class Found(NamedTuple):
    """What maps explain of held-out answers: 1 − Σ (R − R̂)² / Σ R², R less its mean over masks.

    Answers count by f_y(x), so that of an input's classes one counts that f believes in.
    """

    explained: float  # by the map
    first: float  # of the first class alone
    others: float  # of the other classes alone
    shared: float  # by what all classes share, z_0, alone
    mix: tuple[float, float]  # a and b of a z_0 + b c that explain most
    blob: float  # by a blob at the centre of the grid, at its best scale: what looks at no input


def split(config: ml_collections.ConfigDict, source: Source) -> tuple[Source | None, Source]:
    """Inputs that are held out, where the objective explains answers, and those to train on."""
    kept = count(config.method, min(config.data.limit or source.size, source.size))
    return source.split(kept) if kept else (None, source)


def count(method: str, size: int) -> int:
    """How many of so many inputs are held out."""
    kept = min(_MOST, size // _ONE_OF)
    return kept if kept >= _LEAST and objectives.trait(method, "REGRESSES") else 0


def queries(kept: int, beside: int = 1) -> int:
    """What f is asked about so many, once, with so many queries about a mask."""
    return kept * (1 + _MASKS * beside)


def interval(num_steps: int) -> int:
    """Batches from one measure to the next."""
    return max(1, num_steps // _MEASURES)


def objective_of(objective: Objective) -> Objective:
    """The questions about a held-out input: of more masks, and about its first classes."""
    return dataclasses.replace(objective, num_masks=_MASKS, targets="argmax")


def ask(
    bind: Bind,
    predictor_params: Params,
    batches: Iterator[Any],
    objective: Objective,
    key: jax.Array,
) -> list[tuple[Any, Answered]]:
    """Batches with f's answers to masks that no policy has drawn: every feature alike."""

    def flat(model: Any) -> Callable:
        def policy(inputs: Any, targets: jax.Array) -> PolicyOutput:
            valid = model.features(inputs)[:, None]
            logits = jnp.zeros((*targets.shape, valid.shape[-1]))
            return PolicyOutput(logits, jnp.zeros(()), valid=valid)

        return policy

    @jax.jit
    def play(params: Params, batch: Any, key: jax.Array) -> Answered:
        model, inputs = bind(params, batch)
        asked = objective_of(objective)
        arguments = model.predict, model.mask, flat(model), inputs, key, asked, model.grid
        return contrast.play(*arguments)[0]._replace(inputs=None)

    return [
        (batch, play(predictor_params, batch, jax.random.fold_in(key, number)))
        for number, batch in enumerate(batches)
    ]


def make_measure(
    policy: Callable[[Params], Policy], objective: Objective, grid: tuple[int, ...]
) -> Callable[[Params, list[tuple[Any, Answered]]], Found]:
    """measure(the policy's parameters, what it reads of inputs and their answers) → `Found`."""
    asked = objective_of(objective)

    def centred(values: jax.Array) -> jax.Array:
        groups = values.reshape(*values.shape[:-1], contrast.GROUPS, -1)
        return (groups - groups.mean(-1, keepdims=True)).reshape(values.shape)

    @jax.jit
    def sums(params: Params, reading: Any, answered: Answered) -> jax.Array:
        """Σ over inputs and masks of w a b, [pairs of a and b, T]."""
        output = PolicyOutput(*policy(params).say(reading, answered.targets))
        shared, own = output.parts or (output.logits, jnp.zeros_like(output.logits))

        def predicted(logits: jax.Array) -> jax.Array:
            z = contrast.centre(jnp.broadcast_to(logits, own.shape), output.valid)
            linear = jnp.einsum("bsn,btn->bts", answered.masks.astype(z.dtype), z)
            return centred(contrast.slope(z, asked, output.valid) * linear)

        blob = jnp.asarray(_blob(grid, own.shape[-1]))
        values = centred(answered.scores), predicted(shared), predicted(own), predicted(blob)
        weights = contrast.plausibility(answered, objective)
        return jnp.stack(
            [jnp.stack([(weights * a * b).sum((0, 2)) for a in values]) for b in values]
        )

    def measure(params: Params, held_out: list[tuple[Any, Answered]]) -> Found:
        parts = [np.asarray(sums(params, *part), float) for part in held_out]
        products = np.sum(parts, axis=0)  # [4, 4, T]
        whole = products.sum(-1)
        mix = _best_mix(whole) if "mix" in params["heads"] else (1.0, 0.0)
        return Found(
            explained=_explained(whole, *mix),
            first=_explained(products[..., 0], *mix),
            others=_explained(products[..., 1:].sum(-1), *mix),
            shared=_explained(whole, 1.0),
            mix=mix,
            blob=float(max(whole[0, 3], 0) ** 2 / max(whole[0, 0] * whole[3, 3], 1e-12)),
        )

    return measure


def _explained(products: np.ndarray, of_all: float, of_class: float = 0.0) -> float:
    """1 − |R − a R̂_0 − b R̂_c|² / |R|² from the products of R, R̂_0, R̂_c and others with each other;
    0 where there is no R."""
    rest = np.array([1.0, -of_all, -of_class])
    total = products[0, 0]
    return float(1 - rest @ products[:3, :3] @ rest / total) if total > 0 else 0.0


def _best_mix(products: np.ndarray) -> tuple[float, float]:
    """a and b ≥ 0 with the least |R − a R̂_0 − b R̂_c|², from the same products."""
    (_, *of_rest), (_, *first), (_, *second) = products[:3, :3]
    gram, with_rest = np.array([first, second]), np.array(of_rest)
    alone = np.maximum(with_rest, 0) / np.maximum(np.diag(gram), 1e-12)
    both = np.linalg.lstsq(gram, with_rest, rcond=1e-6)[0]
    tried = [(alone[0], 0.0), (0.0, alone[1]), *([both] if both.min() >= 0 else [])]
    a, b = max(tried, key=lambda mix: _explained(products, *mix))
    return float(a), float(b)


def of_half_the_queries(answered: list[tuple[Any, Answered]], objective: Objective) -> float:
    """What a linear regression on one half of an input's answers explains of the other half.

    That is LIME about each input by `_MASKS` / 2 queries, of its first class, with the ridge of
    `_RIDGES` that explains most: a rival at its best.
    """
    left, total = np.zeros(len(_RIDGES)), 0.0
    for _, batch in answered:
        weights = np.asarray(contrast.plausibility(batch, objective))[:, 0, 0]
        for masks, scores, weight in zip(
            np.asarray(batch.masks, float), np.asarray(batch.scores)[:, 0], weights, strict=True
        ):
            # [halves, groups, masks of a group]; what is known of a half is less its groups' means.
            r = scores.reshape(contrast.GROUPS, 2, -1).swapaxes(0, 1)
            m = masks.reshape(contrast.GROUPS, 2, -1, masks.shape[-1]).swapaxes(0, 1)
            r, m = r - r.mean(2, keepdims=True), m - m.mean(2, keepdims=True)
            r, m = r.reshape(2, -1), m.reshape(2, -1, masks.shape[-1])
            for known, asked in ((0, 1), (1, 0)):
                total += weight * (r[asked] ** 2).sum()
                gram, across = m[known] @ m[known].T, m[asked] @ m[known].T
                for number, ridge in enumerate(_RIDGES):
                    alpha = np.linalg.solve(gram + ridge * np.eye(len(gram)), r[known])
                    left[number] += weight * ((r[asked] - across @ alpha) ** 2).sum()
    return float(1 - left.min() / total) if total > 0 else 0.0


def _blob(grid: tuple[int, ...], size: int) -> np.ndarray:
    """exp(−d² / 2σ²) of the distance to the centre of a grid, [N]; of a row of features 0."""
    if len(grid) != 2:
        return np.zeros(size, np.float32)
    down, across = (((np.arange(side) + 0.5) / side - 0.5) ** 2 for side in grid)
    return np.exp(-np.add.outer(down, across).ravel() / (2 * _BLOB**2)).astype(np.float32)


def make_revise(
    bind: Bind,
    policy: Callable[[Params], Policy],
    predictor_params: Params,
    batches: Iterator[Any],
    objective: Objective,
    key: jax.Array,
    folder: pathlib.Path,
    frozen: bool,
    keep: Callable[[pathlib.Path, Params], None] = export.save_weights,
) -> Callable[[TrainState], tuple[TrainState, dict[str, float]]]:
    """revise(state) → with the mix that explains held-out answers best, and what maps explain.

    f is asked at the first call. The parameters that explain most are kept in `folder`.

    Args:
      frozen: the policy's backbone does not learn, and reads the inputs once.
      keep: writes parameters into a folder.
    """

    @jax.jit
    def read(params: Params, predictor_params: Params, batch: Any) -> Any:
        model, inputs = bind(predictor_params, batch)
        return policy(params).read(model.view(inputs))

    @jax.jit
    def faithful(params: Params, reading: Any, targets: jax.Array) -> jax.Array:
        output = PolicyOutput(*policy(params).say(reading, targets))
        return faithfulness.of(output.faithfulness[:, 0])

    answered, readings, measure = [], [], None
    most = best(folder).get("explained", -np.inf)

    def revise(state: TrainState) -> tuple[TrainState, dict[str, float]]:
        nonlocal readings, measure, most
        if measure is None:
            answered.extend(ask(bind, predictor_params, batches, objective, key))
            grid = bind(predictor_params, answered[0][0])[0].grid
            measure = make_measure(policy, objective, grid)
        if not (readings and frozen):
            readings = [read(state.params, predictor_params, batch) for batch, _ in answered]
        found = measure(
            state.params,
            [(reading, of) for reading, (_, of) in zip(readings, answered, strict=True)],
        )
        params = state.params
        set_ = {"mix": found.mix} if "mix" in params["heads"] else {}
        if "faith_level" in params["heads"]:
            values = [
                faithful(params, reading, of.targets)
                for reading, (_, of) in zip(readings, answered, strict=True)
            ]
            set_["faith_level"] = np.quantile(np.concatenate(values), faithfulness.SHARE)
        heads = params["heads"] | {
            name: jax.device_put(jnp.float32(value), params["heads"][name].sharding)
            for name, value in set_.items()
        }
        params = params | {"heads": heads}
        if found.explained > most:
            most = found.explained
            keep(folder, params)
            rival = {"lime": of_half_the_queries(answered, objective)}
            run.write_json(folder / _BEST, {"step": int(state.step)} | found._asdict() | rival)
        of_all, of_class = found.mix
        named = found._asdict() | {"mix": of_class / max(of_all + of_class, 1e-12)}
        named = {f"held_out/{name}": value for name, value in named.items()}
        return state._replace(params=params), named

    return revise


def best(folder: pathlib.Path) -> dict:
    """Step of the parameters in `folder`, and what they explain; nothing where there are none."""
    file = folder / _BEST
    return json.loads(file.read_text()) if file.is_file() else {}


def forget(folder: pathlib.Path) -> None:
    """Removes the best parameters of a run that begins anew."""
    for name in (_BEST, export.WEIGHTS):
        (folder / name).unlink(missing_ok=True)


def conclude(folder: pathlib.Path, exported: pathlib.Path, num_steps: int) -> str:
    """Puts the best parameters into an export, and says what they are worth."""
    export.copy_weights(folder, exported)
    found = best(folder)
    words = (
        f"The state after step {found['step']} of {num_steps} explains held-out answers best and "
        f"is kept: {found['explained']:.1%} of them ({found['first']:.1%} about first classes, "
        f"{found['others']:.1%} about others); a blob at the centre {found['blob']:.1%}"
    )
    if "lime" in found:  # a run that began before it was measured has none
        words += f", LIME of {_MASKS // 2} queries about each {found['lime']:.1%} of first classes'"
    if found["explained"] <= found["blob"]:
        words += (
            "\nWARNING: what looks at no input explains as much. The explainer has learned nothing "
            "of its own: give it more inputs or epochs, or a pretrained backbone"
        )
    return words
