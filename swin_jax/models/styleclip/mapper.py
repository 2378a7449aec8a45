"""Latent mappers of StyleCLIP: from a latent to the step that an edit takes from it.

Patashnik et al., arXiv 2103.17249, section 5. Reference: orpatashnik/StyleCLIP,
mapper/latent_mappers.py, whose parameters the names follow, 'course' included. A mapper's output is
added to its input times `STEP`.
"""

import itertools
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from swin_jax.core.errors import UserError
from swin_jax.core.ranges import PositiveInts, checked
from swin_jax.models.stylegan2 import style_space
from swin_jax.models.stylegan2.layers import FullyConnected
from swin_jax.models.stylegan2.mapping import LR_MULTIPLIER
from swin_jax.ops.normalize import unit_power

STEP = 0.1
NORM_AXES = ("layers", "features")
LEVELS = {"coarse": (0, 4), "medium": (4, 8), "fine": (8, None)}  # rows of W+
_DEPTH = 4


class Mapping(nn.Module):
    """A norm and four layers of the width of the input, on its last axis.

    Attributes:
        norm_axis: 'layers' normalizes along axis 1, which in W+ are the rows and not the features,
            as the released mappers were trained; 'features' along the last axis.
    """

    norm_axis: str = "layers"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        if self.norm_axis not in NORM_AXES:
            raise UserError(f"norm_axis={self.norm_axis!r} must be 'layers' or 'features'")
        width = x.shape[-1]
        x = unit_power(x, axis=1 if self.norm_axis == "layers" else -1)
        for index in range(1, _DEPTH + 1):
            layer = FullyConnected(width, LR_MULTIPLIER, activation=True, name=f"mapping_{index}")
            x = layer(x)
        return x


class LevelsMapper(nn.Module):
    """A mapping for each level of W+: (B, num_ws, w_dim) -> the same shape.

    Attributes:
        coarse, medium, fine: False leaves the rows of a level as they are:
            0 to 3, 4 to 7, and the others.
        norm_axis: The same as in `Mapping`.
    """

    coarse: bool = True
    medium: bool = True
    fine: bool = True
    norm_axis: str = "layers"

    @nn.compact
    def __call__(self, ws: jax.Array) -> jax.Array:
        steps = []
        for level, (first, last) in LEVELS.items():
            rows = ws[:, first:last]
            name = {"coarse": "course"}.get(level, level)
            if getattr(self, level) and rows.shape[1]:
                steps.append(Mapping(self.norm_axis, name=f"{name}_mapping")(rows))
            else:
                steps.append(jnp.zeros_like(rows))
        return jnp.concatenate(steps, axis=1)


class SingleMapper(nn.Module):
    """One mapping for all rows of W+: (B, num_ws, w_dim) -> the same shape;
    `norm_axis` as in `Mapping`.
    """

    norm_axis: str = "layers"

    @nn.compact
    def __call__(self, ws: jax.Array) -> jax.Array:
        return Mapping(self.norm_axis, name="mapping")(ws)


@checked
class StyleSpaceMapper(nn.Module):
    """A mapping for each layer of S: a sequence of (B, channels) -> the same; or an array (B,
    channels of all layers).

    Attributes:
        channels: Channels of each layer, as `Generator.style_layers` has them; every third from the
            second on is a ToRGB.
        with_rgb: Map the styles of ToRGB layers too, as FullStyleSpaceMapper does;
            else their step is 0.
    """

    channels: PositiveInts
    with_rgb: bool = False

    @nn.compact
    def __call__(
        self, styles: Sequence[jax.Array] | jax.Array
    ) -> tuple[jax.Array, ...] | jax.Array:
        if hasattr(styles, "ndim"):
            if styles.shape[1:] != (sum(self.channels),):
                raise UserError(
                    f"styles of all layers are (B, {sum(self.channels)}), not {styles.shape}"
                )
            ends = list(itertools.accumulate(self.channels))[:-1]
            return jnp.concatenate(self(jnp.split(styles, ends, axis=1)), axis=1)
        widths = [style.shape[1] for style in styles]
        if widths != list(self.channels):
            raise UserError(
                f"this mapper is for layers of {list(self.channels)} channels, not {widths}"
            )
        steps = []
        for index, style in enumerate(styles):
            if self.with_rgb or index % 3 != 1:
                steps.append(Mapping(name=f"mapper_{index}")(style))
            else:
                steps.append(jnp.zeros_like(style))
        return tuple(steps)


KINDS = ("levels", "single", "styles")
# Of the published generators of faces.
CHANNELS = tuple(layer.channels for layer in style_space.style_layers(1024))


@checked
def make_mapper(
    kind: str = "levels",
    coarse: bool = True,
    medium: bool = True,
    fine: bool = True,
    norm_axis: str = "layers",
    channels: PositiveInts = CHANNELS,
    with_rgb: bool = False,
) -> LevelsMapper | SingleMapper | StyleSpaceMapper:
    """Makes a mapper of any class.

    Args:
        kind: 'levels', 'single' or 'styles'.
        coarse, medium, fine: The same as in `LevelsMapper`.
        norm_axis: The same as in `Mapping`; S has only one axis.
        channels, with_rgb: The same as in `StyleSpaceMapper`.

    Raises:
        UserError: An unknown `kind`, or no level left.
    """
    if kind not in KINDS:
        raise UserError(f"kind={kind!r} must be one of {', '.join(KINDS)}")
    if kind == "styles":
        return StyleSpaceMapper(tuple(channels), with_rgb)
    if kind == "single":
        return SingleMapper(norm_axis)
    if not (coarse or medium or fine):
        raise UserError("a mapper without coarse, medium and fine maps nothing")
    return LevelsMapper(coarse, medium, fine, norm_axis)
