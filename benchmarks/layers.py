"""A transformer's blocks written out in the program, as they are, beside a `lax.scan` over them.

    python benchmarks/layers.py

ViTs of 12 blocks at 224 px with random weights, a forward pass and a gradient, each compiled
alone; times are taken in turns, medians. Under a scan, weights lie stacked, [12, ...], from the
beginning. Writes docs/results/layers.json and makes the documents anew.
"""

import pathlib
import sys
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from flax import nnx

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import performance  # noqa: E402
from benchmarks.explanation_cost import SIZES  # noqa: E402
from fex_jax.models.vit import ViT, ViTConfig  # noqa: E402

_CASES = (("ViT-Ti/16", 1), ("ViT-Ti/16", 16), ("ViT-S/16", 4))


def ways(config: ViTConfig, images: jax.Array) -> dict[str, tuple[Callable, tuple]]:
    """Tokens of images under each way, as functions of weights, and those weights."""
    graph, state = nnx.split(ViT(config, rngs=nnx.Rngs(0)))
    network = nnx.merge(graph, state)
    split = [nnx.split(block) for block in network.blocks]
    block, stacked = split[0][0], jax.tree.map(lambda *x: jnp.stack(x), *(s for _, s in split))

    def unrolled(weights: nnx.State) -> jax.Array:
        return nnx.merge(graph, weights)(images)

    def scanned(weights: nnx.State, layers: nnx.State) -> jax.Array:
        rest = nnx.merge(graph, weights)
        step = lambda tokens, one: (nnx.merge(block, one)(tokens), None)  # noqa: E731
        return rest.norm(jax.lax.scan(step, rest.embed(images), layers)[0])

    return {"written out": (unrolled, (state,)), "scan": (scanned, (state, stacked))}


def main(_: list[str]) -> None:
    rows = []
    for name, count in _CASES:
        config = ViTConfig(family="vit", num_classes=1, **(performance.SHAPE | SIZES[name]))
        images = jnp.asarray(np.random.default_rng(0).normal(size=(count, 224, 224, 3)), "float32")
        for what in ("forward", "gradient"):
            calls, compiling, tokens = {}, {}, []
            for way, (function, weights) in ways(config, images).items():
                loss = lambda *w, f=function: jnp.sum(f(*w) ** 2)  # noqa: E731
                one = function if what == "forward" else jax.grad(loss, range(len(weights)))
                began = time.perf_counter()
                program = jax.jit(one).lower(*weights).compile()
                compiling[way] = time.perf_counter() - began
                calls[way] = lambda p=program, w=weights: jax.block_until_ready(p(*w))
                tokens.append(function(*weights))
            np.testing.assert_allclose(*tokens, atol=1e-3)
            took = performance.timed(calls, flags.FLAGS.turns)
            row = {"network": name, "pictures": count, "what": what}
            row |= {f"{way}, ms": 1e3 * seconds for way, seconds in took.items()}
            row |= {"ratio": took["scan"] / took["written out"]}
            row |= {f"{way}, compiled in s": seconds for way, seconds in compiling.items()}
            rows.append(row)
            print(row, flush=True)
    performance.write({"layers": rows})


if __name__ == "__main__":
    app.run(main)
