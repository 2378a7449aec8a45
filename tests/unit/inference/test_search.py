"""The launcher's --search, before anything is read."""

import types

import pytest
from etils import epath

from swin_jax.core.errors import UserError
from swin_jax.inference import search


def test_a_classifier_is_told_what_it_can_do_and_not_to_make_an_index(tmp_path, monkeypatch):
    run = types.SimpleNamespace(task=types.SimpleNamespace(predicts="logits"))
    monkeypatch.setattr(search, "open_trained", lambda config, workdir: epath.Path(workdir))
    monkeypatch.setattr(search, "build_run", lambda config: run)
    monkeypatch.setattr(search, "check_frozen", lambda task: None)
    with pytest.raises(UserError, match="task predicts logits.*--predict=FOLDER"):
        search.prepare_search({}, str(tmp_path), "a tree")
    run.task.predicts = "features"
    with pytest.raises(UserError, match="there is no index .*index.npz: make it with --index=FOLDER"):
        search.prepare_search({}, str(tmp_path), "a tree")
