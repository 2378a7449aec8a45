"""Metrics on disk, console, clock, summary and curves."""

import json
import os
import pty
import sys
import termios

import numpy as np
import pytest

from swin_jax.core.errors import UserError
from swin_jax.train import curves, logs


def raw(workdir):
    return logs.metrics_path(workdir).read_bytes()


def write_steps(workdir, steps, **kwargs):
    with logs.Logs(workdir, 100, **kwargs) as log:
        for step in steps:
            log.write(step, {"train/loss": np.float32(1 / step), "train/learning_rate": 1e-3})


# ---- metrics.jsonl ----


def test_lines_are_flat_json_in_the_order_written(tmp_path):
    write_steps(tmp_path, range(1, 4))
    lines = [json.loads(line) for line in raw(tmp_path).splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert list(lines[0]) == ["step", "train/loss", "train/learning_rate"]
    assert lines == logs.read_metrics(tmp_path)


def test_equal_float32_values_give_equal_text_and_unequal_ones_don_t():
    value = np.float32(0.1)
    texts = {logs.format_line(1, {"a": v}) for v in (0.1, value, float(value), np.asarray(value))}
    assert texts == {'{"step": 1, "a": 0.10000000149011612}'}
    assert logs.format_line(1, {"a": np.nextafter(value, np.float32(1))}) not in texts


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -np.float32(np.inf)])
def test_what_is_not_finite_is_null(value):
    assert logs.format_line(3, {"a": value}) == '{"step": 3, "a": null}'


def test_truncate_keeps_lines_up_to_the_step_byte_for_byte(tmp_path):
    write_steps(tmp_path, range(1, 10))
    whole = raw(tmp_path).splitlines(keepends=True)
    for step in (20, 5, 0):
        logs.truncate(tmp_path, step)
        assert raw(tmp_path) == b"".join(whole[:step])


@pytest.mark.parametrize("torn", [b'{"step": 2, "train/lo', b'{"step"', b"7", b"\xff\xfe", b'{"loss": 1}'])
def test_a_torn_last_line_is_dropped_and_not_read(tmp_path, torn):
    write_steps(tmp_path, [1])
    whole = raw(tmp_path)
    with logs.metrics_path(tmp_path).open("ab") as file:
        file.write(torn)
    assert len(logs.read_metrics(tmp_path)) == 1
    logs.truncate(tmp_path, 5)
    assert raw(tmp_path) == whole


def test_a_resumed_run_leaves_the_same_file_as_an_uninterrupted_one(tmp_path):
    write_steps(tmp_path / "once", range(1, 9))
    write_steps(tmp_path / "twice", range(1, 7))
    with logs.metrics_path(tmp_path / "twice").open("a") as file:
        file.write('{"step": 7, "tra')
    write_steps(tmp_path / "twice", range(5, 9), restored_step=4)
    assert raw(tmp_path / "once") == raw(tmp_path / "twice")


def test_a_run_from_scratch_sets_the_log_of_an_earlier_one_aside(tmp_path, capfd):
    """As where checkpoints were deleted to save space; a log without lines is no news."""
    earlier = []
    for steps in ([3, 4, 5], [1, 2], [7]):
        write_steps(tmp_path, steps)
        earlier.append(raw(tmp_path))
        assert [line["step"] for line in logs.read_metrics(tmp_path)] == steps
    assert [(tmp_path / f"metrics_{i}.jsonl").read_bytes() for i in (1, 2)] == earlier[:2]
    first, second = [line for line in capfd.readouterr().err.splitlines() if "kept in" in line]
    assert "metrics.jsonl has 3 lines up to step 5 of an earlier run" in first and "metrics_2.jsonl" in second
    write_steps(tmp_path / "new", [])
    write_steps(tmp_path / "new", [])
    assert not (tmp_path / "new" / "metrics_1.jsonl").exists() and capfd.readouterr().err == ""


def test_a_resumed_run_sets_nothing_aside(tmp_path):
    write_steps(tmp_path, [1, 2])
    write_steps(tmp_path, [2], restored_step=1)
    assert not (tmp_path / "metrics_1.jsonl").exists()


def test_a_line_is_on_disk_when_write_returns(tmp_path):
    with logs.Logs(tmp_path, 100) as log:
        log.write(1, {"a": 1.0})
        assert len(logs.read_metrics(tmp_path)) == 1


@pytest.mark.parametrize("kept", [None, '{"step": 1, "train/loss": 1.0}\n'])
def test_a_record_that_is_removed_or_replaced_goes_on(tmp_path, kept, capsys):
    path = logs.metrics_path(tmp_path)
    with logs.Logs(tmp_path, 100) as log:
        log.write(1, {"train/loss": 1.0})
        path.unlink()
        if kept:
            path.write_text(kept)
        for step in (2, 3):
            log.write(step, {"train/loss": 0.5})
        assert capsys.readouterr().err == f"{path} was removed or replaced; " + (
            "what is logged from now on goes into the new one\n"
        )
    assert [line["step"] for line in logs.read_metrics(tmp_path)] == [1, 2, 3][not kept :]


def test_a_record_that_another_run_has_now_is_left_alone(tmp_path):
    def lost():
        raise UserError("taken over")

    path = logs.metrics_path(tmp_path)
    with pytest.raises(UserError, match="taken over"), logs.Logs(tmp_path, 100, check=lost) as log:
        path.unlink()
        path.write_text("theirs\n")
        log.write(1, {"train/loss": 1.0})
    assert path.read_text() == "theirs\n"


def test_no_file_reads_as_nothing(tmp_path):
    assert logs.read_metrics(tmp_path) == []
    logs.truncate(tmp_path, 3)
    assert not list(tmp_path.iterdir())


def test_other_processes_write_nothing(tmp_path, capsys):
    with logs.Logs(tmp_path / "run", 100, enabled=False, wandb_project="p") as log:
        log.write(1, {"a": 1.0})
        log.progress(1, {"train/loss": 1.0})
        log.text("hello")
    assert not (tmp_path / "run").exists()
    assert capsys.readouterr() == ("", "")


# ---- console ----


def test_plain_lines_show_step_loss_speed_and_eta(tmp_path, capsys):
    with logs.Logs(tmp_path, 100) as log:
        log.progress(1)
        log.progress(10, {"train/loss": 0.5, "time/images_per_second": 812.34, "time/step_seconds": 2.0})
        log.text("saved")
    assert capsys.readouterr().err.splitlines() == ["step 10/100  loss 0.5000  812.3 images/s  ETA 03:00", "saved"]


def test_a_sign_of_life_after_ten_seconds(tmp_path, capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(logs.time, "monotonic", lambda: now[0])
    with logs.Logs(tmp_path, 100) as log:
        for step in range(25):
            now[0] = float(step)
            log.progress(step)
    assert capsys.readouterr().err.splitlines() == ["step 10/100", "step 20/100"]


@pytest.fixture
def shown(tmp_path, monkeypatch):
    """What a log shows on a terminal: shown(write, columns) -> text."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("COLUMNS", raising=False)

    def run(write, columns=100):
        terminal, process = pty.openpty()
        termios.tcsetwinsize(process, (25, columns))
        with os.fdopen(process, "w") as stderr:
            monkeypatch.setattr(sys, "stderr", stderr)
            with logs.Logs(tmp_path, 100, restored_step=40) as log:
                write(log)
            text = os.read(terminal, 100_000).decode()
        os.close(terminal)
        return text

    return run


def report(log):
    log.progress(60, {"train/loss": 0.5, "time/images_per_second": 812.34, "time/step_seconds": 3.0})
    log.text("saved")


def test_a_bar_on_a_terminal(shown):
    text = shown(report)
    assert "60/100" in text and "loss 0.5000, 812.3 images/s" in text and "saved" in text
    assert "step 60/100" not in text


@pytest.mark.parametrize("columns, environment", [(20, {}), (100, {"COLUMNS": "20"}), (100, {"TERM": "dumb"})])
def test_lines_where_a_terminal_has_no_room_for_a_bar(columns, environment, shown, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    lines = shown(report, columns).splitlines()
    assert lines == ["step 60/100  loss 0.5000  812.3 images/s  ETA 02:00", "saved"]


def test_the_first_step_compiles_and_counts_for_no_eta(tmp_path, capsys, monkeypatch, shown):
    now = [0.0]
    monkeypatch.setattr(logs.time, "monotonic", lambda: now[0])
    with logs.Logs(tmp_path, 100) as log, log.first_step():
        now[0] += 70.04
    assert capsys.readouterr().err.splitlines() == ["compiling the first step", "compiled in 70.0 s"]

    def compile_(log):
        log._bar.start_t -= 1000  # as if it were shown for as long
        log._bar.last_print_t -= 1000
        with log.first_step():
            pass
        assert log._bar.format_dict["elapsed"] < 10

    assert "compiling the first step" in shown(compile_)


# ---- at the end ----


def test_summary_shows_the_last_values(tmp_path):
    with logs.Logs(tmp_path, 20) as log:
        for step, top1 in ((10, 0.99), (20, 0.75)):
            log.write(step, {"train/loss": 1 / step, "train/grad_norm": 1.0})
            log.write(step, {"eval/digits/top1": top1, "eval/digits/loss": float("nan")})
    text = logs.summary(tmp_path, 20, 3700.0, "/runs/a/checkpoints/20")
    assert "20 steps, 1:01:40" in text
    rows = dict(line.split(maxsplit=1) for line in text.splitlines()[1:])
    assert rows == {
        "eval/digits/loss": "not finite",
        "eval/digits/top1": "0.7500",
        "train/loss": "0.0500",
        "metrics": str(tmp_path / "metrics.jsonl"),
        "checkpoint": "/runs/a/checkpoints/20",
    }


def test_summary_shows_what_was_just_measured_though_the_log_has_the_step(tmp_path, capsys):
    with logs.Logs(tmp_path, 20) as log:
        log.evaluation(20, {"eval/val/top1": 1.0, "eval/val/loss": 0.5}, 2.0, record=True)
    before = logs.read_metrics(tmp_path)
    with logs.Logs(tmp_path, 20, restored_step=20) as log:
        log.evaluation(20, {"eval/val/top1": 0.0, "eval/val/loss": float("nan")}, 2.0, record=False)
    shown = capsys.readouterr().err.splitlines()
    assert shown == [
        "step 20  eval/val/top1 1.0000  eval/val/loss 0.5000  (2.0 s)",
        "step 20  eval/val/top1 0.0000  eval/val/loss nan  (2.0 s), not logged again",
    ]
    assert logs.read_metrics(tmp_path) == before
    rows = dict(line.split(maxsplit=1) for line in logs.summary(tmp_path, 20, 1.0, None, log.measured).splitlines()[1:])
    assert rows["eval/val/top1"] == "0.0000" and rows["eval/val/loss"] == "not finite"


def test_curves_of_a_run(tmp_path):
    with logs.Logs(tmp_path, 200) as log:
        for step in range(1, 201):
            log.write(step, {"train/loss": 1 / step, "train/learning_rate": 1e-3, "time/step_seconds": 1.0})
        log.write(200, {"eval/digits/top1": 0.5, "eval/digits/loss": 1.0, "eval/digits/fid": 30.0, "eval/a/b": np.nan})
    panels = curves._panels(curves._series(logs.read_metrics(tmp_path)))
    assert {title: list(lines) for title, lines in panels.items()} == {
        "loss": ["train/loss", "eval/digits/loss"],
        "evaluation": ["eval/digits/top1"],
        "evaluation: fid": ["eval/digits/fid"],
        "learning rate": ["train/learning_rate"],
    }
    path = curves.draw(tmp_path)
    assert path == tmp_path / "curves.png"
    from PIL import Image

    with Image.open(path) as picture:
        assert min(picture.size) > 500
        assert len(np.unique(np.asarray(picture.convert("L")))) > 50
    assert "matplotlib.pyplot" not in sys.modules


ODD = [
    '{"step": 3, "train/loss": [1, 2]}',
    '{"step": 3, "train/loss": {"a": 1}}',
    '{"step": 3, "eval/a/top1": "0.5"}',
    '{"step": 3, "eval/a/top1": true}',
    '{"step": true, "train/loss": 1.0}',
    '{"step": 3.0, "train/loss": 1.0}',
    '{"step": "3"}',
    '{"step": 3, "train/loss": %s}' % ("9" * 400),
    '{"step": %s, "train/loss": 1.0}' % ("9" * 400),
    '{"step": %s}' % ("9" * 5000),
    '{"step": 3, "eval/a/top1": 1e308}',
    '{"step": 3, "eval/\\ud800/top1": 1.0}',
    '{"step": 3, "eval/a\\u0000/top1": 1.0}',
    '{"step": 3, "eval/\\u001b[2J/top1": 1.0}',
    "[" * 10**5,
    "[1]",
    "null",
]


@pytest.mark.parametrize("line", ODD, ids=range(len(ODD)))
def test_a_line_with_anything_but_numbers_is_left_out(tmp_path, line):
    good = logs.format_line(1, {"train/loss": 2.0, "eval/a/top1": 0.5})
    logs.metrics_path(tmp_path).write_text(f"{line}\n{good}\n{line}\n")
    assert logs.read_metrics(tmp_path) == [json.loads(good)]
    curves._panels(curves._series(logs.read_metrics(tmp_path)))
    assert "train/loss" in logs.summary(tmp_path, 1, 2.0, None)
    logs.truncate(tmp_path, 5)
    assert logs.metrics_path(tmp_path).read_text() == good + "\n"


def test_numbers_that_no_float_is_are_drawn(tmp_path):
    values = ("Infinity", "NaN", "-3", "null", str(10**30))
    lines = [f'{{"step": {step}, "train/loss": {value}}}' for step, value in enumerate(values)]
    logs.metrics_path(tmp_path).write_text("\n".join(lines))
    assert len(logs.read_metrics(tmp_path)) == len(values)
    assert curves.draw(tmp_path).exists()


@pytest.mark.parametrize("name", ["eval/a/$x^{$", "eval/$x^{/top1 $", "eval/" + "x" * 10**5 + "/top1"])
def test_names_are_no_formulas_in_curves(tmp_path, name):
    logs.metrics_path(tmp_path).write_text(logs.format_line(1, {name: 3.0, "eval/b/$": 0.5}))
    assert curves.draw(tmp_path).exists()


def test_curves_have_so_many_panels_at_most(tmp_path, monkeypatch):
    monkeypatch.setattr(curves, "MOST", 2)
    logs.metrics_path(tmp_path).write_text(logs.format_line(1, {f"eval/a/k{i}": 3.0 for i in range(200)}))
    assert curves.draw(tmp_path).stat().st_size < 10**5


def test_the_table_of_an_evaluation_is_a_csv_of_its_step(tmp_path):
    with logs.Logs(tmp_path, 3) as log:
        log.attach(3, "eval/val/classes", [("class", "iou"), ("bed, or cot", "0.5"), ("sea", "")])
    assert [path.name for path in (tmp_path / "tables").iterdir()] == ["val_classes_0000003.csv"]
    text = (tmp_path / "tables" / "val_classes_0000003.csv").read_bytes()
    assert text == b'class,iou\r\n"bed, or cot",0.5\r\nsea,\r\n'
    assert not (tmp_path / "pictures").exists()


def test_metrics_that_are_no_file_are_one_line(tmp_path):
    logs.metrics_path(tmp_path).mkdir()
    for read in (logs.read_metrics, lambda workdir: logs.truncate(workdir, 3), lambda workdir: logs.Logs(workdir, 3)):
        with pytest.raises(UserError, match="metrics.jsonl cannot be read: Is a directory"):
            read(tmp_path)
    (tmp_path / "other").mkdir()
    (tmp_path / "other/tensorboard").touch()
    with pytest.raises(UserError, match="no log can be written in .*other: "):
        logs.Logs(tmp_path / "other", 3)


def test_a_full_disk_costs_tensorboard_its_events_and_the_run_no_time(tmp_path, monkeypatch, capsys):
    log = logs.Logs(tmp_path, 100)
    events = log._tensorboard.file_writer.event_writer._ev_writer

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(events._py_recordio_writer, "write", full)
    monkeypatch.setattr(events._py_recordio_writer, "flush", full)
    for step in range(1, 40):  # more than fit into its queue
        log.write(step, {"train/loss": 1.0})
    log.close()
    assert len(logs.read_metrics(tmp_path)) == 39
    lines = [line for line in capsys.readouterr().err.splitlines() if "tensorboard" in line]
    assert lines == [f"{tmp_path}/tensorboard cannot be written: No space left on device"]


def test_what_ended_a_run_is_not_hidden_by_a_full_disk(tmp_path, monkeypatch):
    def full():
        raise OSError(28, "No space left on device")

    with pytest.raises(ZeroDivisionError), logs.Logs(tmp_path, 100) as log:
        monkeypatch.setattr(log, "close", full)
        raise ZeroDivisionError
    with pytest.raises(OSError, match="No space"), logs.Logs(tmp_path, 100) as log:
        monkeypatch.setattr(log, "close", full)


def test_no_metrics_no_curves(tmp_path):
    assert curves.draw(tmp_path) is None


def test_pictures_of_evaluations_are_kept(tmp_path):
    with logs.Logs(tmp_path, 10) as log:
        log.attach(3, "eval/val/reconstruction", np.full((4, 6, 1), 7, np.uint8))
    from PIL import Image

    kept = np.asarray(Image.open(tmp_path / "pictures" / "val_reconstruction_0000003.png"))
    assert kept.shape == (4, 6, 3) and (kept == 7).all()
