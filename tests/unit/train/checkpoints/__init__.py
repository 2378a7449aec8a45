"""States that hold whatever a state may hold, saved and restored."""

import jax
import jax.numpy as jnp
import numpy as np

from swin_jax import optim
from swin_jax.models.swin import rules
from swin_jax.optim import schedules
from swin_jax.tasks.base import TrainState
from swin_jax.train import checkpoint

META = {"step": 2, "class_names": ["cat", "Bär"], "config": {"seed": 0, "task.tx.b1": 0.9, "data_dir": None}}


def state(scale=1.0, ema=True, freeze="", width=8, mutable=True):
    """A state with namedtuples, empty tuples, masked nodes, bfloat16, integers and odd values, every leaf its own."""
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(8, width)).astype(np.float32) * scale
    kernel[0, :4] = [np.inf, -0.0, 1e-42, np.float32(scale)]
    params = {
        "backbone": {"blocks_0": {"kernel": kernel, "bias": rng.normal(size=width).astype(np.float32)}},
        "head": {"kernel": jnp.asarray(rng.normal(size=(width, 3)), jnp.bfloat16), "bias": np.zeros(3, np.float32)},
    }
    tx = optim.adamw(schedules.constant(1e-3), no_decay=rules.NO_DECAY, freeze=freeze)
    opt_state = jax.tree.map(lambda x: x + jnp.asarray(rng.integers(1, 9), x.dtype), tx.init(params))
    extra = {"mean": jnp.arange(4.0), "seen": jnp.int32(7)} if mutable else {}
    average = jax.tree.map(lambda x: x * 0.5, params) if ema else None
    return jax.tree.map(jnp.asarray, TrainState(jnp.int32(scale), params, opt_state, extra, average))


def abstract(like, shardings=None):
    shardings = shardings or jax.tree.map(lambda x: x.sharding, like)
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), like, shardings)


def same(a, b):
    """Whether two trees have one structure and the same bits."""
    a, b = (jax.tree_util.tree_flatten(tree) for tree in (a, b))
    bits = [[np.asarray(x).tobytes() for x in leaves] for leaves, _ in (a, b)]
    return a[1] == b[1] and bits[0] == bits[1] and [x.dtype for x in a[0]] == [x.dtype for x in b[0]]


def save(workdir, *states, keep=2):
    """Saves states as steps 1, 2, ..."""
    manager = checkpoint.open(workdir, keep)
    for step, item in enumerate(states, 1):
        checkpoint.save(manager, item, step, META | {"step": step})
    checkpoint.finish(manager)
    manager.close()


def restore(workdir, like):
    """(state, meta, warnings) of a fresh manager."""
    lines = []
    manager = checkpoint.open(workdir)
    try:
        found = checkpoint.restore(manager, abstract(like), lines.append)
    finally:
        manager.close()
    return (*(found or (None, None)), lines)
