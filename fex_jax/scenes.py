"""Cluttered scenes with exact object masks, drawn from small pictures of single objects.

A scene holds one or two objects of different classes at random places and sizes, on a noisy or a
photographed background, among fragments torn from other objects. Every scene is a function of
(seed, split, index): nothing is stored, and the same three numbers always give the same picture.
"""

import dataclasses
import functools
import gzip
import pathlib
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

SPLITS = {"train": (0.0, 0.7), "validation": (0.7, 0.8), "test": (0.8, 1.0)}
_DEBIAN_FASHION_MNIST = pathlib.Path("/usr/share/datasets/fashion-mnist")
_FASHION_LABELS = (
    "T-shirt", "trouser", "pullover", "dress", "coat",
    "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip


class Objects(NamedTuple):
    """Pictures of single objects."""

    images: np.ndarray  # [n, h, w] opacity in [0, 1], yet to be coloured; or those of `cutouts`
    classes: np.ndarray  # [n] int
    names: tuple[str, ...]  # one per class
    backgrounds: tuple[np.ndarray, ...] = ()  # photographs [h, w, 3] in [0, 1]; none: grain


class Scene(NamedTuple):
    """One drawn scene."""

    image: np.ndarray  # [S, S, 3] uint8
    label: int  # class of the larger object
    segmentation: np.ndarray  # [S, S] uint8: 0 = background, 1 + class on an object


def digits() -> Objects:
    """The 1,797 handwritten digits bundled with scikit-learn, 8x8 pixels each."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return Objects((bunch.images / 16.0).astype(np.float32), bunch.target, tuple("0123456789"))


def fashion_mnist(directory: str | pathlib.Path | None = None) -> Objects:
    """Fashion-MNIST's 70,000 garments from IDX files in `directory`.

    Without a directory, from Debian's package dataset-fashion-mnist, or else from TFDS.
    """
    if not directory and _DEBIAN_FASHION_MNIST.is_dir():
        directory = _DEBIAN_FASHION_MNIST
    if directory:
        images, classes = [], []
        for part in ("train", "t10k"):
            images.append(_read_idx(pathlib.Path(directory) / f"{part}-images-idx3-ubyte.gz"))
            classes.append(_read_idx(pathlib.Path(directory) / f"{part}-labels-idx1-ubyte.gz"))
    else:
        import tensorflow_datasets as tfds

        try:
            parts = tfds.load("fashion_mnist", split=["train", "test"], batch_size=-1)
        except Exception as error:
            raise ValueError(
                f"TFDS could not prepare 'fashion_mnist': {error}\nInstall Debian's package "
                "dataset-fashion-mnist, or name the folder of its four files with "
                "--config.data.path"
            ) from error
        images = [np.asarray(part["image"])[..., 0] for part in parts]
        classes = [np.asarray(part["label"]) for part in parts]
    return Objects(
        np.concatenate(images).astype(np.float32) / 255.0, np.concatenate(classes), _FASHION_LABELS
    )


def _read_idx(path: pathlib.Path) -> np.ndarray:
    """One IDX file: two zero bytes, a type byte (8 = uint8), a rank byte, big-endian sizes."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: expected the four Fashion-MNIST IDX files")
    data = gzip.decompress(path.read_bytes())
    rank = data[3]
    if data[:3] != b"\0\0\x08":
        raise ValueError(f"{path} is not an IDX file of bytes")
    shape = np.frombuffer(data, ">i4", rank, offset=4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * rank).reshape(shape)


def cutouts(directory: str | pathlib.Path, image_size: int) -> Objects:
    """Photographed objects with transparency, and photographs to set them in, for one scene size.

    `<directory>/objects/<class>/*.png` and `<directory>/backgrounds/*`, which
    `scripts/collect_cutouts.py` makes of two Debian packages. Objects are cut to their opaque
    part and scaled to fit a square: [n, S, S, 4] red, green and blue times opacity, opacity.

    Raises:
      ValueError: a folder without classes, objects or backgrounds, or an object without
        transparency.
    """
    root = pathlib.Path(directory)
    files = sorted(root.glob("objects/*/*.png"))
    backgrounds = sorted(p for p in root.glob("backgrounds/*") if p.suffix in (".jpg", ".png"))
    names = tuple(sorted({file.parent.name for file in files}))
    if len(names) < 2 or min(len(files), len(backgrounds)) < 10:
        raise ValueError(
            f"{root} holds {len(files)} objects of {len(names)} classes and {len(backgrounds)} "
            "backgrounds; expected at least ten objects/<class>/*.png of two classes, and ten "
            "pictures backgrounds/*.jpg, to have some of each in every split"
        )
    return Objects(
        np.stack([_cutout(file, image_size) for file in files]),
        np.array([names.index(file.parent.name) for file in files]),
        names,
        tuple(_photograph(file, 3 * image_size) for file in backgrounds),
    )


def opaque_box(picture: Image.Image) -> tuple[int, int, int, int] | None:
    """Left, top, right and bottom of what is opaque in an RGBA picture; None: nothing."""
    return picture.getchannel("A").point(lambda a: 255 * (a > 127)).getbbox()


def _cutout(file: pathlib.Path, side: int) -> np.ndarray:
    with Image.open(file) as opened:
        picture = opened.convert("RGBA")
    box = opaque_box(picture)
    if box is None or np.asarray(picture.getchannel("A")).min() > 0:
        raise ValueError(f"{file} is not a cut-out: it has no transparent or no opaque pixels")
    fitted = ImageOps.pad(picture.crop(box).convert("RGBa"), (side, side), color=(0, 0, 0, 0))
    return np.asarray(fitted, np.float32) / 255


def _photograph(file: pathlib.Path, side: int) -> np.ndarray:
    """A picture whose shorter side is `side`."""
    with Image.open(file) as picture:
        picture = picture.convert("RGB")
        scale = side / min(picture.size)
        size = tuple(round(scale * length) for length in picture.size)
        return np.asarray(picture.resize(size, Image.Resampling.LANCZOS), np.float32) / 255


def split_objects(objects: Objects, split: str, seed: int = 0) -> Objects:
    """The objects of one split; every source picture belongs to exactly one split."""
    if split not in SPLITS:
        raise ValueError(f"split {split!r} is unknown; choose one of {', '.join(SPLITS)}")

    def chosen(count: int) -> np.ndarray:
        low, high = (round(edge * count) for edge in SPLITS[split])
        return np.random.default_rng(seed).permutation(count)[low:high]

    kept = chosen(len(objects.classes))
    return objects._replace(
        images=objects.images[kept],
        classes=objects.classes[kept],
        backgrounds=tuple(objects.backgrounds[i] for i in chosen(len(objects.backgrounds))),
    )


@dataclasses.dataclass(frozen=True)
class Layout:
    """What a scene looks like; lengths in pixels, ranges without their upper end."""

    image_size: int = 64
    pair_fraction: float = 0.5  # scenes with two objects
    large: tuple[int, int] = (28, 39)  # side of the larger object
    small: tuple[int, int] = (20, 26)  # side of the smaller one
    fragments: tuple[int, int] = (4, 9)  # on 64 x 64 pixels; larger canvases get more
    noise: float = 0.05  # standard deviation of a background of grain, 1 = white

    def __post_init__(self) -> None:
        if self.large[1] + self.small[1] - 2 > self.image_size:
            raise ValueError(
                f"objects of up to {self.large[1] - 1} and {self.small[1] - 1} pixels do not fit "
                f"side by side into {self.image_size}"
            )


def draw(objects: Objects, layout: Layout, seed: int, index: int) -> Scene:
    """Scene number `index` of the endless sequence that `seed` names.

    It is drawn channels first, [3, S, S]: NumPy's inner loops are then rows, not three numbers.
    """
    rng = np.random.default_rng((seed, index))
    size = layout.image_size
    if objects.backgrounds:
        canvas = _crop(objects.backgrounds, size, rng)
    else:
        grain = rng.standard_normal((size, size), np.float32) * np.float32(layout.noise)
        canvas = grain + _colour(rng, 0.05, 0.3)
    segmentation = np.zeros((size, size), np.uint8)
    free = np.ones((size, size), np.float32)  # 0 where an object's square is

    chosen = _choose(objects.classes, rng, pair=rng.random() < layout.pair_fraction)
    sides = [int(rng.integers(*layout.large)), int(rng.integers(*layout.small))][: len(chosen)]
    for source, side, corner in zip(chosen, sides, _corners(size, sides, rng), strict=True):
        region = _square(corner, side)
        picture = _resize(objects.images[source], side)
        _paint(canvas[:, *region], picture, rng)
        opacity = picture if picture.ndim == 2 else picture[3]
        segmentation[region][opacity > 0.3] = 1 + objects.classes[source]
        free[region] = 0

    for _ in range(round(rng.integers(*layout.fragments) * (size / 64) ** 2)):
        fragment = _fragment(objects.images[rng.integers(len(objects.images))], layout, rng)
        side = fragment.shape[-1]
        region = _square(_corner(size - side, rng), side)
        # A fragment never covers an object: its mask stays exact.
        _paint(canvas[:, *region], fragment * free[region], rng)

    image = np.empty((size, size, 3), np.uint8)
    image.transpose(2, 0, 1)[...] = np.rint(np.minimum(np.maximum(canvas, 0), 1) * 255)
    return Scene(image, int(objects.classes[chosen[0]]), segmentation)


def _choose(classes: np.ndarray, rng: np.random.Generator, pair: bool) -> list[int]:
    """One source object, or two of different classes."""
    first = int(rng.integers(len(classes)))
    if not pair:
        return [first]
    others = np.flatnonzero(classes != classes[first])
    return [first, int(rng.choice(others))]


def _crop(backgrounds: tuple[np.ndarray, ...], size: int, rng: np.random.Generator) -> np.ndarray:
    """A random square [3, S, S] of a random photograph, at its scale or half, mirrored or not."""
    photograph = backgrounds[rng.integers(len(backgrounds))]
    step = int(rng.integers(1, 3))
    photograph = photograph[::step, ::step]
    top, left = (rng.integers(0, length - size + 1) for length in photograph.shape[:2])
    square = photograph[top : top + size, left : left + size]
    return square[:, :: 1 - 2 * int(rng.integers(2))].transpose(2, 0, 1).copy()


def _resize(
    picture: np.ndarray, side: int, part: tuple[slice, ...] = (slice(None), slice(None))
) -> np.ndarray:
    """A picture [h, w] or [h, w, 4] at another size, or a part of it: [side, side], [4, …]."""
    if picture.ndim == 3:
        return np.stack([_resize(picture[..., channel], side, part) for channel in range(4)])
    rows, columns = (_interpolation(length, side) for length in picture.shape)
    return np.minimum(np.maximum((rows @ picture @ columns.T)[part], 0), 1)


@functools.cache
def _interpolation(length: int, side: int) -> np.ndarray:
    """Bicubic interpolation as a matrix [side, length]: a resized identity."""
    identity = Image.fromarray(np.eye(length, dtype=np.float32))
    return np.asarray(identity.resize((length, side), Image.Resampling.BICUBIC))


def _corner(most: int, rng: np.random.Generator) -> tuple[int, int]:
    """Two random numbers from 0 to `most`; one after the other is faster than an array of two."""
    return int(rng.integers(most + 1)), int(rng.integers(most + 1))


def _corners(size: int, sides: list[int], rng: np.random.Generator) -> list[tuple[int, int]]:
    """Random top left corners of squares that do not overlap: drawn until they fit."""
    while True:
        corners = [_corner(size - side, rng) for side in sides]
        if len(sides) == 1:
            return corners
        (a, b), (first, second) = corners, sides
        if any(p + first <= q or q + second <= p for p, q in zip(a, b, strict=True)):
            return corners


def _square(corner: tuple[int, int], side: int) -> tuple[slice, slice]:
    top, left = corner
    return slice(top, top + side), slice(left, left + side)


def _fragment(picture: np.ndarray, layout: Layout, rng: np.random.Generator) -> np.ndarray:
    """A piece of an object, about a third of its side: too little to tell its class."""
    side = int(rng.integers(layout.small[0], layout.large[1]))
    part = round(0.36 * side)
    return _resize(picture, side, _square(_corner(side - part, rng), part))


def _colour(rng: np.random.Generator, low: float, high: float) -> np.ndarray:
    """[3, 1, 1]"""
    return rng.uniform(low, high, (3, 1, 1)).astype(np.float32)


def _paint(region: np.ndarray, picture: np.ndarray, rng: np.random.Generator) -> None:
    """Blends a picture into `region`, in place; opacity alone gets a bright random colour."""
    if picture.ndim == 3:
        region += picture[:3] - picture[3] * region
    else:
        region += picture * (_colour(rng, 0.45, 1.0) - region)
