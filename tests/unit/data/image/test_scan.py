"""The scan of pictures: it finds what reading refuses, can be stopped and resumed, and lists what is unreadable."""

import errno
import json
import os
import resource
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from swin_jax.core.errors import UnreadableError
from swin_jax.data import file_scan, sources
from swin_jax.data.image import picture
from swin_jax.data.image import scan as picture_scan
from swin_jax.data.image.transforms import eval_transform

PROBLEMS = {
    "cut.jpg": "runcated",
    "empty.png": "it is empty",
    "large.png": "60 x 50 pixels, more than the limit",
    "lost.jpg": "No such file",
    "script.jpg": "not a picture in a supported format",
    "stripe.png": "would be resized to",
    "text.gif": "not a picture in a supported format",
}


@pytest.fixture
def folder(tmp_path):
    """Two good pictures in two classes, seven that are not, and what is left out."""
    root = tmp_path / "set"
    for name in ("a", "b"):
        (root / name).mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(root / "a" / "good.jpg")
    Image.fromarray(pixels).save(root / "b" / "good.webp")
    (root / "a" / "cut.jpg").write_bytes((root / "a" / "good.jpg").read_bytes()[:600])
    (root / "a" / "empty.png").touch()
    (root / "a" / "lost.jpg").symlink_to("nowhere")
    (root / "b" / "script.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\nshowpage\n")
    (root / "b" / "text.gif").write_text("hello")
    Image.new("RGB", (1, 2000)).save(root / "b" / "stripe.png")
    Image.new("RGB", (60, 50)).save(root / "b" / "large.png")
    (root / "a" / "notes.txt").touch()
    os.mkfifo(root / "a" / "pipe.png")
    return root


def scan(folder, *flags):
    with pytest.warns(UserWarning, match="left out 2: .txt .1., pipes"):
        return picture_scan.run([f"--folder={folder}", "--max_pixels=2500", *flags])


def findings(folder):
    lines = folder.with_name("set.scan.jsonl").read_text().splitlines()
    return {os.path.basename(found["path"]): found for found in map(json.loads, lines)}


def test_every_unreadable_picture_is_named_and_listed(folder, capsys, tmp_path):
    assert scan(folder, f"--write_unreadable={tmp_path}/list.txt", "--short_side=512") == 1
    found, output = findings(folder), capsys.readouterr().out
    for name, problem in PROBLEMS.items():
        assert problem in found[name]["problem"] and f"{name}: {found[name]['problem']}" in output
    assert found["good.jpg"]["problem"] == found["good.webp"]["problem"] == ""
    assert found["good.jpg"]["size"] == [40, 40]
    assert "9 pictures: 2 good, 7 unreadable" in output
    listed = (tmp_path / "list.txt").read_text().splitlines()
    assert sorted(map(os.path.basename, listed)) == sorted(PROBLEMS)


def test_the_scan_agrees_with_what_reading_does(folder):
    scan(folder, "--short_side=512")
    limits = picture_scan.Limits(pixels=2500)
    with pytest.warns(UserWarning, match="left out"):
        source = sources.image_folder(str(folder), limits=limits)
    transform = eval_transform(448)
    for index in range(len(source)):
        try:
            transform(source[index])
            readable = True
        except UnreadableError:
            readable = False
        assert readable != bool(findings(folder)[os.path.basename(source.paths[index])]["problem"])


def test_a_second_run_looks_only_at_new_and_changed_files_and_other_limits(folder, monkeypatch, capsys):
    looked, check = [], picture_scan.check_file
    monkeypatch.setattr(picture_scan, "check_file", lambda path, *rest: looked.append(path) or check(path, *rest))
    assert scan(folder) == 1 and len(looked) == 9
    looked.clear()
    assert scan(folder) == 1 and looked == []
    report = folder.with_name("set.scan.jsonl")
    lines = report.read_text().splitlines(keepends=True)
    report.write_text("".join(lines[:5]) + lines[5][:20])  # as if it had been killed while it wrote
    assert scan(folder) == 1 and len(looked) == 4
    looked.clear()
    (folder / "a" / "cut.jpg").write_bytes((folder / "a" / "good.jpg").read_bytes())
    assert scan(folder) == 1 and looked == [str(folder / "a" / "cut.jpg")]
    looked.clear()
    scan(folder, "--short_side=0")
    assert len(looked) == 9 and findings(folder)["stripe.png"]["problem"] == ""


def test_an_interrupted_scan_keeps_what_it_found(folder, monkeypatch, capsys):
    check, count = picture_scan.check_file, []

    def interrupted(path, *rest):
        count.append(path)
        if len(count) == 4:
            raise KeyboardInterrupt
        return check(path, *rest)

    monkeypatch.setattr(picture_scan, "check_file", interrupted)
    assert scan(folder, "--num_threads=1") == 130
    assert "to resume" in capsys.readouterr().err and len(findings(folder)) == 3


def replace(path, data):
    """Puts a file in the place of another, with its time, as cp -p and rsync -t do."""
    status = os.stat(path)
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_a_file_in_the_place_of_another_is_read_again(tmp_path):
    """Also if it has the size and the time of the one before."""
    picture = tmp_path / "set/a.png"
    picture.parent.mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 20, 3)).astype(np.uint8)).save(picture)
    good, (listed, report) = picture.read_bytes(), (tmp_path / "list", tmp_path / "report")
    for number, data in enumerate([good, good[:60] + b"?" + good[61:], good]):
        replace(picture, data)
        status = picture_scan.run([f"--folder={tmp_path}/set", f"--report={report}", f"--write_unreadable={listed}"])
        assert status == number % 2 and listed.read_text() == (f"{picture}\n" if status else "")
        archive = tmp_path / "set.zip"
        with zipfile.ZipFile(archive, "w") as file:
            file.writestr(zipfile.ZipInfo("a/a.png"), data)
        os.utime(archive, ns=(0, 0))
        assert picture_scan.run([f"--archive={archive}"]) == number % 2


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ESTALE, errno.ENOTCONN, errno.EIO, errno.EACCES])
def test_an_error_of_the_system_is_no_lasting_verdict(folder, monkeypatch, capsys, tmp_path, number):
    """A mount that is gone and too many open files end the scan; other files are read again the next time."""
    good, flags = folder / "a/good.jpg", (f"--write_unreadable={tmp_path}/list", "--num_threads=1")

    def fail(path, *rest):
        if path == str(good):
            raise OSError(number, os.strerror(number), path)
        return os.open(path, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(picture, "os", SimpleNamespace(**vars(os) | {"open": fail}))
        assert scan(folder, *flags) == 1
    assert (tmp_path / "list").exists() == (number in (errno.EIO, errno.EACCES))
    assert os.strerror(number) in "".join(capsys.readouterr())
    assert scan(folder, *flags) == 1 and findings(folder)["good.jpg"]["problem"] == ""
    assert str(good) not in (tmp_path / "list").read_text()


def test_a_lack_of_memory_ends_the_scan_in_a_line(folder, monkeypatch, capsys):
    def check(path, *rest):
        raise MemoryError

    monkeypatch.setattr(picture_scan, "check_file", check)
    assert scan(folder) == 1 and "there is no memory; once that is fixed" in capsys.readouterr().err


def write(path, data):
    path.write_bytes(data)
    return path


def pipe(path):
    os.mkfifo(path)
    return path


def test_lists_and_archives_are_scanned_too(folder, monkeypatch, capsys):
    names = ["a/good.jpg", "a/cut.jpg", "a/missing.jpg"]
    (folder / "list.csv").write_text(
        "path,label\n" + "".join(f"{name},{number};5\n" for number, name in enumerate(names))
    )
    assert picture_scan.run([f"--annotations={folder}/list.csv"]) == 1
    assert "3 pictures: 1 good, 2 unreadable" in capsys.readouterr().out
    with zipfile.ZipFile(folder / "set.zip", "w") as archive:
        for name in names[:2]:
            archive.write(folder / name, f"set/{name}")
    looked, check = [], picture_scan.check_file
    monkeypatch.setattr(picture_scan, "check_file", lambda path, *rest: looked.append(path) or check(path, *rest))
    for _ in range(2):
        assert picture_scan.run([f"--archive={folder}/set.zip"]) == 1
        assert "set.zip: set/a/cut.jpg: " in capsys.readouterr().out and len(looked) == 2
    with zipfile.ZipFile(folder / "set.zip", "a") as archive:
        archive.write(folder / names[0], "b.jpg")
    picture_scan.run([f"--archive={folder}/set.zip"])
    assert "3 pictures: 2 good, 1 unreadable" in capsys.readouterr().out and len(looked) == 5


def test_good_pictures_exit_with_0_and_wrong_use_is_told_in_a_line(folder, tmp_path, capsys):
    one = folder / "a" / "good.jpg"
    assert picture_scan.run([f"--folder={one}", f"--report={tmp_path}/report"]) == 0
    capsys.readouterr()
    for flags, says in (
        (["--folder="], "is empty"),
        (["--archive="], "is empty"),
        ([f"--folder={write(tmp_path / 'x.zip', b'PK')}"], "--archive= for a .zip"),
        ([f"--folder={write(tmp_path / 'x.csv', b'a,b')}"], "--annotations= for a list"),
        ([f"--archive={tmp_path}/x.zip"], "is not a whole zip archive"),
        ([f"--annotations={tmp_path}/x.csv"], "its first image, a, is not in"),
        ([f"--folder={one}", "--data_prefix=x"], "goes with --annotations"),
        ([f"--folder={one}", f"--report={tmp_path}"], "it is not a file"),
        ([f"--folder={one}", f"--report={pipe(tmp_path / 'pipe')}"], "it is not a file"),
        *(
            ([f"--folder={one}", f"--report={write(tmp_path / f'{n}.jsonl', data)}"], "is not the report of a scan")
            for n, data in enumerate(
                (b"[1]\n", b"3\n", b"[" * 100_000 + b"\n", b'{"path": [1]}\n', b"1" * 5000 + b"\n")
            )
        ),
        ([f"--folder={tmp_path}/no"], "there is no folder"),
        ([f"--folder={one}", "--num_threads=0"], "--num_threads=0 must be at least 1"),
        ([f"--folder={one}", "--max_scans=0"], "scans=0: it must be a whole number, at least 1"),
        ([f"--folder={one}", f"--report={tmp_path}/no/report"], "give another --report=FILE"),
        ([f"--folder={one}", f"--report={one}"], "is one of the files to scan: give another"),
        ([f"--folder={one}", f"--write_unreadable={one}"], "give another file"),
        ([f"--folder={one}", f"--write_unreadable={tmp_path}/no/list"], "cannot write"),
    ):
        assert picture_scan.run(flags) == 2, flags
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ") and says in line


def test_the_list_or_archive_that_is_scanned_is_not_overwritten(tmp_path, capsys):
    Image.new("RGB", (9, 9)).save(tmp_path / "good.png")
    (tmp_path / "list.csv").write_text("path,label\ngood.png,a\nmissing.png,a\n")
    (tmp_path / "link.csv").symlink_to("list.csv")
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as file:
        file.writestr("a/empty.png", b"")
    for flag, name, other in (
        ("annotations", "list.csv", "list.csv"),
        ("annotations", "list.csv", "link.csv"),
        ("archive", "set.zip", "set.zip"),
    ):
        before = (tmp_path / name).read_bytes()
        assert picture_scan.run([f"--{flag}={tmp_path}/{name}", f"--write_unreadable={tmp_path}/{other}"]) == 2
        assert "would overwrite the input or the report: give another file" in capsys.readouterr().err
        assert (tmp_path / name).read_bytes() == before


def test_a_list_that_does_not_fit_the_disk_is_one_line_and_the_old_one_stays(folder, tmp_path, capsys):
    flags = [f"--folder={folder}", f"--report={tmp_path}/report", "--write_unreadable"]
    assert picture_scan.run([*flags, f"{tmp_path}/list"]) == 1
    before = (tmp_path / "list").read_bytes()
    capsys.readouterr()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for target in (tmp_path / "list", tmp_path / "new", "/dev/full"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
        try:
            assert picture_scan.run([*flags, str(target)]) == 1
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        (line,) = (line for line in capsys.readouterr().err.splitlines() if "error" in line.lower())
        assert line.startswith(f"error: cannot write {target}: ") and "run the command again" in line
    assert (tmp_path / "list").read_bytes() == before and not (tmp_path / "new").exists()
    assert sorted(os.listdir(tmp_path)) == ["list", "report", "set"]


def test_a_list_goes_to_a_pipe_and_through_a_link(folder, tmp_path, capsys):
    flags = [f"--folder={folder}", f"--report={tmp_path}/report", "--write_unreadable"]
    (tmp_path / "link").symlink_to("kept")
    (tmp_path / "kept").touch()
    for target in ("link", "/dev/null"):
        assert picture_scan.run([*flags, str(tmp_path / target)]) == 1
    assert (tmp_path / "link").is_symlink() and (tmp_path / "kept").read_bytes()
    assert not os.path.isfile("/dev/null")


def test_names_that_are_not_utf8_are_shown_and_listed(tmp_path, capsys):
    """As archives from other systems give them; a list may even name what no file can be called."""
    Image.new("RGB", (9, 9)).save(tmp_path / "good.png")
    names = ["good.png", "b\udce9.png", "\ud800.png", "a\0.png"]
    (tmp_path / names[1]).write_bytes(b"")
    (tmp_path / "l.jsonl").write_text("".join(json.dumps({"path": name, "label": 0}) + "\n" for name in names))
    where = [f"--annotations={tmp_path}/l.jsonl", f"--data_prefix={tmp_path}"]
    assert picture_scan.run([*where, f"--write_unreadable={tmp_path}/bad.txt"]) == 1
    shown = capsys.readouterr().out
    assert "b\\udce9.png: " in shown and "\\ud800.png: " in shown
    listed = (tmp_path / "bad.txt").read_bytes().splitlines()
    assert [line.rsplit(b"/", 1)[-1] for line in listed] == [b"b\xe9.png", b"\\ud800.png", b"a\0.png"]


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("end", ["", "\n"])
@pytest.mark.parametrize("key", ["path", "image"])
def test_a_report_that_is_the_list_itself_is_refused_and_left_alone(tmp_path, capsys, count, end, key):
    """Findings were appended to it, and a last line without an end was cut off."""
    for i in range(3):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{i}.png")
    rows = [json.dumps({key: f"{i}.png", "label": "cat" if i else "dog"}) for i in range(count)]
    listed = tmp_path / "train.jsonl"
    listed.write_text("\n".join(rows) + end)
    before = listed.read_bytes()
    assert picture_scan.run([f"--annotations={listed}", f"--report={listed}"]) == 2
    assert f"{listed} is not the report of a scan: give another --report=FILE" in capsys.readouterr().err
    assert listed.read_bytes() == before


def test_a_finding_that_was_cut_off_anywhere_is_read_again(tmp_path):
    one, report = tmp_path / 'a"\\.png', tmp_path / "report"
    Image.new("RGB", (8, 8)).save(one)
    assert picture_scan.run([f"--folder={one}", f"--report={report}"]) == 0
    line = report.read_bytes()
    for end in range(len(line)):
        report.write_bytes(line[:end])
        assert list(file_scan._known(str(report), lambda finding: True)) == []
        assert report.read_bytes() == b""
