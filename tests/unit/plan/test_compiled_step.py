"""Plans without a compiler: what is tried, what is said, and what is drawn."""

import copy
import io
import json
import pickle
from types import SimpleNamespace

import pytest
from ml_collections import ConfigDict

from swin_jax.core import config as configs
from swin_jax.models.swin import Swin
from swin_jax.optim import adamw, schedules
from swin_jax.plan import cache, chips, compiled_step
from swin_jax.plan import report as plan_report
from swin_jax.plan import search as plan_search
from swin_jax.plan.compiled_step import advice
from swin_jax.tasks.classification import Classification


@pytest.fixture
def config():
    """The part of a config that plans look at, with the one-way references of a real one."""
    c = ConfigDict({"batch_size": 64, "mesh": {"data": -1, "fsdp": 1, "tensor": 1}})
    c.partition = {"rules": (), "opt_axis": "", "gather": "", "min_size": 2**20}
    size = dict(image_size=8, num_classes=2)
    model = configs.spec(Swin, **size, depths=(2, 2), num_heads=(1, 1), attention=("xla",))
    optimizer = configs.spec(adamw, schedule=configs.spec(schedules.constant, base_lr=1e-3), no_decay=())
    c.task = configs.spec(Classification, model=model, tx=optimizer, **size, mixup=0.0, cutmix=0.0)
    return c


def test_candidates_divide_batch_and_slice_and_come_cheapest_first(config):
    topology = chips.topology("v5e:4x4,slices=2")
    found = plan_search.candidates(config, topology)
    assert len(set(found)) == len(found)
    for item in found:
        data = 32 // (item.fsdp * item.tensor)
        assert 16 % (item.fsdp * item.tensor) == 0 and 64 % (data * item.fsdp * item.accumulate) == 0
    first = found[0]
    assert (first.fsdp, first.tensor, first.zero1, first.remat, first.accumulate) == (1, 1, False, "none", 1)
    costs = [plan_search.REMAT.index(item.remat) for item in found]
    assert costs == sorted(costs) and set(item.remat for item in found) == set(plan_search.REMAT)
    config.partition.gather = "bfloat16"
    assert {item.zero1 for item in plan_search.candidates(config, topology)} == {True}
    config.batch_size = 31
    assert plan_search.candidates(config, topology) == []


def test_settings_are_applied_and_taken_back(config):
    before = copy.deepcopy(config.to_dict())
    item = plan_search.Candidate(fsdp=4, tensor=2, zero1=True, remat="full", accumulate=2)
    with plan_search.applied(config, item.settings(config)):
        assert config.mesh.fsdp == 4 and config.mesh.tensor == 2 and config.task.model.remat == "full"
        assert config.partition.opt_axis == "data" and config.task.accumulate == 2
    assert config.to_dict() == before


LARGEST = {"bytes": 3 * 2**30, "shape": "f32[144,16,1024,1024]", "of": "layers_0/dot_general"}


def facts(fits=True):
    found = {
        "program": "update",
        "topology": "v5e:4x4", "slices": 1, "chip": "v5e", "chips": 16, "mesh": {"data": 16, "fsdp": 1, "tensor": 1},
        "batch_size": 64, "accumulate": 1, "parameters": 28_288_354, "lower_seconds": 10.0, "compile_seconds": 100.0,
        "state_bytes": {"params": 2**27, "opt_state": 2**28, "mutable": 0, "ema": 0, "frozen": 0, "batch": 2**20},
        "flops": {"model": 4 * 10**13, "step": 5 * 10**13, "padded": 5 * 10**13},
        "from_cache": False, "effort": "quick",
        "memory": {"peak": 20 * 2**30, "hbm": 16 * 2**30, "fits": False, "largest": [LARGEST]},
    }  # fmt: skip
    if fits:
        found["memory"] = {
            "arguments": 2**29,
            "outputs": 0,
            "temporaries": 2**32,
            "peak": 2**32,
            "hbm": 2**34,
            "fits": True,
        }
        found["hbm_bytes"] = 2**35
        found["collectives"] = [
            {"kind": "all-reduce", "axes": ("data",), "count": 1, "bytes": 2**27},
            {"kind": "all-reduce", "axes": ("data",), "count": 6, "bytes": 2**20},
            {"kind": "all-gather", "axes": ("fsdp",), "count": 2, "bytes": 2**30},
        ]
        times = dict(compute=0.02, memory=0.04, links=0.001, network=0.0, exposed=0.001, step=0.04, serial=0.05)
        found["roofline"] = times | {"limit": "memory", "mfu": 0.31, "examples_per_second": 1600.0}
    return found


@pytest.mark.parametrize("fits", [True, False])
@pytest.mark.parametrize("text", ["", '{"memory": {"fits": true', "[1]", "{}", '{"memory": 3}', "\udcff", "mkdir"])
def test_a_plan_is_kept_and_made_again_where_its_file_is_damaged(tmp_path, monkeypatch, capsys, text, fits):
    monkeypatch.setattr(compiled_step, "_key", lambda lowered, topology, effort: effort)
    file, made = tmp_path / "plans/quick.json", facts(fits) | {"versions": {}}
    assert compiled_step._kept(file.parent, None, None, "quick") is None
    cache.write(file, made)
    expected = json.loads(json.dumps(made)) | {"from_cache": True}
    assert compiled_step._kept(file.parent, None, None, "quick") == expected
    assert [path.name for path in file.parent.iterdir()] == ["quick.json"] and capsys.readouterr().err == ""
    file.unlink()
    file.mkdir() if text == "mkdir" else file.write_text(text, errors="surrogateescape")
    assert compiled_step._kept(file.parent, None, None, "quick") is None
    assert capsys.readouterr().err == f"{file} is damaged; the plan is made again\n"
    cache.write(file, made)
    kept = compiled_step._kept(file.parent, None, None, "quick")
    assert kept == (None if text == "mkdir" else expected)


def test_a_plan_that_fits_is_told_with_memory_collectives_and_rate():
    text = "\n".join(plan_report.lines(facts()))
    for part in ("16 chips, mesh data 16 x fsdp 1 x tensor 1", "4.00 GiB of 16.00 GiB per chip (25%): fits",
                 "28,288,354", "all-reduce", "compiled without code generation in 100 s",
                 "1,600 examples/s, MFU at most 31%", "25% more executed"):  # fmt: skip
        assert part in text
    rows = plan_report.collective_rows(facts()["collectives"])
    assert [(row["kind"], row["count"], row["bytes"]) for row in rows] == [
        ("all-gather", 2, 2**31),
        ("all-reduce", 7, 2**27 + 6 * 2**20),
    ]


def test_a_plan_says_which_program_it_is_of(config):
    text = "\n".join(plan_report.lines(facts()))
    assert "program     the training step" in text and "evaluation" not in text
    found = facts() | {"program": "evaluation"}
    found["flops"] = dict.fromkeys(found["flops"], 10**13)
    text = "\n".join(plan_report.lines(found))
    assert "because total_steps is 0" in text and "10 TFLOP per evaluation" in text
    assert "32.00 GiB per chip and evaluation" in text and "update" not in text and "more executed" not in text
    large = facts(fits=False) | {"program": "evaluation"}
    said = " ".join(advice(config, large))
    assert "remat" not in said and "accumulate" not in said and "--config.batch_size=32  halves" in said


def test_what_kernels_pad_is_told_and_bounds_the_step():
    found = facts()
    assert "pad" not in "\n".join(plan_report.lines(found))
    found["collectives"], found["flops"]["padded"] = [], 6 * 10**13
    assert "kernels pad their products: 60 TFLOP executed, 20% more" in "\n".join(plan_report.lines(found))
    topology = chips.topology("v5e:4x4")
    assert compiled_step._roofline(found, topology)["compute"] == 6e13 / 16 / 197e12


def test_a_plan_that_does_not_fit_names_tensors_and_flags(config):
    found = facts(fits=False)
    found["advice"] = advice(config, found)
    text = "\n".join(plan_report.lines(found))
    assert "needs 20.00 GiB, a chip has 16.00 GiB: DOES NOT FIT" in text and "f32[144,16,1024,1024]" in text
    for flag in ("partition.opt_axis=data", "mesh.fsdp=8", "task.model.remat=full", "task.model.dtype=bfloat16",
                 "task.accumulate=2", "task.model.attention="):  # fmt: skip
        assert f"--config.{flag}" in text
    with plan_search.applied(config, {"task.model.remat": "full", "partition.opt_axis": "data"}):
        left = " ".join(advice(config, found))
    assert "remat" not in left and "opt_axis" not in left and "mesh.fsdp" in left


def test_the_advice_says_what_is_enough_alone(config):
    found = facts(fits=False)  # 20 of 16 GiB: 4 too many, and 19.6 of them activations
    found["memory"]["hbm"] = 16 * 2**30
    lines = {line.split("=")[0].rpartition(".")[2]: line for line in advice(config, found)}
    assert lines["accumulate"].endswith("about -9.8 GiB, enough alone") and "enough" not in lines["opt_axis"]
    assert "GiB" not in lines["remat"] and lines["fsdp"].endswith("GiB")


@pytest.mark.parametrize(
    "size, slices, batch, expected", [(16, 1, 64, "8"), (4, 2, 64, "2"), (2, 2, 64, ""), (6, 1, 6, "2")]
)
def test_the_advice_fits_slices_and_batches(config, size, slices, batch, expected):
    mesh = {"data": size, "fsdp": 1, "tensor": 1}
    found = facts(fits=False) | {"chips": size, "slices": slices, "mesh": mesh, "batch_size": batch}
    values = {line.split("=")[0].rpartition(".")[2]: line.split("=")[1].split()[0] for line in advice(config, found)}
    assert values.get("fsdp", "") == expected and ("accumulate" in values) == (batch == 64)


def test_micro_batches_can_be_mixed(config):
    config.batch_size, topology = 72, chips.topology("v5e:1x1")
    assert {item.accumulate for item in plan_search.candidates(config, topology)} == {1, 2, 4, 8}
    config.task.update(mixup=0.8, cutmix=0.0, mix_group=18)
    assert {item.accumulate for item in plan_search.candidates(config, topology)} == {1, 2, 4}  # 72, 36, 18
    config.task.mix_group = 32
    assert {item.accumulate for item in plan_search.candidates(config, topology)} == {4}
    one = dict(chips=1, slices=1, mesh={"data": 1, "fsdp": 1, "tensor": 1}, batch_size=72)
    for accumulate, advised in ((2, True), (4, False)):
        found = "".join(advice(config, facts(fits=False) | one | dict(accumulate=accumulate)))
        assert ("task.accumulate" in found) == advised


def test_the_fastest_comes_first_and_then_what_nearly_fits():
    fits, large, larger = facts(), facts(fits=False), facts(fits=False)
    larger["memory"] = larger["memory"] | {"peak": 2**40}
    unknown = facts(fits=False) | {"memory": {"peak": None, "fits": False}}
    assert sorted([unknown, larger, large, fits], key=plan_search._order) == [fits, large, larger, unknown]


def test_a_place_is_told_by_its_modules():
    of = (
        "jit(train_step)/transpose(jvp(Swin))/Swin.encode/Swin._forward/layers_2/while/body/closed_call/units_6/units_6/"
        "checkpoint/rematted_computation/blocks_0/blocks_0.attend/attn/attn.attend/bhqk,bkhd->bqhd/dot_general"
    )
    short = "layers_2/units_6/blocks_0/attn/bhqk,bkhd->bqhd/dot_general (backward pass)"
    assert plan_report._place(of) == short
    assert plan_report._place("params/layers_1/mlp/fc1/kernel") == "params/layers_1/mlp/fc1/kernel"
    assert plan_report._place("") == ""


def test_every_flag_of_the_advice_is_one(config):
    found = facts(fits=False)
    for line in advice(config, found):
        key, _, value = line.split("  ")[0].removeprefix("--config.").partition("=")
        assert key in configs.flatten(config) or key in ("task.model.attention",), key
        assert value


@pytest.mark.parametrize("fits", [True, False])
def test_a_plan_is_drawn(fits, tmp_path):
    plan_report.draw(facts(fits), tmp_path / "plan.png")
    assert (tmp_path / "plan.png").stat().st_size > 5000


def test_the_compiler_of_a_quick_plan_ends_with_the_plan(monkeypatch):
    said = []
    monkeypatch.setattr(compiled_step.sys, "stdin", SimpleNamespace(buffer=io.BytesIO(pickle.dumps((None, "v5e:1x1")))))
    monkeypatch.setattr(compiled_step.termination, "end_with_parent", lambda: said.append("follows"))
    monkeypatch.setattr(compiled_step.tpu_compiler, "prepare_backend", lambda: said.append("compiles") or exit())
    with pytest.raises(SystemExit):
        compiled_step.main("folder")
    assert said == ["follows", "compiles"]
