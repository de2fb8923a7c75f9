"""Black boxes of square colour pictures: what f sees of one, and what a network that explains."""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fex_jax import checks, pretrained
from fex_jax.host.answers import Output
from fex_jax.host.bank import ID, identify
from fex_jax.host.model import on_host, to_pixels
from fex_jax.host.predictor import HostPredictor
from fex_jax.models import Params
from fex_jax.models.policy import Backbone
from fex_jax.models.unet import UNetConfig
from fex_jax.models.vit import ViTConfig
from fex_jax.predictors import Model
from fex_jax.preprocessing import MAX_SIDE, Preprocessing
from fex_jax.removal import Removal

_FINEST = 16  # cells a side that a picture has by default
_EDGES = (0.0, 1 / 3, 1 / 2, 1.0)  # in cells
_SIDE = checks.integer(1, MAX_SIDE)
_COLOUR = checks.number(-1e6, 1e6)


class Masked(NamedTuple):
    """Pictures, and which of their cells f is to be asked about."""

    images: jax.Array  # [B, S, S, 3] floats in 0..255
    background: jax.Array  # what shows where cells are removed
    ids: jax.Array  # [B, 16] uint8: of the whole pictures, `bank.identify`
    masks: jax.Array  # [B, N] bool


@dataclasses.dataclass(frozen=True)
class Config:
    """What the sizes of other networks follow from."""

    image_size: int
    num_classes: int
    grid: tuple[int, int]
    num_channels: ClassVar[int] = 3
    family: ClassVar[str] = "black box"


@dataclasses.dataclass(frozen=True)
class Pictures:
    """How pictures are read.

    Attributes:
      size: side of f's pictures, in pixels.
      looks: how a network that explains sees the picture that f sees: its size and normalisation.
    """

    size: int
    looks: Preprocessing
    modality: ClassVar[str] = "images"
    banked: ClassVar[bool] = True  # what f says is kept
    # What is saved of it and of its removal.
    fields: ClassVar[dict[str, checks.Check]] = {"size": _SIDE, "looks": checks.mapping()}
    removal: ClassVar[type[Removal]] = Removal
    removal_fields: ClassVar[dict[str, checks.Check]] = {
        "kind": checks.one_of("fill", "mean", "blur"),
        "grid": checks.several(_SIDE, 2),
        "softness": checks.number(0, 100),
        "fill": checks.either(_COLOUR, checks.several(_COLOUR, 3), checks.nothing()),
        "sigma": checks.number(1e-6, 1e6),
    }

    @classmethod
    def of(cls, f: HostPredictor, removal: Removal | None = None) -> tuple["Pictures", Removal]:
        """f's picture in [-1, 1]; what most networks stand, a blurred picture under soft edges.

        Raises:
          ValueError: f takes something else than square colour pictures.
        """
        if len(f.input) != 3 or f.input[0] != f.input[1] or f.input[2] != 3:
            raise ValueError(
                f"{f.name} takes arrays {list(f.input)}; explained are predictors of square colour "
                "pictures, input=(side, side, 3), and of texts, input='text'"
            )
        side = int(f.input[0])
        removal = removal or Removal("blur", default_grid(side), 0.5, sigma=default_sigma(side))
        cell = max(1, round(side / removal.grid[0]))  # a U-Net's cells are whole pixels
        return cls(side, Preprocessing(size=(cell * removal.grid[0],) * 2)), removal

    @classmethod
    def policy(cls, config: Any, f: HostPredictor, _: Any) -> tuple[Backbone, Params, "Pictures"]:
        """A U-Net, or the ViT of `policy_backbone.path` at the size that has a patch for each cell.

        Raises:
          ValueError: a path to something else, or a policy without it that f has no network for.
        """
        rows, columns = _grid(config, f)
        path = config.policy_backbone.path
        if path:
            found = pretrained.load(path, num_classes=2)  # the head is not used
            if found.modality != "images":
                raise ValueError(f"policy_backbone.path: {path} reads texts; f's inputs are images")
            if not isinstance(found.config, ViTConfig):
                raise ValueError(
                    f"policy_backbone.path: {path} is a {found.config.family}, which has no "
                    "tokens; give a ViT, a DeiT or a DINOv2"
                )
            if found.config.grid != (rows, columns):
                side = rows * found.config.patch_size
                found = pretrained.load(path, image_size=side, num_classes=2)
            reads = cls(f.input[0], found.preprocessing)
            return found.config, found.params["backbone"], reads
        if config.policy != "unet":
            raise ValueError(
                f"policy {config.policy!r}: a black box has no backbone to start from; choose "
                "unet, or name one with --config.policy_backbone.path"
            )
        reads, _ = cls.of(f, Removal(grid=(rows, columns)))
        side, _ = reads.looks.sides
        return UNetConfig(side, side // rows), None, reads

    @classmethod
    def candidates(cls, config: Any, f: HostPredictor) -> list[Removal]:
        """The removals that the config leaves to the probe.

        Raises:
          ValueError: another kind, or a number that cannot be.
        """
        given, grid = config.removal, _grid(config, f)
        kinds = ("fill", "mean", "blur") if given.kind == "probe" else (given.kind,)
        edges = _EDGES if given.softness < 0 else (given.softness,)
        sigma = given.sigma or default_sigma(f.input[0])
        return [Removal(kind, grid, edge, sigma=sigma) for kind in kinds for edge in edges]

    @property
    def input(self) -> tuple[int, int, int]:
        """What f takes, as `host` says it."""
        return (self.size, self.size, 3)

    @property
    def preprocessing(self) -> Preprocessing:
        """The shorter edge becomes f's side, then the centre is cut out."""
        side = (self.size, self.size)
        return Preprocessing("Bit", size=self.size, do_center_crop=True, crop_size=side)

    def config(self, num_classes: int, removal: Removal) -> Config:
        """Sizes."""
        return Config(self.size, num_classes, removal.grid)

    def kept_by(self, removal: Removal) -> dict[str, Any]:
        """What a bank knows its answers by: pictures, and masks of a grid under a removal."""
        return {"removal": str(removal), "grid": removal.grid}

    def fits(self, backbone: Backbone, removal: Removal) -> bool:
        """Whether a network reads these pictures, and has a feature for each cell."""
        has = getattr(backbone, "image_size", None), getattr(backbone, "grid", None)
        return has == (self.looks.image_size, removal.grid)

    def bind(
        self,
        batch: jax.Array,
        removal: Removal,
        predict: Callable[[Masked], jax.Array],
        output: Output,
    ) -> tuple[Model, Masked]:
        """A batch of pictures [B, S, S, 3] in 0..255 as inputs of a `predictors.Model`.

        A mask takes the place of the one before: masks of masked inputs do not add up.
        """
        pixels = to_pixels(batch)
        images, background = removal.prepare(pixels)
        ids = on_host(_identify, jax.ShapeDtypeStruct((ID,), np.uint8), pixels)
        rows, columns = removal.grid
        whole = jnp.ones((batch.shape[0], rows * columns), bool)
        model = Model(
            predict=predict,
            output=output,
            mask=lambda inputs, masks: inputs._replace(
                masks=masks.astype(bool).reshape(-1, rows * columns)
            ),
            grid=removal.grid,
            view=lambda inputs: self.look(inputs.images),
            pool=lambda values, _: removal.pool(values),
        )
        return model, Masked(images, background, ids, whole)

    def show(self, inputs: Masked, removal: Removal) -> tuple[jax.Array, ...]:
        """What `ask` needs of inputs: ids [B, 16], masks [B, N] and pixels [B, S, S, 3], uint8."""
        masked = removal.mask(inputs[:2], inputs.masks).images
        return inputs.ids, inputs.masks, to_pixels(masked)

    def ask(
        self,
        f: Callable[..., np.ndarray],
        removal: Removal,
        ids: np.ndarray,
        masks: np.ndarray,
        pixels: np.ndarray,
    ) -> np.ndarray:
        """f's answers [B, K] to what `show` shows; see `BlackBox.ask`."""
        return f([row.tobytes() for row in ids], masks, lambda rows: pixels[rows])

    def look(self, images: jax.Array) -> jax.Array:
        """f's pictures [B, S, S, 3] in 0..255 as the explaining network reads them."""
        side = self.looks.image_size
        if side != self.size:
            images = jax.image.resize(images, (images.shape[0], side, side, 3), "bilinear")
        return self.looks.normalize(images)

    def save(self, _: Any) -> dict[str, Any]:
        """Its `fields`."""
        return {"size": self.size, "looks": self.looks.to_dict()}

    @classmethod
    def read(cls, values: dict[str, Any], _: Any) -> "Pictures":
        """What `save` returned."""
        return cls(values["size"], Preprocessing.from_dict(values["looks"]))


def default_grid(side: int) -> tuple[int, int]:
    """16 × 16 cells, or as many as have eight pixels a side."""
    return (min(_FINEST, max(2, side // 8)),) * 2


def default_sigma(side: int) -> float:
    """Of a blurred picture that says next to nothing: 20 pixels of 224."""
    return side * 20 / 224


def _grid(config: Any, f: HostPredictor) -> tuple[int, int]:
    grid = config.removal.grid
    return (grid, grid) if grid else default_grid(f.input[0])


def _identify(pixels: Any) -> np.ndarray:
    ids = b"".join(identify(np.asarray(pixels)))
    return np.frombuffer(ids, np.uint8).reshape(-1, ID)
