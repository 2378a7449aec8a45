"""Lists of files and labels: their forms, several labels, and what is wrong in them."""

import json
import os
import time
import warnings

import numpy as np
import pytest

from swin_jax.core.errors import UserError
from swin_jax.data import annotations, label_numbers, sources
from swin_jax.data.video.sources import video_folder, video_list


def read(tmp_path, name, text, **arguments):
    file = tmp_path / name
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return annotations.read(str(file), **arguments)


def lines(*objects):
    return "\n".join(map(json.dumps, objects))


A, B = {"path": "x/a.jpg", "label": "dog"}, {"path": "b c.jpg", "label": "cat"}
COCO = {
    "images": [{"id": 4, "file_name": "x/a.jpg"}, {"id": 2, "file_name": "b c.jpg"}],
    "annotations": [{"image_id": 2, "category_id": 9}, {"image_id": 4, "category_id": 1}],
    "categories": [{"id": 9, "name": "cat", "supercategory": "animal"}, {"id": 1, "name": "dog"}],
}


@pytest.mark.parametrize(
    "name, text",
    [
        ("l.csv", "x/a.jpg,dog\nb c.jpg,cat\n"),
        ("l.csv", "path,label\nx/a.jpg,dog\nb c.jpg,cat"),
        ("l.csv", '\ufeffID,Label,Filename\r\n1,dog,x/a.jpg\r\n2,cat,"b c.jpg"\r\n'),
        ("l.tsv", "x/a.jpg\tdog\n\nb c.jpg\tcat\n"),
        ("l.txt", "x/a.jpg dog\nb c.jpg cat\n"),
        ("l.txt", "x/a.jpg\tdog\nb c.jpg\tcat"),
        ("train_map", "x/a.jpg,dog\nb c.jpg cat\n"),
        ("l.jsonl", lines(A, B)),
        ("l.jsonl", lines({"image": "x/a.jpg", "labels": ["dog"]}, B) + "\n\n"),
        ("l.json", json.dumps([A, B])),
        ("l.csv", "path;label\nx/a.jpg;dog\nb c.jpg;cat\n"),  # as spreadsheets write it in half of Europe
        ("l.csv", '"path";"label";"score"\nx/a.jpg;dog;0,5\nb c.jpg;cat;0,7\n'),
        ("l.csv", "path\tlabel\nx/a.jpg\tdog\nb c.jpg\tcat\n"),
        ("l.csv", ",path,label\n0,x/a.jpg,dog\n1,b c.jpg,cat\n"),
        ("l.csv", "path,label,split\nx/a.jpg,dog,val\nb c.jpg,cat,val\n"),
        ("l.txt", "filename label\nx/a.jpg dog\nb c.jpg cat\n"),
        ("l.txt", "Image\tClass\nx/a.jpg\tdog\nb c.jpg\tcat\n"),
        ("l.json", json.dumps({"x/a.jpg": "dog", "b c.jpg": "cat"})),
        ("l.json", json.dumps({"x/a.jpg": ["dog"], "b c.jpg": ["cat"]})),
        ("l.json", json.dumps(COCO)),  # iNaturalist's too
    ],
)
def test_every_form_of_one_label(tmp_path, name, text):
    found = read(tmp_path, name, text)
    assert found.paths == ("x/a.jpg", "b c.jpg") and found.labels == (1, 0)
    assert found.class_names == ("cat", "dog") and found.marks is None


@pytest.mark.parametrize(
    "name, text", [("l.csv", "path,label\na,caf\xe9\nb,cafe\u0301\n"), ("l.txt", "a caf\xe9\nb cafe\u0301")]
)
def test_a_class_is_one_however_its_letters_are_written(tmp_path, name, text):
    found = read(tmp_path, name, text)
    assert found.labels == (0, 0) and found.class_names == ("caf\xe9",)
    (tmp_path / "names.txt").write_text("bar\ncafe\u0301\n")
    assert read(tmp_path, name, text, class_names=str(tmp_path / "names.txt")).labels == (1, 1)
    assert read(tmp_path, "l.jsonl", lines({"path": "a", "label": "cafe\u0301"})).class_names == ("caf\xe9",)


@pytest.mark.parametrize(
    "name, text",
    [
        ("l.csv", "path,label\na,cat;dog\nb,bird\nc,"),
        ("l.csv", "path,cat,dog,bird\na,1,1,0\nb,0,0,1\nc,0,0,0"),
        ("l.tsv", "image\tlabels\na\tcat|dog\nb\tbird\nc\t\n"),
        (
            "l.jsonl",
            lines({"path": "a", "label": ["dog", "cat"]}, {"path": "b", "label": "bird"}, {"path": "c", "label": []}),
        ),
        ("l.txt", "a\tcat;dog\nb\tbird\nc\t\n"),
        ("l.csv", ",path,cat,dog,bird\n0,a,1,1,0\n1,b,0,0,1\n2,c,0,0,0"),
        ("l.csv", "path,Unnamed: 0,cat,dog,bird\na,0,1,1,0\nb,1,0,0,1\nc,2,0,0,0"),
        ("l.csv", "path,labels\na,\"['cat', 'dog']\"\nb,['bird']\nc,[]\n"),
        ("l.csv", 'path,labels\na,"[""cat"", ""dog""]"\nb,"[""bird""]"\nc,[]\n'),
        ("l.csv", "path;labels\na;['dog', 'cat']\nb;['bird']\nc;\n"),
    ],
)
def test_every_form_of_several_labels(tmp_path, name, text):
    found = read(tmp_path, name, text)
    marks = {key: found.marks[:, found.class_names.index(key)].tolist() for key in found.class_names}
    assert marks == {"bird": [0, 1, 0], "cat": [1, 0, 0], "dog": [1, 0, 0]} and found.marks.dtype == np.int8


def test_images_of_coco_have_their_categories_once(tmp_path):
    boxes = [{"image_id": 2, "category_id": 9}] * 3 + [{"image_id": 2, "category_id": 1}]
    found = read(tmp_path, "l.json", json.dumps(COCO | {"annotations": boxes}))
    assert found.paths == ("x/a.jpg", "b c.jpg") and found.class_names == ("cat", "dog")
    np.testing.assert_array_equal(found.marks, [[0, 0], [1, 1]])
    twice = COCO["categories"][:1]
    for wrong, says in (
        ({"annotations": [{"image_id": 3, "category_id": 9}]}, "annotations .*of existing ones.*KeyError: 3"),
        ({"categories": [{"id": 9}]}, "KeyError: 'name'"),
        ({"images": [1]}, "TypeError"),
        ({"images": COCO["images"] * 2}, "two images have the same id"),
        ({"categories": COCO["categories"] + twice}, "two categories have the same id"),
        ({"categories": COCO["categories"] + [twice[0] | {"id": 3}]}, "two categories have the same name"),
    ):
        with pytest.raises(UserError, match=rf"l.json: .*{says}"):
            read(tmp_path, "l.json", json.dumps(COCO | wrong))


def test_one_image_of_very_many_categories_is_read_at_once(tmp_path):
    """Each was looked for in the list of those before it: minutes for a file of 5 MB."""
    categories = [{"id": number, "name": f"{number}"} for number in range(30_000)]
    boxes = [{"image_id": 2, "category_id": number} for number in range(30_000)]
    start = time.process_time()
    found = read(tmp_path, "l.json", json.dumps(COCO | {"categories": categories, "annotations": boxes}))
    assert time.process_time() - start < 4 and found.marks.sum(axis=1).tolist() == [0, 30_000]


@pytest.mark.parametrize("text", ["id,label\n0001,cat\n0002,dog\n", "clip,Class\nx,cat\n", "image_id,target\n"])
def test_a_first_line_of_unknown_names_is_no_record(tmp_path, text):
    for name in ("l.csv", "l.txt"):
        with pytest.raises(UserError, match=f"{name}:1: call the columns path and label, not"):
            read(tmp_path, name, text)
    assert read(tmp_path, "l.txt", "x/label.jpg label\ny.jpg target\n").class_names == ("label", "target")


def test_marks_that_are_not_known_stay_so(tmp_path):
    found = read(tmp_path, "l.csv", "file,a,b\nx,-1,1\ny,,0\n")
    np.testing.assert_array_equal(found.marks, [[-1, 1], [-1, 0]])


def test_numbers_keep_their_values_and_get_names_from_a_file(tmp_path):
    text = "a 2\nb 0\nc 10\n"
    assert read(tmp_path, "l.txt", text).class_names == tuple(map(str, range(11)))
    assert read(tmp_path, "l.txt", text, num_classes=400).class_names == tuple(map(str, range(400)))
    (tmp_path / "names").write_text("\n".join(f"kind {i}" for i in range(12)))
    named = read(tmp_path, "l.txt", text, class_names=str(tmp_path / "names"))
    assert named.labels == (2, 0, 10) and named.class_names[10] == "kind 10"
    assert read(tmp_path, "l.txt", "a 3,1\nb 0").marks.tolist() == [[0, 1, 0, 1], [1, 0, 0, 0]]


def test_the_order_of_classes_is_that_of_their_file(tmp_path):
    (tmp_path / "names").write_text("dog\ncat\n")
    found = read(tmp_path, "l.csv", "a,cat\nb,dog", class_names=str(tmp_path / "names"))
    assert found.labels == (1, 0) and found.class_names == ("dog", "cat")
    (tmp_path / "names").write_text("10\n2\n")  # names that are numbers
    assert read(tmp_path, "l.csv", "a,2\nb,10", class_names=str(tmp_path / "names")).labels == (1, 0)


@pytest.mark.parametrize(
    "name, text",
    [
        ("l.csv", "path,label,label_name\na,0,dog\nb,1,cat\nc,0,dog\n"),
        ("l.csv", "id,target,file,class_name\n5,0,a,dog\n6,1,b,cat\n7,0,c,dog\n"),
        (
            "l.jsonl",
            lines(
                *({"image": x, "label": y, "class_name": z} for x, y, z in zip("abc", (0, 1, 0), ("dog", "cat", "dog")))
            ),
        ),
    ],
)
def test_names_beside_numbers_are_those_of_the_classes(tmp_path, name, text):
    found = read(tmp_path, name, text)
    assert found.labels == (0, 1, 0) and found.class_names == ("dog", "cat")


@pytest.mark.parametrize(
    "text, names",
    [
        ("path,label,class\na,0,pet\nb,1,pet\n", ("0", "1")),  # a coarser class does not name it
        ("path,label,class\na,0,pet\nb,0,dog\n", ("0",)),
        ("path,label,class\na,0,17\nb,1,4\n", ("0", "1")),
        ("path,label,class\na,0,\nb,1,\n", ("0", "1")),
        ("path,label,class\na,0,dog\nb,2,cat\n", ("dog", "1", "cat")),
    ],
)
def test_what_stands_beside_numbers_is_a_name_only_if_each_class_has_one(tmp_path, text, names):
    assert read(tmp_path, "l.csv", text).class_names == names


@pytest.mark.timeout(20)
def test_a_pipe_or_device_is_not_waited_for(tmp_path):
    (tmp_path / "l.csv").write_text("path,label\na,0\n")
    for name in ("pipe.csv", "pipe.txt", "pipe.json"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(UserError, match="a pipe or a device"):
            annotations.read(str(tmp_path / name))
        with pytest.raises(UserError, match="a pipe or a device"):
            annotations.read(str(tmp_path / "l.csv"), class_names=str(tmp_path / name))
    with pytest.raises(UserError, match="a pipe or a device"):
        annotations.read("/dev/zero")


@pytest.mark.parametrize(
    "name, text, says",
    [
        ("l.csv", "", "lists no files"),
        ("l.csv", "path,label\n", "lists no files"),
        ("l.csv", "a,cat,3\n", "l.csv:1: 3 fields, not 2"),
        ("l.csv", "path,label\na,cat\nb\n", "l.csv:3: 1 fields"),
        ("l.csv", 'path,label\n"a,cat\n', "quotation mark"),
        ("l.csv", "path,kind,size\na,1,30\n", "l.csv:2: size='30'.*no column of labels"),
        ("l.csv", "path,kind\na,cat\n", "has neither a column of labels"),
        ("l.csv", "path,path,label\na,b,c\n", "'path' appears 2 times"),
        ("l.csv", "path,a,a\nx,1,0\n", "same name"),
        ("l.csv", "path,label\n,cat\n", "l.csv:2: the path is empty"),
        ("l.csv", "path,label\na,\nb,cat\n", "l.csv:2: a has no label"),
        ("l.csv", "a,cat\nb,dog\na,dog\n", "l.csv:3: a has other labels in .*l.csv:1"),
        ("l.csv", "a.jpg,cat\nx/../a.jpg,dog\n", "l.csv:2: .* has other labels in .*l.csv:1"),
        ("l.csv", "path,cat,dog\na,1,0\nb,0,1\n./a,1,1\n", "l.csv:4: .* has other marks in .*l.csv:2"),
        (
            "l.csv",
            "path,label,split\na,cat,train\nb,dog,test\n",
            r"several splits, train .1., test .1.: write those of each",
        ),
        ("l.csv", "path,split,cat,dog\na,train,1,1\nb,test,0,1\n", "several splits"),
        ("l.jsonl", lines(A | {"split": "a"}, B | {"split": "b"}), "several splits"),
        ("l.csv", 'path,label,split\na,cat,"tr\nain"\nb,dog,test\n', r"several splits, tr\\nain"),
        ("l.txt", "alone\n", "l.txt:1: write `path label`"),
        ("l.txt", "a 1234567890123\n", "l.txt:1: the label 1234567890123 is out of range"),
        ("l.jsonl", "{]\n", "l.jsonl:1: not JSON"),
        ("l.jsonl", "[1]\n", "l.jsonl:1: not an object"),
        ("l.jsonl", '{"path": 3, "label": 1}', 'needs "path"'),
        ("l.jsonl", '{"path": "a"}', "it has 'path'"),
        ("l.jsonl", '{"path": "a", "label": 1.5}', "1.5 is neither a number nor a name"),
        ("l.jsonl", '{"path": "a", "label": true}', "True is neither"),
        ("l.jsonl", '{"path": "a", "label": [["x"]]}', "neither a number nor a name"),
        ("l.jsonl", '{"path": "a", "label": %s}' % ("9" * 5000), "l.jsonl:1: not JSON that can be read"),
        ("l.jsonl", '{"path": "a", "label": 1, "label": 2}', "l.jsonl:1: .*the key 'label' appears twice"),
        ("l.json", '[{"path": "a", "path": "b", "label": 2}]', "the key 'path' appears twice"),
        ("l.json", "[" * 100_000, "not JSON"),
        ("l.json", "{}", "must be a list"),
        ("l.txt", b"\xff\xfe\x00a", "UTF-8"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(tmp_path, name, text, says):
    with pytest.raises(UserError, match=says) as error:
        read(tmp_path, name, text)
    assert "\n" not in str(error.value) and len(str(error.value)) < 500


@pytest.mark.parametrize(
    "name, text",
    [
        ("l.csv", "filename,class,xmin\na.jpg,dog,1\n./a.jpg,dog,7\nb.jpg,cat,3\na.jpg,dog,9\n"),
        ("l.tsv", "a.jpg\tdog\na.jpg\tdog\nb.jpg\tcat\na.jpg\tdog\n"),
        ("l.txt", "a.jpg dog\na.jpg dog\nb.jpg cat\na.jpg dog\n"),
        ("l.jsonl", lines(*({"path": f"{name}.jpg", "label": ["cow", "pig"]} for name in "aaba"))),
        ("l.csv", "path,cat,dog\na.jpg,1,0\na.jpg,1,0\nb.jpg,0,1\n./a.jpg,1,0\n"),
    ],
)
def test_a_file_of_several_rows_is_one_record_and_its_rows_are_counted(tmp_path, name, text):
    with pytest.warns(UserWarning, match=f"{name}: left out 2 of 4 rows, which repeat a file"):
        found = read(tmp_path, name, text)
    assert found.paths == ("a.jpg", "b.jpg") and len(found.labels) == 2
    assert found.marks is None or len(found.marks) == 2


def test_labels_that_are_no_class_are_told(tmp_path):
    (tmp_path / "names").write_text("dog\ncat\n")
    for text, says in (("a,cats", "'cats' is not among.*mean 'cat'"), ("a,2", "l.csv:1: the label 2 is out of range")):
        with pytest.raises(UserError, match=says):
            read(tmp_path, "l.csv", text, class_names=str(tmp_path / "names"))
    with pytest.raises(UserError, match="out of range, there are 3 classes"):
        read(tmp_path, "l.csv", "a,3", num_classes=3)
    with pytest.raises(UserError, match="cannot read"):
        annotations.read(str(tmp_path))


@pytest.mark.parametrize("line", ["a.mp4 1 3 5", "a.mp4 300 1", "a.mp4 1 2 3 4", "clip 300 1", "some/clip 0 300 1"])
def test_numbers_behind_a_path_are_no_part_of_it(tmp_path, line):
    """MMAction's lists of several labels and of folders of frames."""
    with pytest.raises(UserError, match="l.txt:2: write `path label`, not a third field.*write several labels"):
        read(tmp_path, "l.txt", f"b.mp4 2\n{line}\n")
    for fine in ("my clip 3.mp4 1", "my clip\t1", "a.mp4 1,3,5"):
        assert len(read(tmp_path, "l.txt", fine).paths[0].split()) == len(fine.split()) - 1


@pytest.mark.parametrize(
    "name, text",
    [
        ("l.jsonl", '{"path": "a", "label": [1, 0, 1]}\n{"path": "b", "label": [0, 1, 0]}'),
        ("l.json", '[{"path": "a", "label": ["x", "y", "x"]}]'),
        ("l.csv", 'path,label\na,"[1, 0, 1]"\n'),
        ("l.txt", "a 1,0,1\n"),
        ("l.tsv", "a\tx;y;x\n"),
    ],
)
def test_a_label_that_stands_twice_is_refused(tmp_path, name, text):
    """A list of marks would be taken for the labels 0 and 1."""
    with pytest.raises(UserError, match="l.*: a has the label (1|x) twice; write marks of 0 and 1 as a table"):
        read(tmp_path, name, text)


def test_marks_as_pandas_writes_them(tmp_path):
    text = "path,cat,dog\na.jpg,1.0,\nb.jpg,0.0,-1.0\nc.jpg,True,False\n"
    found = read(tmp_path, "l.csv", text)
    assert found.marks.tolist() == [[1, -1], [0, -1], [1, 0]] and found.class_names == ("cat", "dog")


def test_a_name_with_a_comma_beside_its_parts_is_told(tmp_path):
    with pytest.warns(UserWarning, match="l.csv:2: 'run,jump' is read as one class; write several labels"):
        found = read(tmp_path, "l.csv", 'path,label\na,"run,jump"\nb,run\n')
    assert found.class_names == ("run", "run,jump")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read(tmp_path, "l.csv", 'path,label\na,"drawing, fast"\nb,run\n')


def test_semicolons_without_a_first_line_of_names(tmp_path):
    found = read(tmp_path, "l.csv", "a.mp4;Holding something\nb.mp4;Moving it\n")
    assert found.paths == ("a.mp4", "b.mp4") and found.class_names == ("Holding something", "Moving it")
    assert read(tmp_path, "l.csv", "a.mp4 1;2\nb.mp4 0\n").marks.tolist() == [[0, 1, 1], [1, 0, 0]]


def test_marks_that_no_memory_holds_are_refused(tmp_path, monkeypatch):
    """A few kilobytes of text, and a mark for each file and class takes gigabytes."""
    text = "path,label\n" + "".join(f"{number}.jpg,{number};999999\n" for number in range(9000))
    with pytest.raises(UserError, match="each of 9,000 files and 1,000,000 classes takes more than 8,589,934,59"):
        read(tmp_path, "l.csv", text)
    monkeypatch.setattr(label_numbers, "MAX_MARKS", 6)
    assert read(tmp_path, "l.csv", "path,label\na.jpg,a;b\nb.jpg,c\n").marks.shape == (2, 3)
    with pytest.raises(UserError, match="each of 3 files and 3 classes"):
        read(tmp_path, "l.csv", "path,label\na.jpg,a;b\nb.jpg,c\nc.jpg,c\n")


def test_a_list_beside_folders_of_videos_has_the_labels_unless_it_names_no_files(tmp_path):
    for path in ("part_0/a.mp4", "part_0/b.mp4", "part_1/c.mp4"):
        (tmp_path / "train" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "train" / path).touch()
    (tmp_path / "train.csv").write_text("path,label\npart_0/a.mp4,run\npart_0/b.mp4,walk\npart_1/c.mp4,run\n")
    with pytest.warns(UserWarning, match="are those of .*train.csv"):
        source = video_folder(str(tmp_path), "train")
    assert source.class_names == ("run", "walk") and source.labels == (0, 1, 0)
    (tmp_path / "train.csv").write_text("label,youtube_id,time_start,time_end,split\nrun,a,0,10,train\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert video_folder(str(tmp_path), "train").class_names == ("part_0", "part_1")


@pytest.mark.parametrize("name", ["classes.txt", "train.csv", "train.txt"])
def test_a_list_or_names_that_cannot_be_opened_are_not_passed_over(name, tmp_path):
    """Without the names in classes.txt labels would be taken by number, without the list another one be read."""
    (tmp_path / "train.csv").write_text("path,label\n0.jpg,0\n1.jpg,1\n")
    (tmp_path / name).unlink(missing_ok=True)
    (tmp_path / name).symlink_to("lost")
    with pytest.raises(UserError, match=f"{name}|several lists"):
        sources.image_folder(str(tmp_path), "train")
    with pytest.raises(UserError, match=f"{name}|several lists"):
        video_folder(str(tmp_path), "train")


def test_labels_of_something_something_that_cannot_be_opened_are_not_passed_over(tmp_path):
    (tmp_path / "train.json").write_text(json.dumps([{"id": "1", "template": "b"}, {"id": "2", "template": "a"}]))
    (tmp_path / "labels.json").symlink_to("lost")
    with pytest.raises(UserError, match="labels.json"):
        video_list(str(tmp_path / "train.json"))
