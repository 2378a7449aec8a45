"""Collectives and memory traffic from the text of programs: of the CPU's compiler, and excerpts of the TPU's."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from swin_jax.plan import collectives, hlo
from tests.unit.plan.test_hlo import LOOP

MIB = 2**20
MESH = {"data": 2, "fsdp": 2, "tensor": 2}
AXES = [axes for n in (1, 2, 3) for axes in itertools.combinations(MESH, n)]


def entry(*lines, before=""):
    """A module whose entry computation has the lines, all taken from programs for v5e:2x4."""
    return before + "ENTRY %main (x: f32[8]) -> f32[8] {\n  " + "\n  ".join(lines) + "\n}\n"


def reduced(groups, kind="all-reduce", shape="f32[1024,8]"):
    return entry(
        f"%p = {shape}{{1,0:T(8,128)}} parameter(0)",
        f"ROOT %all-reduce.4 = {shape}{{1,0:T(8,128)}} {kind}(%p), channel_id=5, replica_groups={groups}, "
        "use_global_device_ids=true, to_apply=%add.clone",
    )


@pytest.mark.parametrize("axes", AXES, ids="-".join)
def test_all_forms_of_groups_give_the_axes_along_which_they_lie(axes):
    order = [name for name in MESH if name not in axes] + list(axes)
    lists = np.arange(8).reshape(2, 2, 2).transpose([list(MESH).index(name) for name in order])
    lists = lists.reshape(-1, 2 ** len(axes)).tolist()
    transposed = ",".join(str(list(MESH).index(name)) for name in order)
    named = ",".join(f"'{name}'" for name in axes)
    parts = {"data": "'a':(1)2", "fsdp": "'a':(2)2", "tensor": "'a':(4)2"}  # of one axis of 8
    forms = [
        str(lists).replace(" ", "").replace("[", "{").replace("]", "}"),
        f"[{len(lists)},{len(lists[0])}]<=[2,2,2]T({transposed})",
        f"mesh['data'=2,'fsdp'=2,'tensor'=2] {{{named}}}",
        f"mesh['a'=8] {{{','.join(parts[name] for name in axes)}}}",
        # The same chips in another order of the mesh, which lists them in the order of ours.
        f"mesh['tensor'=2,'fsdp'=2,'data'=2], device_ids=([2,2,2]T(2,1,0)) {{{named}}}",
        f"mesh['tensor'=2,'fsdp'=2,'data'=2], device_ids=(0,4,2,6,1,5,3,7) {{{named}}}",
    ]
    for form in forms:
        (found,) = collectives.collectives(reduced(form), MESH)
        assert (found.kind, found.bytes, found.axes, found.group) == ("all-reduce", 32_768, axes, 2 ** len(axes)), form
        assert (found.count, found.slices, found.overlaps) == (1, 1, False)


def test_groups_of_the_short_forms():
    (all_chips,) = collectives.collectives(reduced("{}"), MESH)
    assert (all_chips.axes, all_chips.group) == (("data", "fsdp", "tensor"), 8)
    (in_order,) = collectives.collectives(reduced("[4,2]<=[8]"), MESH)
    assert (in_order.axes, in_order.group) == (("tensor",), 2)
    (part,) = collectives.collectives(reduced("{{0,1},{2,3},{4,5},{6,7}}"), {"data": 8, "fsdp": 1})
    assert (part.axes, part.group) == (("data",), 2)


@pytest.mark.parametrize("axes", AXES, ids="-".join)
def test_collectives_of_a_compiled_program(axes):
    mesh = jax.make_mesh(tuple(MESH.values()), tuple(MESH), axis_types=(AxisType.Auto,) * 3)
    group = 2 ** len(axes)

    def body(x):
        every = jax.lax.all_gather(x, axes, tiled=True)
        return jax.lax.psum_scatter(every * 2, axes, tiled=True) + jax.lax.psum(x, axes)

    spec = PartitionSpec(tuple(MESH))
    fn = jax.jit(jax.shard_map(body, mesh=mesh, in_specs=spec, out_specs=spec))
    found = collectives.collectives(fn.lower(jnp.ones((8 * 128, 16))).compile().as_text(), mesh.shape)
    expected = {("all-gather", 8192 * group), ("reduce-scatter", 8192 * group), ("all-reduce", 8192)}
    assert {(item.kind, item.bytes) for item in found} == expected and len(found) == 3
    assert {(item.axes, item.group) for item in found} == {(axes, group)}


def test_traffic_of_compiled_elementwise_code_is_its_operands_and_results():
    x = jnp.ones((256, 1024))
    text = jax.jit(lambda x, y: x * y + 1).lower(x, x).compile().as_text()
    assert collectives.hbm_bytes(text) == 3 * x.nbytes and collectives.collectives(text, {"data": 1}) == []


SCATTER = """
%all-reduce-scatter (input: bf16[4096,1024]) -> bf16[512,1024] {
  %input = bf16[4096,1024]{1,0:T(8,128)(2,1)S(1)} parameter(0)
  %all-reduce.9 = bf16[4096,1024]{1,0:T(8,128)(2,1)} all-reduce(%input), channel_id=2, replica_groups={{0,1,2,3,4,5,6,7}}, use_global_device_ids=true, to_apply=%add.1.clone, frontend_attributes={from-cross-replica-sharding="true"}
  %partition-id.2 = u32[]{:T(128)} partition-id()
  %constant.71 = s32[]{:T(128)} constant(0)
  ROOT %dynamic-slice.20 = bf16[512,1024]{1,0:T(8,128)(2,1)S(1)} dynamic-slice(%all-reduce.9, %multiply.11, %constant.71), dynamic_slice_sizes={512,1024}
}

"""  # noqa: E501


def test_a_fused_all_reduce_of_which_a_part_is_kept_is_a_reduce_scatter():
    text = entry(
        "%g = bf16[4096,1024]{1,0:T(8,128)(2,1)S(1)} parameter(0)",
        "ROOT %fusion = bf16[512,1024]{1,0:T(8,128)(2,1)S(1)} fusion(%g), kind=kCustom, calls=%all-reduce-scatter",
        before=SCATTER,
    )
    (found,) = collectives.collectives(text, {"data": 8, "fsdp": 1, "tensor": 1})
    assert (found.kind, found.bytes, found.axes, found.name) == ("reduce-scatter", 8 * MIB, ("data",), "fusion")


def test_several_arrays_of_which_parts_are_kept_are_one_reduce_scatter():
    whole, part = "bf16[4096,1024]{1,0:T(8,128)(2,1)}", "bf16[512,1024]{1,0:T(8,128)(2,1)}"
    rows = SCATTER.strip().splitlines()
    last = rows[-2].replace("ROOT ", "").replace("%all-reduce.9", "%first")
    second = last.replace("%dynamic-slice.20", "%dynamic-slice.21").replace("%first", "%second")
    rows[2:3] = [
        rows[2].replace(whole, f"({whole}, {whole})", 1).replace("(%input)", "(%input, %input)"),
        f"  %first = {whole} get-tuple-element(%all-reduce.9), index=0",
        f"  %second = {whole} get-tuple-element(%all-reduce.9), index=1",
    ]
    rows[-2:-1] = [last, second, f"  ROOT %tuple = ({part}, {part}) tuple(%dynamic-slice.20, %dynamic-slice.21)"]
    lines = (
        f"%g = {whole} parameter(0)",
        f"ROOT %fusion = ({part}, {part}) fusion(%g), kind=kCustom, calls=%all-reduce-scatter",
    )
    (found,) = collectives.collectives(entry(*lines, before="\n".join(rows) + "\n\n"), {"data": 8})
    assert (found.kind, found.bytes) == ("reduce-scatter", 16 * MIB)
    rows[-2] = f"  ROOT %tuple = ({part}, {whole}) tuple(%dynamic-slice.20, %second)"
    (found,) = collectives.collectives(entry(*lines, before="\n".join(rows) + "\n\n"), {"data": 8})
    assert found.kind == "all-reduce"


# ZeRO-1: parameters gathered beside a product, in three fusions with one channel.
START = """
%fused_computation.112 (param_0.234: f32[512,1024]) -> (f32[512,1024], f32[4096,1024], u32[]) {
  %param_0.234 = f32[512,1024]{1,0:T(8,128)S(1)} parameter(0)
  %all-gather.27 = f32[4096,1024]{1,0:T(8,128)} all-gather(%param_0.234), channel_id=10, replica_groups=mesh['axis_0'=8,'axis_1'=1] {'axis_0'}, dimensions={0}, use_global_device_ids=true, backend_config={"async_collective_fusion_config":{"flag_start":"-1","flag_end":"-1"}}
  ROOT %custom-call.5 = (f32[512,1024]{1,0:T(8,128)S(1)}, f32[4096,1024]{1,0:T(8,128)}, u32[]{:S(2)}) custom-call(%all-gather.27), custom_call_target="AsyncCollectiveStart"
}

%async_collective_fusion.137 (param_0.238: f32[512,1024], param_1.244: f32[4096,1024], param_9.29: bf16[256,1024], param_10.7: bf16[256,4096]) -> (bf16[4096,1024], f32[512,1024], f32[4096,1024]) {
  %param_10.7 = bf16[256,4096]{1,0:T(8,128)(2,1)} parameter(3)
  %param_9.29 = bf16[256,1024]{1,0:T(8,128)(2,1)} parameter(2)
  %convolution.37 = bf16[4096,1024]{1,0:T(8,128)(2,1)} convolution(%param_10.7, %param_9.29), dim_labels=fb_io->bf
  %param_0.238 = f32[512,1024]{1,0:T(8,128)S(1)} parameter(0)
  %param_1.244 = f32[4096,1024]{1,0:T(8,128)} parameter(1)
  %all-gather.29 = f32[4096,1024]{1,0:T(8,128)} all-gather(%param_0.238), channel_id=10, replica_groups=mesh['axis_0'=8,'axis_1'=1] {'axis_0'}, dimensions={0}, use_global_device_ids=true, backend_config={"async_collective_fusion_config":{"flag_start":"2","flag_end":"8"}}
  ROOT %tuple.13 = (bf16[4096,1024]{1,0:T(8,128)(2,1)}, f32[512,1024]{1,0:T(8,128)S(1)}, f32[4096,1024]{1,0:T(8,128)}) tuple(%convolution.37, %param_0.238, %param_1.244)
}

%fused_computation.114 (param_0.240: f32[512,1024], param_1.245: f32[4096,1024], param_2.210: u32[]) -> f32[4096,1024] {
  %param_0.240 = f32[512,1024]{1,0:T(8,128)S(1)} parameter(0)
  %param_1.245 = f32[4096,1024]{1,0:T(8,128)} parameter(1)
  %all-gather.31 = f32[4096,1024]{1,0:T(8,128)} all-gather(%param_0.240), channel_id=10, replica_groups=mesh['axis_0'=8,'axis_1'=1] {'axis_0'}, dimensions={0}, use_global_device_ids=true, backend_config={"async_collective_fusion_config":{"flag_start":"2","flag_end":"8"}}
  %param_2.210 = u32[]{:S(2)} parameter(2)
  ROOT %custom-call.7 = f32[4096,1024]{1,0:T(8,128)} custom-call(%param_0.240, %param_1.245, %all-gather.31, %param_2.210), custom_call_target="AsyncCollectiveDone"
}

"""  # noqa: E501


def test_a_collective_fused_with_what_it_runs_beside_counts_once():
    text = entry(
        "%p = f32[512,1024]{1,0:T(8,128)S(1)} parameter(0)",
        "%a = bf16[256,1024]{1,0:T(8,128)(2,1)} parameter(1)",
        "%b = bf16[256,4096]{1,0:T(8,128)(2,1)} parameter(2)",
        "%start = (f32[512,1024]{1,0:T(8,128)S(1)}, f32[4096,1024]{1,0:T(8,128)}, u32[]{:S(2)}) fusion(%p), "
        "kind=kCustom, output_to_operand_aliasing={{0}: (0, {})}, calls=%fused_computation.112",
        "%s0 = f32[512,1024]{1,0:T(8,128)S(1)} get-tuple-element(%start), index=0",
        "%s1 = f32[4096,1024]{1,0:T(8,128)} get-tuple-element(%start), index=1",
        "%s2 = u32[]{:S(2)} get-tuple-element(%start), index=2",
        "%step = (bf16[4096,1024]{1,0:T(8,128)(2,1)}, f32[512,1024]{1,0:T(8,128)S(1)}, f32[4096,1024]{1,0:T(8,128)}) "
        "fusion(%s0, %s1, %a, %b), kind=kOutput, calls=%async_collective_fusion.137",
        "ROOT %done = f32[4096,1024]{1,0:T(8,128)} fusion(%s0, %s1, %s2), kind=kCustom, calls=%fused_computation.114",
        before=START,
    )
    (found,) = collectives.collectives(text, {"data": 8})
    assert (found.kind, found.bytes, found.group, found.overlaps) == ("all-gather", 16 * MIB, 8, True)
    # What is gathered is written once; the product reads 0.5 and 2 MiB and writes 8.
    assert collectives.hbm_bytes(text) == (16 + 0.5 + 2 + 8) * MIB


def test_collectives_that_start_and_finish():
    text = entry(
        "%p = f32[512,1024]{1,0:T(8,128)} parameter(0)",
        "%s = (f32[512,1024]{1,0:T(8,128)}, f32[4096,1024]{1,0:T(8,128)}) all-gather-start(%p), channel_id=1, "
        "replica_groups=[1,8]<=[8], dimensions={0}, use_global_device_ids=true",
        "%d = f32[4096,1024]{1,0:T(8,128)} all-gather-done(%s)",
        "%r = (f32[4096,1024]{1,0:T(8,128)}, f32[512,1024]{1,0:T(8,128)}) async-start(%d), calls=%async_computation",
        "%t = f32[512,1024]{1,0:T(8,128)} async-done(%r)",
        "%c = (f32[512,1024]{1,0:T(8,128)}, f32[512,1024]{1,0:T(8,128)}, u32[]{:S(2)}, u32[]{:S(2)}) "
        "collective-permute-start(%t), channel_id=3, source_target_pairs={{0,1},{1,2},{2,3},{3,0},{4,4}}",
        "ROOT %e = f32[512,1024]{1,0:T(8,128)} collective-permute-done(%c)",
        before="%async_computation (q: f32[4096,1024]) -> f32[512,1024] {\n"
        "  %q = f32[4096,1024]{1,0:T(8,128)} parameter(0)\n"
        "  ROOT %rs = f32[512,1024]{1,0:T(8,128)} reduce-scatter(%q), channel_id=2, replica_groups=[1,8]<=[8], "
        "dimensions={0}, to_apply=%add\n}\n\n",
    )
    found = collectives.collectives(text, {"data": 2, "fsdp": 4})
    assert [(item.kind, item.bytes / MIB, item.group) for item in found] == [
        ("all-gather", 16, 8),
        ("reduce-scatter", 16, 8),
        ("collective-permute", 2, 2),
    ]
    assert all(item.overlaps for item in found) and found[2].axes == ("fsdp",)
    assert collectives.hbm_bytes(text) == (2 + 16 + 16 + 2 + 2 + 2) * MIB


def test_what_crosses_slices():
    text = entry(
        "%p = bf16[4096,1024]{1,0:T(8,128)(2,1)} parameter(0)",
        "%after-all = token[] after-all()",
        "%reduce-scatter.2 = bf16[512,1024]{1,0:T(8,128)(2,1)} reduce-scatter(%p), channel_id=2, "
        "replica_groups={{0,1,2,3,4,5,6,7}}, use_global_device_ids=true, dimensions={0}, to_apply=%add.1.clone",
        "%bitcast.1 = bf16[512,8,128]{2,1,0:T(8,128)(2,1)} bitcast(%reduce-scatter.2)",
        "%send = (bf16[512,8,128]{2,1,0:T(8,128)(2,1)}, u32[], token[]) send(%bitcast.1, %after-all), channel_id=3, "
        'is_host_transfer=true, frontend_attributes={_xla_host_transfer_handler_name="xla_megascale_runtime",'
        '_xla_host_transfer_rendezvous="all-reduce.5_0",_xla_megascale_reduce_operation="SUM",'
        '_xla_megascale_target="{1,2}x{0:7}",_xla_megascale_transfer_type="ALL_REDUCE"}',
        "%recv = (bf16[512,8,128]{2,1,0:T(8,128)(2,1)}, u32[], token[]) recv(%after-all), channel_id=2, "
        'is_host_transfer=true, frontend_attributes={_xla_megascale_transfer_type="ALL_REDUCE"}',
        "%send-done = token[] send-done(%send), channel_id=3, is_host_transfer=true",
        "ROOT %recv-done = (bf16[512,8,128]{2,1,0:T(8,128)(2,1)}, token[]) recv-done(%recv), channel_id=2",
    )
    within, among = collectives.collectives(text, {"data": 16, "fsdp": 1, "tensor": 1}, slices=2)
    assert (within.kind, within.bytes, within.axes, within.group, within.slices) == (
        "reduce-scatter",
        8 * MIB,
        ("data",),
        8,
        1,
    )
    assert (among.kind, among.bytes, among.axes, among.group, among.slices) == ("all-reduce", MIB, ("data",), 2, 2)
    assert collectives.hbm_bytes(text) == (8 + 1 + 1 + 1) * MIB
    gathered = text.replace("ALL_REDUCE", "ALL_GATHER")
    assert collectives.collectives(gathered, {"data": 4, "fsdp": 4}, 2)[1].bytes == 2 * MIB
    to_the_host = text.replace('_xla_megascale_transfer_type="ALL_REDUCE"', "")
    assert [item.kind for item in collectives.collectives(to_the_host, {"data": 16}, 2)] == ["reduce-scatter"]


@pytest.mark.parametrize(
    "lines, mib",
    [
        # What lies in on-chip memory is not counted: reading 1 MiB, writing 1.
        (["%b = f32[256,1024]{1,0:T(8,128)} add(%a, %v)"], 2),
        (["%b = f32[256,1024]{1,0:T(8,128)S(1)} add(%a, %v)"], 1),
        # A copy to on-chip memory.
        (
            [
                "%b = (f32[256,1024]{1,0:T(8,128)S(1)}, f32[256,1024]{1,0:T(8,128)}, u32[]{:S(2)}) copy-start(%a)",
                "%c = f32[256,1024]{1,0:T(8,128)S(1)} copy-done(%b)",
            ],
            1,
        ),
        # A part of it.
        (
            [
                "%b = ((f32[256,1024]{1,0:T(8,128)}), f32[64,1024]{1,0:T(8,128)S(1)}, s32[]{:S(2)}) slice-start(%a), "
                "slice={[0:64], [0:1024]}",
                "%c = f32[64,1024]{1,0:T(8,128)S(1)} slice-done(%b)",
                '%d = f32[64,1024]{1,0:T(8,128)S(1)} custom-call(%c), custom_call_target="ConcatBitcast"',
            ],
            0.25,
        ),
        (["%b = f32[64,1024]{1,0:T(8,128)} dynamic-slice(%a, %i, %i), dynamic_slice_sizes={64,1024}"], 0.5),
        (["%b = f32[256,1024]{1,0:T(8,128)} dynamic-update-slice(%a, %u, %i, %i)"], 0.5),
        # What doesn't move anything.
        (["%b = f32[1024,256]{1,0:T(8,128)} bitcast(%a)", "%c = (f32[256,1024]{1,0}) tuple(%a)"], 0),
        (['%b = f32[512,1024]{1,0:T(8,128)} custom-call(%a, %a), custom_call_target="ConcatBitcast"'], 0),
        # Rows of 96 numbers in tiles of 128, 49 rows in 56.
        (["%b = bf16[128,49,96]{2,1,0:T(8,128)(2,1)} iota(), iota_dimension=0"], 128 * 56 * 128 * 2 / MIB),
        (["%b = bf16[128,49,96]{0,2,1:T(8,128)(2,1)} iota(), iota_dimension=0"], 49 * 96 * 128 * 2 / MIB),
    ],
)
def test_traffic_of_single_instructions(lines, mib):
    text = entry(
        "%a = f32[256,1024]{1,0:T(8,128)} parameter(0)",
        "%v = f32[256,1024]{1,0:T(8,128)S(1)} parameter(1)",
        "%u = f32[64,1024]{1,0:T(8,128)} parameter(2)",
        "%i = s32[]{:T(128)S(6)} parameter(3)",
        *lines,
    )
    assert collectives.hbm_bytes(text) == mib * MIB


def test_of_a_conditional_one_branch_counts():
    branch = "%branch_{} (p: f32[256,1024]) -> f32[256,1024] {{\n  %p = f32[256,1024]{{1,0}} parameter(0)\n  {}\n}}\n\n"
    once = branch.format("0", "ROOT %n = f32[256,1024]{1,0} negate(%p)")
    twice = branch.format(
        "1",
        "%n.1 = f32[256,1024]{1,0} negate(%p)\n  ROOT %e.1 = f32[256,1024]{1,0} exponential(%n.1)",
    )
    text = entry(
        "%i = s32[]{:S(6)} parameter(0)",
        "%a = f32[256,1024]{1,0} parameter(1)",
        "ROOT %c = f32[256,1024]{1,0} conditional(%i, %a, %a), branch_computations={%branch_0, %branch_1}",
        before=once + twice,
    )
    assert collectives.hbm_bytes(text) == 4 * MIB


def test_instructions_that_cannot_be_read_are_left_out():
    rng = np.random.default_rng(0)
    lines = (LOOP + START + SCATTER).splitlines()
    for _ in range(200):
        broken = list(lines)
        for row in rng.integers(len(lines), size=5):
            if not lines[row].startswith("  "):
                continue
            at = rng.integers(len(lines[row]) + 1)
            broken[row] = lines[row][:at] + rng.choice(["", "(", "}", "%", "=0", lines[row][at + 3 :]])
        text = "\n".join(broken)
        assert len(collectives.collectives(text, {"data": 8})) <= 4 and collectives.hbm_bytes(text) >= 0
        hlo.trip_counts(text)
    assert collectives.collectives("", {"data": 8}) == [] and collectives.hbm_bytes("") == 0
