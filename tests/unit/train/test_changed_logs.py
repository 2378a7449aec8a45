"""A log that an editor has saved in another form is not lost."""

import json

import pytest

from swin_jax.train import logs
from tests.unit.train.test_logs import raw, write_steps


def laid_out(text):
    return "".join(json.dumps(json.loads(line), indent=2) + "\n" for line in text.splitlines())


ANEW = {
    "utf-16": lambda text: text.encode("utf-16"),
    "laid out": lambda text: laid_out(text).encode(),
    "a list": lambda text: f"[{', '.join(text.splitlines())}]".encode(),
}


@pytest.mark.parametrize("restored_step", [3, None])
@pytest.mark.parametrize("kind", ANEW)
def test_a_log_that_an_editor_saved_in_another_form_is_kept(tmp_path, capfd, kind, restored_step):
    """A resumed run emptied it without a word, one from scratch too."""
    write_steps(tmp_path, [1, 2, 3])
    theirs = ANEW[kind](raw(tmp_path).decode())
    logs.metrics_path(tmp_path).write_bytes(theirs)
    capfd.readouterr()
    write_steps(tmp_path, [4], restored_step=restored_step)
    assert [line["step"] for line in logs.read_metrics(tmp_path)] == [4]
    aside = tmp_path / "metrics_1.jsonl"
    assert aside.read_bytes() == theirs and not (tmp_path / "metrics_2.jsonl").exists()
    (line,) = [line for line in capfd.readouterr().err.splitlines() if "kept in" in line]
    assert "lines that are not of a log" in line and str(aside) in line


def test_line_ends_and_the_mark_of_windows_cost_no_line(tmp_path, capfd):
    write_steps(tmp_path, [1, 2])
    text = raw(tmp_path)
    logs.metrics_path(tmp_path).write_bytes(b"\xef\xbb\xbf" + text.replace(b"\n", b"\r\n"))
    capfd.readouterr()
    logs.truncate(tmp_path, 2)
    assert raw(tmp_path) == text and capfd.readouterr().err == ""
