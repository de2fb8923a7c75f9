"""AttLRP of a classifier by a slow, separate computation, in NumPy and float64."""

from math import erf

import jax
import numpy as np

TEXT_FAMILIES = {"bert": {}, "distilbert": {"num_types": 0}, "roberta": {}}


def slow_attlrp(config, params, one, target):
    """Of one image or of one text's ids: what CLS reads of each token, [T].

    Gradients are by finite differences, each rule is from its contributions.
    """
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    blocks = config.num_layers
    seen = forward(config, params, one)
    shape = seen["weights"][0].shape
    gradients = []
    for number in range(blocks):
        gradient = np.zeros(shape)
        for place in np.ndindex(shape):
            shift = np.zeros(shape)
            shift[place] = 1e-5
            up, down = (
                forward(config, params, one, {number: sign * shift})["logits"][target]
                for sign in (1, -1)
            )
            gradient[place] = (up - down) / 2e-5
        gradients.append(gradient)

    tokens, relevance = seen["normed"], np.zeros_like(seen["normed"])
    if config.family in TEXT_FAMILIES:
        head = params["head"]
        of_logits = np.eye(config.num_classes)[target : target + 1]
        of_pooled = slow_linear(seen["pooled"][None], head["out"]["kernel"], of_logits)
        relevance[:1] = slow_linear(tokens[:1], head["dense"]["kernel"], of_pooled)
    else:
        # The head, as one linear map of all the tokens that it reads.
        head, weights = params["head"], np.zeros_like(tokens)
        if config.distilled:
            weights[0] = head["cls"]["kernel"][:, target] / 2
            weights[1] = head["distillation"]["kernel"][:, target] / 2
        else:
            weights[0] = head["kernel"][: config.hidden_size, target]
        if config.family == "dinov2":
            weights[1:] = head["kernel"][config.hidden_size :, target] / config.num_patches
        relevance = np.maximum(weights * tokens, 0)
        relevance /= relevance.sum()

    rolled = np.eye(len(tokens))
    for number in reversed(range(blocks)):
        layer = params["backbone"]["blocks"][str(number)]
        get = {name: seen[name][number] for name in seen if isinstance(seen[name], list)}
        first, second = slow_sum(get["middle"], get["update2"], relevance)
        second = slow_linear(get["hidden"], layer["mlp"]["fc2"]["kernel"], second)
        second = slow_linear(get["normed2"], layer["mlp"]["fc1"]["kernel"], second)
        first, second = slow_sum(get["tokens"], get["update"], first + second)
        second = slow_linear(get["mixed"], layer["attention"]["out"]["kernel"], second)
        size = config.hidden_size // config.num_heads
        of = {name: np.zeros_like(second) for name in ("query", "key", "value")}
        of_weights = np.zeros(shape)
        for head in range(config.num_heads):
            columns = slice(head * size, (head + 1) * size)
            query, key, value = (get[name][:, columns] for name in ("query", "key", "value"))
            of_weights[head], of["value"][:, columns] = slow_product(
                get["weights"][head], value, second[:, columns]
            )
            of["query"][:, columns], of_key = slow_product(query, key.T, of_weights[head])
            of["key"][:, columns] = of_key.T
        relevance = first + sum(
            slow_linear(get["normed1"], layer["attention"][name]["kernel"], of[name]) for name in of
        )
        attention = np.maximum(gradients[number] * of_weights, 0).mean(0)
        rolled = rolled @ (np.eye(len(tokens)) + attention)
    return rolled[0]


def slow_words(config, params, texts, row, target):
    """Of one text of a batch: what CLS reads of each of its features, [N]."""
    real = texts.attention[row]
    of_tokens = slow_attlrp(config, params, texts.ids[row, real], target)
    scores = np.zeros(len(real))
    for feature, score in zip(texts.features[row, real], of_tokens, strict=True):
        if feature >= 0:
            scores[feature] += score
    return scores


def first_tokens(config, backbone, one):
    """The first block's input, of one image or of one text's ids."""
    if config.family in TEXT_FAMILIES:
        start = config.pad_id + 1 if config.family == "roberta" else 0
        positions = backbone["position_embedding"][start : start + len(one)]
        tokens = backbone["word_embedding"][one] + positions
        if config.family != "distilbert":
            tokens = tokens + backbone["type_embedding"][0]
        return normalise(config, tokens, backbone["norm"])
    side = config.patch_size
    rows, columns = config.grid
    patches = [
        one[side * r : side * (r + 1), side * c : side * (c + 1)].ravel()
        for r in range(rows)
        for c in range(columns)
    ]
    tokens = affine(np.array(patches, np.float64), backbone["patch_embedding"]["projection"])
    prefix = [backbone[name][0] for name in ("cls_token", "distillation_token") if name in backbone]
    return np.concatenate([*prefix, tokens]) + backbone["position_embedding"][0]


def forward(config, params, one, shifts=None):
    """All activations of one input; `shifts` are added to the attention of some blocks."""
    backbone, text = params["backbone"], config.family in TEXT_FAMILIES
    tokens = first_tokens(config, backbone, one)
    names = "tokens normed1 query key value weights mixed update middle normed2 hidden update2"
    seen = {name: [] for name in names.split()}
    size = config.hidden_size // config.num_heads
    for number in range(config.num_layers):
        layer = backbone["blocks"][str(number)]
        now = {"tokens": tokens, "normed1": tokens}
        if not text:
            now["normed1"] = normalise(config, tokens, layer["norm1"])
        for name in ("query", "key", "value"):
            now[name] = affine(now["normed1"], layer["attention"][name])
        weights, mixed = [], []
        for head in range(config.num_heads):
            part = slice(head * size, (head + 1) * size)
            scores = now["query"][:, part] @ now["key"][:, part].T / np.sqrt(size)
            scores = np.exp(scores - scores.max(-1, keepdims=True))
            weights.append(scores / scores.sum(-1, keepdims=True))
            if shifts and number in shifts:
                weights[-1] = weights[-1] + shifts[number][head]
            mixed.append(weights[-1] @ now["value"][:, part])
        now["weights"], now["mixed"] = np.array(weights), np.concatenate(mixed, -1)
        gains = [layer.get(f"scale{i}", {"scale": 1.0})["scale"] for i in (1, 2)]
        now["update"] = gains[0] * affine(now["mixed"], layer["attention"]["out"])
        now["middle"] = tokens + now["update"]
        if text:
            now["middle"] = normalise(config, now["middle"], layer["norm1"])
            now["normed2"] = now["middle"]
        else:
            now["normed2"] = normalise(config, now["middle"], layer["norm2"])
        hidden = affine(now["normed2"], layer["mlp"]["fc1"])
        now["hidden"] = hidden * (1 + np.vectorize(erf)(hidden / np.sqrt(2))) / 2
        now["update2"] = gains[1] * affine(now["hidden"], layer["mlp"]["fc2"])
        tokens = now["middle"] + now["update2"]
        tokens = normalise(config, tokens, layer["norm2"]) if text else tokens
        for name in seen:
            seen[name].append(now[name])
    if text:
        pooled = affine(tokens[0], params["head"]["dense"])
        pooled = np.maximum(pooled, 0) if config.family == "distilbert" else np.tanh(pooled)
        logits = affine(pooled, params["head"]["out"])
        return seen | {"normed": tokens, "pooled": pooled, "logits": logits}
    normed = normalise(config, tokens, backbone["norm"])
    if config.distilled:
        pairs = zip(normed, ("cls", "distillation"), strict=False)
        of_heads = [affine(token, params["head"][name]) for token, name in pairs]
        return seen | {"normed": normed, "logits": sum(of_heads) / 2}
    read = normed[0]
    if config.family == "dinov2":
        read = np.concatenate([read, normed[config.num_prefix_tokens :].mean(0)])
    return seen | {"normed": normed, "logits": affine(read, params["head"])}


def affine(x, layer):
    """x W + b."""
    return x @ layer["kernel"] + layer["bias"]


def normalise(config, x, layer):
    """LayerNorm."""
    x = x - x.mean(-1, keepdims=True)
    x = x / np.sqrt(np.square(x).mean(-1, keepdims=True) + config.layer_norm_eps)
    return x * layer["scale"] + layer["bias"]


def slow_linear(x, kernel, relevance):
    """Row by row, output by output: in proportion to the positive contributions."""
    shares = np.zeros_like(x)
    for row in range(len(x)):
        for output in range(kernel.shape[1]):
            positive = np.maximum(x[row] * kernel[:, output], 0)
            if positive.sum() > 0:
                shares[row] += positive / positive.sum() * relevance[row, output]
    return shares


def slow_product(u, v, relevance):
    """Term by term of each Σ_k u_ik v_kj, half to either factor."""
    of_u, of_v = np.zeros_like(u), np.zeros_like(v)
    for i, j in np.ndindex(relevance.shape):
        terms = u[i] * v[:, j]
        share = terms / terms.sum() * relevance[i, j] / 2
        of_u[i] += share
        of_v[:, j] += share
    return of_u, of_v


def slow_sum(u, v, relevance):
    """In proportion to the terms, then scaled to keep the total."""
    of_u, of_v = u / (u + v) * relevance, v / (u + v) * relevance
    sum_u, sum_v, total = of_u.sum(), of_v.sum(), relevance.sum()
    whole = abs(sum_u) + abs(sum_v)
    return of_u * abs(sum_u) / whole * total / sum_u, of_v * abs(sum_v) / whole * total / sum_v
