"""The layers of StyleGAN2's synthesis: which latent feeds each,
and how many channels its style has.

Their order is that of StyleSpace (arXiv 2011.12799) and StyleCLIP (arXiv 2103.17249): layer by
layer, ToRGB among them.
"""

import dataclasses
import math

from swin_jax.core.errors import UserError


@dataclasses.dataclass(frozen=True)
class StyleLayer:
    """One modulated layer.

    Attributes:
        name: 'b4/conv1', 'b4/torgb', 'b8/conv0' and so on.
        resolution: Side of its output in pixels.
        row: Row of W+ that it reads; a ToRGB shares its row with the next layer.
        channels: Length of its style, the number of its input channels.
        features: Output channels.
    """

    name: str
    resolution: int
    row: int
    channels: int
    features: int

    @property
    def is_rgb(self) -> bool:
        """True for a ToRGB, whose style StyleCLIP does not change."""
        return self.name.endswith("torgb")

    def convolution(self) -> int:
        """Multiply-accumulates of its convolution for one image, padding counted as pixels."""
        taps = 1 if self.is_rgb else 9
        # A transposed convolution of stride 2 meets each tap with a quarter of the outputs.
        side = self.resolution // 2 if self.name.endswith("conv0") else self.resolution
        return taps * self.channels * self.features * side**2


def resolutions(resolution: int) -> list[int]:
    """4, 8, ..., resolution.

    Raises:
        UserError: No power of two from 8 on.
    """
    if resolution < 8 or resolution & (resolution - 1):
        raise UserError(f"resolution={resolution} must be a power of two, at least 8")
    return [2**k for k in range(2, int(math.log2(resolution)) + 1)]


def channels_at(resolution: int, channel_base: int, channel_max: int) -> int:
    """Channels of the maps of a resolution."""
    return min(channel_base // resolution, channel_max)


def num_ws(resolution: int) -> int:
    """Rows of W+: 18 at 1024 pixels."""
    return 2 * int(math.log2(resolution)) - 2


def style_layers(
    resolution: int, channel_base: int = 32768, channel_max: int = 512, image_channels: int = 3
) -> list[StyleLayer]:
    """All layers with a style: 26 with 9,088 channels at 1024 pixels,
    6,048 of them not in a ToRGB.
    """
    layers = []
    before = None
    for size in resolutions(resolution):
        here = channels_at(size, channel_base, channel_max)
        if before is not None:
            row = num_ws(size) - 3
            layers.append(StyleLayer(f"b{size}/conv0", size, row, before, here))
        row = num_ws(size) - 2
        layers.append(StyleLayer(f"b{size}/conv1", size, row, here, here))
        layers.append(StyleLayer(f"b{size}/torgb", size, row + 1, here, image_channels))
        before = here
    return layers
