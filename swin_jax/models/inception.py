"""The Inception-v3 that FID and KID are defined with:
the graph of TensorFlow's file of 2015, features only.

Szegedy et al., arXiv 1512.00567; the reference is pytorch_fid/inception.py of mseitzer/pytorch-fid,
whose names the modules have. It differs from torchvision's: means do not count padding, and the
last block takes a maximum in place of a mean.
"""

from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from swin_jax.core.errors import UserError
from swin_jax.core.ranges import PositiveInt, checked
from swin_jax.models.layers import BatchNorm, init_conv
from swin_jax.ops.resampling import half_pixels, resample

# A convolution is (name, features, kernel, stride, padded), a branch a sequence of them after a
# pool or none; a tuple of convolutions in a branch reads the same maps.
Convolution = tuple[str, int, tuple[int, int], int, bool]


def _conv(
    name: str, features: int, height: int = 1, width: int = 0, stride: int = 1, padded: bool = True
):
    return name, features, (height, width or height), stride, padded


STEM = (
    _conv("Conv2d_1a_3x3", 32, 3, stride=2, padded=False),
    _conv("Conv2d_2a_3x3", 32, 3, padded=False),
    _conv("Conv2d_2b_3x3", 64, 3),
    "max down",
    _conv("Conv2d_3b_1x1", 80),
    _conv("Conv2d_4a_3x3", 192, 3, padded=False),
    "max down",
)


def _block_a(pool: int):
    deep = (
        _conv("branch3x3dbl_1", 64),
        _conv("branch3x3dbl_2", 96, 3),
        _conv("branch3x3dbl_3", 96, 3),
    )
    return (
        (_conv("branch1x1", 64),),
        (_conv("branch5x5_1", 48), _conv("branch5x5_2", 64, 5)),
        deep,
        ("mean", _conv("branch_pool", pool)),
    )


def _block_b():
    last = _conv("branch3x3dbl_3", 96, 3, stride=2, padded=False)
    return (
        (_conv("branch3x3", 384, 3, stride=2, padded=False),),
        (_conv("branch3x3dbl_1", 64), _conv("branch3x3dbl_2", 96, 3), last),
        ("max down",),
    )


def _block_c(inside: int):
    deep = [_conv("branch7x7dbl_1", inside), _conv("branch7x7dbl_2", inside, 7, 1)]
    deep += [_conv("branch7x7dbl_3", inside, 1, 7), _conv("branch7x7dbl_4", inside, 7, 1)]
    return (
        (_conv("branch1x1", 192),),
        (
            _conv("branch7x7_1", inside),
            _conv("branch7x7_2", inside, 1, 7),
            _conv("branch7x7_3", 192, 7, 1),
        ),
        (*deep, _conv("branch7x7dbl_5", 192, 1, 7)),
        ("mean", _conv("branch_pool", 192)),
    )


def _block_d():
    deep = (
        _conv("branch7x7x3_1", 192),
        _conv("branch7x7x3_2", 192, 1, 7),
        _conv("branch7x7x3_3", 192, 7, 1),
    )
    return (
        (_conv("branch3x3_1", 192), _conv("branch3x3_2", 320, 3, stride=2, padded=False)),
        (*deep, _conv("branch7x7x3_4", 192, 3, stride=2, padded=False)),
        ("max down",),
    )


def _block_e(pool: str):
    ends = [
        (_conv(f"{name}a", 384, 1, 3), _conv(f"{name}b", 384, 3, 1))
        for name in ("branch3x3_2", "branch3x3dbl_3")
    ]
    return (
        (_conv("branch1x1", 320),),
        (_conv("branch3x3_1", 384), ends[0]),
        (_conv("branch3x3dbl_1", 448), _conv("branch3x3dbl_2", 384, 3), ends[1]),
        (pool, _conv("branch_pool", 192)),
    )


BLOCKS = {
    "Mixed_5b": _block_a(32),
    "Mixed_5c": _block_a(64),
    "Mixed_5d": _block_a(64),
    "Mixed_6a": _block_b(),
    "Mixed_6b": _block_c(128),
    "Mixed_6c": _block_c(160),
    "Mixed_6d": _block_c(160),
    "Mixed_6e": _block_c(192),
    "Mixed_7a": _block_d(),
    "Mixed_7b": _block_e("mean"),
    "Mixed_7c": _block_e("max"),
}


def pool(x: jax.Array, kind: str) -> jax.Array:
    """Windows of 3 x 3: 'max down' halves the size,
    'mean' and 'max' keep it and do not see what lies outside.
    """
    if kind == "max down":
        return nn.max_pool(x, (3, 3), (2, 2))
    if kind == "max":
        return nn.max_pool(x, (3, 3), (1, 1), "SAME")
    return nn.avg_pool(x, (3, 3), (1, 1), "SAME", count_include_pad=False)


class BasicConv2d(nn.Module):
    """A convolution, a norm with the statistics of training and a ReLU."""

    features: int
    kernel: tuple[int, int]
    stride: int
    padded: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        height, width = self.kernel
        padding = [(height // 2,) * 2, (width // 2,) * 2] if self.padded else "VALID"
        init = init_conv(height * width * x.shape[-1])
        conv = nn.Conv(
            self.features,
            self.kernel,
            (self.stride,) * 2,
            padding,
            use_bias=False,
            kernel_init=init,
            name="conv",
        )
        return nn.relu(BatchNorm(use_running_average=True, epsilon=1e-3, name="bn")(conv(x)))


class Mixed(nn.Module):
    """Branches side by side, an entry of `BLOCKS`."""

    branches: tuple

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        outputs = []
        for branch in self.branches:
            maps = [x]
            for step in branch:
                maps = _steps(maps[0], step)
            outputs += maps
        return jnp.concatenate(outputs, axis=-1)


def _steps(x: jax.Array, step) -> list[jax.Array]:
    """The results of a pool, a convolution, or several that read the same maps."""
    if isinstance(step, str):
        return [pool(x, step)]
    return [BasicConv2d(*fields, name=name)(x) for name, *fields in _parallel(step)]


def _parallel(step) -> tuple[Convolution, ...]:
    """The convolutions of a step; a pool has none."""
    if isinstance(step, str):
        return ()
    return step if isinstance(step[0], tuple) else (step,)


def _walk(branch, prefix: str, channels: int, found: list) -> int:
    """Adds the convolutions of a branch that reads so many channels to a list;
    gives the number that it makes.
    """
    for step in branch:
        found += [
            (prefix + name, channels, features, kernel)
            for name, features, kernel, *_ in _parallel(step)
        ]
        channels = sum(features for _, features, *_ in _parallel(step)) or channels
    return channels


@checked
class Inception(nn.Module):
    """Images (B, H, W, 3), floats in 0..1, of any size -> features (B, 2048) float32.

    With `mutable=['intermediates']` the maps after the two pools and each block are kept in
    `intermediates['outputs']`.

    Attributes:
        image_size: Side that images are resized to, without smoothing;
            the distances are defined at 299.
    """

    # What distances between its features are called; see `evals.sample_quality`.
    distance_names: ClassVar[tuple[str, str]] = ("fid", "kid")

    image_size: PositiveInt = 299

    @nn.compact
    def __call__(self, image: jax.Array) -> jax.Array:
        if not jnp.issubdtype(image.dtype, jnp.floating):
            raise UserError(f"images are {image.dtype}: bring them to 0..1 first")
        if image.ndim != 4 or image.shape[-1] != 3:
            raise UserError(f"images are of shape {image.shape}; they must be (B, H, W, 3)")
        rows, columns = (half_pixels(side, self.image_size) for side in image.shape[1:3])
        x, outputs = resample(image, rows, columns) * 2 - 1, {}
        for step in STEM:
            (x,) = _steps(x, step)
            if isinstance(step, str):
                outputs[f"pool{len(outputs) + 1}"] = x
        for name, branches in BLOCKS.items():
            x = outputs[name] = Mixed(branches, name=name)(x)
        self.sow(
            "intermediates", "outputs", outputs, reduce_fn=lambda _, new: new, init_fn=lambda: None
        )
        return x.mean(axis=(1, 2))

    @nn.nowrap
    def convolutions(self) -> list[tuple[str, int, int, tuple[int, int]]]:
        """(name with dots, channels before, channels after, kernel) of each."""
        found: list = []
        channels = _walk(STEM, "", 3, found)
        for name, branches in BLOCKS.items():
            channels = sum(_walk(branch, f"{name}.", channels, found) for branch in branches)
        return found
