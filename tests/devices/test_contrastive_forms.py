"""The three forms of the contrastive losses: equal value and gradient on 1, 2 and 8 devices, and their memory."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from swin_jax.ops import contrastive
from swin_jax.train import sharding

B, E = 64, 24
AXES = ("data", "fsdp")
MESHES = {1: (1, 1, 1), 2: (2, 1, 1), 8: (2, 2, 2)}


def features(seed=0, noise=1.5):
    rng = np.random.default_rng(seed)
    image = rng.normal(size=(B, E))
    text = image + noise * rng.normal(size=(B, E))
    return [(x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32) for x in (image, text)]


def ids(kind):
    return np.arange(B) if kind == "different" else np.random.default_rng(1).integers(0, 40, B)


def exact_softmax(image, text, scale, ids):
    """In float64 with numpy: the loss and its gradients with respect to image, text and scale."""
    image, text = image.astype(np.float64), text.astype(np.float64)
    logits = scale * image @ text.T
    target = (ids[:, None] == ids[None, :]).astype(np.float64)
    target /= target.sum(1, keepdims=True)
    rows = logits - logits.max(1, keepdims=True)
    rows -= np.log(np.exp(rows).sum(1, keepdims=True))
    columns = logits - logits.max(0)
    columns -= np.log(np.exp(columns).sum(0))
    value = -((target * rows).sum() + (target.T * columns).sum()) / (2 * B)
    of_logits = (np.exp(rows) + np.exp(columns) - target - target.T) / (2 * B)
    return value, (scale * of_logits @ text, scale * of_logits.T @ image, (of_logits * (image @ text.T)).sum())


def exact_sigmoid(image, text, scale, bias, ids):
    image, text = image.astype(np.float64), text.astype(np.float64)
    sign = np.where(ids[:, None] == ids[None, :], 1.0, -1.0)
    z = sign * (scale * image @ text.T + bias)
    value = np.logaddexp(0, -z).sum() / B
    of_logits = -sign / (1 + np.exp(z)) / B
    gradients = (scale * of_logits @ text, scale * of_logits.T @ image, (of_logits * (image @ text.T)).sum())
    return value, (*gradients, of_logits.sum())


def on_mesh(devices, per_device, specs):
    """(value, metrics) of per-device code, jitted with its gradient in all arguments but the last."""
    if devices == 0:
        loss = lambda *x: per_device(*x, axes=())  # noqa: E731
    else:
        loss = jax.shard_map(functools.partial(per_device, axes=AXES), in_specs=specs, out_specs=P())
    return jax.jit(jax.value_and_grad(loss, argnums=tuple(range(len(specs) - 1)), has_aux=True))


def assert_equal(found, expected):
    (value, _), gradients = found
    assert abs(float(value) / expected[0] - 1) <= 1e-6
    for ours, theirs in zip(gradients, expected[1], strict=True):
        assert np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max() <= 1e-5


FORMS = {
    "local": contrastive.local_softmax_loss,
    "ring": functools.partial(contrastive.ring_softmax_loss, chunk=4),
    "ring in one piece": functools.partial(contrastive.ring_softmax_loss, chunk=1000),
}


@pytest.mark.parametrize("scale", [14.0, 100.0])
@pytest.mark.parametrize("kind", ["different", "shared"])
@pytest.mark.parametrize("devices", [1, 2, 8])
@pytest.mark.parametrize("form", ["global", *FORMS])
def test_softmax_forms_are_the_exact_loss(form, devices, kind, scale):
    arguments = (*features(), jnp.float32(scale), ids(kind))
    expected = exact_softmax(*features(), scale, ids(kind))
    mesh = sharding.make_mesh(*MESHES[devices], devices=jax.devices()[:devices])
    specs = (P(AXES), P(AXES), P(), P(AXES))
    with jax.set_mesh(mesh):
        placed = [jax.device_put(x, jax.NamedSharding(mesh, spec)) for x, spec in zip(arguments, specs)]
        if form == "global":
            run = jax.jit(jax.value_and_grad(contrastive.softmax_loss, argnums=(0, 1, 2), has_aux=True))
        else:
            run = on_mesh(devices, FORMS[form], specs)
        found = run(*placed)
    assert_equal(found, expected)
    same = ids(kind)[:, None] == ids(kind)[None, :]
    logits = features()[0] @ features()[1].T
    for name, axis in (("image_to_text", 1), ("text_to_image", 0)):
        hits = np.take_along_axis(same, np.expand_dims(logits.argmax(axis), axis), axis).mean()
        assert 0 < hits < 1 and float(found[0][1][name]) == pytest.approx(hits)


@pytest.mark.parametrize("devices", [0, 8])
@pytest.mark.parametrize("kind", ["different", "shared"])
def test_the_sigmoid_ring_is_the_exact_loss(devices, kind):
    arguments = (*features(), jnp.float32(10.0), jnp.float32(-10.0), ids(kind))
    expected = exact_sigmoid(*features(), 10.0, -10.0, ids(kind))
    plain = jax.value_and_grad(contrastive.sigmoid_loss, argnums=(0, 1, 2, 3), has_aux=True)
    assert_equal(plain(*arguments), expected)
    mesh = sharding.make_mesh(*MESHES[max(devices, 1)], devices=jax.devices()[: max(devices, 1)])
    ring = functools.partial(contrastive.ring_sigmoid_loss, chunk=8)
    with jax.set_mesh(mesh):
        found = on_mesh(devices, ring, (P(AXES), P(AXES), P(), P(), P(AXES)))(*arguments)
    assert_equal(found, expected)
    assert float(found[0][1]["image_to_text"]) == float(plain(*arguments)[0][1]["image_to_text"])


def test_a_batch_of_unit_vectors_that_are_all_alike_has_the_loss_of_guessing():
    same = np.tile(np.eye(1, E, dtype=np.float32), (B, 1))
    for loss in (contrastive.softmax_loss, contrastive.ring_softmax_loss):
        assert float(loss(same, same, jnp.float32(14.0), np.arange(B))[0]) == pytest.approx(np.log(B), rel=1e-6)


def temporary_bytes(loss, batch):
    row = jax.ShapeDtypeStruct((batch, 64), jnp.float32)
    arguments = (row, row, jax.ShapeDtypeStruct((), jnp.float32), jax.ShapeDtypeStruct((batch,), jnp.int32))
    gradient = jax.jit(jax.grad(loss, argnums=(0, 1, 2), has_aux=True))
    return gradient.lower(*arguments).compile().memory_analysis().temp_size_in_bytes


def test_memory_of_the_ring_does_not_grow_with_the_square_of_the_batch():
    ring = functools.partial(contrastive.ring_softmax_loss, chunk=256)
    small, large = (temporary_bytes(ring, batch) for batch in (4096, 16384))
    assert large < 5 * small and large < 0.2 * 4 * 16384**2
    assert temporary_bytes(contrastive.softmax_loss, 16384) > 4 * 16384**2
