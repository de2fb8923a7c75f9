"""A U-Net explainer: for black boxes that share no architecture with the explainer."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from fex_jax.models import sides
from fex_jax.models.vit import Linear

_GROUPS = 8  # of channels that are normalised together


@dataclasses.dataclass(frozen=True)
class UNetConfig:
    """A U-Net whose output grid is the explanation's grid (14x14 in the paper)."""

    image_size: int | tuple[int, int]
    patch_size: int  # pixels per cell of the output grid; the U-Net downsamples to it and beyond
    num_channels: int = 3
    hidden_size: int = 128  # channels of the output
    depth: int = 2  # halvings below the output grid

    def __post_init__(self) -> None:
        if any(side % self.patch_size for side in sides(self.image_size)):
            raise ValueError(
                f"image_size {self.image_size} is not a multiple of patch_size {self.patch_size}"
            )
        if self.hidden_size % _GROUPS:
            raise ValueError(f"hidden_size {self.hidden_size} is not a multiple of {_GROUPS}")

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the output."""
        height, width = sides(self.image_size)
        return height // self.patch_size, width // self.patch_size


class Convolution(nnx.Conv):
    """A convolution of stride 1 with an odd kernel, zeros around, as one product of matrices.

    XLA's own is slow on CPUs, its gradients inside a loop, as training has one, most of all.
    """

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] → [B, H, W, D]."""
        (rows, columns), (height, width) = self.kernel_size, x.shape[1:3]
        x, kernel = x.astype(self.dtype), self.kernel[...].astype(self.dtype)
        x = jnp.pad(x, ((0, 0), (rows // 2,) * 2, (columns // 2,) * 2, (0, 0)))
        shifted = [x[:, i : i + height, j : j + width] for i in range(rows) for j in range(columns)]
        cells = jnp.concatenate(shifted, -1).reshape(-1, kernel[..., 0].size)
        products = cells @ kernel.reshape(-1, self.out_features) + self.bias.astype(self.dtype)
        return products.reshape(-1, height, width, self.out_features)


class _Block(nnx.Module):
    """Two 3x3 convolutions with group normalisation and a residual path."""

    def __init__(self, inputs: int, outputs: int, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.first = Convolution(inputs, outputs, (3, 3), dtype=dtype, rngs=rngs)
        self.second = Convolution(outputs, outputs, (3, 3), dtype=dtype, rngs=rngs)
        self.norm_first = nnx.GroupNorm(outputs, num_groups=_GROUPS, rngs=rngs)
        self.norm_second = nnx.GroupNorm(outputs, num_groups=_GROUPS, rngs=rngs)
        self.skip = Convolution(inputs, outputs, (1, 1), dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        hidden = jax.nn.gelu(self.norm_first(self.first(x)))
        return jax.nn.gelu(self.norm_second(self.second(hidden)) + self.skip(x))


class UNet(nnx.Module):
    """Images [B, H, W, C] → tokens [B, 1 + N, D]: a pooled one, then the output grid's cells.

    A space-to-depth stem goes straight to the output grid's resolution. The detail inside a cell
    is kept in its channels; the down and up path below adds context from the whole image.
    """

    first_feature = 1  # after the pooled one

    def __init__(self, config: UNetConfig, *, dtype: jnp.dtype = jnp.float32, rngs: nnx.Rngs):
        width = config.hidden_size
        self.patch_size, self.depth = config.patch_size, config.depth
        pixels = config.patch_size**2 * config.num_channels
        self.stem = Linear(pixels, width, dtype=dtype, rngs=rngs)
        widths = [width * 2**level for level in range(config.depth + 1)]
        block = {"dtype": dtype, "rngs": rngs}
        self.down = nnx.Dict(
            {
                str(i): _Block(widths[max(i - 1, 0)], widths[i], **block)  # type: ignore[misc]
                for i in range(config.depth + 1)
            }
        )
        self.up = nnx.Dict(
            {
                str(i): _Block(widths[i] + widths[i + 1], widths[i], **block)  # type: ignore[misc]
                for i in range(config.depth)
            }
        )
        self.pool = nnx.Linear(widths[-1], width, dtype=dtype, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        x = self.stem(_space_to_depth(images, self.patch_size))
        levels = [self.down["0"](x)]
        for level in range(1, self.depth + 1):
            smaller = nnx.avg_pool(levels[-1], (2, 2), (2, 2), padding="SAME")
            levels.append(self.down[str(level)](smaller))
        x = levels[-1]
        pooled = self.pool(x.mean((1, 2)))
        for level in reversed(range(self.depth)):
            skip = levels[level]
            larger = jax.image.resize(x, (*skip.shape[:3], x.shape[-1]), "nearest")
            x = self.up[str(level)](jnp.concatenate([skip, larger], -1))
        tokens = x.reshape(x.shape[0], -1, x.shape[-1])
        return jnp.concatenate([pooled[:, None], tokens], 1)


def _space_to_depth(images: jax.Array, size: int) -> jax.Array:
    """[B, H, W, C] → [B, H/size, W/size, size·size·C]."""
    batch, height, width, channels = images.shape
    cells = images.reshape(batch, height // size, size, width // size, size, channels)
    return jnp.moveaxis(cells, 2, 3).reshape(batch, height // size, width // size, -1)
