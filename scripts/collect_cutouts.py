"""Collects photographed objects and backgrounds from Debian packages for cutout_scenes.

    apt install tuxpaint-stamps-default mate-backgrounds
    python scripts/collect_cutouts.py --output=data/cutouts

Without root: `apt download` both and unpack them with `dpkg-deb -x`, then name the folders with
`--stamps` and `--backgrounds`. Drawings are left out: they have few distinct colours. Of pictures
that look alike, also mirrored, one is taken, so that no object is in two splits.
"""

import pathlib
import sys

import numpy as np
from absl import app, flags
from PIL import Image

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from fex_jax import scenes  # noqa: E402

_STAMPS = flags.DEFINE_string("stamps", "/usr/share/tuxpaint/stamps", "Tux Paint's stamps.")
_BACKGROUNDS = flags.DEFINE_string(
    "backgrounds", "/usr/share/backgrounds/mate/nature", "Photographs to set objects in."
)
_OUTPUT = flags.DEFINE_string("output", "data/cutouts", "Folder to write.")
_LEAST_COLOURS = 0.25  # distinct colours an opaque pixel: photographs have more, drawings fewer
_ALIKE = 12.0  # mean difference of two thumbnails of one object, at most; of 255

CLASSES = {
    "bird": ("animals/birds",),
    "mammal": ("animals/mammals", "animals/marsupials"),
    "plant": ("food/fruit", "food/vegetables", "plants/flowers"),
    "vehicle": ("vehicles",),
}


def is_photograph(picture: Image.Image) -> bool:
    """Whether an RGBA picture has transparent pixels and as many colours as photographs have."""
    pixels = np.asarray(picture)
    opaque = pixels[pixels[..., 3] > 127][:, :3].astype(int)
    if not len(opaque) or (pixels[..., 3] > 0).all():
        return False
    return len(np.unique(opaque @ [65536, 256, 1])) > _LEAST_COLOURS * len(opaque)


def thumbnail(picture: Image.Image) -> np.ndarray:
    """The opaque part at 16 by 16 pixels: [16, 16, 4], colours times opacity."""
    small = picture.convert("RGBa").resize((16, 16), box=scenes.opaque_box(picture))
    return np.asarray(small, float)


def main(_: list[str]) -> None:
    stamps, output = pathlib.Path(_STAMPS.value), pathlib.Path(_OUTPUT.value)
    backgrounds = sorted(pathlib.Path(_BACKGROUNDS.value).glob("*.jpg"))
    if not stamps.is_dir() or not backgrounds:
        missing = stamps if not stamps.is_dir() else _BACKGROUNDS.value
        sys.exit(f"error: no pictures in {missing}; see --help for the packages they come in")
    for name, folders in CLASSES.items():
        target = output / "objects" / name
        target.mkdir(parents=True, exist_ok=True)
        taken: list[np.ndarray] = []
        files = (file for folder in folders for file in sorted((stamps / folder).rglob("*.png")))
        for file in files:
            with Image.open(file) as opened:
                picture = opened.convert("RGBA")
            if not is_photograph(picture):
                continue
            small = thumbnail(picture)
            both = small, small[:, ::-1]
            if all(np.abs(one - other).mean() > _ALIKE for one in both for other in taken):
                taken.append(small)
                picture.save(target / f"{file.parent.name}_{file.name}")
        print(f"{name}: {len(taken)} objects")
    (output / "backgrounds").mkdir(exist_ok=True)
    for file in backgrounds:
        with Image.open(file) as picture:
            picture.thumbnail((1536, 1536))
            picture.convert("RGB").save(output / "backgrounds" / file.name, quality=92)
    print(f"{len(backgrounds)} backgrounds; wrote {output}")


if __name__ == "__main__":
    app.run(main)
