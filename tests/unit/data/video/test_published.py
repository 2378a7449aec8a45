"""Lists of videos as data sets publish them: what each says of a video, and one line for what is wrong."""

import json
import warnings

import pytest

from swin_jax.core.errors import UserError
from swin_jax.core.labels import read_names
from swin_jax.data.video.sources import video_list


def written(folder, text, name):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text if isinstance(text, str) else json.dumps(text))
    return str(folder / name)


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return str(folder)


NAMED = {
    "header.csv": "path,label\na/1.mp4,run\nb 2.mp4,jump\n",
    "other_order.csv": "label,split,video\nrun,train,a/1.mp4\njump,train,b 2.mp4\n",
    "quoted.csv": '\ufeffvideo_path,"class"\r\n"a/1.mp4","run"\r\n"b 2.mp4","jump"\r\n',
    "headless.csv": "a/1.mp4,run\nb 2.mp4,jump\n\n",
    "tabs.tsv": "filename\taction\na/1.mp4\trun\nb 2.mp4\tjump\n",
    "lines.jsonl": '{"video": "a/1.mp4", "label": "run"}\n\n{"path": "b 2.mp4", "label": ["jump"], "fps": 3}\n',
    "list.json": [{"path": "a/1.mp4", "label": "run"}, {"filename": "b 2.mp4", "label": "jump"}],
}
NUMBERED = {
    "header.csv": "path,label\na/1.mp4,1\nb 2.mp4,0\n",
    "headless.csv": "a/1.mp4, 1\nb 2.mp4, 0\n",
    "tabs.tsv": "a/1.mp4\t1\nb 2.mp4\t0\n",
    "lines.jsonl": '{"file": "a/1.mp4", "label": 1}\n{"file": "b 2.mp4", "label": "0"}',
    "list.json": [{"filename": "a/1.mp4", "label": 1}, {"filename": "b 2.mp4", "label": [0]}],
}


@pytest.mark.parametrize("name", NAMED)
def test_lists_with_names(name, tmp_path):
    source = video_list(written(tmp_path, NAMED[name], name), num_classes=2)
    assert source.paths == ("a/1.mp4", "b 2.mp4") and source.class_names == ("jump", "run")
    assert source.labels == (1, 0)
    names = written(tmp_path, "run\nswim\njump\n", "names.txt")
    source = video_list(written(tmp_path, NAMED[name], name), class_names=names)
    assert source.class_names == ("run", "swim", "jump") and source.labels == (0, 2)


@pytest.mark.parametrize("name", NUMBERED)
def test_lists_with_numbers(name, tmp_path):
    source = video_list(written(tmp_path, NUMBERED[name], name))
    assert source.paths == ("a/1.mp4", "b 2.mp4") and source.labels == (1, 0)
    assert source.class_names == ("0", "1")
    names = written(tmp_path, {"run": "1", "jump": 0}, "names.json")
    assert video_list(written(tmp_path, NUMBERED[name], name), class_names=names).class_names == ("jump", "run")


def test_a_table_without_commas_has_lines_as_the_official_lists(tmp_path):
    source = video_list(written(tmp_path, "a/1.mp4 1\nb.mp4 0\n", "train.csv"))
    assert source.paths == ("a/1.mp4", "b.mp4") and source.labels == (1, 0)


KINETICS = "label,youtube_id,time_start,time_end,split\n"


@pytest.mark.parametrize("extra", ["", ",is_cc"])
def test_kinetics(extra, tmp_path):
    end = ",0\n" if extra else "\n"
    rows = [
        "abseiling,-3B32lodo2M,59,69,train",
        '"drawing, fast",abc,5.0,15.0,train',
        "abseiling,0347ZoDXyP0,95,105,train",
    ]
    rows += ["yoga,gone,1,11,train", "yoga,Yo,0,10,train"]
    annotation = written(tmp_path, KINETICS.replace("\n", f"{extra}\n") + end.join(rows) + end, "train.csv")
    videos = touch(
        tmp_path / "videos",
        "-3B32lodo2M_000059_000069.mp4",
        "-3B32lodo2M.mkv",
        "drawing, fast/abc_000005_000015.webm",
        "0347ZoDXyP0.mp4",
        "Yo.mp4",
        "yo.mp4",
    )
    with pytest.warns(
        UserWarning, match="of 5 videos 1 are not in .*videos, gone_000001_000011 for one; they are left out"
    ):
        source = video_list(annotation, videos)
    assert source.paths == (
        "-3B32lodo2M_000059_000069.mp4",
        "drawing, fast/abc_000005_000015.webm",
        "0347ZoDXyP0.mp4",
        "Yo.mp4",
    )
    assert source.class_names == ("abseiling", "drawing, fast", "yoga") and source.labels == (0, 1, 0, 2)


def something(*templates):
    return [
        {"id": str(7 + number), "label": "holding a cup", "template": template, "placeholders": ["a cup"]}
        for number, template in enumerate(templates)
    ]


def test_something_something(tmp_path):
    labels = {"Holding something": "0", "Moving something [and] back": "2", "Dropping something onto something": "1"}
    labels = {name.replace("[", "").replace("]", ""): number for name, number in labels.items()}
    annotation = written(
        tmp_path / "lists",
        something("Moving [something] and back", "Dropping [something] onto [something]", "Holding [something]"),
        "train.json",
    )
    videos = touch(tmp_path / "videos", "7.webm", "8.webm", "9.mp4", "10.webm")
    source = video_list(annotation, videos)
    assert source.class_names == tuple(sorted(labels))  # no file names them
    named = ("Holding something", "Dropping something onto something", "Moving something and back")
    for name in ("labels.json", "something-something-v2-labels.json"):
        path = written(tmp_path / "lists", labels, name)
        source = video_list(annotation, videos, num_classes=3)
        assert source.class_names == named and source.labels == (2, 1, 0)
        assert source.paths == ("7.webm", "8.webm", "9.mp4")
        (tmp_path / "lists" / name).rename(tmp_path / name)
        assert video_list(annotation, videos, class_names=str(tmp_path / name)).class_names == named
        assert read_names(str(tmp_path / name)) == named and path


WRONG = {
    "test.csv": ("youtube_id,time_start,time_end,split\na,1,2,test\n", "test.csv has no labels"),
    "short.csv": (KINETICS + "run,a,1,2,train\nrun,a,1\n", "short.csv:3: malformed"),
    "times.csv": (KINETICS + "run,a,1,end,train\n", "times.csv:2: malformed"),
    "empty_label.csv": (KINETICS + ",a,1,2,train\n", "empty_label.csv:2: has no labels"),
    "comma.csv": ("path,label\na.mp4,run, fast\n", "comma.csv:2: 3 fields, not 2"),
    "missing.csv": ("path,label\na.mp4,\n", "missing.csv:2: a.mp4 has no label"),
    "unlabeled.csv": ("path,split\na.mp4,train\n", "unlabeled.csv has neither a column of labels"),
    "unknown.csv": ("clip,what\na.mp4,run\n", "unknown.csv:1: call the columns path and label, not clip, what"),
    "open.csv": ('path,label\n"a.mp4,run\n', "open.csv:2: .*quotation"),
    "negative.csv": ("a.mp4,0\nb.mp4,-1\n", "negative.csv:2: the label '-1' is not a number from 0"),
    "floats.txt": ("a.mp4 1.5\nb.mp4 2.5\n", "floats.txt:1: the label '1.5' is not a number from 0"),
    "frames.txt": ("a.mp4 300 1\n", "frames.txt:1: write `path label`, not a third field"),
    "both.jsonl": ('{"path": "a", "label": [1, "run"]}', "both.jsonl:1: the label 'run' is not a number from 0"),
    "mixed.csv": ("a.mp4,1\nb.mp4,run\n", "mixed.csv:2: the label 'run' is not a number from 0"),
    "many.csv": ("a.mp4,a\nb.mp4,b\nc.mp4,c\n", "many.csv has 3 classes, but num_classes is 2"),
    "large.csv": ("a.mp4,0\nb.mp4,2\n", "large.csv:2: the label 2 is out of range, there are 2 classes"),
    "empty.csv": ("path,label\n", "empty.csv lists no files"),
    "torn.jsonl": ('{"path": "a", "label": 1}\n{"path": "b", "la', "torn.jsonl:2: not JSON"),
    "list.jsonl": ("[1]\n", "list.jsonl:1: not an object"),
    "none.jsonl": ('{"path": "a"}', 'none.jsonl:1: needs "path"'),
    "deep.jsonl": ("[" * 100_000, "deep.jsonl:1: not"),
    "deep.json": ("[" * 100_000, "deep.json"),
    "digits.json": ('[{"path": "a", "label": ' + "9" * 5000 + "}]", "digits.json: not JSON that can be read"),
    "float.json": ('[{"path": "a", "label": 1.5}]', "entry 1: the label 1.5 is neither a number nor a name"),
    "test.json": ('[{"id": "1"}]', "entry 1: has no labels"),
    "other.json": ('[{"id": "1", "template": ["x"]}]', 'entry 1: needs an "id" and a "template"'),
    "object.json": ('{"a": 1}', "must be a list"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_told_in_a_line(name, tmp_path):
    text, message = WRONG[name]
    with pytest.raises(UserError, match=message) as error:
        video_list(written(tmp_path, text, name), str(tmp_path), num_classes=2)
    assert "\n" not in str(error.value) and len(str(error.value)) < len(str(tmp_path)) + 350


def test_files_that_cannot_be_told_are_refused(tmp_path):
    annotation = written(tmp_path, KINETICS + "run,abc,1,2,train\n", "train.csv")
    with pytest.raises(UserError, match="data_prefix must be the folder"):
        video_list(annotation)
    videos = touch(tmp_path / "videos", "other.mp4")
    with pytest.raises(
        UserError, match="of 1 videos 1 are not in .*abc_000001_000002 for one; files must be called this"
    ):
        video_list(annotation, videos)
    touch(tmp_path / "videos", "a/abc.mp4", "b/abc.mkv")
    with pytest.raises(UserError, match="train.csv:2: a/abc.mp4 and b/abc.mkv in .* could both be the video"):
        video_list(annotation, videos)


def test_one_file_of_two_records_is_refused(tmp_path):
    """Of two parts of a film that was not cut, or of one part with two labels."""
    videos = touch(tmp_path / "videos", "abc.mp4")
    for rows in ("run,abc,1,11,train\njump,abc,20,30,train\n", "run,abc,1,11,train\njump,abc,1,11,train\n"):
        with pytest.raises(UserError, match="train.csv:3: abc.mp4 in .*videos is the video of .*train.csv:2, too"):
            video_list(written(tmp_path, KINETICS + rows, "train.csv"), videos)
    twice = written(tmp_path, KINETICS + "run,abc,1,11,train\nrun,abc,1,11,train\n", "train.csv")
    with pytest.warns(UserWarning, match="left out 1 of 2 rows, which repeat a file"):
        assert len(video_list(twice, videos)) == 1


def test_names_that_cannot_be_used(tmp_path):
    annotation = written(tmp_path, "a.mp4,run\nb.mp4,jmup\n", "train.csv")
    for text, name, message in (
        ("run\njump\n", "a.txt", "train.csv:2: the label 'jmup' is not among the class names; did you mean 'jump'"),
        ("run\nrun\n", "b.txt", "two classes have the same name"),
        ("\n", "c.txt", "c.txt lists no classes"),
        ({"run": 0, "jump": 2}, "d.json", "d.json must list class names, or map them to their labels"),
        ({"run": "x"}, "e.json", "must list"),
        ([1, 2], "f.json", "must list"),
        ("{", "g.json", "cannot read .*g.json"),
    ):
        with pytest.raises(UserError, match=message):
            video_list(annotation, class_names=written(tmp_path, text, name))


def test_lists_of_paths_look_for_no_files(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(video_list(written(tmp_path, "path,label\nmissing.mp4,run\n", "a.csv"), str(tmp_path))) == 1
