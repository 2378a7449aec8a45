"""Presets for pods: rows, slices, and that every preset makes a step whose batch its slice divides."""

import json
import types

import pytest
from ml_collections import ConfigDict

from swin_jax.core import config as configs
from swin_jax.core.errors import UserError
from swin_jax.plan import chips
from swin_jax.plan import presets as pods
from tests.experiments import FOLDER, WITH_PODS, config_path

TABLES = {path.stem: configs.module(str(path)).PODS for path in WITH_PODS}
RESULTS = json.loads((FOLDER / "benchmarks" / "pod_presets.json").read_text())
PRESETS = [(experiment, row) for experiment, table in sorted(TABLES.items()) for row in table]


def load(experiment, row, pod):
    return configs.load(config_path(experiment) + f":{','.join(filter(None, (row, f'pod={pod}')))}")


@pytest.mark.parametrize("experiment, row", PRESETS)
def test_a_preset_divides_its_batch_and_changes_nothing_of_the_recipe(experiment, row):
    plain = configs.flatten(configs.load(config_path(experiment) + f":{row}"))
    for pod in pods.NAMES[1:]:
        config = load(experiment, row, pod)
        size = chips.topology(config.topology).size
        assert config.batch_size % (size * config.task.get("accumulate", 1)) == 0, (pod, size)
        found = configs.flatten(config)
        changed = {key for key in found if found[key] != plain.get(key)}
        assert changed <= {"topology", "partition.opt_axis", "mesh.fsdp", "task.accumulate", *remat(found)}


def remat(config):
    return [key for key in config if key.rpartition(".")[2] in ("remat", "attention")]


@pytest.mark.parametrize("experiment, row", PRESETS)
def test_what_the_compiler_said_of_a_preset_is_of_this_preset_and_it_fits(experiment, row):
    for pod in pods.NAMES[1:]:
        config, found = load(experiment, row, pod), RESULTS[f"{experiment}:{row}:{pod}"]
        expected = config.topology, config.batch_size, config.task.get("accumulate", 1), config.total_steps
        assert (found["topology"], found["batch_size"], found["accumulate"], found["steps"]) == expected
        mesh = {"data": found["chips"] // config.mesh.fsdp, "fsdp": config.mesh.fsdp, "tensor": 1}
        assert found["mesh"] == mesh
        assert found["fits"] and found["state_bytes"] < found["peak_bytes"] <= found["hbm_bytes"]


def test_slices_have_at_least_the_memory_of_the_v5e_slice():
    pod = pods.Pod(64)
    assert [pod.topology(name) for name in pods.NAMES[1:]] == ["v4:2x4x4", "v5e:8x8", "v5p:2x2x4", "v6e:4x8", "h100:8"]
    need = 0.97 * 64 * chips.CHIPS["v5e"].hbm_bytes  # a v4 has a little less than two v5e
    for name in ("v4", "v5e", "v5p", "v6e"):
        assert chips.topology(pod.topology(name)).size * chips.CHIPS[name].hbm_bytes >= need
    assert pods.Pod(2).topology("v5p") == "v5p:1x1x1"


def test_the_row_that_says_most_counts():
    table = {
        "": pods.Pod(4),
        "variant=tiny": pods.Pod(8, {"mesh.fsdp": 2}, h100={"task.accumulate": 4}),
        "variant=tiny,size=384": pods.Pod(16),
    }

    def used(pod, **arg):
        config = ConfigDict(dict(mesh=dict(fsdp=1), task=dict(accumulate=1)))
        pods.use(config, types.SimpleNamespace(pod=pod, fake=False, **arg), table)
        return config.get("topology"), config.mesh.fsdp, config.task.accumulate

    assert used("v5e", variant="tiny", size="224") == ("v5e:2x4", 2, 1)
    assert used("h100", variant="tiny", size="224") == ("h100:8", 2, 4)
    assert used("v5e", variant="tiny", size="384") == ("v5e:4x4", 1, 1)
    assert used("v5e", variant="base", size="224") == ("v5e:2x2", 1, 1)
    assert used("", variant="tiny", size="224") == (None, 1, 1)


def test_arguments_without_a_preset_are_told():
    with pytest.raises(UserError, match="pod=v4 has no preset for these arguments; there are variant=tiny; variant=b"):
        table = {"variant=tiny": pods.Pod(8), "variant=base": pods.Pod(8)}
        pods.use(None, types.SimpleNamespace(pod="v4", fake=False, variant="large"), table)


@pytest.mark.parametrize("name, size", [("v5e", 3), ("v5e", 300), ("v4", 24), ("v6e", 0)])
def test_sizes_that_no_slice_has(name, size):
    with pytest.raises(UserError, match=f"there is no {name} slice of {size} chips"):
        chips.smallest_slice(name, size)


@pytest.mark.parametrize("name", ["v4", "v5e", "v5p", "v6e"])
def test_slices_of_every_power_of_two_can_be_had(name):
    for size in (1, 4, 8, 16, 32, 64, 128, 256, 512, 1024):
        assert chips.topology(chips.smallest_slice(name, size)).size == size
