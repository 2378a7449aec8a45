"""FLOPs from a jaxpr against arithmetic and against the models' own counts."""

import jax
import jax.numpy as jnp
import pytest

from swin_jax.core import config as configs
from swin_jax.models import swin
from swin_jax.plan import compiled_step, flops
from swin_jax.tasks.base import prediction_shapes
from swin_jax.train import setup
from swin_jax.train.sharding import make_mesh
from tests.experiments import config_path


def array(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def test_a_matrix_product_is_two_operations_per_multiply_accumulate():
    assert flops.count(lambda a, b: a @ b, array(3, 5), array(5, 7)) == 2 * 3 * 5 * 7
    batched = flops.count(lambda a, b: jnp.einsum("bij,bjk->bik", a, b), array(4, 3, 5), array(4, 5, 7))
    assert batched == 4 * 2 * 3 * 5 * 7


def test_a_loop_counts_as_often_as_it_runs():
    body = lambda x, w: (jax.checkpoint(lambda x: jnp.tanh(x @ w))(x), None)  # noqa: E731
    once = flops.count(lambda x, w: body(x, w)[0], array(8, 16), array(16, 16))
    loop = lambda x, w: jax.lax.scan(body, x, w)[0].sum()  # noqa: E731
    assert flops.count(loop, array(8, 16), array(7, 16, 16)) == 7 * once
    # Forward, forward again, and two products of the gradient.
    assert flops.count(jax.grad(loop, argnums=(0, 1)), array(8, 16), array(7, 16, 16)) == 4 * 7 * once
    mapped = lambda x, w: jax.lax.map(lambda x: x @ w, x)  # noqa: E731
    assert flops.count(mapped, array(5, 8, 16), array(16, 16)) == 5 * once


def test_of_branches_the_dearest_counts():
    both = lambda p, x: jax.lax.cond(p, lambda x: x @ x, lambda x: (x @ x) @ x, x)  # noqa: E731
    assert flops.count(both, jax.ShapeDtypeStruct((), bool), array(4, 4)) == 2 * 2 * 4**3


@pytest.mark.parametrize("stride, groups", [(1, 1), (2, 1), (1, 2), (2, 2)])
def test_a_convolution_and_its_gradients(stride, groups):
    def conv(x, k):
        return jax.lax.conv_general_dilated(
            x, k, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=groups
        )

    x, k = array(2, 8, 8, 4), array(2, 2, 4 // groups, 6)
    forward = 2 * (2 * (8 // stride) ** 2 * 6) * (4 // groups * 2 * 2)
    assert flops.count(conv, x, k) == forward
    of_kernel = flops.count(jax.grad(lambda k, x: conv(x, k).sum()), k, x)
    of_image = flops.count(jax.grad(lambda x, k: conv(x, k).sum()), x, k)
    assert of_kernel == pytest.approx(2 * forward, rel=0.3)  # the borders' padding differs
    assert of_image == pytest.approx(2 * forward, rel=0.3)


def test_devices_of_a_shard_map_are_added_up():
    mesh = make_mesh(8)
    product = jax.shard_map(lambda x, w: x @ w, mesh=mesh, in_specs=(jax.P("data"), jax.P()), out_specs=jax.P("data"))
    assert flops.count(product, array(16, 4), array(4, 4)) == 2 * 16 * 4 * 4


@pytest.mark.parametrize("scan", [False, True])
def test_a_forward_pass_is_what_the_model_says(scan):
    model = swin.Swin(
        num_classes=10, image_size=32, embed_dim=16, depths=(4, 4), num_heads=(2, 4), window_size=4, scan=scan
    )
    found = flops.count(model.apply, swin.param_shapes(model), array(2, 32, 32, 3))
    # The official count has norms and pooling in it, which are not products.
    assert found == pytest.approx(2 * 2 * model.flops(), rel=0.03) and found < 4 * model.flops()


@pytest.mark.parametrize("name", ["swin_in1k", "clip_openai", "simmim_in1k", "video_swin_k400"])
def test_an_evaluation_is_one_forward_and_keeps_the_optimizers_state(name):
    config = configs.load(config_path(f"{name}:fake"))
    config.mesh.data = 1
    run = setup.build_run(config, jax.devices()[:1])
    shapes = prediction_shapes(run.task, config.batch_size)
    program = compiled_step._Program(run, shapes, "evaluation")
    traced = program.trace()
    forward = flops.count(run.task.predict, run.abstract, run.task.batch_shapes(config.batch_size), run.frozen)
    assert compiled_step._flops(program, traced, config.batch_size) == {"step": forward, "model": forward} and forward
    arguments = sum(x.size for x in jax.tree.leaves(traced.lower().in_avals))
    assert arguments == sum(x.size for x in jax.tree.leaves((run.abstract, shapes, run.frozen)))
    assert "label" not in shapes


def test_samples_are_made_of_latents():
    run = setup.build_run(configs.load(config_path("stylegan2_avatars:fake")))
    shapes = prediction_shapes(run.task, 8)
    assert shapes["latent"].shape == (8, run.task.generator.z_dim) and "image" not in shapes
    found = jax.eval_shape(run.task.predict, run.abstract, shapes, run.frozen)
    assert found["image"].shape[0] == 8


def test_a_step_of_two_networks_counts_with_its_penalties():
    config = configs.load(config_path("stylegan2_avatars:fake"))
    config.mesh.data = 1
    run = setup.build_run(config, jax.devices()[:1])
    program = compiled_step._Program(run, run.task.batch_shapes(config.batch_size), "update")
    found = compiled_step._flops(program, program.trace(), config.batch_size)
    # The step that is planned is one on which both penalties are due.
    assert found["step"] > found["model"] == round(run.task.train_flops() * config.batch_size)
