"""White-box attributions of a transformers image classifier in torch, to compare with.

captum computes what it has; the rest is written from the formulas on what hooks and transformers'
own outputs show. Images are [B, H, W, C], scores [B, N], all NumPy.
"""

import copy

import numpy as np
import torch
import transformers
from captum.attr import InputXGradient, IntegratedGradients

PREFIX = {"vit": 1, "deit": 2, "dinov2": 1}


def load(directory: str, texts: bool = False) -> torch.nn.Module:
    """A classifier of images, or of texts, that returns its attention weights."""
    kind = "AutoModelFor" + ("SequenceClassification" if texts else "ImageClassification")
    return (
        getattr(transformers, kind).from_pretrained(directory, attn_implementation="eager").eval()
    )


def integrated_gradients(model, images, targets, steps, output, baseline=0.0) -> np.ndarray:
    """captum's, with its default quadrature."""
    x = _channels_first(images)
    values = IntegratedGradients(_forward(model, output)).attribute(
        x, torch.full_like(x, baseline), target=torch.tensor(targets), n_steps=steps
    )
    return _pooled(model, values)


def gradient_x_input(model, images, targets, output) -> np.ndarray:
    """captum's."""
    x = _channels_first(images).requires_grad_()
    values = InputXGradient(_forward(model, output)).attribute(x, target=torch.tensor(targets))
    return _pooled(model, values)


def grad_shap(model, images, targets, alphas, noise, output) -> np.ndarray:
    """captum's GradientShap, sample by sample, so that its α and noise can be given."""
    from captum.attr._core.gradient_shap import InputBaselineXGradient

    values = 0.0
    for alpha, shift in zip(alphas, noise, strict=True):
        noisy = _channels_first(images + shift)
        # captum draws α from NumPy's global generator.
        uniform, np.random.uniform = np.random.uniform, lambda *_, alpha=alpha: alpha
        try:
            values += InputBaselineXGradient(_forward(model, output)).attribute(
                noisy, torch.zeros_like(noisy), target=torch.tensor(targets)
            )
        finally:
            np.random.uniform = uniform
    return _pooled(model, values / len(alphas))


def gradcam_attention(model, images, targets) -> np.ndarray:
    """The last block's CLS row, its heads weighted by their mean gradients."""
    outputs = _outputs(model, images)
    weights = outputs.attentions[-1]
    (gradient,) = torch.autograd.grad(_explained(outputs.logits, targets), [weights])
    prefix = PREFIX[model.config.model_type]
    found, gradient = weights[:, :, 0, prefix:], gradient[:, :, 0, prefix:]
    cam = (gradient.mean(-1, keepdim=True) * found).sum(1).clamp(min=0)
    return cam.detach().numpy()


def gradcam_norm1(model, images, targets) -> np.ndarray:
    """What the last block's first LayerNorm returns, by hooks."""
    backbone = getattr(model, model.config.model_type)
    (norm,) = [
        module
        for name, module in backbone.named_modules()
        if name.endswith((f"{model.config.num_hidden_layers - 1}.layernorm_before",
                          f"{model.config.num_hidden_layers - 1}.norm1"))
    ]  # fmt: skip
    seen = []
    handle = norm.register_forward_hook(lambda module, args, output: seen.append(output))
    logits = _outputs(model, images).logits
    handle.remove()
    (gradient,) = torch.autograd.grad(_explained(logits, targets), seen)
    prefix = PREFIX[model.config.model_type]
    found, gradient = seen[0][:, prefix:], gradient[:, prefix:]
    cam = torch.einsum("bd,bnd->bn", gradient.mean(1), found).clamp(min=0)
    return cam.detach().numpy()


def rollout(model, images, targets) -> np.ndarray:
    """The whole product of T × T matrices."""
    del targets
    joint = None
    for weights in _outputs(model, images).attentions:
        attention = weights.mean(1).detach().numpy()
        attention = 0.5 * attention + 0.5 * np.eye(attention.shape[-1])
        joint = attention if joint is None else attention @ joint
    return joint[:, 0, PREFIX[model.config.model_type] :]


def attcat(model, images, targets) -> np.ndarray:
    """Token by token."""
    outputs = _outputs(model, images)
    blocks = range(model.config.num_hidden_layers)
    hidden = [outputs.hidden_states[block] for block in blocks]
    gradients = torch.autograd.grad(_explained(outputs.logits, targets), hidden)
    scores = np.zeros(hidden[0].shape[:2])
    for block in blocks:
        attention, h, g = (
            x.detach().numpy() for x in (outputs.attentions[block], hidden[block], gradients[block])
        )
        for image, token in np.ndindex(scores.shape):
            share = np.dot(h[image, token], g[image, token])
            scores[image, token] += np.mean(attention[image, :, 0, token]) * share
    return scores[:, PREFIX[model.config.model_type] :]


def attlrp(model, images, targets) -> np.ndarray:
    """In float64, each rule from the contributions of a layer's inputs; gradients by autograd."""
    model = copy.deepcopy(model).double()
    images = np.asarray(images, np.float64)
    return np.concatenate(
        [_attlrp(model, x[None], y) for x, y in zip(images, targets, strict=True)]
    )


def _attlrp(model, image, target) -> np.ndarray:
    """What CLS reads of each patch of one image, [1, N]."""
    read, made = {}, {}  # by module: what it reads and what it returns, of the only image

    def note(name):
        def hook(module, args, output):
            read[name], made[name] = args[0][0], output[0]

        return hook

    hooks = [m.register_forward_hook(note(name)) for name, m in model.named_modules() if name]
    outputs = _outputs(model, image)
    for hook in hooks:
        hook.remove()
    slopes = torch.autograd.grad(outputs.logits[0, target], outputs.attentions)
    layers = dict(model.named_modules())
    config = model.config
    heads, prefix = config.num_attention_heads, PREFIX[config.model_type]

    def linear(name, relevance):
        return _linear_shares(layers[name].weight, read[name], relevance)

    with torch.no_grad():
        last = made[f"{config.model_type}.layernorm"]
        of_logits = torch.nn.functional.one_hot(torch.tensor(target), config.num_labels).double()
        relevance = torch.zeros_like(last)
        weight, size = layers["classifier"].weight, last.shape[1]
        if config.model_type == "dinov2":  # reads CLS beside the patches' mean, whose terms share
            seen = torch.cat([last[:1], last[prefix:] / (len(last) - prefix)])
            weight = torch.cat([weight[:, :size], weight[:, size:].repeat(1, len(seen) - 1)], 1)
            shares = _linear_shares(weight, seen.reshape(1, -1), of_logits[None]).reshape(-1, size)
            relevance[0], relevance[prefix:] = shares[0], shares[1:]
        else:
            relevance[0] = _linear_shares(weight, last[:1], of_logits[None])[0]

        row = torch.eye(len(last), dtype=torch.float64)[0]
        stem = next(n for n in layers if n.endswith("0.mlp.fc1")).removesuffix("0.mlp.fc1")
        for number in reversed(range(config.num_hidden_layers)):
            block = f"{stem}{number}."
            attention = f"{block}attention."
            scaled = config.model_type == "dinov2"
            update, update2 = (
                made[block + (scale if scaled else name)]
                for scale, name in (
                    ("layer_scale1", "attention.o_proj"),
                    ("layer_scale2", "mlp.fc2"),
                )
            )
            tokens = read[block[:-1]]
            of_middle, of_update2 = _sum_shares(tokens + update, update2, relevance)
            of_hidden = linear(f"{block}mlp.fc2", of_update2)
            of_middle = of_middle + linear(f"{block}mlp.fc1", of_hidden)
            of_tokens, of_update = _sum_shares(tokens, update, of_middle)
            of_mixed = linear(f"{attention}o_proj", of_update)

            query, key, value = (made[f"{attention}{n}_proj"].chunk(heads, -1) for n in "qkv")
            shares = {n: [] for n in "qkv"}
            of_weights = []
            for head, of_head in enumerate(of_mixed.chunk(heads, -1)):
                weights = outputs.attentions[number][0, head]
                of_attention, of_value = _product_shares(weights, value[head], of_head)
                of_query, of_key = _product_shares(query[head], key[head].T, of_attention)
                of_weights.append(of_attention)
                for name, share in zip("qkv", (of_query, of_key.T, of_value), strict=True):
                    shares[name].append(share)
            relevance = of_tokens + sum(
                linear(f"{attention}{name}_proj", torch.cat(share, -1))
                for name, share in shares.items()
            )
            attended = (slopes[number][0] * torch.stack(of_weights)).clamp(min=0).mean(0)
            row = row + row @ attended
    return row[None, prefix:].numpy()


def _linear_shares(weight, x, relevance):
    """[T, in]: each positive contribution's share of its output's, times the output's relevance."""
    contributions = (weight * x[:, None]).clamp(min=0)  # [T, out, in]
    total = contributions.sum(-1, keepdim=True)
    return (relevance[..., None] * (contributions / total).nan_to_num()).sum(1)


def _product_shares(u, v, relevance):
    """Of u [I, K] and v [K, J]: half of each term's share of Σ_k u_ik v_kj."""
    terms = u[:, :, None] * v[None]  # [I, K, J]
    shares = terms / terms.sum(1, keepdim=True) * relevance[:, None] / 2
    return shares.sum(2), shares.sum(0)


def _sum_shares(u, v, relevance):
    """In proportion to the terms, rescaled so that both totals are positive parts of the whole."""
    parts = [x / (u + v) * relevance for x in (u, v)]
    totals = [part.sum() for part in parts]
    whole = sum(abs(total) for total in totals)
    return [
        part * (abs(total) / whole) * relevance.sum() / total
        for part, total in zip(parts, totals, strict=True)
    ]


def text_gradients(directory: str, texts, blank, targets, steps: int) -> dict[str, np.ndarray]:
    """captum's on the word embeddings of a BERT, summed over each feature token by token.

    `blank` are the ids of the texts without any feature, the baseline of Integrated Gradients.
    """
    model = transformers.AutoModelForSequenceClassification.from_pretrained(directory).eval()
    words = model.get_input_embeddings()
    x, start = (words(torch.tensor(ids)).detach() for ids in (texts.ids, blank))
    attention, targets = torch.tensor(texts.attention), torch.tensor(targets)

    def probabilities(x, attention):
        return model(inputs_embeds=x, attention_mask=attention).logits.softmax(-1)

    given = {"target": targets, "additional_forward_args": attention}
    found = {
        "integrated_gradients": IntegratedGradients(probabilities).attribute(
            x, start, n_steps=steps, **given
        ),
        "gradient_x_input": InputXGradient(probabilities).attribute(x.requires_grad_(), **given),
    }
    scores = {name: np.zeros(texts.ids.shape) for name in found}
    for name, values in found.items():
        for row, token in np.argwhere(texts.features >= 0):
            scores[name][row, texts.features[row, token]] += values[row, token].sum().item()
    return scores


def _channels_first(images):
    return torch.tensor(images).permute(0, 3, 1, 2)


def _forward(model, output):
    outputs = {
        "logit": lambda logits: logits,
        "probability": lambda logits: logits.softmax(-1),
        "log_probability": lambda logits: logits.log_softmax(-1),
    }
    return lambda x: outputs[output](model(x).logits)


def _pooled(model, values):
    """The sum over each patch, as a convolution with ones."""
    ones = torch.ones(1, values.shape[1], *[model.config.patch_size] * 2)
    pooled = torch.nn.functional.conv2d(values.detach().float(), ones, stride=ones.shape[-1])
    return pooled.flatten(1).numpy()


def _outputs(model, images):
    # A leaf that needs gradients, for the first block's input to have one.
    x = _channels_first(images).requires_grad_()
    return model(x, output_attentions=True, output_hidden_states=True)


def _explained(logits, targets):
    return logits.gather(1, torch.tensor(targets)[:, None]).sum()
