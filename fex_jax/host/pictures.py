"""Black boxes of pictures: what f sees of one, and what a network that explains."""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fex_jax import checks
from fex_jax.host.model import identified, to_pixels
from fex_jax.host.predictor import HostPredictor
from fex_jax.models import Params
from fex_jax.models.policy import Backbone
from fex_jax.models.unet import UNetConfig
from fex_jax.outputs import Output
from fex_jax.predictors import Model
from fex_jax.preprocessing import MAX_SIDE, Preprocessing
from fex_jax.pretrained.image import reader
from fex_jax.removal import Removal

_FINEST = 16  # cells a side that a picture has by default
_EDGES = (0.0, 1 / 3, 1 / 2, 1.0)  # in cells
_SIDE = checks.integer(1, MAX_SIDE)
_COLOUR = checks.number(-1e6, 1e6)
_LUMA = np.float32([0.299, 0.587, 0.114])  # ITU-R BT.601, as Pillow's "L"


class Masked(NamedTuple):
    """Pictures, and which of their cells f is to be asked about."""

    images: jax.Array  # [B, H, W, 3] floats in 0..255
    background: jax.Array  # what shows where cells are removed
    ids: jax.Array  # [B, 16] uint8: of the whole pictures, `bank.identify`
    masks: jax.Array  # [B, N] bool


@dataclasses.dataclass(frozen=True)
class Config:
    """What the sizes of other networks follow from."""

    image_size: int | tuple[int, int]
    num_classes: int
    grid: tuple[int, int]
    num_channels: ClassVar[int] = 3
    family: ClassVar[str] = "black box"


@dataclasses.dataclass(frozen=True)
class Pictures:
    """How pictures are read.

    Attributes:
      input: (height, width, channels) of f's pictures; channels are 3, or 1 of grey ones.
      looks: how a network that explains sees the picture that f sees: its size and normalisation.
    """

    input: tuple[int, int, int]
    looks: Preprocessing
    modality: ClassVar[str] = "images"
    explained: ClassVar[None] = None  # what f says
    banked: ClassVar[bool] = True  # what f says is kept
    # What is saved of it and of its removal.
    fields: ClassVar[dict[str, checks.Check]] = {
        "size": checks.either(_SIDE, checks.several(_SIDE, 3)),
        "looks": checks.mapping(),
    }
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
          ValueError: f takes something else than pictures in colour or grey.
        """
        if isinstance(f.input, str) or len(f.input) != 3 or f.input[2] not in (1, 3):
            raise ValueError(
                f"{f.name} takes arrays {list(f.input)}; explained are predictors of pictures, "
                "input=(height, width, 3), or 1 of grey ones, and of texts, input='text'"
            )
        sides = f.input[:2]
        removal = removal or Removal("blur", _grid(sides), 0.5, sigma=default_sigma(sides))
        rows, columns = removal.grid
        # A U-Net's cells are squares of whole pixels; along a side of one cell it loses none.
        cell = max(round(sides[0] / rows), round(sides[1] / columns), 1)
        return cls(f.input, Preprocessing(size=(cell * rows, cell * columns))), removal

    @classmethod
    def policy(cls, config: Any, f: HostPredictor, _: Any) -> tuple[Backbone, Params, "Pictures"]:
        """A U-Net, or `policy_backbone.path`, at the size that has a patch for each cell.

        Raises:
          ValueError: a path to something else, or a policy without it that f has no network for.
        """
        rows, columns = _grid(f.input[:2], config.removal.grid)
        path = config.policy_backbone.path
        if path:
            found = reader(path, (rows, columns))
            reads = cls(f.input, found.preprocessing)
            return found.config, found.params["backbone"], reads
        if config.policy != "unet":
            raise ValueError(
                f"policy {config.policy!r}: a black box has no backbone to start from; choose "
                "unet, or name one with --config.policy_backbone.path"
            )
        reads, _ = cls.of(f, Removal(grid=(rows, columns)))
        return UNetConfig(reads.looks.image_size, reads.looks.sides[0] // rows), None, reads

    @classmethod
    def candidates(cls, config: Any, f: HostPredictor) -> list[Removal]:
        """The removals that the config leaves to the probe.

        Raises:
          ValueError: another kind, or a number that cannot be.
        """
        given, sides = config.removal, f.input[:2]
        kinds = ("fill", "mean", "blur") if given.kind == "probe" else (given.kind,)
        edges = _EDGES if given.softness < 0 else (given.softness,)
        grid, sigma = _grid(sides, given.grid), given.sigma or default_sigma(sides)
        return [Removal(kind, grid, edge, sigma=sigma) for kind in kinds for edge in edges]

    @property
    def preprocessing(self) -> Preprocessing:
        """The shorter edge becomes a square's side, then the centre is cut out.

        A picture for an f that takes no squares is resized to what it takes.
        """
        height, width = sides = self.input[:2]
        if height != width:
            return Preprocessing("Bit", size=sides)
        return Preprocessing("Bit", size=height, do_center_crop=True, crop_size=sides)

    def config(self, num_classes: int, removal: Removal) -> Config:
        """Sizes."""
        return Config(self.preprocessing.image_size, num_classes, removal.grid)

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
        """A batch of pictures [B, H, W, 3] in 0..255 as inputs of a `predictors.Model`.

        A mask takes the place of the one before: masks of masked inputs do not add up.
        """
        pixels = to_pixels(batch)
        images, background = removal.prepare(pixels)
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
        return model, Masked(images, background, identified(pixels), whole)

    def show(self, inputs: Masked, removal: Removal) -> tuple[jax.Array, ...]:
        """What `ask` needs of inputs: ids [B, 16], masks [B, N] and pixels [B, H, W, C], uint8."""
        masked = removal.mask(inputs[:2], inputs.masks).images
        if self.input[2] == 1:
            masked = (masked * _LUMA).sum(-1, keepdims=True)
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
        return f(lambda: [row.tobytes() for row in ids], masks, lambda rows: pixels[rows])

    def look(self, images: jax.Array) -> jax.Array:
        """f's pictures [B, H, W, 3] in 0..255 as the explaining network reads them."""
        return self.looks.look(images)

    def save(self, _: Any) -> dict[str, Any]:
        """Its `fields`."""
        height, width, channels = self.input
        square = height == width and channels == 3
        size = height if square else list(self.input)
        return {"size": size, "looks": self.looks.to_dict()}

    @classmethod
    def read(cls, values: dict[str, Any], _: Any) -> "Pictures":
        """What `save` returned."""
        size = values["size"]
        sides = (size, size, 3) if isinstance(size, int) else size
        return cls(sides, Preprocessing.from_dict(values["looks"]))


def default_sigma(sides: tuple[int, int]) -> float:
    """Of a blurred picture that says next to nothing: 20 pixels of 224, of the longer side.

    So it grows with the cells; of a strip the shorter side's would leave the picture as it is.
    """
    return max(sides) * 20 / 224


def _grid(sides: tuple[int, int], cells: int = 0) -> tuple[int, int]:
    """So many cells on the longer side, and squares; 0: 16, or as many as have eight pixels."""
    longest = max(sides)
    cells = cells or min(_FINEST, max(2, longest // 8), longest)
    rows, columns = (max(1, round(cells * side / longest)) for side in sides)
    return rows, columns
