"""White-box attributions of a transformers image classifier in torch, to compare with.

captum computes what it has; the rest is written from the formulas on what hooks and transformers'
own outputs show. Images are [B, H, W, C], scores [B, N], all NumPy.
"""

import numpy as np
import torch
import transformers
from captum.attr import InputXGradient, IntegratedGradients

PREFIX = {"vit": 1, "deit": 2, "dinov2": 1}


def load(directory: str) -> torch.nn.Module:
    """A model that returns its attention weights."""
    return transformers.AutoModelForImageClassification.from_pretrained(
        directory, attn_implementation="eager"
    ).eval()


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
    features, gradient = weights[:, :, 0, prefix:], gradient[:, :, 0, prefix:]
    cam = (gradient.mean(-1, keepdim=True) * features).sum(1).clamp(min=0)
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
    features, gradient = seen[0][:, prefix:], gradient[:, prefix:]
    cam = torch.einsum("bd,bnd->bn", gradient.mean(1), features).clamp(min=0)
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
