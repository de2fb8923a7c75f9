"""PyTorch modules, and Hugging Face's among them."""

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from fex_jax.errors import HostError
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
      module: images → logits. Its answer may have a field or an entry `logits`.
      labels: names of the classes.
      input: (height, width, channels): the module gets [B, C, H, W], pixels · `scale` − `mean` over
        `std`, in the type of its first weights; (columns,): [B, D] likewise; "text": what `prepare`
        makes of the strings.
      prepare: batch → what the module takes, instead of all that: a tensor, or a dict of arguments,
        as a tokenizer makes it.
      options: of `host`; output is "logits" where not given, and neither by the problem_type of a
        module of Hugging Face.
    """
    import torch

    if prepare is None and input == "text":
        raise ValueError("a module of texts needs prepare: a list of strings → its arguments")
    images = preparation(mean, std, scale) if len(input) == 3 else np.float32
    state = module.state_dict()
    tensors = [value for value in state.values() if isinstance(value, torch.Tensor)]
    device = next((tensor.device for tensor in tensors), torch.device("cpu"))
    floats = (tensor.dtype for tensor in tensors if tensor.is_floating_point())
    dtype = next(floats, torch.float32)
    name = type(module).__name__
    problem = KINDS.get(getattr(getattr(module, "config", None), "problem_type", None))
    if problem and "output" not in options:
        options["output"] = {"sigmoid": "sigmoid_logits"}.get(problem, problem)
    assumed = AssumedLogits(name)

    def call(batch: Any) -> np.ndarray:
        module.eval()  # whoever trains it may have switched it back
        given = prepare(batch) if prepare else torch.from_numpy(images(batch)).to(dtype)
        with torch.inference_mode():
            if isinstance(given, torch.Tensor):
                answer = module(given.to(device))
            else:
                answer = module(**{name: value.to(device) for name, value in given.items()})
        held = answer.get("logits") if isinstance(answer, Mapping) else None
        logits = getattr(answer, "logits", answer) if held is None else held
        if not isinstance(logits, torch.Tensor):
            raise HostError(
                f"{name} answers with a {type(logits).__name__}; wanted a tensor, or what holds "
                "one as `logits`: give a module that returns that part of the answer"
            )
        found = logits.float().cpu().numpy()
        return found if "output" in options else assumed(found)

    def array(value: Any) -> np.ndarray:
        plain = isinstance(value, torch.Tensor) and value.layout is torch.strided
        if not plain or value.is_quantized:
            torch.save(value, file := io.BytesIO())
            return np.frombuffer(file.getvalue(), np.uint8)
        value = value.detach().cpu()
        return (value.float() if value.is_floating_point() else value).numpy()

    settings = {
        "name": name,
        "digest": digests.of_arrays(
            [(key, array(value)) for key, value in state.items()]
            + [("preparation", np.array([*np.ravel(mean), *np.ravel(std), scale], np.float64))]
        ),
        "output": "logits",
    }
    return host(call, labels=labels, input=input, **settings | options)
