"""Odd things in the place of a checkpoint's files: damage, or one line that says what to do; never waited for."""

import json
import os
import shutil

import pytest

from swin_jax.core.errors import UserError
from swin_jax.train import checkpoint
from tests.unit.train.test_checkpoint import abstract, state


def restored(workdir):
    """(the step that is restored, what is said)."""
    said = []
    found = checkpoint.restore(checkpoint.open(workdir), abstract(state()), said.append)
    return found[1]["step"], said


@pytest.mark.parametrize("name", ["checksums.json", "meta/metadata", "params/_METADATA"])
@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "loop"])
def test_what_is_no_file_is_damage(workdir, name, kind):
    path = workdir / "checkpoints" / "2" / name
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero" if kind == "device" else path)
    assert checkpoint.class_names(workdir) == ("cat", "Bär")
    assert checkpoint.load_params(workdir)[2]["step"] == 1
    step, (said,) = restored(workdir)
    assert step == 1 and "the checkpoint of step 2 is damaged" in said


@pytest.mark.parametrize("name", ["²", "٣", "00007", "-3", "3.bak", "2 (copy)"])
def test_other_names_are_no_steps(workdir, name):
    shutil.copytree(workdir / "checkpoints" / "2", workdir / "checkpoints" / name)
    assert checkpoint.exists(workdir) and checkpoint.load_params(workdir)[2]["step"] == 2
    assert checkpoint.class_names(workdir) == ("cat", "Bär") and restored(workdir) == (2, [])


@pytest.mark.parametrize(
    "text", ["[1]", "3", "[" * 99_999, '{"a": ' + "9" * 5000 + "}", '{"metrics": 3}', '{"init_timestamp_nsecs": "x"}']
)
def test_damaged_notes_of_orbax_are_one_line(workdir, text):
    path = workdir / "checkpoints" / "2" / "_CHECKPOINT_METADATA"
    whole = json.loads(path.read_text())
    path.write_text(json.dumps(whole | json.loads(text)) if text.startswith('{"m') else text)
    with pytest.raises(UserError, match=f"a file .*STEP/{path.name} is damaged .*: remove it") as error:
        checkpoint.open(workdir)
    assert "\n" not in str(error.value)
    path.unlink()
    assert restored(workdir) == (2, [])


def test_notes_that_are_a_pipe_are_not_waited_for(workdir):
    path = workdir / "checkpoints" / "2" / "_CHECKPOINT_METADATA"
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(UserError, match="a pipe"):
        checkpoint.open(workdir)
