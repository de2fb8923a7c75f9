"""PyTorch modules, and Hugging Face's among them."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fex_jax.host import digests
from fex_jax.host.answers import AssumedLogits
from fex_jax.host.huggingface import KINDS
from fex_jax.host.pixels import preparation
from fex_jax.host.predictor import HostPredictor, Input, host


def torch_module(
    module: Any,
    *,
    labels: Sequence[str],
    input: Input,
    mean: Sequence[float] | float = 0.0,
    std: Sequence[float] | float = 1.0,
    scale: float = 1 / 255,
    prepare: Callable[[Any], Any] | None = None,
    **options: Any,
) -> HostPredictor:
    """A module in evaluation mode, without gradients, on the device of its parameters.

    Args:
      module: images → logits. Its answer may have a field `logits`.
      labels: names of the classes.
      input: (height, width, channels): the module gets float32 [B, C, H, W], pixels · `scale` −
        `mean` over `std`; (columns,): float32 [B, D]; "text": what `prepare` makes of the strings.
      prepare: batch → what the module takes, instead of all that: a tensor, or a dict of arguments,
        as a tokenizer makes it.
      options: of `host`; output is "logits" where not given, and neither by the problem_type of a
        module of Hugging Face.
    """
    import torch

    if prepare is None and input == "text":
        raise ValueError("a module of texts needs prepare: a list of strings → its arguments")
    images = preparation(mean, std, scale) if len(input) == 3 else np.float32
    tensors = list(module.state_dict().items())
    device = next((tensor.device for _, tensor in tensors), torch.device("cpu"))
    module.eval()
    problem = KINDS.get(getattr(getattr(module, "config", None), "problem_type", None))
    if problem and "output" not in options:
        options["output"] = {"sigmoid": "sigmoid_logits"}.get(problem, problem)
    assumed = AssumedLogits(type(module).__name__)

    def call(batch: Any) -> np.ndarray:
        given = prepare(batch) if prepare else torch.from_numpy(images(batch))
        with torch.inference_mode():
            if isinstance(given, torch.Tensor):
                answer = module(given.to(device))
            else:
                answer = module(**{name: value.to(device) for name, value in given.items()})
        found = getattr(answer, "logits", answer).float().cpu().numpy()
        return found if "output" in options else assumed(found)

    def array(tensor: Any) -> np.ndarray:
        tensor = tensor.detach().cpu()
        return (tensor.float() if tensor.is_floating_point() else tensor).numpy()

    settings = {
        "name": type(module).__name__,
        "digest": digests.of_arrays(
            [(name, array(tensor)) for name, tensor in tensors]
            + [("preparation", np.array([*np.ravel(mean), *np.ravel(std), scale], np.float64))]
        ),
        "output": "logits",
    }
    return host(call, labels=labels, input=input, **settings | options)
