"""Specs and what they build, experiment arguments and files, saved configs and what a resume may change."""

import dataclasses
import json
import types

import flax.linen as nn
import ml_collections
import pytest
from ml_collections.config_dict import placeholder

from swin_jax.core import config as configs
from swin_jax.core.config import build, flatten, parse_arg, spec
from swin_jax.core.errors import UserError
from swin_jax.train import checkpoint
from swin_jax.train.workdir import resume
from swin_jax.train.workdir.resume import check_resume


@dataclasses.dataclass(frozen=True)
class Inner:
    width: int = 3
    name: str | None = None
    extra: list = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Outer:
    inner: Inner
    sizes: tuple[int, ...] = (1, 2)
    rate: float = 0.5


class Layer(nn.Module):
    width: int = 1


def scaled(base: float, total_steps: int = 10, note: str | None = None):
    return base * total_steps, note


# ---- spec and build ----


def test_changes_of_what_predicts_are_one_line_without_those_of_memory_and_training():
    model = dict(act="gelu", remat="none", dtype="float32")
    task = dict(model=model, mean=(0.5,), std=(0.5,), channels=3, tx=dict(rate=1.0))
    config = ml_collections.ConfigDict(dict(seed=1, task=task, predict=dict(batch_size=8, transform=dict(size=8))))
    free = {"task.model.remat": "full", "seed": 0, "task.tx.rate": 2.0, "predict.batch_size": 2}
    saved = {**configs.flatten(config), **free, "task.model.act": "quick_gelu", "predict.transform.size": 4}
    expected = "predict.transform.size: 4 -> 8; task.model.act: quick_gelu -> gelu"
    assert resume.used_changes(config, saved) == expected
    saved |= {"task.mean": [0.1], "task.std": [0.1], "task.model.dtype": "bfloat16"}
    assert resume.used_changes(config, saved).endswith("; and 2 more")
    assert resume.used_changes(config, {}) == resume.used_changes(config, configs.flatten(config)) == ""


def test_spec_shows_every_default_and_build_makes_the_same_call():
    config = spec(Outer, inner=spec(Inner, width=7))
    assert set(config) == {"fn", "inner", "sizes", "rate"} and config.rate == 0.5
    assert build(config) == Outer(inner=Inner(width=7)) and build(config) == build(config)
    assert build(spec(scaled, base=2.0)) == (20.0, None)


def test_spec_rejects_unknown_and_missing_arguments():
    with pytest.raises(TypeError, match="has no argument 'wdth'; it has width"):
        spec(Inner, wdth=1)
    with pytest.raises(TypeError, match="needs the argument 'inner'"):
        spec(Outer)


def test_a_default_of_none_can_be_set_but_only_to_its_type():
    config = spec(Inner)
    config.lock()
    assert build(config).name is None
    config.name = "abc"
    assert build(config) == Inner(name="abc")
    with pytest.raises(TypeError):
        config.name = 5
    with pytest.raises(AttributeError):
        config.nam = "abc"


def test_a_flax_module_shows_its_own_fields_only():
    assert set(spec(Layer, width=2)) == {"fn", "width"}
    assert build(spec(Layer, width=2)) == Layer(width=2)
    assert build(spec(Layer, width=2, name="first")).name == "first"


def test_build_leaves_plain_values_and_dicts_without_fn_alone():
    config = ml_collections.ConfigDict({"a": {"b": (1, 2)}, "made": spec(Inner)})
    assert build(config) == {"a": {"b": (1, 2)}, "made": Inner()}
    assert build(3) == 3 and build(None) is None
    assert build(ml_collections.FrozenConfigDict(config)) == build(config)


def test_one_way_references_follow_their_source_and_never_change_it():
    config = ml_collections.ConfigDict({"steps": 10, "dir": placeholder(str)})
    config.a = spec(scaled, base=1.0, total_steps=config.get_oneway_ref("steps"), note=config.get_oneway_ref("dir"))
    config.b = spec(scaled, base=1.0, total_steps=config.get_oneway_ref("steps") * 2)
    assert build(config.a) == (10.0, None)
    config.update_from_flattened_dict({"steps": 3, "dir": "x"})
    assert build(config.a) == (3.0, "x") and build(config.b)[0] == 6.0
    config.a.total_steps = 5
    assert config.steps == 3 and build(config.a)[0] == 5.0 and build(config.b)[0] == 6.0


# ---- arguments ----


def test_parse_arg_reads_choices_booleans_and_types():
    known = dict(variant=("tiny", "small"), fake=False, scale=1.0, depth=2, tag="a")
    assert vars(parse_arg(None, **known)) == dict(variant="tiny", fake=False, scale=1.0, depth=2, tag="a")
    given = parse_arg("variant=small,fake,scale=2,depth=5,tag=b=c", **known)
    assert vars(given) == dict(variant="small", fake=True, scale=2.0, depth=5, tag="b=c")
    assert isinstance(given.scale, float)
    for text, value in {"true": True, "1": True, "false": False, "0": False}.items():
        assert parse_arg(f"fake={text}", fake=not value).fake is value


@pytest.mark.parametrize(
    "arg, message",
    [
        ("varient=small", "unknown config argument 'varient'; did you mean 'variant'"),
        ("small", "'small'; did you mean variant=small. --config=FILE:help lists them"),
        ("zzz", "unknown config argument 'zzz'; --config=FILE:help lists them"),
        ("depth=3,depth=4", "config argument 'depth' is given twice"),
        ("fake,fake", "config argument 'fake' is given twice"),
        ("variant=smal", "not one of tiny, small; did you mean 'small'"),
        ("variant", "not one of tiny, small"),
        ("fake=maybe", "neither true nor false"),
        ("depth=2.5", "not of type int"),
        ("depth", "not of type int"),
    ],
)
def test_parse_arg_refuses(arg, message):
    with pytest.raises(UserError, match=message) as caught:
        parse_arg(arg, variant=("tiny", "small"), fake=False, depth=2)
    assert "\n" not in str(caught.value)


# ---- files ----

FILE = """
from ml_collections import ConfigDict
from swin_jax.core.config import parse_arg
def get_config(arg=None):
    return ConfigDict({"size": parse_arg(arg, size=8).size})
"""


def test_load_hands_the_argument_on(tmp_path):
    (tmp_path / "first.py").write_text(FILE)
    assert configs.load(f"{tmp_path}/first.py").size == 8
    assert configs.load(f"{tmp_path}/first.py:size=16").size == 16
    assert configs.load(f"{tmp_path}/first.py:").size == 8


@pytest.mark.parametrize(
    "path, message",
    [
        ("frist.py", "no experiment file .*did you mean '.*first.py'"),
        ("nowhere/first.py", "no experiment file"),
        ("first.py:sise=1", "did you mean 'size'"),
        ("empty.py", "does not define get_config"),
    ],
)
def test_load_refuses(tmp_path, path, message):
    (tmp_path / "first.py").write_text(FILE)
    (tmp_path / "empty.py").write_text("x = 1\n")
    with pytest.raises(UserError, match=message):
        configs.load(f"{tmp_path}/{path}")


# ---- saved configs ----


def example():
    config = ml_collections.ConfigDict(dict(seed=0, total_steps=10, batch_size=8, max_bad_records=0))
    config.data_dir = placeholder(str)
    config.task = spec(Outer, inner=spec(Inner))
    config.schedule = spec(scaled, base=0.1, total_steps=config.get_oneway_ref("total_steps"))
    config.data = ml_collections.ConfigDict(dict(num_workers=0, size=32, root="a", source=dict(path="b")))
    config.mesh, config.partition = dict(data=-1, fsdp=1), dict(opt_axis="", gather="")
    config.evals = dict(test=dict(every=5))
    config.checkpoint, config.logs, config.init_from = dict(every=4, keep=2), dict(every=1), dict(path="")
    config.generator, config.edit = "", dict(text="a hat")
    return config


def test_flatten_gives_plain_json_under_dotted_keys():
    flat = flatten(example())
    assert flat["task.inner.width"] == 3 and flat["task.sizes"] == [1, 2] and flat["data_dir"] is None
    assert flat["task.fn"] == f"{__name__}.Outer" and flat["schedule.total_steps"] == 10
    assert json.loads(json.dumps(flat)) == flat and flatten(example()) == flat


def test_the_saved_config_is_the_flat_one_and_an_equal_config_has_no_difference(tmp_path):
    assert check_resume(example(), tmp_path) == []
    resume.save(example(), tmp_path)
    assert json.loads((tmp_path / "config.json").read_text()) == flatten(example())
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
    assert check_resume(example(), tmp_path) == []


@pytest.mark.parametrize("value", ["a\nb", "\ud800", "\x1b[2J", "x" * 10**5, {"a\n": ["b"]}])
def test_what_stands_in_a_damaged_config_is_told_in_one_line(tmp_path, value):
    saved = flatten(example())
    for odd in (saved | {"task.rate": value}, saved | {str(value): 1}):
        (tmp_path / "config.json").write_text(json.dumps(odd))
        with pytest.raises(UserError, match="was trained with another config") as error:
            check_resume(example(), tmp_path)
        assert str(error.value).isprintable() and len(str(error.value)) < 2000


def test_without_its_file_the_config_of_the_newest_checkpoint_counts(tmp_path, monkeypatch):
    (checkpoint.folder(tmp_path) / "2").mkdir(parents=True)
    monkeypatch.setattr(checkpoint, "_current_meta", lambda meta: meta)
    handler = types.SimpleNamespace(restore=lambda path: {"config": flatten(example())})
    monkeypatch.setattr(checkpoint.ocp, "JsonCheckpointHandler", lambda: handler)
    assert check_resume(example(), tmp_path) == []
    changed = example()
    changed.seed = 1
    with pytest.raises(UserError, match="was trained with another config: seed: 0 -> 1"):
        check_resume(changed, tmp_path)


FREE = {
    "total_steps": 20, "max_bad_records": 9, "data_dir": "elsewhere", "data.num_workers": 4, "data.root": "z",
    "data.source.path": "z", "mesh.fsdp": 2, "evals.test.every": 1, "checkpoint.every": 7, "checkpoint.keep": 9,
    "logs.every": 3, "init_from.path": "weights.pth", "partition.opt_axis": "data",
    "generator": "weights.pt", "edit.text": "a face",
}  # fmt: skip
REFUSED = {
    "seed": 1, "batch_size": 16, "data.size": 64, "task.rate": 0.25, "task.inner.width": 4, "task.sizes": (1, 3),
    "task.inner.name": "x", "schedule.base": 0.2, "partition.gather": "bfloat16",
}  # fmt: skip


@pytest.mark.parametrize("key, value", FREE.items())
def test_a_resume_may_change(tmp_path, key, value):
    resume.save(example(), tmp_path)
    changed = example()
    changed.update_from_flattened_dict({key: value})
    lines = check_resume(changed, tmp_path)
    assert any(line.startswith(f"{key}: ") and str(value) in line for line in lines)


@pytest.mark.parametrize("key, value", REFUSED.items())
def test_a_resume_must_not_change_without_being_allowed(tmp_path, key, value):
    resume.save(example(), tmp_path)
    changed = example()
    changed.update_from_flattened_dict({key: value})
    with pytest.raises(UserError, match=f"--allow_change={key}") as caught:
        check_resume(changed, tmp_path, ["other", key[:-1]])
    assert key in str(caught.value)
    for allowed in (key, key.partition(".")[0]):
        assert [line.partition(":")[0] for line in check_resume(changed, tmp_path, [allowed])] == [key]


def test_every_refused_key_is_listed_and_keys_that_came_or_went_count(tmp_path):
    resume.save(example(), tmp_path)
    changed = example()
    changed.update_from_flattened_dict({"seed": 1, "batch_size": 16})
    del changed.task.rate
    changed.data.crop = True
    with pytest.raises(UserError) as caught:
        check_resume(changed, tmp_path, ["seed"])
    text = str(caught.value)
    assert "\n" not in text and "--allow_change=seed" not in text
    assert all(f"--allow_change={key}" in text for key in ("batch_size", "task.rate", "data.crop"))


@pytest.mark.parametrize("value, refused", [((1, 2), False), ((1, 3), True)])
def test_an_argument_that_is_new_since_had_its_default(tmp_path, value, refused):
    config = ml_collections.ConfigDict(dict(part=spec(Outer, inner=spec(Inner), sizes=value)))
    before = {key: leaf for key, leaf in configs.flatten(config).items() if not key.endswith("sizes")}
    (tmp_path / "config.json").write_text(json.dumps(before))
    if refused:
        with pytest.raises(UserError, match="part.sizes"):
            check_resume(config, tmp_path)
    else:
        assert check_resume(config, tmp_path) == []
    (tmp_path / "config.json").write_text(json.dumps(before | {"part.fn": "of.another.function"}))
    with pytest.raises(UserError, match="part.fn"):
        check_resume(config, tmp_path)


def test_a_flag_for_one_key_leaves_the_others_that_the_same_expression_gave(tmp_path, root):
    file = tmp_path / "own.py"
    file.write_text(
        "from ml_collections import ConfigDict\n\n\ndef get_config(arg):\n"
        "    c = ConfigDict(dict(steps=100))\n    every = c.get_oneway_ref('steps') // 10\n"
        "    c.saves, c.evals = dict(every=every), dict(every=every)\n    c.same = c.evals\n    return c\n"
    )
    config = configs.load(str(file))
    config.evals.every = 3
    assert (config.saves.every, config.same.every) == (10, 3)
    config.steps = 50
    assert (config.saves.every, config.evals.every) == (5, 3)
    config = configs.load(f"{root}/experiments/stylegan2/stylegan2_ffhq.py")
    every = config.checkpoint.every
    config.evals.quality.every = 7
    assert (config.checkpoint.every, config.evals.grid.every) == (every, every)
