"""What is computed row by row: the same bits in any batch."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType

from swin_jax.ops.batch_sharding import AXES, one_by_one


def test_a_row_has_the_same_bits_in_any_batch_and_on_any_mesh():
    rng = np.random.default_rng(0)
    held = [rng.normal(size=shape).astype(np.float32) for shape in ((3, 3, 3, 32), (32, 48), (48, 5))]
    rows = rng.normal(size=(16, 8, 8, 3)).astype(np.float32)

    def fn(held, rows):
        x = jax.lax.conv_general_dilated(rows, held[0], (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        return jnp.tanh(jax.nn.gelu(x.mean(axis=(1, 2)) @ held[1]) @ held[2])

    run = jax.jit(lambda held, rows: one_by_one(fn, held, rows))
    whole = np.asarray(run(held, rows))
    np.testing.assert_allclose(whole, jax.jit(fn)(held, rows), atol=1e-5)
    for size in (1, 2, 8):
        parts = [run(held, rows[start : start + size]) for start in range(0, 16, size)]
        np.testing.assert_array_equal(np.concatenate(parts), whole)
    for shape in ((8, 1, 1), (2, 2, 2)):
        with jax.set_mesh(jax.make_mesh(shape, AXES, axis_types=(AxisType.Auto,) * 3)):
            np.testing.assert_array_equal(run(held, rows), whole)
            np.testing.assert_allclose(run(held, rows[:3]), whole[:3], atol=1e-5)  # which the mesh does not divide
