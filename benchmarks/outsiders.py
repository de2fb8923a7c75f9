"""Every method and metric beside what somebody else's code says of the same numbers.

    pip install -e .[train,outsiders]
    python benchmarks/outsiders.py

prints item, peer and largest difference, and writes them to `docs/results/outsiders.json`, from
which `make docs` fills the page. Networks are small and random, queries and draws are the same on
both sides. A difference over `TOLERANCE` ends the script with status 1. Takes a few minutes on two
cores.
"""

import importlib.metadata
import itertools
import json
import pathlib
import sys
from collections.abc import Iterable, Iterator

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests import tiny_text  # noqa: E402  sets up JAX for small programs, so before all others
from tests.attributions import parity, torch_reference, white_box  # noqa: E402
from tests.attributions.test_attlrp import TEXTS, classifier, slow_words  # noqa: E402

# isort: split
import captum.attr  # noqa: E402
import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import shap  # noqa: E402
import shapiq  # noqa: E402
import sklearn.metrics  # noqa: E402
import torch  # noqa: E402
from lime.lime_base import LimeBase  # noqa: E402
from pytorch_grad_cam import GradCAM  # noqa: E402
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget  # noqa: E402

from benchmarks import outsiders_of_metrics as others  # noqa: E402
from fex_jax import attributions, masking, predictors  # noqa: E402
from fex_jax.attributions.empirical import empirical  # noqa: E402

TOLERANCE = 1e-4  # float32 on both sides
PEERS = "torch transformers captum shap shapiq lime grad-cam scikit-learn scipy quantus".split()
KEY = jax.random.key(0)


def networks() -> Iterator[others.Row]:
    """Logits of the same weights."""
    images = white_box.images()
    for family in white_box.FAMILIES:
        model, twin = white_box.tiny(family), white_box.in_torch(white_box.checkpoint(family))
        expected = twin(torch.tensor(images).permute(0, 3, 1, 2)).logits
        yield f"logits, {family}", "transformers", [(model.logits(images, None), expected)]
    for family in ("bert", "distilbert", "roberta"):
        one, texts = tiny_text.checkpoint(family), white_box.texts()
        twin = white_box.in_torch(one)
        expected = twin(torch.tensor(texts.ids), torch.tensor(texts.attention).long()).logits
        model = predictors.bert(one.config, one.params, 12, mask_id=4)
        yield f"logits, {family}", "transformers", [(model.network(texts), expected)]


def white_box_methods() -> Iterator[others.Row]:
    """Methods that look inside; of three families together."""
    both = [(white_box.ours(f), white_box.theirs(f)) for f in white_box.FAMILIES]
    for name in both[0][0]:
        known = name.startswith(("integrated", "grad_shap", "gradient"))
        peer = "captum" if known else "torch, from the formula"
        yield name, peer, [(ours[name], theirs[name]) for ours, theirs in both]
    ours, theirs = white_box.ours_of_texts(), white_box.theirs_of_texts()
    for name in ours:
        yield f"{name}, texts", "captum", [(ours[name], theirs[name])]

    images, targets = white_box.images(), white_box.targets()
    model, network = white_box.tiny("vit"), white_box.in_torch(white_box.checkpoint("vit"))
    cam = GradCAM(
        _Logits(network),
        [network.vit.layers[-1].layernorm_before],
        lambda tokens: tokens[:, 1:].mT.reshape(len(tokens), -1, *model.grid),
    )
    cam.get_target_width_height = lambda _: model.grid  # not enlarged
    expected = cam(
        torch.tensor(images).permute(0, 3, 1, 2), list(map(ClassifierOutputTarget, targets))
    )
    maps = white_box.ours("vit")["gradcam_norm1"]
    maps = maps - maps.min(1, keepdims=True)  # theirs are scaled to [0, 1]
    maps = (maps / maps.max(1, keepdims=True)).reshape(expected.shape)
    yield "gradcam_norm1, scaled to [0, 1]", "grad-cam", [(maps, expected)]

    sizes = dict(hidden_size=48, num_heads=4, mlp_dim=96)
    for blocks in (2, 12):
        pairs = []
        for family in white_box.FAMILIES if blocks == 2 else ("dinov2",):
            one = white_box.checkpoint(family, num_layers=blocks, **sizes)
            model = predictors.image(one.config, one.params)
            found = jax.jit(lambda x, y, model=model: attributions.attlrp(model, x, y, KEY))(
                images, targets
            )
            twin = white_box.in_torch(one)
            pairs.append((found, torch_reference.attlrp(twin, images, targets)))
        yield f"attlrp, {blocks} random blocks", "torch in float64, by contributions", pairs
    model, config, params, _ = classifier("bert")
    found = attributions.attlrp(model, TEXTS, targets, KEY)
    expected = [slow_words(config, params, TEXTS, row, y) for row, y in enumerate(targets)]
    yield "attlrp, bert", "NumPy in float64, by contributions", [(found, expected)]


class _Logits(torch.nn.Module):
    def __init__(self, network: torch.nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x):
        return self.network(x).logits


class Witness:
    """A black box on a row of numbers that notes what it is asked and what it answers."""

    def __init__(self, *shape: int):
        self.asked, self.answers = [], []
        rng = np.random.default_rng(0)
        self.slopes = rng.normal(size=shape) * 4 / np.sqrt(np.prod(shape))
        self.inputs = np.ones((1, *shape), np.float32)

    def worth(self, x) -> np.ndarray:
        """f_1, in NumPy; its first and last numbers interact."""
        x = np.asarray(x, np.float64).reshape(len(x), -1)
        return 1 / (1 + np.exp(-x @ self.slopes.ravel() - 2 * x[:, 0] * x[:, -1]))

    def model(self, *grid: int) -> predictors.Model:
        def note(x, p):
            self.asked.append(np.array(x, np.float64))
            self.answers.append(np.array(p, np.float64))

        def predict(x):
            rows = x.reshape(len(x), -1)
            logit = rows @ jnp.float32(self.slopes.ravel()) + 2 * rows[:, 0] * rows[:, -1]
            p = jax.nn.sigmoid(logit)
            jax.debug.callback(note, x, p)
            return jnp.stack([1 - p, p], -1)

        def mask(x, m):
            return masking.patches(x, m.reshape(-1, *grid)) if len(grid) == 2 else x * m

        return predictors.Model(predict, mask, grid)

    def run(self, name: str, *grid: int, **options) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(scores [N], what was asked [K, ...], what it answered [K])."""
        target = jnp.array([1])
        method = attributions.METHODS[name]
        scores = method(self.model(*grid), self.inputs, target, KEY, **options)
        jax.effects_barrier()
        return np.asarray(scores[0]), np.concatenate(self.asked), np.concatenate(self.answers)


def query_methods() -> Iterator[others.Row]:
    """Methods that only ask; peers compute from the queries that ours asked."""
    model, images, targets, probabilities, tensor = parity.torch_twin()
    expected = captum.attr.FeatureAblation(probabilities).attribute(
        tensor, target=targets.tolist(), feature_mask=parity.patch_numbers(tensor, model.grid)
    )
    step = images.shape[1] // model.grid[0]
    expected = expected[:, 0, ::step, ::step].reshape(len(images), -1)
    yield "occlusion", "captum", [(attributions.occlusion(model, images, targets, KEY), expected)]

    scores, masks, answers = Witness(12).run("rise", 12, num_queries=200)
    yield "rise", "NumPy, as published", [(scores, answers @ masks / (0.5 * len(masks)))]
    scores, masks, answers = Witness(16, 16, 1).run("smooth_rise", 4, 4, num_queries=100, cells=3)
    saliency = np.tensordot(answers, masks[..., 0], 1) / (0.5 * len(masks))
    expected = saliency.reshape(4, 4, 4, 4).mean((1, 3)).ravel()
    yield "smooth_rise", "NumPy, as published", [(scores, expected)]

    scores, masks, answers = Witness(12).run("lime", 12, num_queries=200)
    distances = sklearn.metrics.pairwise_distances(masks, np.ones((1, 12)), metric="cosine")
    base = LimeBase(lambda d: np.sqrt(np.exp(-(d**2) / 0.25**2)))
    found = base.explain_instance_with_data(
        masks, answers[:, None], distances.ravel(), 0, 12, feature_selection="none"
    )[1]
    yield "lime", "lime", [(scores, [value for _, value in sorted(found)])]

    witness, size = Witness(8), 8
    scores, *_ = witness.run("kernel_shap", size, num_queries=2**size)
    explainer = shap.KernelExplainer(witness.worth, np.zeros((1, size)))
    expected = explainer.shap_values(witness.inputs, nsamples=2**size, l1_reg=False, silent=True)
    yield "kernel_shap, all coalitions", "shap", [(scores, expected[0])]
    exact = shapiq.ExactComputer(game=witness.worth, n_players=size)("SV", order=1)
    exact = [exact[(i,)] for i in range(size)]
    yield "kernel_shap, all coalitions", "shapiq, exact", [(scores, exact)]

    masks = np.array(list(itertools.product([0, 1], repeat=size)))[1:]
    shares = witness.worth(masks) / masks.sum(1)
    found = empirical(witness.model(size), witness.inputs, jnp.array([1]))[0]
    yield "empirical attribution (Eq. 2)", "NumPy, all masks", [(found, shares @ masks)]
    scores, *_ = witness.run("greedy", size)
    chosen: list[int] = []
    while len(chosen) < size:
        left = [i for i in range(size) if i not in chosen]
        kept = np.array([np.isin(range(size), [*chosen, i]) for i in left])
        chosen.append(left[np.argmax(witness.worth(kept) - witness.worth(~kept))])
    yield "greedy, the order", "NumPy", [(np.argsort(-scores), chosen)]


SECTIONS = (
    networks, white_box_methods, query_methods,
    others.perturbation, others.localisation, others.rationales, others.by_quantus,
    others.objectives,
)  # fmt: skip


def difference(pairs: Iterable[tuple]) -> float:
    """max |ours − theirs| / max |theirs|, the largest of the pairs'."""
    worst = 0.0
    for pair in pairs:
        ours, theirs = (
            np.asarray(x.detach() if isinstance(x, torch.Tensor) else x, np.float64) for x in pair
        )
        if ours.shape != theirs.shape:
            raise ValueError(f"ours has shape {ours.shape}, theirs {theirs.shape}")
        worst = max(worst, float(np.abs(ours - theirs).max() / np.abs(theirs).max()))
    return worst


def main() -> None:
    rows = []
    for section in SECTIONS:
        for item, peer, pairs in section():
            rows.append({"item": item, "peer": peer, "difference": difference(pairs)})
            print("| {item} | {peer} | {difference:.1e} |".format(**rows[-1]), flush=True)
    versions = {name: importlib.metadata.version(name) for name in ("jax", *PEERS)}
    results = {"versions": versions, "rows": rows}
    output = ROOT / "docs" / "results"
    (output / "outsiders.json").write_text(json.dumps(results, indent=2) + "\n")
    if wrong := [row["item"] for row in rows if not row["difference"] < TOLERANCE]:
        sys.exit(f"over {TOLERANCE}: {', '.join(wrong)}")


if __name__ == "__main__":
    main()
