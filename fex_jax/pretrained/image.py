"""Image classifiers in Hugging Face directories, of all `families`."""

import dataclasses
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from fex_jax import checks, families, finding, predictors
from fex_jax.families import hub, rules
from fex_jax.models import Params, shapes
from fex_jax.outputs import Output, told
from fex_jax.preprocessing import MAX_SIDE, Preprocessing

_MAX_PATCHES = 2**16  # 256 × 256: attention is quadratic in them
_SIDE = checks.integer(1, MAX_SIDE)
_SIZE = checks.either(_SIDE, checks.several(_SIDE, 2))


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A classifier's parameters with what is needed to feed it and to name its outputs."""

    config: Any  # a `ViTConfig`, or that of another of the `families`
    params: Params = dataclasses.field(repr=False)
    labels: tuple[str, ...]
    preprocessing: Preprocessing
    output: Output = "softmax"  # what answers are, see `predictors.Model`
    # How a network that explains sees what f sees; None: as f does.
    looks: Preprocessing | None = None
    modality: ClassVar[str] = "images"  # of `fex_jax.modalities`
    inside: ClassVar[bool] = True  # methods may look inside
    absence: ClassVar[str] = ""  # why it cannot be asked

    def __post_init__(self) -> None:
        if len(self.labels) != self.config.num_classes:
            raise ValueError(f"{len(self.labels)} labels for {self.config.num_classes} classes")
        if self.preprocessing.image_size != self.config.image_size:
            raise ValueError(
                f"preprocessing gives {self.preprocessing.image_size} px images, but the model "
                f"takes {self.config.image_size} px; use preprocessing.with_image_size"
            )

    @property
    def identity(self) -> tuple:
        """Everything that its answers and explanations depend on."""
        looks = () if self.looks is None else (repr(self.looks),)
        read = repr(self.preprocessing), *looks
        return self.params, repr(self.config), self.labels, *read, *told(self.output)

    def model(
        self, params: Params, pixels: jax.Array, fill: float, _: str, dtype: jnp.dtype
    ) -> tuple[predictors.Model, jax.Array]:
        """See `predictors.from_checkpoint`; pixels [B, H, W, C] are uint8 or in [0, 255]."""
        found = predictors.image(self.config, params, fill, dtype, self.output)
        if self.looks is not None:
            found = dataclasses.replace(found, view=self.look)
        return found, self.preprocessing.normalize(pixels)

    def read_as(self, looks: Preprocessing | None) -> "Checkpoint":
        """The same, explained by a network that sees images so."""
        return dataclasses.replace(self, looks=looks)

    def look(self, images: jax.Array) -> jax.Array:
        """f's normalised images [B, H, W, 3] as a network that explains reads them."""
        return self.looks.look(255 * self.preprocessing.denormalize(images))

    def save(self, directory: str | Path) -> None:
        """Writes a directory that transformers opens; it is made if not there."""
        save(directory, self)


def load(
    directory: Path,
    hf_config: dict[str, Any],
    image_size: int | tuple[int, int] | None = None,
    num_classes: int | None = None,
) -> Checkpoint:
    """Loads a directory whose config.json holds `hf_config`; see `pretrained.load`."""
    family = families.of(hf_config["model_type"])
    tensors = _normalize_keys(hub.read_tensors(directory), hf_config["model_type"])
    kernels = (tensors.get(f"{name}.weight") for name in family.HEAD.split("|"))
    kernel = next((found for found in kernels if found is not None), None)
    fresh_head, num_classes = hub.choose_head(kernel, num_classes, hf_config, directory)
    head_says = {} if fresh_head else hf_config
    labels = hub.read_labels(head_says, num_classes)
    stored = family.read_config(hf_config, num_classes, directory)
    preprocessing = _read_preprocessing(directory, stored, image_size)
    config = dataclasses.replace(stored, image_size=preprocessing.image_size)
    if config.grid[0] * config.grid[1] > _MAX_PATCHES:
        raise ValueError(
            f"{directory}: images of {config.image_size} px in patches of {config.patch_size} are "
            f"{config.grid[0] * config.grid[1]:,} patches; at most {_MAX_PATCHES:,} are supported"
        )
    family.check(tensors, stored, directory)
    if fresh_head:
        tensors |= rules.fresh_head(stored, family)

    template = shapes(type(stored).classifier, stored)
    ignored = family.ignored(stored)
    params = rules.from_hf(tensors, template, family.rules(stored), stored, ignored, directory)
    if hasattr(family, "resized"):
        params = family.resized(params, stored, config)
    return Checkpoint(
        config=config,
        params=jax.tree.map(jnp.asarray, params),
        labels=labels,
        preprocessing=preprocessing,
        output=hub.read_output(head_says, num_classes),
    )


def reader(path: str, grid: tuple[int, int]) -> Checkpoint:
    """The network of `policy_backbone.path`, at the size that has a patch for each cell of a grid.

    It explains another classifier of images; its own head is of no use.

    Raises:
      ValueError: the path is of texts.
    """
    directory = finding.classifier(path)
    said = hub.read_config(directory)
    if said["model_type"] not in families.IMAGES:
        raise ValueError(f"policy_backbone.path: {path} reads texts; f's inputs are images")
    found = load(directory, said, num_classes=2)
    if found.config.grid == grid:
        return found
    has_cells = said["model_type"] in families.GRIDS
    side = families.LARGEST_CELL if has_cells else found.config.patch_size
    rows, columns = (cells * side for cells in grid)
    return load(directory, said, rows if rows == columns else (rows, columns), num_classes=2)


def save(directory: str | Path, checkpoint: Checkpoint) -> None:
    """Writes config.json, model.safetensors and preprocessor_config.json, made if not there."""
    config = checkpoint.config
    tensors = rules.to_hf(checkpoint.params, families.of(config.family).rules(config), config)
    # Batch normalisations of torch count, too.
    for name in [name for name in tensors if name.endswith("running_mean")]:
        tensors[name.replace("running_mean", "num_batches_tracked")] = np.zeros((), np.int64)
    directory = hub.write(directory, checkpoint, tensors)
    hub.write_json(directory / "preprocessor_config.json", checkpoint.preprocessing.to_dict())


def _normalize_keys(tensors: dict[str, np.ndarray], family: str) -> dict[str, np.ndarray]:
    """Adds the prefix that bare backbones (`ViTModel`) leave out."""
    if any(key.startswith(f"{family}.") for key in tensors):
        return tensors
    return {k if k.startswith("classifier.") else f"{family}.{k}": v for k, v in tensors.items()}


def _read_preprocessing(
    directory: Path, config: Any, image_size: int | tuple[int, int] | None
) -> Preprocessing:
    """What the directory says, for images of another side if `image_size` is given."""
    path = checks.file_inside(directory, "preprocessor_config.json")
    if not path.exists():
        raise ValueError(
            f"{directory} has no preprocessor_config.json, so the model's input size and "
            "normalisation are unknown; save the image processor there with "
            "save_pretrained(directory)"
        )
    values = checks.read_json(path)
    found = Preprocessing.from_dict(values, families.of(config.family).PROCESSORS[config.family])
    if image_size is not None:
        checks.require({"image_size": image_size}, {"image_size": _SIZE}, "pretrained.load")
        return found.with_image_size(image_size)
    deciding = "crop_size" if found.do_center_crop else "size"
    default = values.get(deciding) is None and found.image_size != config.image_size
    if default and config.family in ("vit", "deit"):  # transformers feeds the others any side
        raise ValueError(
            f"{path} has no {deciding}: {found.processor}ImageProcessor's own is "
            f"{found.image_size} px, but the model takes {config.image_size}; add {deciding}, or "
            "pass image_size"
        )
    return found
