"""The number of layers in a config that came with a checkpoint, before a model of them is traced."""

import dataclasses

import pytest

from experiments import quickstart
from swin_jax.core.errors import UserError
from swin_jax.inference import export, predict, search
from swin_jax.train import checkpoint
from tests.unit.train.checkpoints import save, state


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """The workdir of a run with four parameters."""
    folder = tmp_path_factory.mktemp("run")
    save(folder, state())
    return folder


@pytest.mark.parametrize(
    "key",
    ["model.depths", "model.encoder.depths", "model.blocks", "model.visual.layers", "model.vision_layers",
     "model.text_layers", "generator.mapping_layers", "discriminator.mapping_layers"],
)  # fmt: skip
def test_more_layers_than_parameters_are_refused(workdir, key):
    key = f"task.{key}"
    for several in (False, True):
        checkpoint.check_layers(workdir, {key: (3, 1) if several else 4})
        with pytest.raises(UserError) as error:
            checkpoint.check_layers(workdir, {key: [3_000_000, 1] if several else 3_000_001})
        told = f"{key} is {[3_000_000, 1] if several else 3_000_001}, and the checkpoint "
        assert str(error.value).startswith(told)
        assert "has parameters for no more than 4 layers" in str(error.value)


def test_layers_of_networks_that_a_step_only_reads_are_not_in_the_checkpoint(workdir):
    checkpoint.check_layers(workdir, {"task.clip.model.vision_layers": 24, "task.arcface.model.blocks": [3, 4, 14, 3]})


def test_stacked_blocks_count_one_by_one(tmp_path):
    found = state(ema=False)
    params = {"layers_2": {"units_2": {"blocks_0": found.params["backbone"]["blocks_0"]}}}
    save(tmp_path, dataclasses.replace(found, params=params))
    checkpoint.check_layers(tmp_path, {"task.model.depths": (16,)})  # 8 units, a kernel and a bias in each
    with pytest.raises(UserError, match="no more than 16 layers"):
        checkpoint.check_layers(tmp_path, {"task.model.depths": (17,)})


def test_nothing_is_said_without_a_checkpoint_that_can_be_read(tmp_path):
    (tmp_path / "checkpoints/3").mkdir(parents=True)
    checkpoint.check_layers(tmp_path, {"task.model.depths": (10**9,)})


@pytest.mark.parametrize("prepare", [predict.prepare, search.prepare_index, search.prepare_search, export.prepare_run])
def test_actions_on_a_run_refuse_too_many_layers_before_the_model_is_built(workdir, tmp_path, monkeypatch, prepare):
    """They traced each layer: 150 s later a prediction was still at work."""
    for module in (predict, search, export):
        monkeypatch.setattr(module, "build_run", lambda *_: pytest.fail("built"))
    config = quickstart.get_config("fake")
    config.task.model.depths = (3_000_000, 1)
    with pytest.raises(UserError, match="task.model.depths is .3000000, 1., and the checkpoint"):
        prepare(config, str(workdir), str(tmp_path / "pictures"))
