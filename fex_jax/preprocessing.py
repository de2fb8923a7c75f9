"""Image preprocessing as a Hugging Face `preprocessor_config.json` describes it."""

import dataclasses
import math
import re
from typing import Any, TypeVar

import jax
import numpy as np
from PIL import Image

from fex_jax import checks
from fex_jax.data.decode import MAX_PIXELS
from fex_jax.models import sides

MAX_SIDE = 4096  # pixels, of what a model is fed
Images = TypeVar("Images", np.ndarray, jax.Array)

# What each processor class does where the file leaves a key out, as older files do.
_DEFAULTS: dict[str, dict[str, Any]] = {
    "ViT": {
        "size": {"height": 224, "width": 224},
        "resample": Image.Resampling.BILINEAR,
        "image_mean": (0.5, 0.5, 0.5),
        "image_std": (0.5, 0.5, 0.5),
    },
    "DeiT": {
        "size": {"height": 256, "width": 256},
        "resample": Image.Resampling.BICUBIC,
        "do_center_crop": True,
        "image_mean": (0.5, 0.5, 0.5),
        "image_std": (0.5, 0.5, 0.5),
    },
    "ConvNext": {
        "size": {"shortest_edge": 384},
        "crop_pct": 224 / 256,
        "resample": Image.Resampling.BICUBIC,
        "image_mean": (0.5, 0.5, 0.5),
        "image_std": (0.5, 0.5, 0.5),
    },
    "Bit": {
        "size": {"shortest_edge": 224},
        "resample": Image.Resampling.BICUBIC,
        "do_center_crop": True,
        "image_mean": (0.48145466, 0.4578275, 0.40821073),
        "image_std": (0.26862954, 0.26130258, 0.27577711),
    },
}
_SIDE = checks.integer(1, MAX_SIDE)
_SIZE = checks.either(_SIDE, checks.several(_SIDE, 2))
_SIZE = _SIZE._replace(wanted=f"height and width, or only shortest_edge: {_SIDE.wanted}")
_CHECKS = {
    "image_processor_type": checks.text(),
    "do_resize": checks.flag(),
    "resample": checks.one_of(*(int(method) for method in Image.Resampling)),
    "crop_pct": checks.number(0.01, 1),
    "do_center_crop": checks.flag(),
    "do_rescale": checks.flag(),
    "rescale_factor": checks.number(1e-6, 1e6),
    "do_normalize": checks.flag(),
    "image_mean": checks.several(checks.number(-1e6, 1e6), 3),
    "image_std": checks.several(checks.number(1e-6, 1e6), 3),
}


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """Resize, centre crop, rescale and normalise; sizes are (height, width) in pixels.

    `size` is the exact size, or as an int the side that the shortest edge gets.
    """

    processor: str = "ViT"
    do_resize: bool = True
    size: int | tuple[int, int] = (224, 224)
    resample: int = Image.Resampling.BILINEAR
    do_center_crop: bool = False
    crop_size: tuple[int, int] = (224, 224)
    do_rescale: bool = True
    rescale_factor: float = 1 / 255
    do_normalize: bool = True
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)

    def __post_init__(self) -> None:
        final = self.crop_size if self.do_center_crop else self.size
        if not (self.do_resize or self.do_center_crop):
            raise ValueError(
                "preprocessing neither resizes nor crops, so its output has no fixed size; "
                "set do_resize or do_center_crop"
            )
        if isinstance(final, int):
            raise ValueError(
                "preprocessing resizes the shortest edge without a centre crop, so its output has "
                "no fixed size; set do_center_crop and crop_size, or an exact size"
            )
        resized = (self.size,) if isinstance(self.size, int) else self.size
        for side in (*resized, *self.crop_size):
            if not 1 <= side <= MAX_SIDE:
                raise ValueError(
                    f"preprocessing gives images a side of {side} px; expected 1 to {MAX_SIDE} px"
                )

    @classmethod
    def from_dict(cls, values: dict[str, Any], processor: str = "ViT") -> "Preprocessing":
        """Reads a `preprocessor_config.json`; `processor` is for files that name no class."""
        named = values.get("image_processor_type", values.get("feature_extractor_type", processor))
        checks.require({"image_processor_type": named}, _CHECKS, "preprocessor_config.json")
        processor = re.sub(r"(ImageProcessor|FeatureExtractor)(Fast|Pil)?$", "", named)
        if processor not in _DEFAULTS:
            raise ValueError(
                f"image processor {named!r} is not supported; supported: "
                + ", ".join(f"{name}ImageProcessor" for name in _DEFAULTS)
            )
        given = {name: value for name, value in values.items() if value is not None}
        checks.require(given, _CHECKS, "preprocessor_config.json")
        values = _DEFAULTS[processor] | given
        if processor == "ConvNext":
            processor, values = "Bit", values | _of_convnext(values)
        return cls(
            processor=processor,
            do_resize=values.get("do_resize", True),
            size=_size(values["size"], "size", square=processor != "Bit"),
            resample=int(values["resample"]),
            do_center_crop=values.get("do_center_crop", False),
            crop_size=_size(values.get("crop_size", 224), "crop_size", square=True),
            do_rescale=values.get("do_rescale", True),
            rescale_factor=values.get("rescale_factor", 1 / 255),
            do_normalize=values.get("do_normalize", True),
            mean=tuple(values["image_mean"]),
            std=tuple(values["image_std"]),
        )

    def to_dict(self) -> dict[str, Any]:
        """The contents of a `preprocessor_config.json`, the inverse of `from_dict`."""
        exact = isinstance(self.size, tuple)
        return {
            "image_processor_type": f"{self.processor}ImageProcessor",
            "do_resize": self.do_resize,
            "size": _height_width(self.size) if exact else {"shortest_edge": self.size},
            "resample": int(self.resample),
            "do_center_crop": self.do_center_crop,
            "crop_size": _height_width(self.crop_size),
            "do_rescale": self.do_rescale,
            "rescale_factor": self.rescale_factor,
            "do_normalize": self.do_normalize,
            "image_mean": list(self.mean),
            "image_std": list(self.std),
        }

    @property
    def sides(self) -> tuple[int, int]:
        """(height, width) of the model input, in pixels."""
        return sides(self.crop_size if self.do_center_crop else self.size)

    @property
    def image_size(self) -> int | tuple[int, int]:
        """Side of the model input, in pixels; of one that is not square, (height, width)."""
        height, width = self.sides
        return height if height == width else (height, width)

    def with_image_size(self, size: int | tuple[int, int]) -> "Preprocessing":
        """The same for model inputs of another side, or of (height, width).

        A square's crop keeps its proportions; for other inputs nothing is cropped.
        """
        if isinstance(size, tuple):
            return dataclasses.replace(self, do_resize=True, size=size, do_center_crop=False)
        if not self.do_center_crop:
            return dataclasses.replace(self, size=(size, size))
        old = self.sides
        if isinstance(self.size, int):
            resized: int | tuple[int, int] = round(self.size * size / min(old))
        else:
            resized = round(self.size[0] * size / old[0]), round(self.size[1] * size / old[1])
        return dataclasses.replace(self, size=resized, crop_size=(size, size))

    def resize(self, image: Image.Image, where: str = "image") -> np.ndarray:
        """Resizes and crops to uint8 [H, W, 3], (H, W) = `sides`; converts to RGB.

        Raises:
          ValueError: an image so long that its shortest edge cannot have the size wanted; the
            message calls it `where`.
        """
        image = image.convert("RGB")
        if self.do_resize:
            height, width = self._resized(image.height, image.width)
            if height * width > MAX_PIXELS:
                raise ValueError(
                    f"{where} of {image.width} × {image.height} pixels would be resized to "
                    f"{width} × {height}, more than {MAX_PIXELS:,} pixels: crop it first"
                )
            image = image.resize((width, height), self.resample)
        pixels = np.asarray(image)  # [H, W, 3]
        return _center_crop(pixels, *self.crop_size) if self.do_center_crop else pixels

    def normalize(self, images: Images) -> Images:
        """Pixels [..., 3] in 0..255 to float32 model inputs; numpy or JAX, as given."""
        images = images.astype(np.float32)
        if self.do_rescale:
            images = images * np.float32(self.rescale_factor)
        if self.do_normalize:
            mean, std = (np.asarray(x, np.float32) for x in (self.mean, self.std))
            images = (images - mean) / std
        return images

    def look(self, pixels: jax.Array) -> jax.Array:
        """Whole pictures [B, H, W, 3] in 0..255, of any size, as float32 model inputs."""
        if pixels.shape[1:3] != self.sides:
            pixels = jax.image.resize(pixels, (pixels.shape[0], *self.sides, 3), "bilinear")
        return self.normalize(pixels)

    def denormalize(self, images: Images) -> Images:
        """Model inputs [..., 3] back to float32 pixels in 0..1; numpy or JAX, as given."""
        images = images.astype(np.float32)
        if self.do_normalize:
            mean, std = (np.asarray(x, np.float32) for x in (self.mean, self.std))
            images = images * std + mean
        return images / np.float32(255 * (self.rescale_factor if self.do_rescale else 1))

    def _resized(self, height: int, width: int) -> tuple[int, int]:
        if isinstance(self.size, tuple):
            return self.size
        longest = int(self.size * max(height, width) / min(height, width))
        return (longest, self.size) if width <= height else (self.size, longest)


def _of_convnext(values: dict[str, Any]) -> dict[str, Any]:
    """What ConvNextImageProcessor does, in the words of Bit's: it cuts out the centre below 384."""
    size = _size(values["size"], "size", square=False)
    side, width = sides(size)
    if side != width:
        raise ValueError(
            f"ConvNextImageProcessor takes the length of the shortest edge, not size {size}: name "
            "another processor for inputs that are not square"
        )
    exact = {"height": side, "width": side}
    if side >= 384:
        return {"size": exact, "do_center_crop": False}
    edge = {"shortest_edge": int(side / values["crop_pct"])}
    return {"size": edge, "do_center_crop": True, "crop_size": exact}


def _size(value: Any, name: str, *, square: bool) -> int | tuple[int, int]:
    """Reads a size; a bare int, as older files have it, is a square or a shortest edge."""
    found = value
    if isinstance(value, dict) and set(value) == {"shortest_edge"} and name == "size":
        found, square = value["shortest_edge"], False
    elif isinstance(value, dict) and set(value) == {"height", "width"}:
        found = value["height"], value["width"]
    checks.require({name: found}, {name: _SIZE}, "preprocessor_config.json")
    if isinstance(found, int):
        return (found, found) if square else found
    return tuple(found)


def _height_width(size: tuple[int, int]) -> dict[str, int]:
    return {"height": size[0], "width": size[1]}


def _center_crop(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Crops [H, W, 3] to [height, width, 3] about the centre; smaller images get black borders."""
    rows, columns = pixels.shape[:2]
    top, left = (rows - height) // 2, (columns - width) // 2
    # Transformers puts the odd pixel of a border first: ceil before, floor after.
    margins = [(math.ceil(max(0, n) / 2), max(0, n) // 2) for n in (height - rows, width - columns)]
    padded = np.pad(pixels, [*margins, (0, 0)])
    top, left = top + margins[0][0], left + margins[1][0]
    return padded[top : top + height, left : left + width]
