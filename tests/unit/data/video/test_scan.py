"""The scan: it finds every kind of broken file, can be stopped and resumed, and writes a list of the good ones."""

import json

import pytest
from PIL import Image

from swin_jax.data.video import scan as video_scan
from swin_jax.data.video.sources import video_list
from tests.unit.data.video import video_files

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
    video_files.damage_picture(good, tmp_path / "damaged.mp4")
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
    assert "uneven.mp4: variable frame rate, which training replaces\n" in output
    assert "8 records: 1 good, 7 to be replaced in training" in output
    assert scan(data, "--variable_frame_rate") == 1
    assert "8 records: 2 good, 6 to be replaced in training" in capsys.readouterr().out


def test_a_variable_frame_rate_alone_is_replaced_in_training_only(tmp_path, capsys):
    video_files.make(tmp_path / "uneven.mp4", 4, times=[0, 20, 100, 110])
    assert video_scan.run([f"--folder={tmp_path}"]) == 1
    assert video_scan.run([f"--folder={tmp_path}", "--variable_frame_rate"]) == 0
    assert "uneven.mp4: variable frame rate, read by time stamps\n" in capsys.readouterr().out


def test_a_picture_is_named_and_good(tmp_path, capsys):
    Image.new("RGB", (32, 24)).save(tmp_path / "still.mp4", "JPEG")
    video_files.make(tmp_path / "film.mp4", 3)
    (tmp_path / ".cache").mkdir()
    assert video_scan.run([f"--folder={tmp_path}"]) == 0  # a folder without classes
    output = capsys.readouterr().out
    assert "still.mp4: one frame only\n" in output and "film.mp4:" not in output and "2 good, 0 to be" in output


@pytest.mark.parametrize("variable", [False, True])
def test_the_scan_agrees_with_what_reading_does(data, variable):
    """A file is good exactly where all its frames can be read."""
    scan(data)
    source, found = video_list(str(data), str(data.parent), variable_frame_rate=variable), findings(data)
    for index in range(len(source)):
        reader = source[index]["video"]
        try:
            reader.get(range(len(reader)))
            readable = True
        except Exception:
            readable = False
        assert readable != video_scan.will_be_replaced(found[source.paths[index]], variable), source.paths[index]


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
    assert "to resume" in capsys.readouterr().err
    assert len(findings(data)) == 3


def test_quick_reads_packets_only_and_is_not_taken_for_a_full_scan(data):
    scan(data, "--quick")
    found = findings(data)
    assert found["damaged.mp4"]["problem"] == "" and found["cut.mp4"]["problem"]
    scan(data)
    assert findings(data)["damaged.mp4"]["problem"]


@pytest.mark.parametrize("name", ["good.txt", "good.json", "good.csv", "good.jsonl"])
def test_the_list_of_good_files_can_be_read_again(data, name):
    scan(data, f"--write_good={data.parent / name}")
    assert video_list(str(data.parent / name), str(data.parent)).paths == ("good.mp4",)
    scan(data, f"--write_good={data.parent / name}", "--variable_frame_rate")
    source = video_list(str(data.parent / name), str(data.parent))
    before = video_list(str(data), str(data.parent))
    labels = dict(zip(before.paths, before.labels))
    assert source.paths == ("good.mp4", "uneven.mp4")
    assert [labels[path] for path in source.paths] == list(source.labels)


@pytest.mark.parametrize("name", ["good.csv", "good.jsonl"])
def test_a_list_of_good_files_may_hold_names(name, tmp_path):
    for label in ("jump, high", "run"):
        (tmp_path / "films" / label).mkdir(parents=True)
        video_files.make(tmp_path / "films" / label / "a b.mp4", 3)
    assert video_scan.run([f"--folder={tmp_path}/films", f"--write_good={tmp_path / name}"]) == 0
    source = video_list(str(tmp_path / name), str(tmp_path / "films"))
    assert source.class_names == ("jump, high", "run") and source.labels == (0, 1)
    assert source.paths == ("jump, high/a b.mp4", "run/a b.mp4")


def test_wrong_use_is_told_in_a_line(data, capsys, tmp_path):
    """Before anything is scanned, and without harm to files that are there."""
    text = data.read_text()
    (tmp_path / "other").write_text("{}\n")
    (tmp_path / ".split/train").mkdir(parents=True)
    listed = (f"--annotations={data}", f"--data_prefix={tmp_path}")
    for flags, status, says in (
        ([f"--annotations={tmp_path}/missing.txt"], 2, "cannot read"),
        (["--annotations="], 2, "is empty"),
        (["--folder="], 2, "is empty"),
        ([f"--folder={data}"], 2, f"is a file; a list is given as --annotations={data}"),
        ([f"--folder={tmp_path}/no"], 2, "no does not exist"),
        ([f"--folder={tmp_path}/.split"], 2, f"holds splits, not classes; scan each: --folder={tmp_path}/.split/train"),
        ([f"--folder={tmp_path}", "--data_prefix=x"], 2, "--data_prefix goes with --annotations"),
        ([f"--folder={tmp_path}", f"--write_good={tmp_path}/good.txt"], 2, "no class folders"),
        ([f"--annotations={data}", "--num_threads=0"], 2, "--num_threads=0 must be at least 1"),
        ([f"--annotations={data}", "--num_threads=-1"], 2, "--num_threads=-1 must be at least 1"),
        ([f"--annotations={data}", f"--report={tmp_path}/no/report"], 2, "give another --report=FILE"),
        ([f"--annotations={data}", f"--report={tmp_path}/other"], 2, "other is not the report of a scan: give another"),
        ([f"--annotations={data}", f"--report={data}"], 2, "list.txt is not the report of a scan: give another"),
        ([f"--annotations={data}", f"--write_good={tmp_path}/no/good.txt"], 2, "cannot write"),
        ([f"--annotations={data}", f"--write_good={tmp_path}"], 2, "cannot write"),
        ([f"--annotations={data}", f"--write_good={data}"], 2, "would overwrite the input or the report"),
        ([f"--annotations={data}", f"--write_good={data}.scan.jsonl"], 2, "would overwrite the input or the report"),
        ([*listed, f"--write_good={tmp_path}/good.mp4"], 2, "good.mp4 would overwrite the input or the report"),
    ):
        assert video_scan.run(flags) == status, flags
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ") and says in line
    assert data.read_text() == text and (tmp_path / "other").read_text() == "{}\n"
    assert not data.with_name("list.txt.scan.jsonl").exists() and not (tmp_path / "good.txt").exists()


def test_a_list_that_does_not_fit_the_disk_is_one_line(tmp_path, capsys):
    (tmp_path / "set/run").mkdir(parents=True)
    video_files.make(tmp_path / "set/run/good.mp4", 4)
    assert video_scan.run([f"--folder={tmp_path}/set", "--write_good=/dev/full"]) == 1
    (line,) = (line for line in capsys.readouterr().err.splitlines() if "error" in line.lower())
    assert line.startswith("error: cannot write /dev/full: No space left on device")


def test_a_text_list_cannot_hold_spaces(tmp_path, capsys):
    (tmp_path / "a class").mkdir()
    video_files.make(tmp_path / "a class" / "a.mp4", 3)
    flags = [f"--folder={tmp_path}", f"--report={tmp_path}/report"]
    assert video_scan.run([*flags, f"--write_good={tmp_path}/good.txt"]) == 2
    assert "give --write_good=FILE.json" in capsys.readouterr().err
    assert video_scan.run([*flags, f"--write_good={tmp_path}/good.json"]) == 0


@pytest.mark.parametrize("place", ["folder", "list"])
def test_names_that_are_not_utf8_are_shown_and_listed(tmp_path, capsys, place):
    """As archives from other systems give them; a list may even name what no file can be called."""
    (tmp_path / "x/run").mkdir(parents=True)
    video_files.make(tmp_path / "x/run/\udce9.mp4", 3)
    (tmp_path / "x/run/b\udce9.mp4").write_bytes(b"")
    names = ["run/\udce9.mp4", "run/b\udce9.mp4", "run/\ud800.mp4"]
    (tmp_path / "l.jsonl").write_text("".join(json.dumps({"path": name, "label": 0}) + "\n" for name in names))
    source = {
        "folder": [f"--folder={tmp_path}/x", f"--report={tmp_path}/r"],
        "list": [f"--annotations={tmp_path}/l.jsonl", f"--data_prefix={tmp_path}/x"],
    }[place]
    assert video_scan.run([*source, f"--write_good={tmp_path}/good.csv"]) == 2
    assert "is not UTF-8, which this list cannot hold: give --write_good=FILE.json" in capsys.readouterr().err
    assert video_scan.run([*source, f"--write_good={tmp_path}/good.json"]) == 1
    shown = capsys.readouterr().out
    assert "b\\udce9.mp4: " in shown and ("\\ud800.mp4: " in shown) == (place == "list")
    assert video_list(str(tmp_path / "good.json"), str(tmp_path / "x")).paths == ("run/\udce9.mp4",)


def test_the_labels_beside_a_list_are_not_overwritten(tmp_path, capsys):
    """Something-Something's, which its list is read with."""
    (tmp_path / "train.json").write_text('[{"id": "1", "template": "Holding [something]"}]')
    (tmp_path / "labels.json").write_text('{"Holding something": "0"}')
    (tmp_path / "1.webm").touch()
    flags = [f"--annotations={tmp_path}/train.json", f"--data_prefix={tmp_path}"]
    assert video_scan.run([*flags, f"--write_good={tmp_path}/labels.json"]) == 2
    assert "would overwrite the input or the report" in capsys.readouterr().err
    assert (tmp_path / "labels.json").read_text() == '{"Holding something": "0"}'
