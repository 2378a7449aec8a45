"""Meshes, partition rules on the state of a tiny Swin, and the placement of batches, on 8 devices."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from swin_jax import optim
from swin_jax.core.errors import UserError
from swin_jax.core.params import flatten
from swin_jax.models import swin, video_swin
from swin_jax.models.arcface import IRSE
from swin_jax.models.arcface import rules as arcface_rules
from swin_jax.models.clip import make_clip
from swin_jax.models.clip import presets as clip_presets
from swin_jax.models.clip import rules as clip_rules
from swin_jax.models.swin import Swin
from swin_jax.models.swin import rules as swin_rules
from swin_jax.models.video_swin import VideoSwin, make_video_swin
from swin_jax.optim import schedules
from swin_jax.tasks.classification import Classification
from swin_jax.train import sharding
from swin_jax.train.sharding import Partition, Placement, in_memory, make_mesh, replicated


def state_shapes(**fields):
    """A TrainState of shapes, with an average: 2 and 4 heads, 8 and 16 channels."""
    model = Swin(num_classes=5, image_size=8, patch_size=2, in_channels=1, embed_dim=8, depths=(1, 1), num_heads=(2, 4),
                 window_size=2, **fields)  # fmt: skip
    tx = optim.adamw(schedules.constant(1e-3), no_decay=swin_rules.NO_DECAY)
    task = Classification(model, tx, 8, 5, 1, mean=(0.5,), std=(0.5,), ema_decay=0.9)
    return jax.eval_shape(task.init, jax.random.key(0))


@pytest.fixture(scope="module")
def shapes():
    return state_shapes()


def specs(shardings):
    return {path: sharding.spec for path, sharding in flatten(shardings).items()}


def padded(spec, ndim):
    return tuple(spec) + (None,) * (ndim - len(spec))


# ---- meshes ----


@pytest.mark.parametrize(
    "asked, got",
    [((-1, 1, 1), (8, 1, 1)), ((2, 2, 2), (2, 2, 2)), ((2, -1, 1), (2, 4, 1)), ((1, 2, -1), (1, 2, 4))],
)
def test_a_mesh_takes_all_devices_and_fills_in_what_is_left(asked, got):
    mesh = make_mesh(*asked)
    assert tuple(mesh.shape.values()) == got and mesh.axis_names == ("data", "fsdp", "tensor")
    assert mesh.size == jax.device_count() == 8


@pytest.mark.parametrize(
    "asked, problem",
    [
        *[(sizes, "8 devices") for sizes in ((-1, -1, 1), (3, 1, 1), (2, 2, 1), (-1, 3, 1), (16, 1, 1))],
        *[((0, 1, 1), "data=0"), ((-1, 0, 1), "fsdp=0"), ((-2, -4, 1), "data=-2"), ((2, 2.0, 2), "fsdp=2.0")],
    ],
)
def test_sizes_that_do_not_fit_are_refused_with_all_numbers(asked, problem):
    with pytest.raises(UserError) as caught:
        make_mesh(*asked)
    assert problem in str(caught.value)
    if "devices" in problem:
        assert "data={}, fsdp={}, tensor={}".format(*asked) in str(caught.value)


# ---- partition rules ----


def test_swin_rules_split_heads_and_hidden_width_over_tensor(shapes):
    found = specs(Partition(rules=swin_rules.PARTITION).shardings(shapes, make_mesh(2, 2, 2)))
    block = "params/layers_1/blocks_0/"
    assert found[block + "attn/qkv/kernel"] == P("fsdp", None, "tensor", None)
    assert found[block + "attn/qkv/bias"] == P(None, "tensor", None)
    assert found[block + "attn/relative_position_bias_table"] == P(None, "tensor")
    assert found[block + "attn/proj/kernel"] == P("tensor", None, "fsdp")
    assert found[block + "mlp/fc1/kernel"] == P("fsdp", "tensor") and found[block + "mlp/fc1/bias"] == P("tensor")
    assert found[block + "mlp/fc2/kernel"] == P("tensor", "fsdp")
    for name in ("params/norm/scale", "params/head/kernel", block + "norm1/bias", "step"):
        assert not any(found[name])


def test_every_rule_names_a_parameter_of_both_stages(shapes):
    v2 = state_shapes(cosine_attention=True, post_norm=True, continuous_bias=True)
    paths = {version: flatten(state.params) for version, state in (("v1", shapes), ("v2", v2))}
    for regex, axes in swin_rules.PARTITION:
        hit = {(v, path): x for v in paths for path, x in paths[v].items() if re.search(regex, path)}
        assert {path.split("/")[0] for _, path in hit} == {"layers_0", "layers_1"}, regex
        assert all(len(x.shape) == len(axes) for x in hit.values()), regex


def test_optimizer_state_and_average_lie_as_the_parameters_do(shapes):
    found = specs(Partition(rules=swin_rules.PARTITION, min_size=64).shardings(shapes, make_mesh(2, 2, 2)))
    params = {path.removeprefix("params/"): spec for path, spec in found.items() if path.startswith("params/")}
    copies = [re.fullmatch(r"(?:ema|opt_state/.*?/(?:mu|nu))/(.*)", path) for path in found]
    copies = [copy for copy in copies if copy]
    assert len(copies) == 3 * len(params)  # two moments and the average
    for copy in copies:
        assert found[copy[0]] == params[copy[1]], copy[0]


def test_zero_1_splits_what_no_layer_reads_and_nothing_else(shapes, monkeypatch):
    monkeypatch.setattr(sharding, "_OPT_MIN_SIZE", 128)
    mesh = make_mesh(8, 1, 1)
    found, leaves = specs(Partition(opt_axis="data").shardings(shapes, mesh)), flatten(shapes)
    for path, spec in found.items():
        split = path.startswith(("opt_state/", "ema/")) and leaves[path].size >= 128
        assert ("data" in spec) == split, path
    assert found["ema/layers_1/blocks_0/mlp/fc1/kernel"] == P(None, "data")


def test_zero_1_in_groups_leaves_parameters_whole_over_fsdp(shapes, monkeypatch):
    monkeypatch.setattr(sharding, "_OPT_MIN_SIZE", 128)
    found = specs(
        Partition(rules=swin_rules.PARTITION, opt_axis="fsdp", min_size=64).shardings(shapes, make_mesh(2, 2, 2))
    )
    for path, spec in found.items():
        split = path.startswith(("opt_state/", "ema/")) and flatten(shapes)[path].size >= 128
        assert ("fsdp" in str(spec)) == split, path
    assert found["params/layers_1/blocks_0/mlp/fc1/kernel"] == P(None, "tensor")
    assert found["ema/layers_1/blocks_0/mlp/fc1/kernel"] == P(None, ("tensor", "fsdp"))


def test_zero_1_goes_with_fsdp_and_tensor(shapes, monkeypatch):
    monkeypatch.setattr(sharding, "_OPT_MIN_SIZE", 128)
    found = specs(Partition(rules=swin_rules.PARTITION, opt_axis="data").shardings(shapes, make_mesh(2, 2, 2)))
    assert found["params/layers_1/blocks_0/mlp/fc1/kernel"] == P("fsdp", "tensor")
    assert found["ema/layers_1/blocks_0/mlp/fc1/kernel"] == P("fsdp", ("tensor", "data"))  # 16 x 64: 8 and 32 left
    assert found["ema/layers_1/blocks_0/attn/qkv/kernel"] == P(("fsdp", "data"), None, "tensor", None)
    with pytest.raises(UserError, match="opt_axis='dat' is not one of the mesh's axes data, fsdp, tensor"):
        Partition(opt_axis="dat")


class SliceDevice:
    """What a mesh asks of a TPU: its number, slice and place."""

    def __init__(self, number, slice_index, platform="tpu"):
        self.id, self.slice_index, self.process_index = number, slice_index, slice_index
        self.device_kind, self.platform, self.coords, self.core_on_chip = "TPU v4", platform, (number % 4, 0, 0), 0


def test_slices_are_neighbors_along_data_alone():
    devices = [SliceDevice(number, number // 4) for number in range(8)]
    mesh = make_mesh(-1, 2, 2, devices=devices)
    assert mesh.devices.shape == (2, 2, 2)
    for half in range(2):
        assert {device.slice_index for device in mesh.devices[half].ravel()} == {half}
    with pytest.raises(UserError, match="data=1 is not a multiple of the 2 slices"):
        make_mesh(1, 8, 1, devices=devices)


def test_fsdp_may_span_hosts_of_gpus():
    devices = [SliceDevice(number, number // 4, "gpu") for number in range(8)]
    assert make_mesh(1, 8, 1, devices=devices).devices.ravel().tolist() == devices
    assert {device.slice_index for device in make_mesh(-1, 4, 1, devices=devices).devices[0].ravel()} == {0}


# ---- nothing large is whole by accident ----

FAMILIES = {
    "swin": (swin_rules.PARTITION, lambda: Swin(**swin.VARIANTS["large"], num_classes=21841)),
    "swin_v2": (
        swin_rules.PARTITION,
        lambda: Swin(**swin.VARIANTS["giant"], **swin.V2, image_size=192, window_size=12, scan=True),
    ),
    "video": (swin_rules.PARTITION, lambda: make_video_swin(**swin.VARIANTS["base"], num_classes=400)),
    "video_factorized": (swin_rules.PARTITION, lambda: make_video_swin(**swin.VARIANTS["base"], design="factorized")),
    "clip_vit": (clip_rules.PARTITION, lambda: make_clip(**clip_presets.OPENAI["ViT-L/14"])),
    "clip_resnet": (clip_rules.PARTITION, lambda: make_clip(**clip_presets.OPENAI["RN50x64"])),
    "arcface": (arcface_rules.PARTITION, IRSE),
}


def param_shapes(model):
    if isinstance(model, Swin):
        return swin.param_shapes(model)
    if isinstance(model, VideoSwin):
        return video_swin.param_shapes(model)
    if isinstance(model, IRSE):
        return jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 112, 112, 3), jnp.float32))
    size = model.visual.image_size
    inputs = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32), jax.ShapeDtypeStruct((1, 77), jnp.int32)
    return jax.eval_shape(model.init, jax.random.key(0), *inputs)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("sizes", [(1, 8, 1), (2, 2, 2)])
def test_under_fsdp_no_large_tensor_is_whole_by_accident(family, sizes):
    rules, make = FAMILIES[family]
    params = {"params": param_shapes(make())["params"]}
    leaves = flatten(params)
    found = flatten(Partition(rules=rules).shardings(params, make_mesh(*sizes)))
    for path, leaf in leaves.items():
        if leaf.size >= 1_000_000:
            assert leaf.size // math.prod(found[path].shard_shape(leaf.shape)) >= sizes[1], path


def test_the_first_rule_of_the_right_rank_decides():
    mesh, leaf = make_mesh(2, 2, 2), {"kernel": jax.ShapeDtypeStruct((4, 8), jnp.float32)}
    rules = (("kernel", ("tensor",)), ("kernel", ("data", None)), ("kernel", (None, "data")))
    assert Partition(rules=rules).shardings(leaf, mesh)["kernel"].spec == P("data", None)
    assert not any(Partition(rules=rules[:1]).shardings(leaf, mesh)["kernel"].spec)


@pytest.mark.parametrize("shape", [(3, 5), (6, 8), (8, 6), (4, 4), (7,), (8,), (), (1, 6, 10), (16, 3)])
@pytest.mark.parametrize("sizes", [(2, 2, 2), (2, 4, 1), (8, 1, 1)])
def test_every_leaf_gets_a_layout_that_divides_it(shape, sizes):
    mesh, leaf = make_mesh(*sizes), {"w": jax.ShapeDtypeStruct(shape, jnp.float32)}
    for partition in (Partition(rules=((".", ("tensor", "fsdp")), (".", ("tensor",)))), Partition(min_size=1)):
        sharding = partition.shardings(leaf, mesh)["w"]
        sharding.shard_shape(shape)  # raises where it does not divide
        for axis, n in zip(padded(sharding.spec, len(shape)), shape):
            assert axis is None or n % mesh.shape[axis] == 0


def test_an_axis_that_does_not_divide_is_left_out_alone():
    mesh = make_mesh(2, 2, 2)
    rules = Partition(rules=(("w", ("tensor", "fsdp")),))
    for shape, expected in {(4, 4): ("tensor", "fsdp"), (3, 4): (None, "fsdp"), (4, 3): ("tensor", None)}.items():
        leaf = {"w": jax.ShapeDtypeStruct(shape, jnp.float32)}
        assert padded(rules.shardings(leaf, mesh)["w"].spec, 2) == expected


def test_the_shape_rule_splits_the_largest_divisible_dimension_of_large_tensors():
    mesh, partition = make_mesh(2, 4, 1), Partition(min_size=48)
    assert partition.shape_rule((4, 12), mesh) == [None, "fsdp"]
    assert partition.shape_rule((12, 4), mesh) == ["fsdp", None]
    assert partition.shape_rule((8, 9), mesh) == ["fsdp", None]
    assert partition.shape_rule((7, 9), mesh) == [None, None]
    assert partition.shape_rule((4, 11), mesh) == [None, None]  # 44 elements
    assert partition.shape_rule((), mesh) == []


# ---- batches ----


@pytest.mark.parametrize("sizes", [(8, 1, 1), (2, 4, 1), (2, 2, 2), (1, 1, 8)])
def test_put_keeps_every_value_and_splits_rows_over_data_and_fsdp(sizes):
    placement, size = Placement(make_mesh(*sizes)), 8
    batch = {"image": np.arange(size * 6, dtype=np.uint8).reshape(size, 2, 3), "label": np.arange(size, dtype=np.int32)}
    rows = placement.rows(size)
    assert rows == list(range(size))  # one process holds all of them
    placed = placement.to_global({key: value[rows] for key, value in batch.items()}, size)
    for key, value in batch.items():
        np.testing.assert_array_equal(placed[key], value)
        assert placed[key].dtype == value.dtype
        per_device = size // placement.batch_divisor
        assert {shard.data.shape[0] for shard in placed[key].addressable_shards} == {per_device}


@pytest.mark.parametrize("sizes, divisor", [((8, 1, 1), 8), ((2, 4, 1), 8), ((2, 2, 2), 4), ((1, 1, 8), 1)])
def test_round_up_gives_the_next_size_that_check_accepts(sizes, divisor):
    placement = Placement(make_mesh(*sizes))
    assert placement.batch_divisor == divisor
    for size in range(1, 20):
        rounded = placement.round_up(size)
        placement.check(rounded)
        assert size <= rounded < size + divisor
        if size % divisor:
            with pytest.raises(UserError, match=f"batch_size is {size}, .* {divisor} batch shards"):
                placement.check(size)


def test_check_says_which_number_is_wrong():
    with pytest.raises(UserError, match="micro is 12"):
        Placement(make_mesh()).check(12, "micro")


def test_replicated_puts_everything_on_every_device():
    x = jax.device_put(np.arange(3), replicated(make_mesh(2, 2, 2)))
    assert len(x.addressable_shards) == 8 and all(shard.data.shape == (3,) for shard in x.addressable_shards)


@pytest.mark.parametrize(
    "pattern, wanted", [("", "'' matches all names"), ("(", "'\\(' is not a regular expression"), (3, "3 is")]
)
def test_rules_of_a_layout_are_regular_expressions(pattern, wanted):
    with pytest.raises(UserError, match=f"^rules=.*{wanted}"):
        Partition(rules=((pattern, ("fsdp",)),))


def test_every_batch_of_an_evaluation_is_a_place_to_stop():
    asked = iter([None, None, KeyError])

    def pause():
        if error := next(asked):
            raise error

    placement = Placement(make_mesh(), pause)
    assert placement == Placement(make_mesh())
    for _ in range(2):
        placement.to_global({"image": np.zeros((8, 2))}, 8)
    with pytest.raises(KeyError):
        placement.to_global({"image": np.zeros((8, 2))}, 8)


def test_what_does_not_fit_into_memory_is_one_line():
    said = r"^a step does not fit .*: Out of memory.*: give a smaller batch_size$"
    with pytest.raises(UserError, match=said), in_memory("a step"):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 5 bytes.\nmore")
    with pytest.raises(jax.errors.JaxRuntimeError), in_memory("a step"):
        raise jax.errors.JaxRuntimeError("INTERNAL: a bug")
