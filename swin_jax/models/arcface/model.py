"""IR-SE: a residual network with squeeze and excitation whose embeddings tell persons apart.

ArcFace (arXiv 1801.07698), SE blocks (arXiv 1709.01507); the reference is `Backbone` of
TreB1eN/InsightFace_Pytorch, model.py, which StyleCLIP's identity loss and the encoder e4e copy.
Modules have its names. Faces are aligned, RGB and in -1..1; the released weights saw BGR in
training, but StyleCLIP, pSp and e4e all show them RGB.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from swin_jax.core.errors import UserError
from swin_jax.core.ranges import PositiveInt, Rate, checked
from swin_jax.models.layers import batch_norm, check_floats, check_key, check_some, conv, init_conv
from swin_jax.ops.normalize import unit

Blocks = tuple[tuple[PositiveInt, PositiveInt, PositiveInt], ...]

# Of each stage: channels before, channels after, number of blocks.
IR_SE50 = ((64, 64, 3), (64, 128, 4), (128, 256, 14), (256, 512, 3))
REDUCTION = 16  # of the channels that excite


class PReLU(nn.Module):
    """A leaky ReLU whose slope is learned for each channel: (..., C) to the same."""

    features: int
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        init = nn.initializers.constant(0.25)
        slope = self.param("scale", init, (self.features,), self.param_dtype).astype(self.dtype)
        return jnp.where(x >= 0, x, x * slope.reshape((1,) * (x.ndim - 1) + (-1,)))


class SqueezeExcite(nn.Module):
    """Weighs channels by what their means say: (B, H, W, C) to the same."""

    features: int
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    def setup(self):
        types = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        hidden = max(self.features // REDUCTION, 1)
        self.fc1 = conv(self.features, hidden, 1, 1, types)
        self.fc2 = conv(hidden, self.features, 1, 1, types)

    def __call__(self, x: jax.Array) -> jax.Array:
        means = x.mean(axis=(1, 2), keepdims=True)
        return x * nn.sigmoid(self.fc2(nn.relu(self.fc1(means))))


class Bottleneck(nn.Module):
    """A residual block: (B, H, W, before) to (B, H / stride, W / stride, after)."""

    before: int
    after: int
    stride: int
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    def setup(self):
        types = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        self.res_layer = (
            batch_norm(types),
            conv(self.before, self.after, 3, 1, types),
            PReLU(self.after, **types),
            conv(self.after, self.after, 3, self.stride, types),
            batch_norm(types),
            SqueezeExcite(self.after, **types),
        )
        if self.before != self.after:
            project = conv(self.before, self.after, 1, self.stride, types)
            self.shortcut_layer = (project, batch_norm(types))

    def __call__(self, x: jax.Array, frozen: bool) -> jax.Array:
        """Adds what the block finds; `frozen` uses the running statistics."""
        norm, widen, act, shrink, last_norm, excite = self.res_layer
        # The first norm cannot be folded into the convolution, which pads with zeros behind it.
        found = act(widen(norm(x, use_running_average=frozen)))
        found = excite(last_norm(shrink(found), use_running_average=frozen))
        if self.before == self.after:
            return found + x[:, :: self.stride, :: self.stride]
        project, project_norm = self.shortcut_layer
        return found + project_norm(project(x), use_running_average=frozen)


def trunk(blocks: Blocks, types: dict) -> tuple[tuple, tuple]:
    """The modules `input_layer` and `body` of a network; the first block of each stage strides.

    Args:
        blocks: A tuple (channels before, channels after, number of blocks) for each stage.
        types: `dtype` and `param_dtype`.
    """
    width = blocks[0][0]
    stem = (conv(3, width, 3, 1, types), batch_norm(types), PReLU(width, **types))
    body = []
    for before, after, count in blocks:
        body.append(Bottleneck(before, after, 2, **types))
        body += [Bottleneck(after, after, 1, **types) for _ in range(count - 1)]
    return stem, tuple(body)


def run_trunk(stem: tuple, body: tuple, image: jax.Array, frozen: bool) -> dict[str, jax.Array]:
    """The outputs of `trunk`'s modules by their official names, `input_layer`, `body.0` and so on:
    (B, H, W, C).
    """
    project, norm, act = stem
    x = act(norm(project(image), use_running_average=frozen))
    outputs = {"input_layer": x}
    for i, block in enumerate(body):
        x = block(x, frozen)
        outputs[f"body.{i}"] = x
    return outputs


def stage_ends(blocks: Blocks) -> list[str]:
    """The name in `run_trunk`'s outputs of the last block of each stage."""
    ends = [sum(count for *_, count in blocks[: s + 1]) - 1 for s in range(len(blocks))]
    return [f"body.{end}" for end in ends]


def check_blocks(blocks: Blocks) -> None:
    """Raises UserError for stages that do not follow each other,
    or of which weights could not tell the beginning.
    """
    pairs = list(zip(blocks, blocks[1:]))
    if not blocks or any(one[1] != other[0] or other[0] == other[1] for one, other in pairs):
        raise UserError(
            f"blocks={blocks} are not stages (channels before, channels after, number of "
            "blocks): each begins with the channels that the one before it ends with, and "
            "all but the first change them"
        )


def check_image(image: jax.Array, size: int) -> None:
    """Raises UserError for integer images, and for others than (B, size, size, 3)."""
    check_floats(image, "images", ": bring them to -1..1 first, with swin_jax.preprocess(model)")
    if image.ndim != 4 or image.shape[1:] != (size, size, 3):
        raise UserError(
            f"images are of shape {image.shape}, this network takes aligned faces (B, "
            f"{size}, {size}, 3)"
        )
    check_some(image, "images")


@checked
class IRSE(nn.Module):
    """Embeds aligned faces: (B, H, W, 3) to (B, embed_dim) of length 1.

    Running statistics are in the collection 'batch_stats'; with train=True it must be mutable. With
    `mutable=['intermediates']` the outputs of 'input_layer', 'body.0', ..., the last block and
    'output_layer' (before it is brought to length 1) are kept in `intermediates['outputs']`.

    Attributes:
        blocks: A tuple (channels before, channels after, number of blocks) for each stage; each
            stage halves the map.
        image_size: Height and width in pixels, a multiple of 2 to the number of stages.
        embed_dim: Size of the embedding.
        channel_order: 'rgb', as StyleCLIP shows pictures to the network, or 'bgr', which turns RGB
            pictures into the order that the released weights were trained with.
        dropout: Rate before the last layer in training; 0.6 in the reference.
        dtype, param_dtype: Types of the activations and of the parameters; statistics are float32.
    """

    blocks: Blocks = IR_SE50
    image_size: PositiveInt = 112
    embed_dim: PositiveInt = 512
    channel_order: str = "rgb"
    dropout: Rate = 0.0
    dtype: str = "float32"
    param_dtype: str = "float32"

    def setup(self):
        self._check()
        types = dict(dtype=jnp.dtype(self.dtype), param_dtype=jnp.dtype(self.param_dtype))
        self.input_layer, self.body = trunk(self.blocks, types)
        width = self.image_size // 2 ** len(self.blocks)
        init = init_conv(width * width * self.blocks[-1][1])
        # One axis of the kernel for each of the map's,
        # so that no order of flattening has to be kept.
        embed = nn.DenseGeneral(
            self.embed_dim, axis=(1, 2, 3), kernel_init=init, bias_init=init, **types
        )
        self.output_layer = (
            batch_norm(types),
            nn.Dropout(self.dropout),
            None,
            embed,
            batch_norm(types),
        )

    def __call__(self, image: jax.Array, train: bool = False) -> jax.Array:
        """Embeds faces.

        Args:
            image: (B, image_size, image_size, 3), floating point in -1..1, RGB.
            train: True uses the statistics of the batch, moves the running ones and drops out.

        Returns:
            (B, embed_dim) float32 of length 1.

        Raises:
            UserError: Integer images, or images of another size.
        """
        if train and self.dropout:
            check_key(self, "dropout")
        outputs = self._outputs(image, train)
        norm, dropout, _, embed, last_norm = self.output_layer
        x = norm(list(outputs.values())[-1], use_running_average=not train)
        x = embed(dropout(x, deterministic=not train))
        outputs["output_layer"] = x = last_norm(x, use_running_average=not train)
        self.sow(
            "intermediates", "outputs", outputs, reduce_fn=lambda _, new: new, init_fn=lambda: None
        )
        return unit(x)

    def features(self, image: jax.Array, train: bool = False) -> list[jax.Array]:
        """The maps after the stages, (B, H, W, C), of 1/2, 1/4, ... of the image."""
        outputs = self._outputs(image, train)
        return [outputs[name] for name in stage_ends(self.blocks)]

    def _outputs(self, image: jax.Array, train: bool) -> dict[str, jax.Array]:
        check_image(image, self.image_size)
        image = image[..., ::-1] if self.channel_order == "bgr" else image
        return run_trunk(
            self.input_layer, self.body, image.astype(jnp.dtype(self.dtype)), not train
        )

    def _check(self) -> None:
        """Raises UserError where fields are not among the known ones or contradict each other."""
        check_blocks(self.blocks)
        if self.image_size % 2 ** len(self.blocks):
            raise UserError(
                f"image_size={self.image_size} is not a multiple of {2 ** len(self.blocks)}"
            )
        if self.channel_order not in ("rgb", "bgr"):
            raise UserError(f"channel_order={self.channel_order!r} must be 'rgb' or 'bgr'")
