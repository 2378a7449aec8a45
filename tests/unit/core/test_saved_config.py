"""A config.json gives the config that a run had, and calls nothing but what builds models, tasks and data."""

import ast
import json
import re
import sys

import pytest

from swin_jax.core import config as configs
from swin_jax.core import saved_config, storage
from swin_jax.core.errors import UserError
from swin_jax.core.public_names import current_names
from swin_jax.train.workdir import resume
from tests.conftest import ROOT
from tests.experiments import config_path
from tests.unit.core.test_public_names import RECORDED
from tests.unit.experiments.test_golden_configs import GOLDEN, make

QUICKSTART = configs.flatten(configs.load(config_path("quickstart:fake")))


def write(folder, **changes):
    """A workdir with the config.json of a small run, some keys changed or, if None, taken away."""
    flat = {key: value for key, value in (QUICKSTART | changes).items() if key not in changes or value is not None}
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(flat))
    return folder


@pytest.mark.parametrize("path", make.experiments(), ids=lambda path: path.stem)
def test_a_rebuilt_config_is_saved_as_it_was(path):
    sections = make.read(GOLDEN / f"{path.stem}.txt")
    for argument in list(sections)[:1] + [key for key in sections if "fake" in key][:1]:
        saved = current_names({key: json.loads(value) for key, value in sections[argument].items()})
        assert configs.flatten(saved_config.rebuild(saved, "config.json")) == saved


def test_a_rebuilt_config_builds_the_same_values(tmp_path):
    config, found = configs.load(config_path("quickstart:fake")), saved_config.read(write(tmp_path))
    assert configs.build(config.partition) == configs.build(found.partition)
    assert configs.build(config.task.model) == configs.build(found.task.model)
    assert found.task.model.depths == (1, 1)


@pytest.mark.parametrize("name", sorted(RECORDED))
def test_what_a_config_has_named_is_allowed(name):
    named = current_names({"fn": name})
    assert saved_config._function(named["fn"], "fn", "config.json") is not None


@pytest.mark.parametrize(
    "name",
    [
        "os.system",
        "builtins.eval",
        "subprocess.run",
        "swin_jax.core.storage.os.system",
        "swin_jax.models.swin.model.jax.eval_shape",
        "swin_jax.data.pipeline.np.save",
        "swin_jax.data.sources.os.system",
        "swin_jax.core.storage.write",
        "swin_jax.launch.main",
        "swin_jax.load",
        "swin_jax.pretrained.files.download.fetch",
        "swin_jax.pretrained.load.load",
        "swin_jax.train.checkpoint.save",
        "swin_jax.data.builders.write.write",
        "swin_jax.data.video.encode.write_gif",
        "swin_jax.data.video.scan.run",
        "swin_jax.data.image.scan.run",
        "swin_jax.data.image.scan.scan",
        "swin_jax.data.segmentation.scan.run",
        "swin_jax.data.segmentation.checking.scan",
        "swin_jax.evals.probes.few_shot.save_indices",
        "swin_jax.evals.probes.few_shot.plot",
        "swin_jax.evals.analysis.overlap.draw",
        "swin_jax.data.pipeline._order",
        "swin_jax.inference.editing.action.prepare",
        "swin_jax.models.swin",
        "experiments",
        "../x",
        "",
        5,
        None,
        ["swin_jax.models.swin.Swin"],
    ],
)
@pytest.mark.parametrize("key", ["task.fn", "data.source.fn"])
def test_no_other_function_is_taken(name, key, tmp_path):
    workdir = tmp_path / "run"
    workdir.mkdir()
    (workdir / "config.json").write_text(json.dumps(QUICKSTART | {key: name}))
    with pytest.raises(UserError, match=rf"config.json: {key} is .*|has no {key}") as caught:
        saved_config.read(workdir)
    assert "\n" not in str(caught.value)


def _writes(function: ast.AST) -> bool:
    """True if the text of a function writes a file, downloads one, or is the main function of a script."""
    text = ast.unparse(function)
    called = r"(savefig|write_\w+|mkdir|unlink|rmtree|urlopen|fetch|ArgumentParser|writing|file_scan\.\w+)\("
    return bool(re.search(called, text) or re.search(r"open\([^)]*'[wax]b?'", text))


def test_no_function_that_a_config_may_call_writes():
    """A workdir from somebody else could have any file overwritten by it."""
    found = []
    for path in sorted((ROOT / "swin_jax").rglob("*.py")):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef) and saved_config._ROOMS.fullmatch(f"{module}.{node.name}"):
                found += [f"{module}.{node.name}"] * (node.name[0] != "_" and _writes(node))
    assert found == []


def test_a_module_outside_of_the_package_is_not_even_imported(tmp_path, monkeypatch):
    (tmp_path / "poison_of_config.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("poison_of_config.f", "swin_jax.poison_of_config.f", "experiment_poison_of_config.f"):
        with pytest.raises(UserError):
            configs.build(saved_config.read(write(tmp_path / "run", **{"predict.fn": name})).predict)
    assert "poison_of_config" not in sys.modules


def test_a_name_that_this_version_does_not_have_is_told_with_the_nearest(tmp_path):
    workdir = write(tmp_path, **{"task.model.fn": "swin_jax.models.swin.Swinn"})
    with pytest.raises(UserError, match="task.model.fn is .*did you mean 'swin_jax.models.swin.Swin'"):
        saved_config.read(workdir)


def test_functions_of_an_experiment_file_are_missed_only_where_they_are_called(tmp_path):
    config = saved_config.read(write(tmp_path, **{"data.source.fn": "experiment_mine.digits", "data.source.x": 1}))
    assert configs.flatten(config)["data.source.fn"] == "experiment_mine.digits"
    configs.build(config.task)
    with pytest.raises(UserError, match="data.source.fn is experiment_mine.digits.*--config=FILE"):
        configs.build(config.data)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"task.fn": None}, "has no task.fn"),
        ({"mesh.data": None}, "has no mesh.data"),
        ({"task.model.fn.x": 1}, "damaged at 'task.model.fn.x'"),
        ({"task.model": 1}, "damaged at 'task.model'"),
        ({"task.model.a-b": 1}, "damaged at 'task.model.a-b'"),
        ({"task.model.": 1}, "damaged"),
        ({"task.model.\n": 1}, "damaged"),
        ({"logs.wandb": {}}, "damaged at 'logs.wandb'"),
        ({"task.model.embedding": 3}, "task.model: Swin has no argument 'embedding'"),
    ],
)
def test_a_damaged_file_is_one_line(changes, message, tmp_path):
    with pytest.raises(UserError, match=message) as caught:
        saved_config.read(write(tmp_path, **changes))
    assert "\n" not in str(caught.value)


def test_no_file_is_one_line(tmp_path):
    with pytest.raises(UserError, match="config.json does not exist: give the workdir of a trained run, or --config="):
        saved_config.read(tmp_path)


def test_new_arguments_have_their_defaults_and_older_runs_what_they_stood_for(tmp_path):
    data = {key: None for key in QUICKSTART if key.startswith("data.source.")}
    data |= {"data.source.fn": "swin_jax.data.sources.image_folder", "data.source.root": "x"}
    config = saved_config.read(write(tmp_path, **data, **{"task.model.remat": None}))
    assert config.data.source.conversion == "reference" and config.task.model.remat == "none"


@pytest.mark.parametrize(
    "experiment, before",
    [
        ("finetune_folder:fake", {"data.transform.gray": "data.transform.grey"}),
        ("clip_emoji", {"data.transform.transform.gray": "data.transform.transform.grey"}),
        ("video_swin_emoji", {"data.transform.recolor": "data.transform.recolour"}),
        ("video_swin_ablation:design=factorized", {"factorized": "factorised"}),
        ("video_swin_ablation:patch=center", {"center": "centre"}),
        ("video_swin_ablation:bias=center", {"center": "centre"}),
    ],
)
def test_a_run_that_was_saved_in_british_spelling_is_read_and_resumed(experiment, before, tmp_path):
    config = configs.load(config_path(experiment))
    today = configs.flatten(config)
    saved = {before.get(key, key): before.get(str(value), value) for key, value in today.items()}
    (tmp_path / "config.json").write_text(json.dumps(saved))
    assert saved != today and configs.flatten(saved_config.read(tmp_path)) == json.loads(json.dumps(today))
    assert resume.check_resume(config, tmp_path) == []


def test_a_run_that_was_saved_with_the_rate_of_its_optimizers_as_a_number_is_read_and_resumed(tmp_path):
    config = configs.load(config_path("stylegan2_ffhq"))
    today = configs.flatten(config)
    saved = {key: value for key, value in today.items() if not re.search(r"_tx\.schedule\.", key)}
    saved |= {f"task.{name}_tx.learning_rate": 0.002 for name in ("generator", "discriminator")}
    (tmp_path / "config.json").write_text(json.dumps(saved))
    assert configs.flatten(saved_config.read(tmp_path)) == json.loads(json.dumps(today))
    assert resume.check_resume(config, tmp_path) == []
    (tmp_path / "config.json").write_text(json.dumps(saved | {"task.generator_tx.learning_rate": 0.003}))
    with pytest.raises(UserError, match="task.generator_tx.schedule.base_lr: 0.003 -> 0.002"):
        resume.check_resume(config, tmp_path)


def test_numbers_out_of_their_range_are_told_as_those_of_flags_are(tmp_path):
    config = saved_config.read(write(tmp_path, **{"task.model.embed_dim": -1}))
    with pytest.raises(UserError, match="--config.task.model.embed_dim=-1"):
        configs.build(config.task, "task")


@pytest.mark.parametrize(
    "flag, message",
    [
        ("--config.image_size=16", "give --config.task.image_size, .*--config.task.model.image_size"),
        ("--config.seed=1", "--config.seed changes nothing.*give --config"),
        ("--config.batch_size", "--config.batch_size changes nothing.*--config=FILE.py"),
    ],
)
def test_a_key_from_which_others_were_computed_is_refused(flag, message, tmp_path):
    with pytest.raises(UserError, match=message):
        saved_config.check_overrides(saved_config.read(write(tmp_path)), [flag])
    saved_config.check_overrides(saved_config.read(tmp_path), ["--config.predict.batch_size=2", "--workdir=x"])


def test_keys_that_an_action_reads_are_not_refused(root):
    """Of the first level, where the list in `saved_config` is written by hand."""
    first = {key for path in GOLDEN.glob("*.txt") for key in make.read(path)[""] if "." not in key}
    text = "".join(path.read_text() for path in (root / "swin_jax" / "inference").rglob("*.py"))
    read = set(re.findall(r'(?<!-)\bconfig(?:\.get\("|\["|\.)(\w+)', text)) & first
    assert {"truncation", "edit_batch_size"} <= read <= set(saved_config._READ)


def test_a_folder_of_another_user_is_one_line(tmp_path, monkeypatch):
    def refuse(self):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(type(storage.path(tmp_path)), "is_file", refuse)
    with pytest.raises(UserError) as error:
        saved_config.read(str(tmp_path))
    assert str(error.value) == f"{tmp_path}/config.json cannot be read: Permission denied"
