"""Pictures of edits."""

import numpy as np

from swin_jax.evals.samples import to_bytes
from swin_jax.inference.editing import edits, sources
from tests.editing import networks


def test_pictures_of_edits_are_those_of_the_generator_with_its_fixed_noise():
    generator = networks()["generator"]
    ws = sources.draw(generator.model, generator.variables, range(2), truncation=1.0)
    styles = generator.model.apply(generator.variables, ws, method="styles")
    pictures = edits.synthesizer(generator.model, generator.variables)(styles)
    assert pictures.dtype == np.uint8 and isinstance(pictures, np.ndarray)
    right = to_bytes(generator.model.apply(generator.variables, ws, method="synthesize"))
    assert pictures.shape == right.shape == (2, 8, 8, 3)
    assert abs(pictures.astype(int) - np.asarray(right)).max() <= 1  # compiled, a value may round otherwise
    assert np.ptp(pictures, axis=0).max() > 1
