"""What the TPU compiler says, read from its own words: no compiler is needed."""

import pytest

from swin_jax.plan import tpu_compiler

MESSAGE = """RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. \
Used 21.50G of 15.75G hbm. Exceeded hbm capacity by 5.75G.

Total hbm usage >= 21.75G:
    reserved        258.00M
    program           3.00G
    arguments        18.50G

  Largest program allocations in hbm:

  1. Size: 3.00G
     Operator: op_name="jit(train_step)/transpose(jvp(Swin))/layers_0/dot_general"
     Shape: f32[144,16,1024,1024]{3,2,1,0:T(8,128)}
     Unpadded size: 3.00G
     Allocation type: HLO temp
     ==========================

  2. Size: 256.00M
     Operator: op_name="jit(train_step)/mul"
     Shape: bf16[128,1024,1024]{2,1,0:T(8,128)(2,1)}
     Allocation type: HLO temp
     ==========================
"""


def test_one_module_starts_the_compiler(root):
    """Anything else would start it without its environment: two of them at a time refuse each other."""
    files = [path for room in ("swin_jax", "experiments") for path in (root / room).rglob("*.py")]
    found = {path.name for path in files if "get_topology_desc(" in path.read_text()}
    assert len(files) > 200 and found == {"tpu_compiler.py"}


def test_the_compilers_message_tells_size_and_largest_tensors():
    found = tpu_compiler.exhausted(MESSAGE)
    assert found["peak"] == round(21.5 * 2**30)
    assert [item["bytes"] for item in found["largest"]] == [3 * 2**30, 2**28]
    assert found["largest"][0]["shape"] == "f32[144,16,1024,1024]"
    assert found["largest"][0]["of"].endswith("layers_0/dot_general")
    assert tpu_compiler.exhausted("RESOURCE_EXHAUSTED: whatever") == {"peak": None, "largest": []}


def test_the_message_before_there_is_machine_code_tells_the_size_of_all_buffers():
    text = (
        "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory: required for HLO temporaries (56.43G)"
    )
    assert tpu_compiler.exhausted(text) == {"peak": round(56.43 * 2**30), "largest": []}


BUFFERS = """BufferAssignment:
allocation 0: size 2048, parameter 3, shape |f32[512]| at ShapeIndex {}:
 value: <11 param.3 @0> (size=2048,offset=0): f32[512]{0:T(512)}
 value: <98 add_fusion.2{1} @0> (size=2048,offset=0): f32[512]{0:T(512)}
allocation 1: size 9000, preallocated-temp:
 value: <12 while.5 @0> (size=9000,offset=0): (f32[8,256]{1,0}, u32[])
 value: <13 fusion.7{0} @0> (size=6000,offset=1000): bf16[12,250]{1,0:T(8,128)}
 value: <14 copy.1 @0> (size=4000,offset=6000): f32[1000]{0}
 value: <15 copy.2 @0> (size=1000,offset=0): f32[250]{0}
 value: <16 copy.3 @0> (size=500,offset=8000): f32[125]{0}
allocation 2: size 7000, color 1, preallocated-temp:
 value: <17 dot.1 @1> (size=7000,offset=0): f32[1750]{0:S(1)}
"""
PROGRAM = """HloModule jit_train_step
  %param.3 = f32[512]{0} parameter(3), metadata={op_name="state.params[\\'norm\\'][\\'scale\\']"}
  %fusion.7 = (bf16[12,250]{1,0}, f32[]) fusion(%param.3), kind=kLoop, metadata={op_name="jit(train_step)/mlp/dot"}
  %copy.2 = f32[250]{0} copy(%param.3)
"""


def test_the_largest_arrays_are_those_of_the_hbm_that_lie_beside_each_other():
    found = tpu_compiler.largest(BUFFERS, PROGRAM, count=3)
    assert found == [
        {"bytes": 6000, "shape": "bf16[12,250]", "of": "jit(train_step)/mlp/dot"},
        {"bytes": 2048, "shape": "f32[512]", "of": "params/norm/scale"},
        {"bytes": 1000, "shape": "f32[250]", "of": ""},
    ]


@pytest.mark.parametrize("page", ["", "page 0, "])  # libtpu 0.0.42 and 0.0.50
def test_memory_by_what_it_is_for(page, tmp_path):
    allocations = f"""BufferAssignment:
allocation 0: size 512, {page}thread-local:
allocation 1: size 2048, {page}parameter 3, shape |f32[512]| at ShapeIndex {{}}, maybe-live-out:
allocation 2: size 1024, {page}maybe-live-out:
allocation 3: size 64, {page}output shape is |(f32[16])|, maybe-live-out:
allocation 4: size 9000, {page}preallocated-temp:
"""
    (tmp_path / "step.after_optimizations-buffer-assignment.txt").write_text(allocations)
    report = "Memory Space: default (color=0)\nTotal bytes: 12136 (11.85KiB)\n"
    (tmp_path / "step.after_optimizations-memory-usage-report.txt").write_text(report)
    parts = {"arguments": 2048, "outputs": 1088, "temporaries": 9000, "peak": 12136}
    assert tpu_compiler._parts(tmp_path) == parts
