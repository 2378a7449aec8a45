"""The generator of StyleGAN2 with skip connections:
z -> w -> W+ -> S -> image, entered at any of them.

Karras et al., arXiv 1912.04958 (configurations e and f) and 2006.06676 (ADA). References:
NVlabs/stylegan2-ada-pytorch (training/networks.py), whose names the parameters have, and
rosinality/stylegan2-pytorch (model.py).
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from swin_jax.core.errors import UserError
from swin_jax.core.ranges import NonNegativeInt, PositiveFloat, PositiveInt, checked
from swin_jax.models.layers import check_key
from swin_jax.models.stylegan2 import style_space
from swin_jax.models.stylegan2.layers import StyledConvolution, ToRGB
from swin_jax.models.stylegan2.mapping import MappingNetwork
from swin_jax.ops import stylegan2 as ops
from swin_jax.ops.batch_sharding import constrain_batch

NOISE = ("const", "random", "none")
REMAT = ("none", "full")
Noise = str | Sequence[jax.Array]


class Block(nn.Module):
    """The layers of one resolution.

    Attributes:
        layers: Entries of `style_space.style_layers` that have this resolution.
        w_dim, clamp, resampling: The same as in `Generator`.
        dtype: Type of the maps.
    """

    layers: tuple[style_space.StyleLayer, ...]
    w_dim: int
    clamp: float | None
    resampling: str
    dtype: str

    def setup(self):
        *convolutions, rgb = self.layers
        for layer in convolutions:
            module = StyledConvolution(
                layer.channels,
                layer.features,
                layer.resolution,
                self.w_dim,
                layer.name.endswith("conv0"),
                self.clamp,
                self.resampling,
            )
            setattr(self, layer.name.split("/")[1], module)
        self.torgb = ToRGB(rgb.channels, rgb.features, self.w_dim, self.clamp)
        if len(convolutions) == 1:
            side = (rgb.resolution, rgb.resolution, rgb.channels)
            self.const = self.param("const", nn.initializers.normal(1.0), side)

    def convolutions(self) -> list[StyledConvolution]:
        """The convolutions of this block, in order."""
        return [getattr(self, layer.name.split("/")[1]) for layer in self.layers[:-1]]

    def styles(self, ws: jax.Array) -> list[jax.Array]:
        """W+ (B, num_ws, w_dim) -> the style (B, channels) of each layer."""
        modules = [*self.convolutions(), self.torgb]
        return [module.style(ws[:, layer.row]) for module, layer in zip(modules, self.layers)]

    def make_noises(self, mode: str, batch: int) -> list[jax.Array | None]:
        """A map for each convolution."""
        return [module.make_noise(mode, batch) for module in self.convolutions()]

    def start(self, batch: int) -> jax.Array:
        """The maps (batch, 4, 4, channels) that the first block begins with."""
        x = jnp.broadcast_to(self.const[None], (batch, *self.const.shape))
        return x.astype(jnp.dtype(self.dtype))

    def step(self, layer: style_space.StyleLayer, x, image, style, noise):
        """Maps and image before a layer of this block -> those after it;
        the first ToRGB gets no image.
        """
        module = getattr(self, layer.name.split("/")[1])
        if not layer.is_rgb:
            return constrain_batch(module(x, style, noise)), image
        rgb = constrain_batch(module(x, style))
        return x, rgb if image is None else ops.upfirdn(image, up=2, padding=(2, 1)) + rgb

    def __call__(self, x, image, styles, noises):
        """Maps and image of the block before, None in the first -> those of this one,
        and the outputs by name.
        """
        outputs = {}
        if x is None:
            x = outputs["b4/const"] = self.start(styles[0].shape[0])
        for layer, style, noise in zip(self.layers, styles, (*noises, None)):
            x, image = self.step(layer, x, image, style, noise)
            outputs[layer.name] = image if layer.is_rgb else x
        return x, image, outputs


class Synthesis(nn.Module):
    """All blocks; see `Generator` for the attributes."""

    layers: tuple[style_space.StyleLayer, ...]
    w_dim: int
    clamp: float | None
    resampling: str
    dtype: str
    remat: str

    def setup(self):
        block = Block if self.remat == "none" else nn.remat(Block)
        self.sizes = sorted({layer.resolution for layer in self.layers})
        for size in self.sizes:
            layers = tuple(layer for layer in self.layers if layer.resolution == size)
            module = block(layers, self.w_dim, self.clamp, self.resampling, self.dtype)
            setattr(self, f"b{size}", module)

    def blocks(self) -> list[Block]:
        """The blocks in order of resolution."""
        return [getattr(self, f"b{size}") for size in self.sizes]

    def styles(self, ws: jax.Array) -> tuple[jax.Array, ...]:
        """See `Generator.styles`."""
        return tuple(style for block in self.blocks() for style in block.styles(ws))

    def noises(self, noise: Noise, batch: int) -> list[jax.Array | None]:
        """A map for each convolution, made as a mode says or taken as given."""
        if isinstance(noise, str):
            if noise not in NOISE:
                raise UserError(
                    f"noise={noise!r} must be one of {', '.join(NOISE)}, or a map for each layer"
                )
            if noise == "random":
                check_key(self, "noise", "noise='random'")
            return [made for block in self.blocks() for made in block.make_noises(noise, batch)]
        sides = [layer.resolution for layer in self.layers if not layer.is_rgb]
        shapes = [jnp.shape(given) for given in noise]
        rows = {1, batch}
        if len(shapes) != len(sides) or any(
            len(shape) != 4 or shape[0] not in rows or shape[1:] != (side, side, 1)
            for shape, side in zip(shapes, sides)
        ):
            expected = ", ".join(f"{side} x {side}" for side in sides)
            raise UserError(
                f"noise maps are (1 or B, H, W, 1) with sides {expected}; those given: {shapes}"
            )
        return list(noise)

    def __call__(
        self, styles: Sequence[jax.Array], noises: Sequence[jax.Array | None]
    ) -> jax.Array:
        """Styles and noise of all layers -> the image."""
        x, image, outputs = None, None, {}
        for block in self.blocks():
            count = 2 if x is None else 3
            x, image, made = block(x, image, tuple(styles[:count]), tuple(noises[: count - 1]))
            styles, noises, outputs = styles[count:], noises[count - 1 :], outputs | made
        self.sow(
            "intermediates", "outputs", outputs, reduce_fn=lambda _, new: new, init_fn=lambda: None
        )
        return image

    def span(self, x, image, styles, noises, layers: range):
        """Maps and image before some layers -> those after them; begins anew where x is None."""
        if x is None:
            x = self.blocks()[0].start(styles[0].shape[0])
        convolutions = [layer.name for layer in self.layers if not layer.is_rgb]
        for index in layers:
            layer = self.layers[index]
            noise = None if layer.is_rgb else noises[convolutions.index(layer.name)]
            x, image = getattr(self, f"b{layer.resolution}").step(
                layer, x, image, styles[index], noise
            )
        return x, image


@checked
class Generator(nn.Module):
    """Latents -> images (B, resolution, resolution, image_channels), float32,
    nominally in -1..1 but not clipped.

    Collections: 'params'; 'noise', the fixed noise maps; 'averages', the mean of w. With
    `mutable=['intermediates']` the maps after each layer are kept in
    `intermediates['synthesis']['outputs']`, by the names of `style_space.style_layers`.

    Attributes:
        resolution: Side of the images in pixels, a power of two from 8 on.
        z_dim, w_dim: Widths of the latents.
        c_dim: Width of label vectors; 0 for a generator without labels.
        mapping_layers: Layers of the mapping network:
            8, or 2 in networks of ADA made with 'auto' or 'cifar'.
        channel_base, channel_max: A map of side r has min(channel_base / r, channel_max) channels:
            32768 in configuration f, 16384 in e.
        image_channels: 3 for color.
        conv_clamp: Bound of all maps, 256 in networks of ADA that were trained in
            mixed precision, else None.
        resampling: 'merged' or 'plain', see `ops.stylegan2`.
        dtype: Type of the maps; latents, styles, noise strength and the image are float32.
        remat: 'full' computes the maps of each block again in the backward pass and keeps only
            what lies between blocks.
    """

    resolution: PositiveInt
    z_dim: PositiveInt = 512
    w_dim: PositiveInt = 512
    c_dim: NonNegativeInt = 0
    mapping_layers: PositiveInt = 8
    channel_base: PositiveInt = 32768
    channel_max: PositiveInt = 512
    image_channels: PositiveInt = 3
    conv_clamp: PositiveFloat | None = None
    resampling: str = "merged"
    dtype: str = "float32"
    remat: str = "none"

    def setup(self):
        if self.resampling not in ops.RESAMPLING:
            raise UserError(f"resampling={self.resampling!r} must be 'merged' or 'plain'")
        if self.remat not in REMAT:
            raise UserError(f"remat={self.remat!r} must be 'none' or 'full'")
        self.mapping = MappingNetwork(self.z_dim, self.c_dim, self.w_dim, self.mapping_layers, True)
        self.synthesis = Synthesis(
            tuple(self.style_layers()),
            self.w_dim,
            self.conv_clamp,
            self.resampling,
            self.dtype,
            self.remat,
        )

    def style_layers(self) -> list[style_space.StyleLayer]:
        """The layers with a style, in the order of `styles`."""
        return style_space.style_layers(
            self.resolution, self.channel_base, self.channel_max, self.image_channels
        )

    @property
    def num_ws(self) -> int:
        """Rows of W+."""
        return style_space.num_ws(self.resolution)

    def map(
        self,
        z: jax.Array,
        c: jax.Array | None = None,
        truncation: float | jax.Array = 1.0,
        truncation_cutoff: int | None = None,
    ) -> jax.Array:
        """z (B, z_dim), and label vectors (B, c_dim) of a conditional generator ->
        W+ (B, num_ws, w_dim).

        Args:
            z: Draws from a normal distribution.
            c: Label vectors.
            truncation: w becomes w_avg + truncation (w - w_avg); 1 leaves it as it is.
            truncation_cutoff: Number of rows of W+ that are truncated, the first ones;
                None for all.
        """
        w = self.mapping(z, c)
        ws = jnp.broadcast_to(w[:, None], (w.shape[0], self.num_ws, self.w_dim))
        if isinstance(truncation, (int, float)) and truncation == 1:
            return ws
        truncated = self.mapping.truncate(ws, truncation)
        if truncation_cutoff is None:
            return truncated
        rows = jnp.arange(self.num_ws)[None, :, None] < truncation_cutoff
        return jnp.where(rows, truncated, ws)

    def styles(self, ws: jax.Array) -> tuple[jax.Array, ...]:
        """W+ (B, num_ws, w_dim) -> S, the style (B, channels) of each of `style_layers`,
        ToRGB among them.

        Raises:
            UserError: Latents of another shape; one latent needs a batch axis.
        """
        if ws.ndim != 3 or ws.shape[1:] != (self.num_ws, self.w_dim):
            raise UserError(
                f"latents are of shape {ws.shape}, but W+ is (B, {self.num_ws}, {self.w_dim})"
            )
        return self.synthesis.styles(constrain_batch(ws.astype(jnp.float32)))

    def synthesize(self, ws: jax.Array, noise: Noise = "const") -> jax.Array:
        """W+ (B, num_ws, w_dim) -> images; `noise` as in `__call__`."""
        return self.synthesize_styles(self.styles(ws), noise)

    def synthesize_styles(self, styles: Sequence[jax.Array], noise: Noise = "const") -> jax.Array:
        """S -> images; `noise` as in `__call__`."""
        return self.synthesis(styles, self.synthesis.noises(noise, self._batch(styles)))

    def activations(
        self, styles: Sequence[jax.Array], layer: int, noise: Noise = "const"
    ) -> tuple[jax.Array, jax.Array | None]:
        """S -> what a layer begins with, for `resume`.

        Args:
            styles: Styles of all layers; those of `layer` and after it are not read.
            layer: Index in `style_layers()`.
            noise: The same as in `__call__`.

        Returns:
            (maps (B, h, w, channels) before the layer, the image so far,
            None before the first ToRGB).
        """
        noises = self.synthesis.noises(noise, self._batch(styles))
        return self.synthesis.span(None, None, styles, noises, range(layer))

    def resume(
        self,
        x: jax.Array,
        image: jax.Array | None,
        styles: Sequence[jax.Array],
        layer: int,
        noise: Noise = "const",
    ) -> jax.Array:
        """Images of `activations`' outputs,
        as `synthesize_styles` makes them, without the layers before.

        Args:
            x, image: Outputs of `activations` for `layer`.
            styles: Styles of all layers; those before `layer` are not read.
            layer: Index in `style_layers()`.
            noise: The same as in `__call__`.
        """
        noises = self.synthesis.noises(noise, self._batch(styles))
        return self.synthesis.span(x, image, styles, noises, range(layer, len(styles)))[1]

    def _batch(self, styles: Sequence[jax.Array]) -> int:
        """The number of examples of styles; raises UserError for those of another generator."""
        widths = [layer.channels for layer in self.style_layers()]
        shapes = [jnp.shape(style) for style in styles]
        if [shape[1:] for shape in shapes] != [(width,) for width in widths]:
            raise UserError(
                f"styles are (B, channels) with channels {widths}; those given: {shapes}"
            )
        return shapes[0][0]

    def __call__(
        self,
        z: jax.Array,
        c: jax.Array | None = None,
        truncation: float | jax.Array = 1.0,
        truncation_cutoff: int | None = None,
        noise: Noise = "const",
    ) -> jax.Array:
        """z (B, z_dim) -> images.

        Args:
            z, c, truncation, truncation_cutoff: The same as in `map`.
            noise: 'const', the fixed maps that are part of the weights, the same for all
                images; 'random', drawn with the key 'noise'; 'none'; or a map (1 or B, h, w, 1)
                for each layer but ToRGB.
        """
        return self.synthesize(self.map(z, c, truncation, truncation_cutoff), noise)

    def flops(self) -> float:
        """Multiply-accumulates of the convolutions and fully connected layers for
        one image from z.
        """
        total = self.w_dim * (self.z_dim + (self.mapping_layers - 1) * self.w_dim + self.c_dim)
        for layer in self.style_layers():
            total += layer.convolution() + self.w_dim * layer.channels
        return float(total)
