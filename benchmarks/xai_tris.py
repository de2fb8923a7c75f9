"""XAI-TRIS at 8 x 8 pixels: do maps find the pixels that tell two classes apart?

    python benchmarks/xai_tris.py --seeds=3

For every scenario, background and seed, 10,000 pictures are drawn, and a small network learns the
first 8,000. Test pictures that it classifies rightly are explained by every method that a network
of this kind allows, and by FEX and FastSHAP, which learn from the same 8,000. Writes
docs/results/xai_tris*.json and makes the documents anew. Interrupted, the same command continues.
"""

import functools
import json
import os
import pathlib
import subprocess
import sys
import types
import warnings
from collections.abc import Callable

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # small matrices: threads cost ten times as much

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from absl import app, flags  # noqa: E402
from sklearn.exceptions import ConvergenceWarning  # noqa: E402
from sklearn.neural_network import MLPClassifier  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from fex_jax import attributions, masking, metrics, predictors, settings  # noqa: E402
from fex_jax.attributions.kernel_shap import normalize  # noqa: E402
from fex_jax.data import tetrominoes  # noqa: E402
from fex_jax.models.policy import functional_policy  # noqa: E402
from fex_jax.models.unet import UNetConfig  # noqa: E402
from fex_jax.training import step as training  # noqa: E402
from scripts.docs import label  # noqa: E402

_SEEDS = flags.DEFINE_integer("seeds", 3, "How many: 0, 1, 2, …")
_WORKDIR = flags.DEFINE_string("workdir", "runs/xai_tris", "Folder of what is done.")
RESULTS = ROOT / "docs" / "results"
SIDE, TRAINING, TEST, MOVED = tetrominoes.SIDE, 8_000, 64, 10
BATCH, EPOCHS, RATE, WIDTH = 128, 1, 4e-3, 16
METHODS = [
    name
    for name in attributions.METHODS
    if name
    not in attributions.TRANSFORMERS_ONLY | attributions.CONVOLUTIONS_ONLY | attributions.NOT_IN_ALL
]
OPTIONS = dict.fromkeys(("rise", "smooth_rise", "lime", "kernel_shap"), {"num_queries": 500})
AMORTISED = {"fex": "contrast", "fastshap": "fastshap"}
LOGITS = "FEX, logits less their mean"
_SCENARIOS = {"linear": "LIN", "multiplicative": "MULT", "rigid": "RIGID", "xor": "XOR"}
_BACKGROUNDS = {"white": "white", "correlated": "corr."}


def learn(drawn: tetrominoes.Tetrominoes, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Weights and biases of a network of two hidden layers of 64, ReLU between."""
    x = drawn.images[:TRAINING].reshape(TRAINING, -1)
    scale = x.std()
    network = MLPClassifier(
        (64, 64), alpha=1e-3, learning_rate_init=2e-3, early_stopping=True, max_iter=60,
        random_state=seed,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        network.fit(x / scale, drawn.classes[:TRAINING])
    first, *rest = network.coefs_
    both = zip([first / scale, *rest], network.intercepts_, strict=True)
    return [(np.float32(weights), np.float32(bias)) for weights, bias in both]


def bind(params: list, images: jax.Array) -> tuple[predictors.Model, jax.Array]:
    """The network as a `Model` of pictures [B, 8, 8, 1]; a removed pixel is 0, their mean."""

    def logits(x: jax.Array, _: jax.Array) -> jax.Array:
        x = x.reshape(len(x), -1)
        for weights, bias in params[:-1]:
            x = jax.nn.relu(x @ weights + bias)
        x = x @ params[-1][0] + params[-1][1]
        return jnp.concatenate([-x / 2, x / 2], -1)

    model = predictors.Model(
        predict=lambda x: jax.nn.softmax(logits(x, x)),
        mask=lambda x, masks: masking.patches(x, masks.reshape(-1, SIDE, SIDE)),
        grid=(SIDE, SIDE),
        embed=lambda x: x,
        logits=logits,
        pool=lambda values, _: values.reshape(len(values), -1),
    )
    return model, images


# Parameters are arguments: a program serves all data sets.
predict = jax.jit(lambda params, x: bind(params, x)[0].predict(x))


@functools.cache
def program(name: str) -> Callable:
    """(params, images, targets, keys) → φ [B, N] of a method."""
    method = functools.partial(attributions.METHODS[name], **OPTIONS.get(name, {}))
    return jax.jit(lambda params, x, *rest: method(*bind(params, x), *rest))


@functools.cache
def amortised(name: str) -> tuple[Callable, Callable]:
    """fit(params, images, seed) → a network's parameters; explain(those, params, images, targets).

    What explains returns φ by name: of FEX λ in [0, 1] and, less their mean, its logits, which also
    say what speaks against a class.
    """
    config = settings.default(AMORTISED[name])
    config.policy, config.map_head = "unet", "token"
    config.optimizer.learning_rate = RATE
    config.objective.num_passes = 1  # an answer of two classes is one number, soon overfitted
    backbone = UNetConfig(SIDE, 1, num_channels=1, hidden_size=WIDTH, depth=1)
    init, network = functional_policy(backbone, 2)
    steps = EPOCHS * TRAINING // BATCH
    optimizer = training.make_optimizer(config, steps)
    box = types.SimpleNamespace(bind=bind, output="softmax")
    step = jax.jit(training.make_step(config, box, network, optimizer))

    def fit(params: list, images: np.ndarray, seed: int) -> dict:
        config.seed = seed
        state = training.make_initial_state(config, init, optimizer)(None)
        rng = np.random.default_rng(seed)
        order = np.concatenate([rng.permutation(TRAINING) for _ in range(EPOCHS)])
        for rows in order[: steps * BATCH].reshape(steps, BATCH):
            state, _ = step(state, params, images[rows], jax.random.key(seed))
        return state.params

    @jax.jit
    def explain(learned: dict, params: list, images: jax.Array, targets: jax.Array) -> dict:
        model, x = bind(params, images)
        maps = network(learned).maps(x, targets[:, None])[:, 0]
        if name == "fex":
            return {name: jax.nn.sigmoid(maps), LOGITS: maps - maps.mean(-1, keepdims=True)}
        ends = [
            jnp.take_along_axis(model.predict(x), targets[:, None], -1)[:, 0]
            for x in (x, model.blank(x))
        ]
        return {name: normalize(maps, ends[0] - ends[1], model.features(x))}

    return fit, explain


def of_setting(scenario, background, seed: int) -> dict:
    """Accuracy, and each method's mean precision and earth mover's score."""
    drawn = tetrominoes.draw(scenario, background, 10_000, seed)
    images, classes = drawn.images[..., None], drawn.classes
    params = learn(drawn, seed)
    right = np.asarray(predict(params, images[TRAINING:]).argmax(-1)) == classes[TRAINING:]
    rows = TRAINING + np.flatnonzero(right)[:TEST]
    x, targets, masks = images[rows], classes[rows].astype(np.int32), drawn.masks[rows]
    keys = jax.random.split(jax.random.key(seed), TEST)
    scores = {name: program(name)(params, x, targets, keys) for name in METHODS}
    for name in AMORTISED:
        fit, explain = amortised(name)
        learned = fit(params, images[:TRAINING], seed)
        scores |= explain(learned, params, x, targets)
    flat = masks.reshape(TEST, -1)
    return {
        "accuracy": float(right.mean()),
        "important": float(flat.mean()),
        "precision": {
            name: float(metrics.top_precision(found, flat).mean()) for name, found in scores.items()
        },
        "emd": {
            name: float(
                metrics.earth_movers_score(
                    np.reshape(found, masks.shape)[:MOVED], masks[:MOVED]
                ).mean()
            )
            for name, found in scores.items()
        },
    }


def table(found: dict[tuple[str, str], list[dict]], metric: str) -> dict:
    """Means over seeds of every method, setting by setting and together, with their deviation."""
    rows = {}
    for name in ("fex", LOGITS, "fastshap", *METHODS):
        values = np.array([[run[metric][name] for run in runs] for runs in found.values()])
        row = {
            f"{_SCENARIOS[s]}, {_BACKGROUNDS[b]}": round(float(mean), 3)
            for (s, b), mean in zip(found, values.mean(1), strict=True)
        }
        row["mean"] = round(float(values.mean()), 3)
        rows[label(name)] = row | {"mean, ±": round(float(values.mean(0).std(ddof=1)), 3)}
    return rows


def main(_: list[str]) -> None:
    folder = ROOT / _WORKDIR.value
    folder.mkdir(parents=True, exist_ok=True)
    found: dict = {}
    for seed in range(_SEEDS.value):
        for scenario, background in tetrominoes.SIGNAL:
            file = folder / f"{scenario}_{background}_{seed}.json"
            if not file.is_file():
                file.write_text(json.dumps(of_setting(scenario, background, seed)))
                print(file.stem, file.read_text(), flush=True)
            found.setdefault((scenario, background), []).append(json.loads(file.read_text()))
    networks = {
        f"{_SCENARIOS[s]}, {_BACKGROUNDS[b]}": {
            "α": tetrominoes.SIGNAL[s, b],
            "accuracy of the network": round(float(np.mean([r["accuracy"] for r in runs])), 3),
            "share of pixels that count": round(float(np.mean([r["important"] for r in runs])), 3),
        }
        for (s, b), runs in found.items()
    }
    made = {"seeds": _SEEDS.value, "pictures": TEST, "pictures of emd": MOVED}
    tables = {"": networks, "_precision": table(found, "precision"), "_emd": table(found, "emd")}
    for suffix, rows in tables.items():
        text = json.dumps(made | {"rows": rows}, indent=2, ensure_ascii=False)
        (RESULTS / f"xai_tris{suffix}.json").write_text(text + "\n")
    subprocess.run([sys.executable, str(ROOT / "scripts" / "docs.py")], check=True)


if __name__ == "__main__":
    app.run(main)
