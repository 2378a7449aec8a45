"""Reading compiled programs: how often loops run."""

import re

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, PartitionSpec

from swin_jax.plan import collectives, hlo

MIB = 2**20

LOOP = """
%wide.region_1.2_spmd (wide.param.1: (s32[], bf16[7,128,4096], bf16[7,256,1024])) -> pred[] {
  %constant.116.clone.1 = s32[]{:T(128)} constant(7)
  %wide.param.1 = (s32[]{:T(128)}, bf16[7,128,4096]{2,1,0:T(8,128)(2,1)}, bf16[7,256,1024]{2,1,0:T(8,128)(2,1)}) parameter(0)
  %get-tuple-element.232 = s32[]{:T(128)} get-tuple-element(%wide.param.1), index=0
  ROOT %lt.10 = pred[]{:T(512)} compare(%get-tuple-element.232, %constant.116.clone.1), direction=LT
}

%fused_computation.13.clone.1 (param_0.164: bf16[7,128,4096], param_1.178: s32[]) -> bf16[1,128,4096] {
  %param_0.164 = bf16[7,128,4096]{2,1,0:T(8,128)(2,1)} parameter(0)
  %param_1.178 = s32[]{:T(128)S(6)} parameter(1)
  %constant.276 = s32[]{:T(128)} constant(0)
  ROOT %dynamic-slice.32 = bf16[1,128,4096]{2,1,0:T(8,128)(2,1)S(1)} dynamic-slice(%param_0.164, %param_1.178, %constant.276, %constant.276), dynamic_slice_sizes={1,128,4096}
}

%fused_computation.19.clone.1 (param_0.163: bf16[7,256,1024], param_1.177: s32[], param_2.166: bf16[256,1024]) -> bf16[7,256,1024] {
  %param_0.163 = bf16[7,256,1024]{2,1,0:T(8,128)(2,1)} parameter(0)
  %param_2.166 = bf16[256,1024]{1,0:T(8,128)(2,1)S(1)} parameter(2)
  %bitcast.99 = bf16[1,256,1024]{2,1,0:T(8,128)(2,1)} bitcast(%param_2.166)
  %param_1.177 = s32[]{:T(128)S(6)} parameter(1)
  %constant.275 = s32[]{:T(128)} constant(0)
  ROOT %dynamic-update-slice.9 = bf16[7,256,1024]{2,1,0:T(8,128)(2,1)} dynamic-update-slice(%param_0.163, %bitcast.99, %param_1.177, %constant.275, %constant.275)
}

%wide.region_0.1_spmd.sunk (wide.param.4: (s32[], bf16[7,128,4096], bf16[7,256,1024])) -> (s32[], bf16[7,128,4096], bf16[7,256,1024]) {
  %constant.110.clone.1..sunk = s32[]{:T(128)S(6)} constant(1)
  %wide.param.4 = (s32[]{:T(128)S(6)}, bf16[7,128,4096]{2,1,0:T(8,128)(2,1)}, bf16[7,256,1024]{2,1,0:T(8,128)(2,1)}) parameter(0)
  %get-tuple-element.316 = s32[]{:T(128)S(6)} get-tuple-element(%wide.param.4), index=0
  %copy.44 = s32[]{:T(128)S(6)} copy(%get-tuple-element.316)
  %get-tuple-element.325 = bf16[7,128,4096]{2,1,0:T(8,128)(2,1)} get-tuple-element(%wide.param.4), index=1
  %dynamic-slice_convert_fusion.5 = bf16[1,128,4096]{2,1,0:T(8,128)(2,1)S(1)} fusion(%get-tuple-element.325, %copy.44), kind=kLoop, calls=%fused_computation.13.clone.1
  %all-gather.56 = bf16[1,1024,4096]{2,1,0:T(8,128)(2,1)S(1)} all-gather(%dynamic-slice_convert_fusion.5), channel_id=20, replica_groups=mesh['axis_0'=8,'axis_1'=1] {'axis_0'}, dimensions={1}, use_global_device_ids=true
  %add.133 = s32[]{:T(128)S(6)} add(%copy.44, %constant.110.clone.1..sunk)
  %copy.75 = bf16[256,1024]{1,0:T(8,128)(2,1)S(1)} copy(%all-gather.56)
  %get-tuple-element.318 = bf16[7,256,1024]{2,1,0:T(8,128)(2,1)} get-tuple-element(%wide.param.4), index=2
  %bitcast_dynamic-update-slice_fusion.6 = bf16[7,256,1024]{2,1,0:T(8,128)(2,1)} fusion(%get-tuple-element.318, %copy.44, %copy.75), kind=kLoop, calls=%fused_computation.19.clone.1
  ROOT %tuple.63 = (s32[]{:T(128)S(6)}, bf16[7,128,4096]{2,1,0:T(8,128)(2,1)}, bf16[7,256,1024]{2,1,0:T(8,128)(2,1)}) tuple(%add.133, %get-tuple-element.325, %bitcast_dynamic-update-slice_fusion.6)
}

ENTRY %main.0_spmd (param: bf16[7,128,4096], param.1: bf16[7,256,1024]) -> bf16[7,256,1024] {
  %constant.128.clone = s32[]{:T(128)} constant(0)
  %copy.41 = s32[]{:T(128)S(6)} copy(%constant.128.clone)
  %param = bf16[7,128,4096]{2,1,0:T(8,128)(2,1)} parameter(0)
  %param.1 = bf16[7,256,1024]{2,1,0:T(8,128)(2,1)} parameter(1)
  %tuple.76 = (s32[]{:T(128)S(6)}, bf16[7,128,4096]{2,1,0:T(8,128)(2,1)}, /*index=2*/bf16[7,256,1024]{2,1,0:T(8,128)(2,1)}) tuple(%copy.41, %param, /*index=2*/%param.1)
  %while.28 = (s32[]{:T(128)S(6)}, bf16[7,128,4096]{2,1,0:T(8,128)(2,1)}, bf16[7,256,1024]{2,1,0:T(8,128)(2,1)}) while(%tuple.76), condition=%wide.region_1.2_spmd, body=%wide.region_0.1_spmd.sunk, metadata={op_name="jit(sstep)/jvp()/while" stack_frame_id=14}
  ROOT %get-tuple-element.332 = bf16[7,256,1024]{2,1,0:T(8,128)(2,1)} get-tuple-element(%while.28), index=2
}
"""  # noqa: E501


def test_a_compiled_loop_counts_what_it_does_as_often_as_it_runs():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    spec = PartitionSpec("data")

    def text(length):
        def body(x):
            return jax.lax.scan(lambda x, _: (jax.lax.psum(jnp.sin(x), "data"), None), x, length=length)[0]

        mapped = jax.shard_map(body, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False)
        return jax.jit(mapped).lower(jnp.ones((1024,))).compile().as_text()

    (found,) = collectives.collectives(text(7), mesh.shape)
    assert (found.bytes, found.count) == (512, 7) and list(hlo.trip_counts(text(7)).values()) == [7]
    # Twice as many runs, twice the traffic of the body; what is outside of it stays.
    moved = [collectives.hbm_bytes(text(length)) for length in (5, 10, 15)]
    assert moved[2] - moved[1] == moved[1] - moved[0] > 0


def test_a_tpu_loop_counts_as_often_as_its_condition_says():
    (found,) = collectives.collectives(LOOP, {"data": 1, "fsdp": 8, "tensor": 1})
    assert (found.kind, found.bytes, found.axes, found.count) == ("all-gather", 8 * MIB, ("fsdp",), 7)
    assert hlo.trip_counts(LOOP) == {"while.28": 7}
    once = LOOP.replace("s32[]{:T(128)} constant(7)", "s32[]{:T(128)} constant(1)")
    assert (
        collectives.hbm_bytes(LOOP) - collectives.hbm_bytes(once) == 6 * 1.5 * MIB
    )  # 1 MiB of slices read, 0.5 written


def test_an_element_of_a_result_is_read_as_its_instruction_is():
    """libtpu 0.0.50 writes %while.28#2 where 0.0.42 has an instruction get-tuple-element."""
    line = r"^  %(get-tuple-element\S+) = .*\(%(\S+)\), index=(\d+)\n"
    elements = {name: f"%{whole}#{index}" for name, whole, index in re.findall(line, LOOP, re.M)}
    text = re.sub(
        r"%(get-tuple-element[.\d]+)",
        lambda match: elements.get(match[1], match[0]),
        re.sub(line, "", LOOP, flags=re.M),
    )
    assert len(elements) == 4 and "get-tuple-element.325" not in text and "(%wide.param.4#1, %copy.44)" in text
    mesh = {"data": 1, "fsdp": 8, "tensor": 1}
    assert collectives.collectives(text, mesh) == collectives.collectives(LOOP, mesh)
    assert hlo.trip_counts(text) == hlo.trip_counts(LOOP) == {"while.28": 7}
    assert collectives.hbm_bytes(text) == collectives.hbm_bytes(LOOP)


@pytest.mark.parametrize(
    "start, bound, step, direction, count",
    [
        (0, 7, 1, "LT", 7),
        (2, 7, 2, "LT", 3),
        (0, 7, 1, "LE", 8),
        (6, -1, -1, "GT", 7),
        (6, 0, -1, "GE", 7),
        (0, 7, 1, "NE", 7),
        (9, 7, 1, "LT", 0),
    ],
)
def test_counters_of_loops(start, bound, step, direction, count):
    text = LOOP.replace("{:T(128)} constant(7)", f"{{:T(128)}} constant({bound})").replace("=LT", f"={direction}")
    text = text.replace(
        "%constant.128.clone = s32[]{:T(128)} constant(0)", f"%constant.128.clone = s32[] constant({start})"
    )
    text = text.replace("S(6)} constant(1)", f"S(6)}} constant({step})")
    assert hlo.trip_counts(text) == {"while.28": count}


def test_a_bound_in_the_state_of_a_loop():
    text = LOOP.replace("%constant.116.clone.1 = s32[]{:T(128)} constant(7)", "")
    text = text.replace("%constant.116.clone.1)", "%bound)").replace(
        "  ROOT %lt.10", "  %bound = s32[]{:T(128)} get-tuple-element(%wide.param.1), index=3\n  ROOT %lt.10"
    )
    text = text.replace("%param.1)\n  %while", "%param.1, %constant.9)\n  %while").replace(
        "  %tuple.76", "  %constant.9 = s32[]{:T(128)} constant(5)\n  %tuple.76"
    )
    assert hlo.trip_counts(text) == {"while.28": 5}


def test_loops_that_say_how_often_or_do_not_say():
    known = LOOP.replace("metadata={op_name", 'backend_config={"known_trip_count":{"n":"9"}}, metadata={op_name')
    assert hlo.trip_counts(known) == {"while.28": 9}
    unknown = LOOP.replace("ROOT %lt.10 = pred[]{:T(512)} compare", "ROOT %lt.10 = pred[]{:T(512)} xor")
    assert hlo.trip_counts(unknown) == {"while.28": None}
    assert collectives.collectives(unknown, {"fsdp": 8})[0].count == 1
