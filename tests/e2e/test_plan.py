"""What a plan compiles is what the launcher would run, and the plans themselves where the TPU compiler is installed."""

import importlib.util
import json
import time

import pytest
from PIL import Image

from swin_jax.core import config as configs
from swin_jax.plan import chips, command, tpu_compiler
from swin_jax.plan import report as plan_report
from swin_jax.train import sharding
from tests.experiments import FILES


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_task_knows_the_shapes_of_its_batches(path):
    config = configs.load(f"{path}:fake")
    promised = configs.build(config.task).batch_shapes(config.batch_size)
    batches = configs.build(config.data).batches(0, range(config.batch_size))
    found = {key: (array.shape, array.dtype) for key, array in next(batches).items()}
    batches.close()
    assert {key: found[key] for key in promised} == {key: (x.shape, x.dtype) for key, x in promised.items()}
    assert not found.keys() - promised.keys() - {"bad", "truncated", "label", "weight"}


@pytest.fixture
def plan(launch, tmp_path, monkeypatch):
    """Plans in this process: plan(config, topology, *flags) -> (exit status, stdout, stderr)."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return lambda config, text, *flags: launch(config, tmp_path / "plan", f"--plan={text}", *flags)


FAKE = "experiments/swin/swin_in1k.py:fake"


def test_sides_of_a_slice_are_divided_where_a_mesh_asks_for_it():
    tpu_compiler.prepare_backend()
    devices = tpu_compiler.devices(chips.topology("v5p:4x4x4"))
    mesh = sharding.make_mesh(fsdp=8, devices=devices)  # no sides of 4 x 4 x 4 multiply to 8
    assert dict(mesh.shape) == {"data": 8, "fsdp": 8, "tensor": 1} and set(mesh.devices.flat) == set(devices)


@pytest.mark.filterwarnings("error::UserWarning")  # JAX's own cache of programs is left alone
def test_a_plan_says_what_the_compiler_found_and_is_kept(plan, tmp_path):
    status, out, err = plan(FAKE, "v5e:2x4")
    assert status == 0, err
    told = {line[:12].strip(): line[12:] for line in out.splitlines() if line[:12].strip()}
    assert told["topology"].startswith("v5e:2x4: 8 chips, mesh data 8 x fsdp 1 x tensor 1")
    assert "of 15.75 GiB per chip" in told["memory"] and told["memory"].endswith(": fits")
    assert "all-reduce" in told["collectives"] and "over data" in told["collectives"]
    assert ", compiled in " in told["time"]
    facts = json.loads((tmp_path / "plan/plan.json").read_text())
    assert facts["memory"]["fits"] and 0 < facts["memory"]["peak"] < facts["memory"]["hbm"]
    assert Image.open(tmp_path / "plan/plan.png").size[0] > 500

    began = time.monotonic()
    status, again, _ = plan(FAKE, "v5e:2x4")
    assert status == 0 and time.monotonic() - began < 30 and "kept from an earlier plan" in again
    assert [x for x in again.splitlines() if not x.startswith("time ")] == [
        x for x in out.splitlines() if not x.startswith("time ")
    ]


def test_a_quick_plan_says_of_memory_and_traffic_what_a_full_one_says(plan, tmp_path):
    found = {}
    flags = ("--config.task.model.embed_dim=64", "--config.batch_size=16384", "--config.total_steps=3")
    for effort in ("quick", "full"):
        status, out, err = plan(FAKE, "v5e:2x4", *flags, f"--plan_effort={effort}")
        assert status == 0, err
        found[effort] = json.loads((tmp_path / "plan/plan.json").read_text())
        assert ("compiled without code generation" in out) == (effort == "quick")
    quick, full = found.values()
    assert quick["collectives"] == full["collectives"] and quick["collectives"]
    assert quick["hbm_bytes"] == pytest.approx(full["hbm_bytes"], rel=1e-3)
    assert quick["roofline"]["step"] == pytest.approx(full["roofline"]["step"], rel=1e-3)
    assert quick["memory"]["arguments"] == full["memory"]["arguments"]
    assert quick["memory"]["peak"] == pytest.approx(full["memory"]["peak"], rel=0.02)


def test_where_no_updates_are_made_the_prediction_of_evaluations_is_planned(plan, tmp_path):
    status, out, err = plan(FAKE, "v5e:1x1", "--config.total_steps=0", "--plan_effort=quick")
    assert status == 0, err
    assert "program     the prediction of evaluations" in out and "per evaluation" in out and "per update" not in out
    facts = json.loads((tmp_path / "plan/plan.json").read_text())
    assert facts["flops"]["step"] == facts["flops"]["model"] > 0
    state = facts["state_bytes"]
    assert facts["memory"]["arguments"] >= state["params"] + state["opt_state"]  # which stays beside it
    status, _, err = plan(FAKE, "auto:v5e:1x1", "--config.total_steps=0")
    assert status == 2 and "total_steps=0 makes none: give the topology alone" in err


def test_zero_1_scatters_gradients_and_splits_the_optimizer(plan, tmp_path):
    model = ("--config.task.model.embed_dim=64", "--config.batch_size=8")
    found = {}
    zero1 = "--config.partition.opt_axis=data"
    modes = {"data": (), "zero1": (zero1,), "gathered": (zero1, "--config.partition.gather=bfloat16")}
    for name, flags in modes.items():
        status, _, err = plan(FAKE, "v5e:2x4", *model, *flags)
        assert status == 0, err
        found[name] = json.loads((tmp_path / "plan/plan.json").read_text())
    plain, split, gathered = (
        {row["kind"]: row["bytes"] for row in plan_report.collective_rows(x["collectives"])} for x in found.values()
    )
    assert "reduce-scatter" in split and "all-gather" in split and not {"reduce-scatter", "all-gather"} & plain.keys()
    assert split.get("all-reduce", 0) < plain["all-reduce"] / 4
    before, after = (found[name]["state_bytes"]["opt_state"] for name in ("data", "zero1"))
    assert after < 0.3 * before  # all but what is too small to be split
    assert found["zero1"]["state_bytes"]["params"] == found["data"]["state_bytes"]["params"]
    # Parameters are gathered in half as many bytes, and kept split.
    assert gathered["all-gather"] == pytest.approx(split["all-gather"] / 2, rel=0.1)
    assert found["gathered"]["state_bytes"]["params"] < 0.3 * found["data"]["state_bytes"]["params"]


def test_slices_are_joined_along_data(plan):
    status, out, err = plan(FAKE, "v5e:2x2,slices=2", "--config.mesh.fsdp=2", "--plan_effort=quick")
    assert status == 0, err
    assert "2 slices: 8 chips, mesh data 4 x fsdp 2 x tensor 1" in out


def test_what_cannot_fit_names_the_largest_tensors_and_the_knobs(plan):
    status, out, err = plan(FAKE, "v5e:2x2", "--config.task.model.embed_dim=4096", "--plan_effort=quick")
    assert status == 1, err
    assert "a chip has 15.75 GiB: DOES NOT FIT" in out
    largest = out[out.index("largest") : out.index("try ")]
    assert len(largest.splitlines()) >= 3 and "1.00 GiB  f32[8192,32768]  params/layers_1/blocks_0/mlp/fc1" in largest
    for knob in ("mesh.fsdp=4", "partition.opt_axis=data", "task.model.remat=full", "task.accumulate=2"):
        assert f"--config.{knob}  " in out, out


@pytest.mark.parametrize(
    "text, flags, expected",
    [
        ("v9:2x2", (), "chip 'v9' is unknown; known are v4, v5e, v5p, v6e"),
        ("v5e:3x3", (), "there is no v5e slice of 3x3; there are 1x1, 2x2, 2x4"),
        ("v5e", (), "a topology is written like v5e:4x4 or v5p:4x4x4,slices=2, not 'v5e'"),
        ("config", (), "the config has no topology; give one"),
        ("v5e:2x4", ("--config.mesh.data=3",), "data=3, fsdp=1, tensor=1 does not fit 8 devices: 3 x 1 x 1 = 3"),
        ("v5e:2x2", ("--config.mesh.fsdp=-1",), "does not fit 4 devices: only one size may be -1"),
        ("v5e:2x2", ("--config.mesh.fsdp=0",), "--config.mesh.fsdp=0: it must be"),
        ("v5e:2x2,slices=2", ("--config.mesh.data=1", "--config.mesh.fsdp=8"), "data=1 is not a multiple of the 2"),
        ("v5e:2x4", ("--config.batch_size=12",), "batch_size is 12, which is not a multiple of the 8 batch shards"),
        ("h100:8", (), "h100:8 cannot be compiled for here"),
    ],
)
def test_mistakes_are_told_before_anything_is_compiled(plan, text, flags, expected):
    status, out, err = plan(FAKE, text, *flags)
    assert status == 2 and expected in err and "compiling" not in err, err
    assert len(err.strip().splitlines()) == 1 and not out


def test_a_missing_compiler_names_the_line_that_installs_it(plan, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "libtpu" else find(name, *rest)
    )
    status, _, err = plan(FAKE, "v5e:2x4")
    assert status == 2 and "pip install -e '.[tpu]'" in err


def test_an_unusable_workdir_is_told_before_anything_is_compiled(plan, tmp_path):
    (tmp_path / "plan").write_text("a file")
    status, out, err = plan(FAKE, "v5e:2x4")
    assert status == 2 and "cannot be used" in err and "compiling" not in err and not out


def test_a_plan_that_cannot_be_kept_is_told_all_the_same(plan, tmp_path):
    (tmp_path / "cache").write_text("a file")
    status, out, err = plan(FAKE, "v5e:2x2", "--plan_effort=quick")
    assert status == 0 and "memory " in out and "the plan is not kept for the next time: " in err


def test_a_compiler_that_is_killed_is_told_in_a_line(plan, monkeypatch):
    monkeypatch.setattr(tpu_compiler.sys, "executable", "/bin/false")
    status, out, err = plan(FAKE, "v5e:2x2", "--plan_effort=quick")
    assert status == 1 and err.splitlines()[-1].endswith("the compiler's process ended with status 1: no word"), err


def test_auto_finds_a_layout_that_fits_and_gives_its_flags(plan, monkeypatch):
    search = command.search
    monkeypatch.setattr(command, "search", lambda *arguments: search(*arguments, compiles=2))
    status, out, err = plan(FAKE, "auto:v5e:2x4", "--plan_effort=quick")
    assert status == 0, err
    assert "plan 2 of at most 2: --config.mesh.data=-1" in err
    (flags,) = [line.split()[1:] for line in out.splitlines() if line.startswith("flags ")]
    status, again, _ = plan(FAKE, "v5e:2x4", "--plan_effort=quick", *flags)
    assert status == 0 and "kept from an earlier plan" in again
