"""Distances of a generator's picture from a photograph, which inversion makes small."""

import dataclasses
from typing import Any, ClassVar, Protocol

import jax
import jax.numpy as jnp

from swin_jax.core.errors import UserError
from swin_jax.core.ranges import NonNegativeFloat, PositiveInt, checked
from swin_jax.core.sizes import per_axis
from swin_jax.ops.normalize import unit
from swin_jax.ops.resampling import area, resample
from swin_jax.tasks.base import FrozenModel


class Distance(Protocol):
    """A distance between pictures (B, H, W, 3), floating point in -1..1.

    Attributes:
        name: Name for messages.
    """

    name: ClassVar[str]

    def check(self) -> None:
        """Raises UserError, naming the flag, for a missing file; no file is read."""

    def load(self) -> Any:
        """The variables of its network."""

    def describe(self, variables: Any, images: jax.Array) -> Any:
        """The features of pictures that are compared, a tree of arrays (B, ...)."""

    def compare(self, variables: Any, one: Any, other: Any) -> jax.Array:
        """The distance (B,) float32 of pictures that `describe` has seen."""


@checked
@dataclasses.dataclass(frozen=True)
class PerceptualDistance:
    """LPIPS on VGG16, which StyleGAN2's projector uses.

    Attributes:
        network: A `models.lpips.LPIPS` and its files, with the inputs 'image' and 'other'.
        size: Pictures with more pixels are shrunk to this height and width by means of areas.
    """

    name: ClassVar[str] = "VGG16-LPIPS"

    network: FrozenModel
    size: PositiveInt = 256

    def check(self) -> None:
        """Raises UserError, naming the flag, if the file of VGG16 is missing."""
        self.network.check("invert.distance.network")

    def load(self) -> Any:
        """The variables of LPIPS."""
        image = jax.ShapeDtypeStruct((1, self.size, self.size, 3), jnp.float32)
        return self.network.load({"image": image, "other": image}, "invert.distance.network")

    def describe(self, variables: Any, images: jax.Array) -> Any:
        """The maps of all stages."""
        if min(images.shape[1:3]) > self.size:
            images = resample(images, *(area(side, self.size) for side in images.shape[1:3]))
        return self.network.model.apply(variables, images, method="embed")

    def compare(self, variables: Any, one: Any, other: Any) -> jax.Array:
        """The perceptual distance."""
        return self.network.model.apply(variables, one, other, method="compare")


@checked
@dataclasses.dataclass(frozen=True)
class FeatureDistance:
    """Pixels, and the maps of a network of one's own: a classifier of the same kind of pictures.

    It is the mean square between pixels and, at each stage, the mean over places of the square
    between features of length 1.

    Attributes:
        network: A model with a method `features`, such as `models.swin.Swin`, and its weights.
        pixel_weight, feature_weight: Weights of the two parts in the sum.
    """

    name: ClassVar[str] = "pixels and features"

    network: FrozenModel
    pixel_weight: NonNegativeFloat = 1.0
    feature_weight: NonNegativeFloat = 1.0

    def __post_init__(self):
        if not hasattr(self.network.model, "features"):
            kind = type(self.network.model).__name__
            raise UserError(
                f"network={kind}: pictures are compared by the maps of a "
                "model with a method `features`"
            )

    def check(self) -> None:
        """Raises UserError, naming the flag, if the weights are missing."""
        self.network.check("invert.distance.network")

    def load(self) -> Any:
        """The variables of the network."""
        image = jax.ShapeDtypeStruct((1, *self._sides(), 3), jnp.float32)
        return self.network.load({"image": image}, "invert.distance.network")

    def describe(self, variables: Any, images: jax.Array) -> Any:
        """(pixels, features of length 1 of each stage)."""
        sides = self._sides()
        seen = images
        if images.shape[1:3] != sides:
            seen = resample(
                images, *(area(before, after) for before, after in zip(images.shape[1:3], sides))
            )
        maps = self.network.model.apply(variables, seen, method="features")
        return images, tuple(unit(x) for x in maps)

    def compare(self, variables: Any, one: Any, other: Any) -> jax.Array:
        """The weighted sum of both parts."""
        (pixels, maps), (other_pixels, other_maps) = one, other
        total = self.pixel_weight * jnp.square(pixels - other_pixels).mean(axis=(1, 2, 3))
        for ours, theirs in zip(maps, other_maps):
            total += self.feature_weight * jnp.square(ours - theirs).sum(axis=-1).mean(axis=(1, 2))
        return total

    def _sides(self) -> tuple[int, ...]:
        return per_axis(self.network.model.image_size, 2)
