"""Warnings of a command: one line each, with a place only where it is the user's own."""

import runpy
import sys
import warnings

import pytest

from swin_jax import launch as launcher
from swin_jax.core import errors


@pytest.fixture
def command(monkeypatch):
    """Runs `main` with a function in place of the command."""

    def run(function):
        monkeypatch.setattr(launcher, "run", function)
        with pytest.raises(SystemExit):
            launcher.main()

    return run


def test_warnings_without_a_line_of_the_user_have_no_place_and_are_told_once(command, capsys):
    def warn_often(argv):
        errors.warn("one")
        errors.warn("two")
        errors.warn("one")

    show = warnings.showwarning
    command(warn_often)
    assert capsys.readouterr() == ("", "warning: one\nwarning: two\n")
    assert warnings.showwarning is show


def test_names_that_are_not_utf8_are_printed(command, capsys):
    command(lambda argv: print("caf\udce9.jpg"))
    assert capsys.readouterr().out == "caf\\udce9.jpg\n"


def test_warnings_at_a_line_of_the_users_experiment_name_it(command, capsys):
    line = compile("errors.warn('mine')", "experiments/mine.py", "exec")
    with warnings.catch_warnings(record=True) as told:
        command(lambda argv: exec(line, {"errors": errors}))
    assert [(one.filename, str(one.message)) for one in told] == [("experiments/mine.py", "mine")]
    assert capsys.readouterr() == ("", "")


def test_the_command_of_a_module_has_no_line_of_the_user(monkeypatch, capsys):
    def refuse(path):
        raise errors.UserError("the end")

    monkeypatch.setattr("swin_jax.core.config.describe_arguments", errors.warn)
    monkeypatch.setattr("swin_jax.core.config.load", refuse)
    monkeypatch.setattr(sys, "argv", ["swin_jax", "--config=told.py"])
    monkeypatch.delitem(sys.modules, "swin_jax.launch")
    with pytest.raises(SystemExit, match="2"):
        runpy.run_module("swin_jax.launch", run_name="__main__")
    assert capsys.readouterr() == ("", "warning: told.py\nerror: the end\n")
