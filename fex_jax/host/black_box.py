"""A host predictor of images as a predictor like any other: trained for, explained, scored.

Every query leaves JAX through one function, `BlackBox.ask`: pictures by id, masks, and what the
masked pictures look like. A bank in the place of f keeps the answers.
"""

import contextlib
import dataclasses
import json
import pathlib
import uuid
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np

from fex_jax import checks
from fex_jax.host.answers import HostError, Output
from fex_jax.host.bank import Bank, identify
from fex_jax.host.model import callback, plain_errors, to_pixels
from fex_jax.host.predictor import HostPredictor
from fex_jax.models import Params
from fex_jax.predictors import Model
from fex_jax.preprocessing import MAX_SIDE, Preprocessing
from fex_jax.removal import Probe, Removal

ANSWERS = "answers.bank"  # in a run's folder
_FILE = "black_box.json"
_FINEST = 16  # cells a side that a picture has by default
_ID = 16  # bytes
_SIDE = checks.integer(1, MAX_SIDE)
_FIELDS = {
    "name": checks.text(),
    "digest": checks.text(),
    "labels": checks.several(checks.text()),
    "output": checks.one_of(*get_args(Output)),
    "size": _SIDE,
    "looks": checks.mapping(),
}
_REMOVAL = {
    "kind": checks.one_of("fill", "mean", "blur"),
    "grid": checks.several(_SIDE, 2),
    "softness": checks.number(0, 100),
    "fill": checks.either(
        checks.number(-1e6, 1e6), checks.several(checks.number(-1e6, 1e6), 3), checks.nothing()
    ),
    "sigma": checks.number(1e-6, 1e6),
}


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
class BlackBox:
    """f as the package takes a predictor; `of` makes one.

    Attributes:
      name, digest, labels, output: those of the host predictor.
      size: side of f's pictures, in pixels.
      removal: what becomes of a removed cell.
      looks: how a network that explains sees the picture that f sees: its size and normalisation.
      f: what answers; None: it is not at hand, and only what needs no query works.
      probe: what survives the removal, where it is known.
    """

    name: str
    digest: str
    labels: tuple[str, ...]
    output: Output
    size: int
    removal: Removal
    looks: Preprocessing
    # No parts of its identity.
    f: HostPredictor | Bank | None = dataclasses.field(default=None, compare=False, repr=False)
    probe: Probe | None = dataclasses.field(default=None, compare=False, repr=False)
    modality: ClassVar[str] = "images"
    params: ClassVar[Params] = {}

    @property
    def config(self) -> Config:
        """Sizes."""
        return Config(self.size, len(self.labels), self.removal.grid)

    @property
    def preprocessing(self) -> Preprocessing:
        """The shorter edge becomes f's side, then the centre is cut out."""
        side = (self.size, self.size)
        return Preprocessing("Bit", size=self.size, do_center_crop=True, crop_size=side)

    def asking(self, f: HostPredictor | Bank) -> "BlackBox":
        """The same box with f at hand.

        Raises:
          ValueError: another f than the one that was explained.
        """
        given = f.predictor if isinstance(f, Bank) else f
        other = of(given, self.removal)
        for field in ("labels", "output", "size"):
            mine, theirs = getattr(self, field), getattr(other, field)
            if mine != theirs:
                raise ValueError(
                    f"{given.name} has the {field} {_brief(theirs)}, but {self.name}, which is "
                    f"explained, {_brief(mine)}"
                )
        if given.digest and given.digest != self.digest:
            raise ValueError(
                f"{given.name} has the digest {given.digest!r}, but {self.name}, which is "
                f"explained, {self.digest!r}: give host that digest if they answer alike"
            )
        return dataclasses.replace(self, f=f)

    def ask(self, ids: np.ndarray, masks: np.ndarray, pixels: np.ndarray) -> np.ndarray:
        """f's answers [B, K] to masks [B, N] of pictures by id [B, 16], uint8 [B, S, S, 3] masked.

        Raises:
          HostError: f is not at hand, or has failed.
        """
        if self.f is None:
            raise HostError(self.absence)
        if isinstance(self.f, Bank):
            return self.f.ask([row.tobytes() for row in ids], masks, lambda rows: pixels[rows])
        return self.f(pixels)

    @property
    def absence(self) -> str:
        """What is said where f is needed and not at hand."""
        return (
            f"this takes queries, and {self.name} is not at hand: open the explainer with "
            "fex_jax.load(run, predictor=f)"
        )

    def bind(self, _: Params, batch: jax.Array) -> tuple[Model, Masked]:
        """A batch of pictures [B, S, S, 3] in 0..255 as inputs of a `predictors.Model`.

        A mask takes the place of the one before: masks of masked inputs do not add up.
        """
        pixels = to_pixels(batch)
        images, background = self.removal.prepare(pixels)
        shape = jax.ShapeDtypeStruct((len(batch), _ID), np.uint8)
        ids = jax.pure_callback(_identify, shape, pixels, vmap_method="sequential")
        rows, columns = self.removal.grid
        whole = jnp.ones((len(batch), rows * columns), bool)

        def predict(inputs: Masked) -> jax.Array:
            if self.f is None:
                raise HostError(self.absence)
            masked = self.removal.mask(inputs[:2], inputs.masks).images
            asked = inputs.ids, inputs.masks, to_pixels(masked)
            return callback(self.ask, len(self.labels), *asked)

        model = Model(
            predict=predict,
            mask=lambda inputs, masks: inputs._replace(
                masks=masks.astype(bool).reshape(-1, rows * columns)
            ),
            grid=self.removal.grid,
            output=self.output,
            view=lambda inputs: self.look(inputs.images),
            pool=lambda values, _: self.removal.pool(values),
        )
        return model, Masked(images, background, ids, whole)

    def look(self, images: jax.Array) -> jax.Array:
        """f's pictures [B, S, S, 3] in 0..255 as the explaining network reads them."""
        side = self.looks.image_size
        if side != self.size:
            images = jax.image.resize(images, (len(images), side, side, 3), "bilinear")
        return self.looks.normalize(images)

    def save(self, directory: pathlib.Path) -> None:
        """Writes what is known of f, and removal.json; f itself stays where it is."""
        directory.mkdir(parents=True, exist_ok=True)
        values = {name: getattr(self, name) for name in _FIELDS} | {"looks": self.looks.to_dict()}
        removal = dataclasses.asdict(self.removal)
        if self.probe:
            removal["probe"] = dataclasses.asdict(self.probe)
        for file, content in ((_FILE, values), ("removal.json", removal)):
            (directory / file).write_text(json.dumps(content, indent=2) + "\n")


def of(
    f: HostPredictor, removal: Removal | None = None, looks: Preprocessing | None = None
) -> BlackBox:
    """The box of a host predictor of square colour pictures.

    Args:
      f: what is to be explained.
      removal: what becomes of removed cells; None: what most networks stand, a blurred picture
        under soft edges, on the grid of `default_grid`.
      looks: what an explaining network reads; None: f's picture in [-1, 1].

    Raises:
      ValueError: a predictor of something else.
    """
    if f.input == "text" or len(f.input) != 3 or f.input[0] != f.input[1] or f.input[2] != 3:
        what = "texts" if f.input == "text" else f"arrays {list(f.input)}"
        raise ValueError(
            f"{f.name} takes {what}; explained are predictors of square colour pictures, "
            "input=(side, side, 3)"
        )
    side = f.input[0]
    removal = removal or Removal("blur", default_grid(side), 0.5, sigma=default_sigma(side))
    if looks is None:
        cell = max(1, round(side / removal.grid[0]))  # a U-Net's cells are whole pixels
        looks = Preprocessing(size=(cell * removal.grid[0],) * 2)
    digest = f.digest or f"unnamed {uuid.uuid4().hex}"  # never taken for another
    return BlackBox(f.name, digest, f.labels, f.output, side, removal, looks, f)


def default_grid(side: int) -> tuple[int, int]:
    """16 × 16 cells, or as many as have eight pixels a side."""
    return (min(_FINEST, max(2, side // 8)),) * 2


@contextlib.contextmanager
def recorded(
    explainers: Sequence[Any], f: HostPredictor, workdir: pathlib.Path, queries: int | None = None
) -> Iterator[list[Any]]:
    """The `explain.Explainer`s of one black box with f at hand; a run's bank keeps what it says.

    `queries` are the answers that the bank may hold in the end; None: any number.
    """
    removal = explainers[0].predictor.removal
    where = {"removal": str(removal), "grid": removal.grid}
    with Bank(workdir / ANSWERS, f, queries=queries, sync=False, **where) as bank, plain_errors():
        yield [explainer.asking(bank) for explainer in explainers]


def default_sigma(side: int) -> float:
    """Of a blurred picture that says next to nothing: 20 pixels of 224."""
    return side * 20 / 224


def is_saved(directory: pathlib.Path) -> bool:
    """Whether a folder holds a black box's description."""
    return (directory / _FILE).is_file()


def read(directory: pathlib.Path) -> BlackBox:
    """What `save` wrote, without f.

    Raises:
      ValueError: names what is missing or wrong.
    """
    box, removal = (
        _read(checks.file_inside(directory, file), fields)
        for file, fields in ((_FILE, _FIELDS), ("removal.json", _REMOVAL))
    )
    looks = Preprocessing.from_dict(box["looks"])
    return BlackBox(**box | {"looks": looks, "removal": Removal(**removal)})


def _read(path: pathlib.Path, wanted: dict[str, checks.Check]) -> dict[str, Any]:
    """The fields of a JSON file, lists as tuples."""
    values = checks.read_json(path)
    for name in wanted:
        if name not in values:
            raise ValueError(f"{path}: {name} is missing")
    checks.require(values, wanted, path)
    return {n: tuple(values[n]) if type(values[n]) is list else values[n] for n in wanted}


def _identify(pixels: Any) -> np.ndarray:
    ids = b"".join(identify(np.asarray(pixels)))
    return np.frombuffer(ids, np.uint8).reshape(-1, _ID)


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
