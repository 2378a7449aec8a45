"""e4e: an encoder that finds the latents W+ of StyleGAN2 for a photograph of a face.

Encoder4Editing (arXiv 2102.02766); the reference is `Encoder4Editing` of omertov/encoder4editing,
models/encoders/ psp_encoders.py, at its last stage of training. The trunk is ArcFace's IR-SE50,
under the same names.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from swin_jax.core.errors import UserError
from swin_jax.core.ranges import PositiveInt, checked
from swin_jax.models.arcface.model import (
    IR_SE50,
    Blocks,
    check_blocks,
    check_image,
    run_trunk,
    stage_ends,
    trunk,
)
from swin_jax.models.layers import init_conv
from swin_jax.models.stylegan2.layers import FullyConnected
from swin_jax.ops.resampling import align_corners, resample

COARSE, MIDDLE = 3, 7  # the first heads of the middle and of the fine map


class StyleHead(nn.Module):
    """Halves a square map down to one place: (B, 2**num_convs, 2**num_convs, C) to (B,
    w_dim) float32.
    """

    width: int
    w_dim: int
    num_convs: int
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    def setup(self):
        types = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        convs = []
        for i in range(self.num_convs):
            init = init_conv(9 * (self.width if i == 0 else self.w_dim))
            settings = dict(
                strides=(2, 2), padding=((1, 1), (1, 1)), kernel_init=init, bias_init=init, **types
            )
            # PyTorch's names count the activations that stand between the convolutions.
            convs += [nn.Conv(self.w_dim, (3, 3), **settings), None]
        self.convs = convs
        self.linear = FullyConnected(self.w_dim)

    def __call__(self, x: jax.Array) -> jax.Array:
        for conv in self.convs[::2]:
            x = nn.leaky_relu(conv(x), 0.01)
        return self.linear(x[:, 0, 0])


@checked
class E4E(nn.Module):
    """Inverts aligned faces: (B, H, W, 3) to W+ latents (B, num_ws, w_dim).

    Running statistics are in the collection 'batch_stats', and the mean latent, to which the
    network adds, is 'averages' / 'latent_avg' (num_ws, w_dim). With `mutable=['intermediates']` the
    three maps 'c1', 'c2', 'c3' of the trunk, the sums 'p2' and 'p1' and the offsets of all heads,
    'styles' (B, num_ws, w_dim), are kept in `intermediates['outputs']`.

    Attributes:
        num_ws: Number of latents: 2 log2(resolution) - 2 for a generator of that resolution,
            18 for 1024.
        image_size: Height and width in pixels, a power of two, at least 2 to the number of stages;
            256 in all released encoders.
        blocks: Stages of the trunk, see `models.arcface.IRSE`; the last three are read.
        w_dim: Size of a latent.
        dtype, param_dtype: Types of the activations and of the parameters; statistics are float32.
    """

    num_ws: PositiveInt = 18
    image_size: PositiveInt = 256
    blocks: Blocks = IR_SE50
    w_dim: PositiveInt = 512
    dtype: str = "float32"
    param_dtype: str = "float32"

    def setup(self):
        self._check()
        types = dict(dtype=jnp.dtype(self.dtype), param_dtype=jnp.dtype(self.param_dtype))
        self.input_layer, self.body = trunk(self.blocks, types)
        fine, middle, coarse = (after for _, after, _ in self.blocks[-3:])
        self.latlayer1 = self._lateral(middle, coarse, types)
        self.latlayer2 = self._lateral(fine, coarse, types)
        self.styles = [StyleHead(coarse, self.w_dim, convs, **types) for convs in self.head_convs]
        shape = self.num_ws, self.w_dim
        self.latent_avg = self.variable("averages", "latent_avg", jnp.zeros, shape)

    @property
    def head_convs(self) -> tuple[int, ...]:
        """Number of convolutions of each head, each of which halves the map that it reads."""
        coarse = (self.image_size >> len(self.blocks)).bit_length() - 1
        return tuple(coarse + (i >= COARSE) + (i >= MIDDLE) for i in range(self.num_ws))

    @staticmethod
    def _lateral(before: int, after: int, types: dict) -> nn.Conv:
        init = init_conv(before)
        return nn.Conv(after, (1, 1), kernel_init=init, bias_init=init, **types)

    def __call__(self, image: jax.Array, train: bool = False) -> jax.Array:
        """Inverts faces.

        Args:
            image: (B, image_size, image_size, 3), floating point in -1..1, RGB, aligned as FFHQ.
            train: True uses the statistics of the batch and moves the running ones.

        Returns:
            (B, num_ws, w_dim) float32: W+ latents of the generator that the
            encoder was trained with.

        Raises:
            UserError: Integer images, or images of another size.
        """
        check_image(image, self.image_size)
        outputs = run_trunk(
            self.input_layer, self.body, image.astype(jnp.dtype(self.dtype)), not train
        )
        c1, c2, c3 = (outputs[name] for name in stage_ends(self.blocks)[-3:])
        p2 = _enlarged(c3) + self.latlayer1(c2)
        p1 = _enlarged(p2) + self.latlayer2(c1)
        maps = [c3] * COARSE + [p2] * (MIDDLE - COARSE) + [p1] * self.num_ws
        styles = jnp.stack([head(x) for head, x in zip(self.styles, maps)], axis=1)
        outputs = dict(c1=c1, c2=c2, c3=c3, p2=p2, p1=p1, styles=styles)
        self.sow(
            "intermediates", "outputs", outputs, reduce_fn=lambda _, new: new, init_fn=lambda: None
        )
        # The first head finds one latent for all rows, the others what each row differs by.
        latents = jnp.concatenate([styles[:, :1], styles[:, 1:] + styles[:, :1]], axis=1)
        return latents + self.latent_avg.value[None]

    def _check(self) -> None:
        """Raises UserError where fields contradict each other."""
        check_blocks(self.blocks)
        if len(self.blocks) < 3:
            raise UserError(f"blocks={self.blocks}: the heads read the maps of three stages")
        size = self.image_size
        if size & (size - 1) or size < 2 ** len(self.blocks):
            raise UserError(
                f"image_size={size} must be a power of two, at least {2 ** len(self.blocks)}"
            )


def _enlarged(x: jax.Array) -> jax.Array:
    """Twice the height and width, linearly, with the corners where they were."""
    height, width = x.shape[1:3]
    return resample(x, align_corners(height, 2 * height), align_corners(width, 2 * width)).astype(
        x.dtype
    )
