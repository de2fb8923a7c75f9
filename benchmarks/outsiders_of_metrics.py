"""Metrics and objectives beside other people's: the rows that `outsiders.py` prints of them."""

import itertools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats
import sklearn.metrics
import torch
from torch import distributions

from configs import common
from fex_jax import fastshap, metrics, ppo, published
from tests.attributions import parity
from tests.metrics import test_segmentation as segmentation

# item, peer, and pairs of (ours, theirs)
Row = tuple[str, str, list[tuple]]


def perturbation() -> Iterator[Row]:
    """Curves and areas of all protocols, on a ViT in torch."""
    model, images, _, probabilities, _ = parity.torch_twin()
    clean = np.asarray(model.predict(images)).argmax(-1)
    scores = np.random.default_rng(5).normal(size=(3, 16)).astype(np.float32)
    black = np.float32([-2.1, -2.0, -1.8])

    def answer(pictures: np.ndarray) -> np.ndarray:
        return probabilities(torch.tensor(pictures).permute(0, 3, 1, 2)).numpy()

    for name, protocol in metrics.PROTOCOLS.items():
        mask, ranked = metrics.image_features(
            protocol, jnp.asarray(scores), model.grid, images.shape[1:3], black
        )
        curves = metrics.perturbation_curves(
            model.predict, mask, images, ranked, clean, clean, protocol
        )
        side = 32 if protocol.unit == "pixel" else 4
        fill = black if protocol.fill == "black" else np.zeros(3, np.float32)
        order = np.argsort(-np.asarray(ranked), axis=1, kind="stable")

        def removed(b: int, features, side=side, fill=fill) -> np.ndarray:
            gone = np.isin(np.arange(side * side), features).reshape(side, side)
            return np.where(np.kron(gone, np.ones((32 // side,) * 2))[..., None], fill, images[b])

        shares = np.arange(0, 101 if name == "fex" else 91, 10)
        rounded = {"fex": lambda k: np.floor(k + 0.5), "chefer": np.floor, "authors": np.ceil}[name]
        counts = rounded(shares * side * side / 100).astype(int)
        pictures = {"positive": [], "negative": []}
        for count, b in itertools.product(counts, range(3)):
            pictures["positive"].append(removed(b, order[b][:count]))
            rest = order[b][count:] if name == "authors" else order[b][side * side - count :]
            pictures["negative"].append(removed(b, rest))
        pairs, found = [], metrics.areas(curves, protocol)
        areas = ("positive", "deletion", "positive_auc"), ("negative", "insertion", "negative_auc")
        for direction, of_probability, of_correct in areas:
            answers = answer(np.stack(pictures[direction])).reshape(len(counts), 3, -1)
            expected = answers[:, range(3), clean]
            correct = answers.argmax(-1) == clean
            pairs.append((getattr(curves, direction).probability.T, expected))
            for area, curve in ((of_probability, expected), (of_correct, correct)):
                theirs = [
                    c.mean() if name == "authors" else sklearn.metrics.auc(shares / 100, c)
                    for c in curve.T.astype(float)
                ]
                pairs.append((found[area], theirs))
        yield f"perturbation curves and areas, {name}", "torch and scikit-learn", pairs


def localisation() -> Iterator[Row]:
    """Maps against masks."""
    maps, masks = segmentation.scenes()
    statistics = np.asarray(metrics.segmentation_statistics(maps, masks))
    pixels = torch.nn.functional.interpolate(
        torch.tensor(maps)[:, None], masks.shape[1:], mode="bilinear"
    )[:, 0].numpy()
    upsampled = metrics.upsample(jnp.asarray(maps), masks.shape[1:])
    yield "bilinear maps", "torch", [(upsampled, pixels)]
    # From here on the same pixels, for equal ones to be equal on both sides.
    pixels = np.asarray(upsampled)
    low, high = pixels.min((1, 2), keepdims=True), pixels.max((1, 2), keepdims=True)
    scaled = (pixels - low) / (high - low)
    labels, above = masks.ravel(), (scaled > scaled.mean((1, 2), keepdims=True)).ravel()
    accuracy = sklearn.metrics.accuracy_score(labels, above)
    yield "pixel accuracy", "scikit-learn", [(metrics.pixel_accuracy(statistics), accuracy)]
    iou = sklearn.metrics.jaccard_score(labels, above, average="macro")
    yield "mIoU", "scikit-learn", [(metrics.mean_iou(statistics), iou)]
    precision = np.mean(
        [
            sklearn.metrics.average_precision_score(np.append(~m, m), np.append(1 - r, r))
            for r, m in zip(scaled, masks, strict=True)
        ]
    )
    yield "mAP", "scikit-learn", [(metrics.mean_average_precision(statistics), precision)]
    own, other = masks, np.roll(masks[::-1], 8, 2) & ~masks
    peak = [scaled[i][own[i]].max() > scaled[i][other[i]].max() for i in range(len(maps))]
    yield "pointing game", "NumPy", [(metrics.pointing_game(maps, own, other), peak)]
    both = [(np.sum(scaled[i][own[i]]), np.sum(scaled[i][other[i]])) for i in range(len(maps))]
    mass = [a / (a + b) for a, b in both]
    yield "attribution mass", "NumPy", [(metrics.attribution_mass(maps, own, other), mass)]


def rationales() -> Iterator[Row]:
    """Words against what people marked, and what removing them does."""
    rng = np.random.default_rng(0)
    scores, marked = rng.normal(size=(4, 90)), rng.random((4, 90)) < 0.2
    f1 = metrics.token_f1(metrics.token_counts(list(scores), list(marked)))
    micro, macro = [], []
    for k in metrics.TOP:
        chosen = np.argsort(np.argsort(-scores)) < k
        micro.append(sklearn.metrics.f1_score(marked.ravel(), chosen.ravel()))
        macro.append(np.mean(list(map(sklearn.metrics.f1_score, marked, chosen))))
    yield "token F1, micro and macro", "scikit-learn", [(f1.micro, micro), (f1.macro, macro)]
    expected = list(map(sklearn.metrics.average_precision_score, marked, scores))
    found = metrics.token_average_precision(list(scores), list(marked))
    yield "token average precision", "scikit-learn", [(found, expected)]

    predicted, labels = rng.integers(0, 4, (30, 5)), rng.integers(0, 4, 30)
    f1 = metrics.insertion_f1(predicted, labels)
    macro = [sklearn.metrics.f1_score(labels, p, average="macro") for p in predicted.T]
    micro = [sklearn.metrics.f1_score(labels, p, average="micro") for p in predicted.T]
    yield "insertion F1, micro and macro", "scikit-learn", [(f1.micro, micro), (f1.macro, macro)]

    x, ranked = rng.random((3, 30)), rng.normal(size=(3, 30))
    slopes = rng.normal(size=30)

    def predict(x: jax.Array) -> jax.Array:
        return jax.nn.softmax(jnp.stack([0 * x[:, 0], x @ slopes], -1))

    def worth(x: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-x @ slopes))

    found = metrics.erasure(predict, lambda x, m: x * m, x, jnp.asarray(ranked), jnp.ones(3, int))
    place, whole = np.argsort(np.argsort(-ranked)), worth(x)
    tops = [place < np.ceil(share * 30 / 100) for share in metrics.BINS]
    without = np.stack([whole - worth(x * ~top) for top in tops], 1)
    alone = np.stack([whole - worth(x * top) for top in tops], 1)
    pairs = [(found.comprehensiveness, without), (found.sufficiency, alone)]
    yield "ERASER: comprehensiveness, sufficiency", "NumPy", pairs

    values = rng.normal(size=40)
    _, *ours = metrics.bootstrap_interval(values, seed=3)
    theirs = scipy.stats.bootstrap(
        (values,), np.mean, n_resamples=1000, method="percentile", rng=np.random.default_rng(3)
    ).confidence_interval
    yield "bootstrap interval of a mean", "scipy, same draws", [(ours, theirs)]


def by_quantus() -> Iterator[Row]:
    """What Quantus judges maps by, where it means the same; its draws are used on both sides."""
    import quantus

    rng, size = np.random.default_rng(0), 40
    x, scores = rng.random((3, size)), rng.normal(size=(3, size))
    x, scores = x.astype(np.float32), scores.astype(np.float32)
    targets, slopes = np.array([1, 0, 1]), rng.normal(size=(size, 2)).astype(np.float32)

    def predict(x: jax.Array) -> jax.Array:
        return jax.nn.softmax(x @ slopes + x[:, :2] * x[:, 2:4])

    def mask(x: jax.Array, kept: jax.Array) -> jax.Array:
        return x * kept

    def explain(inputs: np.ndarray, **_) -> np.ndarray:
        def chosen(rows: jax.Array) -> jax.Array:
            return jnp.log(predict(rows))[jnp.arange(3), targets].sum()

        rows = inputs.reshape(3, size)
        return np.asarray(rows * jax.grad(chosen)(rows)).reshape(inputs.shape)

    class Network(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.tensor(np.asarray(predict(x.numpy().reshape(-1, size))))

    def judged(metric, maps: np.ndarray = scores) -> np.ndarray:
        pictures, maps = x.reshape(3, 1, 5, 8), maps.reshape(3, 1, 5, 8)
        given = dict(model=Network().eval(), x_batch=pictures, y_batch=targets, a_batch=maps)
        np.random.seed(0)
        return np.asarray(metric(**given, explain_func=explain, softmax=False, channel_first=True))

    silent = dict(disable_warnings=True, return_aggregate=False)
    found = judged(quantus.Complexity(**silent))
    yield "complexity", "quantus", [(metrics.complexity(scores), found)]
    found = judged(quantus.Sparseness(**silent))
    yield "sparseness", "quantus", [(metrics.sparseness(scores), found)]

    curves = metrics.perturbation_curves(predict, mask, x, scores, targets, targets)
    metric = quantus.PixelFlipping(features_in_step=size // 10, perturb_baseline=0.0, **silent)
    # Theirs begin after the first step; the least important features go first from -φ.
    both = (curves.positive, judged(metric)), (curves.negative, judged(metric, -scores))
    pairs = [(ours.probability[:, 1:], theirs) for ours, theirs in both]
    yield "both curves: pixel flipping", "quantus", pairs

    def again(draw) -> np.ndarray:
        """What a metric draws from NumPy's own state when it begins with the same."""
        np.random.seed(0)
        return np.stack([draw() for _ in range(50)])

    chosen = again(lambda: [np.random.choice(size, 8, replace=False) for _ in range(len(x))])
    subsets = (chosen[..., None] == np.arange(size)).any(-2)
    found = metrics.faithfulness_correlation(predict, mask, x, scores, targets, subsets)
    metric = quantus.FaithfulnessCorrelation(
        nr_runs=50, subset_size=8, perturb_baseline=0.0, **silent
    )
    yield "faithfulness correlation", "quantus", [(found, judged(metric))]

    noise = again(lambda: np.random.uniform(-0.2, 0.2, x.shape).astype(np.float32))
    found = metrics.max_sensitivity(explain, x, noise)
    metric = quantus.MaxSensitivity(nr_samples=50, lower_bound=0.2, **silent)
    yield "max-sensitivity", "quantus", [(found, judged(metric, explain(x)))]


def objectives() -> Iterator[Row]:
    """What is minimised, and its gradient by the maps."""
    rng = np.random.default_rng(0)
    z, old, advantages, scores = (rng.normal(size=s) for s in ((4, 6), (4, 5), (4, 5), (4, 5)))
    masks, class_logits = rng.integers(0, 2, (4, 5, 6)), rng.normal(size=(4, 3))
    values, f = rng.normal(size=4), rng.dirichlet(np.ones(3), 4)
    logits = torch.tensor(z, requires_grad=True)
    q = distributions.Independent(distributions.Bernoulli(logits=logits[:, None]), 1)
    log_prob = q.log_prob(torch.tensor(masks, dtype=torch.float64))
    found = ppo.bernoulli_log_prob(z[:, None], masks)
    yield "log q(m)", "torch.distributions", [(found, log_prob)]
    entropy = q.entropy()[:, 0]
    yield "H(q)", "torch.distributions", [(ppo.bernoulli_entropy(z), entropy)]

    old = log_prob.detach() + 0.3 * torch.tensor(old)
    ratio, a = torch.exp(log_prob - old), torch.tensor(advantages)
    clipped = torch.maximum(-a * ratio, -a * ratio.clamp(0.8, 1.2)).mean()
    ours = ppo.clipped_surrogate(found, jnp.asarray(old.numpy()), advantages, 0.2)
    yield "clipped surrogate", "torch", [(ours, clipped)]

    p = distributions.Categorical(logits=torch.tensor(class_logits))
    black_box = distributions.Categorical(probs=torch.tensor(f))
    for form, pair in (("paper", (p, black_box)), ("authors", (black_box, p))):
        kl = distributions.kl_divergence(*pair).mean()
        ours = ppo.kl_to_softmax(class_logits, f, form)
        yield f"KL, {form}", "torch.distributions", [(ours, kl)]
        coefficient, features = {"paper": (1e-5, 1), "authors": (1e-4, 6)}[form]
        value = torch.mean((torch.tensor(scores) - torch.tensor(values)[:, None]) ** 2)
        total = clipped - coefficient * entropy.mean() / features + 0.5 * value + kl
        (slope,) = torch.autograd.grad(total, logits, retain_graph=True)
        objective = published.Objective(**common.get_config(form).objective)
        batch = published.Answered(
            None, np.zeros((4, 1), int), f, masks,
            old.numpy()[:, None], scores[:, None], advantages[:, None],
        )  # fmt: skip

        def loss(z, batch=batch, objective=objective):
            output = ppo.PolicyOutput(z[:, None], class_logits, values[:, None])
            return published.loss(output, batch, objective)[0]

        found, gradient = jax.value_and_grad(loss)(jnp.asarray(z, jnp.float32))
        pairs = [(found, total), (gradient, slope)]
        yield f"loss of the preset {form}, and its gradient", "torch", pairs

    empty, full = rng.random((2, 4))
    worth = rng.random((4, 5))
    phi = torch.tensor(z) + (torch.tensor(full - empty - z.sum(1)) / 6)[:, None]
    inside = torch.einsum("bsn,bn->bs", torch.tensor(masks, dtype=torch.float64), phi)
    expected = 6 * torch.mean((torch.tensor(empty)[:, None] + inside - torch.tensor(worth)) ** 2)
    game = fastshap.Game(
        None, np.zeros((4, 1), int), np.ones((4, 6), bool), masks, worth[:, None],
        empty[:, None], full[:, None],
    )  # fmt: skip
    found, _ = fastshap.loss(jnp.asarray(z[:, None]), game, fastshap.Objective())
    yield "FastSHAP's loss", "torch", [(found, expected)]
