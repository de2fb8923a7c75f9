"""A black box of colours, and runs of three steps that explain one."""

import json
import os

import numpy as np

from fex_jax import feeding, host, settings
from fex_jax.host import black_box

PICTURES = np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3), np.uint8)


class Box:
    """The softmax of the mean of each channel: three classes. It counts, and can die, or change
    the working directory."""

    def __init__(self, dies_after: int | None = None, goes: str = ".") -> None:
        self.asked, self.dies_after, self.goes = 0, dies_after, goes

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        os.chdir(self.goes)
        if self.dies_after is not None and self.asked + len(pixels) > self.dies_after:
            raise ConnectionError("gone")
        self.asked += len(pixels)
        powers = np.exp(pixels.mean((1, 2), np.float64) / 10)
        return powers / powers.sum(-1, keepdims=True)

    def predictor(self, **options) -> host.HostPredictor:
        own = {"labels": ("red", "green", "blue"), "input": (32, 32, 3), "batch_size": 4}
        return host.host(self, **{"digest": "box", "name": "box"} | own | options)


def small(directory: str, **changes):
    """Three steps that start from a tiny ViT; hard grey squares on its grid."""
    config = settings.default()
    config.update_from_flattened_dict(
        {
            "batch_size": 4, "epochs": 1.0, "log_every": 1, "checkpoint.every": 2, "policy": "vit",
            "policy_backbone.path": directory, "objective.num_masks": 4, "data.augment": False,
            "removal.kind": "fill", "removal.softness": 0.0, "optimizer.learning_rate": 1e-3,
            "objective.num_updates": 1, "objective.num_passes": 1,
        }
        | changes
    )  # fmt: skip
    return config


def source_of(pictures: np.ndarray, f: host.HostPredictor):
    return feeding.open_data(black_box.of(f), pictures)[0]


def curve(workdir) -> list[float]:
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]
