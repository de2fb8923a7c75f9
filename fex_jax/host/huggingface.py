"""Hugging Face's torch pipelines for text and image classification."""

import copy
from typing import Any

from PIL import Image

from fex_jax.host import digests
from fex_jax.host.predictor import HostPredictor, host

# By problem_type, what answers are, where it does not go without saying.
KINDS = {"multi_label_classification": "sigmoid", "regression": "value"}


def huggingface(
    pipeline: Any, *, size: tuple[int, int] | None = None, **options: Any
) -> HostPredictor:
    """A `text-classification` or `image-classification` pipeline, asked for all its classes.

    Args:
      pipeline: made by `transformers.pipeline`.
      size: (height, width) in which an image pipeline gets its pictures; it then does its own
        preprocessing. None: what its image processor makes of them.
      options: of `host`; output is what the model's problem_type says, or "softmax".

    Raises:
      ValueError: a pipeline of another task.
    """
    config = pipeline.model.config
    numbered = copy.copy(pipeline)  # its scores come by number: two classes may share a name
    numbered.model = copy.copy(pipeline.model)
    numbered.model.config = copy.copy(config)
    numbered.model.config.id2label = {i: str(i) for i in range(config.num_labels)}
    labels = [config.id2label[i] for i in range(config.num_labels)]
    task = pipeline.task
    if task not in ("text-classification", "image-classification"):
        raise ValueError(
            f"the pipeline is for {task}; wanted text-classification or image-classification"
        )
    output = options.get("output", KINDS.get(config.problem_type, "softmax"))
    function = {"function_to_apply": output if output in ("softmax", "sigmoid") else "none"}
    if task == "image-classification":
        height, width = size or _size(pipeline.image_processor)
        settings: dict[str, Any] = {"input": (height, width, 3)}
    else:
        special = pipeline.tokenizer.mask_token, pipeline.tokenizer.pad_token
        settings = {"input": "text", "words": [word for word in special if word]}
        function["truncation"] = True

    def call(batch: Any) -> list[list[float]]:
        things = batch if isinstance(batch, list) else [Image.fromarray(image) for image in batch]
        answers = numbered(things, top_k=config.num_labels, batch_size=len(things), **function)
        scores = [{int(entry["label"]): entry["score"] for entry in answer} for answer in answers]
        return [[of[i] for i in range(config.num_labels)] for of in scores]  # they come sorted

    weights = ((name, x.detach().cpu().float()) for name, x in pipeline.model.state_dict().items())
    settings |= {
        "name": type(pipeline.model).__name__,
        "digest": digests.of_arrays(weights),
        "output": output,
        "labels": labels,
    }
    return host(call, **settings | options)


def _size(processor: Any) -> tuple[int, int]:
    sizes = [getattr(processor, name, None) or {} for name in ("crop_size", "size")]
    for size in map(dict, sizes):
        if {"height", "width"} <= set(size):
            return int(size["height"]), int(size["width"])
    raise ValueError("the pipeline's image processor has no fixed size; give size=(height, width)")
