"""Linear layers as products of matrices on CPUs."""

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swin_jax.ops import batch_sharding, linear

SHAPES = {
    "dense": ((2, 3, 5, 4), (4, 6), (3,)),
    "to heads": ((2, 5, 4), (4, 3, 2, 6), (2,)),
    "from heads": ((2, 5, 3, 4), (3, 4, 6), (2, 3)),
    "rows": ((5, 4), (4, 6), (1,)),
}


def gradients(product, x, kernel, axes):
    numbers = ((axes, tuple(range(len(axes)))), ((), ()))
    return jax.value_and_grad(lambda x, kernel: jnp.sin(product(x, kernel, numbers)).sum(), (0, 1))(x, kernel)


@pytest.mark.parametrize("name", SHAPES)
def test_values_and_gradients_are_those_of_dot_general(name):
    shape, kernel, axes = SHAPES[name]
    rng = np.random.default_rng(0)
    x, kernel = (jnp.asarray(rng.normal(size=size), jnp.float32) for size in (shape, kernel))
    ours, plain = (gradients(product, x, kernel, axes) for product in (linear.dot_general, jax.lax.dot_general))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), ours, plain)


def test_gradients_transpose_no_activations_on_cpus():
    """The compiler writes a transposed copy of both operands where several axes of the activations are summed over."""
    x = jnp.ones((2, 7, 7, 4))

    def transposes(product):
        dense = nn.Dense(8, dot_general=product)
        params = dense.init(jax.random.key(0), x)
        grad = jax.jit(jax.grad(lambda params, x: jnp.sin(dense.apply(params, x)).sum()))
        return len(re.findall(r"= \S+ transpose\(", grad.lower(params, x).compile().as_text()))

    assert transposes(jax.lax.dot_general) and not transposes(linear.dot_general)


@pytest.mark.parametrize("tensor", [1, 2])
def test_a_mesh_that_splits_heads_keeps_their_axes(tensor):
    mesh = jax.make_mesh((8 // tensor, 1, tensor), batch_sharding.AXES, axis_types=(jax.sharding.AxisType.Auto,) * 3)
    x, kernel = jnp.ones((8, 7, 4)), jnp.ones((4, 3, 2, 6))
    with jax.set_mesh(mesh):
        traced = jax.make_jaxpr(lambda x, kernel: linear.dot_general(x, kernel, (((2,), (0,)), ((), ()))))(x, kernel)
    assert ("reshape" in str(traced)) == (tensor == 1)
    assert traced.out_avals[0].shape == (8, 7, 3, 2, 6)
