"""The fused kernel inside of models: split over a mesh, in a loop over blocks, computed again in the backward pass."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding

from swin_jax.models.swin import Swin, rules
from swin_jax.ops.batch_sharding import BATCH
from swin_jax.train import sharding
from tests.kernels import interpret_kernels

SIZE = dict(image_size=8, patch_size=1, embed_dim=8, depths=(4,), num_heads=(2,), window_size=4)
V2 = dict(cosine_attention=True, post_norm=True, continuous_bias=True)


@pytest.mark.parametrize("version", [pytest.param({}, marks=pytest.mark.long), V2], ids=["v1", "v2"])
def test_loss_and_gradients_are_those_of_one_device_without_the_kernel(version, monkeypatch):
    interpret_kernels(monkeypatch)
    fields = SIZE | version | dict(num_classes=3, drop_path_rate=0.0, scan=True, remat="full")
    plain, fused = (Swin(**fields, attention=(name,)) for name in ("xla", "fused"))
    image = jax.random.normal(jax.random.key(0), (4, 8, 8, 3))
    params = jax.jit(plain.init)(jax.random.key(1), image)["params"]
    # Biases of equal entries would not show which of them a window was given.
    params = jax.tree.map(lambda x: x + 0.1 * jnp.sin(jnp.arange(x.size, dtype=x.dtype)).reshape(x.shape), params)

    def step(model):
        loss = lambda params, image: (model.apply({"params": params}, image) ** 2).sum()  # noqa: E731
        return jax.jit(jax.value_and_grad(loss))

    expected = step(plain)(params, image)
    mesh = sharding.make_mesh(2, 2, 2)
    split = sharding.Partition(rules=rules.PARTITION, min_size=64).shardings(params, mesh)
    assert any("tensor" in x.spec for x in jax.tree.leaves(split))
    with jax.set_mesh(mesh):
        image = jax.device_put(image, NamedSharding(mesh, BATCH))
        found = step(fused)(jax.device_put(params, split), image)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4 * max(1, np.abs(other).max()))
