"""What a saved config stores of a callable outlives the file in which the callable lies."""

import importlib.util
import inspect
import json
import pathlib
import pkgutil
import re
import types

import pytest

import swin_jax
from swin_jax.core import config
from swin_jax.core.errors import UserError
from swin_jax.core.public_names import (
    RENAMED,
    RENAMED_ARGUMENTS,
    RENAMED_VALUES,
    check_names,
    current_name,
    current_names,
    find,
    first_name,
    name_of,
)
from swin_jax.models.swin import Swin
from swin_jax.pretrained.load import load
from swin_jax.train.workdir import resume

GOLDEN = pathlib.Path(__file__).parents[2] / "golden" / "configs"
RECORDED = {name for path in GOLDEN.glob("*.txt") for name in re.findall(r'"(swin_jax\.[\w.]+)"', path.read_text())}


def saved(tmp_path, **changes) -> pathlib.Path:
    """A workdir that holds the config.json of a Swin with some keys changed."""
    flat = config.flatten({"task": {"model": config.spec(Swin)}}) | changes
    (tmp_path / "config.json").write_text(json.dumps(flat))
    return tmp_path


def test_every_callable_that_a_config_has_named_is_found_under_its_public_name():
    assert len(RECORDED) > 40
    for name in RECORDED:
        current = current_name(name)
        found = find(current)
        assert callable(found), f"{name}, today {current}, does not exist; add a line to RENAMED"
        assert name_of(found) == current, f"{name} is saved as {name_of(found)}, not as {current}"


def test_every_public_callable_is_found_under_the_name_that_is_saved():
    checked = 0
    for module in pkgutil.walk_packages(swin_jax.__path__, "swin_jax."):
        for name, value in inspect.getmembers(importlib.import_module(module.name)):
            own = getattr(value, "__module__", "").startswith("swin_jax.") and not name.startswith("_")
            if own and (inspect.isclass(value) or inspect.isfunction(value)) and "<" not in value.__qualname__:
                assert find(name_of(value)) is value, f"{module.name}.{name} is saved as {name_of(value)}"
                checked += 1
    assert checked > 500


def test_a_name_of_today_is_no_older_name():
    for old, new in RENAMED.items():
        found = find(new)
        inside = new if callable(found) else f"{new}.anything"
        assert found is not None and current_name(inside) == inside, f"{old} -> {new}"
        assert not callable(found) or name_of(found) == new


def test_the_face_of_a_package_is_named_and_not_the_file(monkeypatch):
    package = types.ModuleType("face")
    package.__all__ = ["Model"]
    monkeypatch.setitem(__import__("sys").modules, "face", package)
    Model = type("Model", (), {"__module__": "face.deep_inside"})
    Other = type("Other", (), {"__module__": "face.deep_inside"})
    assert name_of(Model) == "face.Model"
    assert name_of(Other) == "face.deep_inside.Other"


def test_older_names_are_read_as_those_of_today(monkeypatch):
    monkeypatch.setitem(RENAMED, "swin_jax.old", "swin_jax.models.swin")
    flat = {"task.model.fn": "swin_jax.old.Swin", "seed": 1, "depths": [2, 2]}
    assert current_names(flat) == {**flat, "task.model.fn": "swin_jax.models.swin.Swin"}


def test_renamed_arguments_are_those_of_callables_of_today():
    renamed = [(name, before, today) for (name, before), today in RENAMED_ARGUMENTS.items()]
    renamed += [(name, None, argument) for name, argument in RENAMED_VALUES]
    for name, before, today in renamed:
        known = inspect.signature(find(name)).parameters
        assert current_name(name) == name and today in known and before not in known, (name, before)


def test_arguments_are_renamed_with_what_is_inside_and_of_their_callable_only(monkeypatch):
    monkeypatch.setitem(RENAMED_ARGUMENTS, ("a.outer", "colour"), "color")
    monkeypatch.setitem(RENAMED_ARGUMENTS, ("a.inner", "grey"), "gray")
    monkeypatch.setitem(RENAMED_VALUES, ("a.inner", "gray"), {"centre": "center"})
    monkeypatch.setitem(RENAMED, "a.before", "a.inner")
    flat = {"x.fn": "a.outer", "x.colour.fn": "a.before", "x.colour.grey": "centre", "x.colours": 1, "colour": 2}
    flat |= {"y.fn": "a.other", "y.colour": 3, "y.grey": "centre"}
    expected = {"x.fn": "a.outer", "x.color.fn": "a.inner", "x.color.gray": "center", "x.colours": 1, "colour": 2}
    assert current_names(flat) == expected | {"y.fn": "a.other", "y.colour": 3, "y.grey": "centre"}
    assert current_names({"fn": "a.inner", "grey": ["centre"]}) == {"fn": "a.inner", "gray": ["centre"]}


def test_the_first_name_stays_the_same_when_a_callable_moves_again(monkeypatch):
    monkeypatch.setattr("swin_jax.core.public_names.RENAMED", {"a.old": "a.new", "b": "c.d"})
    assert (first_name("a.new"), first_name("c.d.f"), first_name("e.f")) == ("a.old", "b.f", "e.f")
    assert first_name(current_name("b.f")) == "b.f"


def test_a_run_with_an_older_name_resumes_and_loads(tmp_path, monkeypatch):
    monkeypatch.setitem(RENAMED, "swin_jax.old.Swin", "swin_jax.models.swin.Swin")
    workdir = saved(tmp_path, **{"task.model.fn": "swin_jax.old.Swin"})
    assert resume.check_resume({"task": {"model": config.spec(Swin)}}, workdir) == []
    with pytest.raises(UserError, match="no checkpoint in"):  # past its name
        load(weights=workdir)


def test_an_unknown_name_is_one_line_with_key_name_and_the_nearest(tmp_path):
    workdir = saved(tmp_path, **{"task.model.fn": "swin_jax.models.swin.Swinn"})
    expected = "task.model.fn.*swin_jax.models.swin.Swinn.*did you mean 'swin_jax.models.swin.Swin'"
    with pytest.raises(UserError, match=expected):
        load(weights=workdir)
    with pytest.raises(UserError, match=expected) as caught:
        resume.check_resume({"task": {"model": config.spec(Swin)}}, workdir)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="predict.transform.fn is swin_jax.data.nowhere.f, which this version does not"):
        check_names({"predict.transform.fn": "swin_jax.data.nowhere.f"}, "predict.transform.", "config.json")
