"""The scan: it finds every kind of broken file, can be stopped and resumed, and writes a list of the good ones."""

import json

import pytest

from swin_jax.data import video_scan
from swin_jax.data.video_sources import video_list
from tests.unit import video_files

PROBLEMS = {
    "audio.mp4": "no video stream",
    "cut.mp4": "not a video file, or cut off",
    "damaged.mp4": "decoded|damaged",
    "empty.mp4": "not a video file",
    "missing.mp4": "cannot be opened",
    "none.mp4": "the video has no frames",
}


@pytest.fixture
def data(tmp_path):
    """Two good files, one of them of variable frame rate, and six broken ones; returns their list."""
    good = video_files.make(tmp_path / "good.mp4", 30)
    video_files.make(tmp_path / "uneven.mp4", 4, times=[0, 20, 100, 110])
    video_files.make_audio(tmp_path / "audio.mp4")
    video_files.cut(good, tmp_path / "cut.mp4")
    video_files.damage(good, tmp_path / "damaged.mp4")
    video_files.make_without_frames(tmp_path / "none.mp4")
    (tmp_path / "empty.mp4").write_bytes(b"")
    names = sorted([*PROBLEMS, "good.mp4", "uneven.mp4"])
    (tmp_path / "list.txt").write_text("".join(f"{name} {index}\n" for index, name in enumerate(names)))
    return tmp_path / "list.txt"


def scan(data, *flags):
    return video_scan.run([f"--annotations={data}", f"--data_prefix={data.parent}", *flags])


def findings(data):
    report = data.with_name("list.txt.scan.jsonl")
    return {json.loads(line)["path"].split("/")[-1]: json.loads(line) for line in report.read_text().splitlines()}


def test_every_broken_file_is_named(data, capsys):
    assert scan(data) == 1
    found, output = findings(data), capsys.readouterr().out
    for name, problem in PROBLEMS.items():
        assert any(part in found[name]["problem"] for part in problem.split("|")), found[name]
        assert f"{name}: {found[name]['problem']}" in output
    assert found["good.mp4"]["problem"] == found["uneven.mp4"]["problem"] == ""
    assert found["good.mp4"]["frames"] == 30 and not found["good.mp4"]["variable_frame_rate"]
    assert found["uneven.mp4"]["variable_frame_rate"]
    assert "8 records: 2 good, 6 will fail, 1 have a variable frame rate" in output


def test_the_scan_agrees_with_what_reading_does(data):
    """A file is good exactly where all its frames can be read."""
    scan(data)
    source, found = video_list(str(data), str(data.parent)), findings(data)
    for index in range(len(source)):
        reader = source[index]["video"]
        try:
            reader.get(range(len(reader)))
            readable = True
        except Exception:
            readable = False
        assert readable == (found[source.paths[index]]["problem"] == ""), source.paths[index]


def test_a_frame_that_vanishes_is_a_problem(tmp_path, monkeypatch):
    path = video_files.make(tmp_path / "a.mp4", 5)
    assert video_scan.check_file(path)["problem"] == ""
    monkeypatch.setattr(video_scan.Reader, "count_by_decoding", lambda self: 4)
    assert "of 5 frames 4 can be decoded" in video_scan.check_file(path)["problem"]


def test_a_folder_of_good_files_exits_with_0(tmp_path):
    (tmp_path / "set" / "run").mkdir(parents=True)
    video_files.make(tmp_path / "set" / "run" / "good.mp4", 5)
    assert video_scan.run([f"--folder={tmp_path}/set/"]) == 0
    assert (tmp_path / "set.scan.jsonl").is_file()


def test_a_second_run_looks_only_at_new_and_changed_files(data, monkeypatch):
    scan(data)
    looked = []
    check = video_scan.check_file
    monkeypatch.setattr(video_scan, "check_file", lambda path, quick: looked.append(path) or check(path, quick))
    assert scan(data) == 1 and looked == []
    report = data.with_name("list.txt.scan.jsonl")
    lines = report.read_text().splitlines(keepends=True)
    report.write_text("".join(lines[:5]) + lines[5][:20])  # as if it had been killed while it wrote
    assert scan(data) == 1 and len(looked) == 3
    looked.clear()
    video_files.make(data.parent / "cut.mp4", 5)
    assert scan(data) == 1 and [path.split("/")[-1] for path in looked] == ["cut.mp4"]
    assert findings(data)["cut.mp4"]["problem"] == ""


def test_an_interrupted_scan_keeps_what_it_found(data, monkeypatch, capsys):
    check, count = video_scan.check_file, []

    def interrupted(path, quick):
        count.append(path)
        if len(count) == 4:
            raise KeyboardInterrupt
        return check(path, quick)

    monkeypatch.setattr(video_scan, "check_file", interrupted)
    assert scan(data, "--num_threads=1") == 130
    assert "to go on" in capsys.readouterr().err
    assert len(findings(data)) == 3


def test_quick_reads_packets_only_and_is_not_taken_for_a_full_scan(data):
    scan(data, "--quick")
    found = findings(data)
    assert found["damaged.mp4"]["problem"] == "" and found["cut.mp4"]["problem"]
    scan(data)
    assert findings(data)["damaged.mp4"]["problem"]


@pytest.mark.parametrize("name", ["good.txt", "good.json"])
def test_the_list_of_good_files_can_be_read_again(data, name):
    scan(data, f"--write_good={data.parent / name}")
    source = video_list(str(data.parent / name), str(data.parent))
    before = video_list(str(data), str(data.parent))
    labels = dict(zip(before.paths, before.labels))
    assert source.paths == ("good.mp4", "uneven.mp4")
    assert [labels[path] for path in source.paths] == list(source.labels)


def test_wrong_use_is_told_in_a_line(data, capsys, tmp_path):
    assert video_scan.run([f"--annotations={tmp_path}/missing.txt"]) == 1
    assert scan(data, f"--report={tmp_path}/no/report") == 1
    assert scan(data, f"--write_good={tmp_path}/no/good.txt") == 1
    for text in ("{}\n", "something else"):
        (tmp_path / "other").write_text(text)
        assert scan(data, f"--report={tmp_path}/other") == 1
        assert (tmp_path / "other").read_text() == text
    errors = capsys.readouterr().err
    assert (
        "is not the report" in errors
        and "cannot read" in errors
        and "give --report=FILE" in errors
        and "cannot write" in errors
    )
    assert "Traceback" not in errors


def test_a_text_list_cannot_hold_spaces(tmp_path, capsys):
    (tmp_path / "a class").mkdir()
    video_files.make(tmp_path / "a class" / "a.mp4", 3)
    flags = [f"--folder={tmp_path}", f"--report={tmp_path}/report"]
    assert video_scan.run([*flags, f"--write_good={tmp_path}/good.txt"]) == 2
    assert "give --write_good=FILE.json" in capsys.readouterr().err
    assert video_scan.run([*flags, f"--write_good={tmp_path}/good.json"]) == 0
