"""Augmentation of a GAN's images at a probability that follows its discriminator.

Karras et al., arXiv 2006.06676. The reference is training_loop.py of NVlabs/stylegan2-ada-pytorch.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from swin_jax.core.ranges import Fraction, PositiveInt, checked


@checked
@dataclasses.dataclass(frozen=True)
class AdaptiveAugmentation:
    """Augmentation whose probability follows the discriminator's overfitting
    (arXiv 2006.06676, section 3).

    Attributes:
        augment: (images (B, H, W, C), probability, key) -> images.
        target: Share of real images that the discriminator should tell with certainty:
            the mean sign of its logits.
        every: Steps between two changes of the probability.
        images: Images over which the probability may rise from 0 to 1.
    """

    augment: Callable
    target: Fraction = 0.6
    every: PositiveInt = 4
    images: PositiveInt = 500_000

    def adapt(self, held: dict, step: jax.Array, batch_size: int) -> dict:
        """The probability after a step, moved a bit toward the target every few.

        Args:
            held: `probability`, and the sum `signs` of mean signs since it was moved.
            step: Step that was made.
            batch_size: Images of a step.
        """
        change = batch_size * self.every / self.images
        over = jnp.sign(held["signs"] / self.every - self.target)
        moved = jnp.maximum(held["probability"] + over * change, 0.0)
        due = (step + 1) % self.every == 0
        return {
            "probability": jnp.where(due, moved, held["probability"]),
            "signs": jnp.where(due, 0.0, held["signs"]),
        }
