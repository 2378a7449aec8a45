"""Sources of videos: annotation lists, class folders and TFDS sets of frames, and what a user gets wrong in them."""

import io
import json
import os
import pickle

import numpy as np
import pytest
from PIL import Image

from swin_jax.core.errors import UnreadableError, UserError
from swin_jax.data.builders import write
from swin_jax.data.video import sources as video_sources
from swin_jax.data.video.decode import Reader
from swin_jax.data.video.tfds import EncodedFrames
from swin_jax.data.video.transforms import video_eval_transform
from tests.unit.data.video import video_files


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    for path in ("run/b.mp4", "run/a.MP4", "run/far away/c.mkv", "jump/x.mp4"):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        video_files.make(folder / path.lower(), 6)
    (folder / "run" / "a.mp4").rename(folder / "run" / "a.MP4")
    (folder / "run" / "notes.txt").write_text("no video")
    (folder / "run" / ".hidden.mp4").write_text("no video")
    return folder


def written(tmp_path, text, name="list.txt"):
    (tmp_path / name).write_text(text)
    return str(tmp_path / name)


def test_a_list_has_paths_and_labels(folder, tmp_path):
    source = video_sources.video_list(written(tmp_path, "run/b.mp4 2\n\njump/x.mp4\t0  \n"), str(folder))
    assert len(source) == 2 and source.class_names == ("0", "1", "2")
    assert [source[index]["label"] for index in range(2)] == [2, 0]
    assert source.record_name(1) == str(folder / "jump" / "x.mp4")
    expected = video_files.decode(folder / "jump" / "x.mp4")
    np.testing.assert_array_equal(source[1]["video"].get(np.arange(6)), expected)


@pytest.mark.parametrize(
    "name, text",
    [
        ("l.csv", "path,label\nrun/b.mp4,run;far\njump/x.mp4,jump\n"),
        ("l.csv", "video,far,jump,run\nrun/b.mp4,1,0,1\njump/x.mp4,0,1,0\n"),
        ("l.jsonl", '{"video": "run/b.mp4", "label": ["run", "far"]}\n{"video": "jump/x.mp4", "label": "jump"}\n'),
        ("l.json", '[{"filename": "run/b.mp4", "label": [0, 2]}, {"filename": "jump/x.mp4", "label": [1]}]'),
        ("l.txt", "run/b.mp4 0,2\njump/x.mp4 1\n"),
    ],
)
def test_a_video_may_have_several_labels(folder, tmp_path, name, text):
    source = video_sources.video_list(written(tmp_path, text, name), str(folder), max_frames=5)
    assert source.multi_label and [source[i]["label"].tolist() for i in range(2)] == [[1, 0, 1], [0, 1, 0]]
    assert source.class_names in (("far", "jump", "run"), ("0", "1", "2"))
    assert source.record_name(0) == str(folder / "run" / "b.mp4") and source.source.max_frames == 5


@pytest.mark.parametrize("label", ["1", "[1]"])
def test_a_json_list_may_have_spaces(folder, tmp_path, label):
    text = f'[{{"filename": "run/far away/c.mkv", "label": {label}}}]'
    source = video_sources.video_list(written(tmp_path, text, "list.json"), str(folder))
    assert source[0]["label"] == 1 and len(source[0]["video"]) == 6


def test_class_names_come_from_a_file(tmp_path):
    annotation, names = written(tmp_path, "a.mp4 1\n"), written(tmp_path, "jump\nrun fast\nswim\n", "names.txt")
    source = video_sources.video_list(annotation, class_names=names, num_classes=3)
    assert source.class_names == ("jump", "run fast", "swim")
    assert len(video_sources.video_list(annotation, num_classes=174).class_names) == 174


@pytest.mark.parametrize("line", ["a.mp4", "a.mp4 x", "a.mp4 -1", "a.mp4 1.5", "a.mp4 1 2", "a.mp4,x", "a.mp4 ²"])
def test_a_malformed_line_is_named(tmp_path, line):
    path = written(tmp_path, f"good.mp4 0\n\n{line}\nalso_good.mp4 1\n")
    with pytest.raises(UserError, match=f"{path}:3: ") as error:
        video_sources.video_list(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "text, message",
    [
        ('[{"filename": "a.mp4", "label": 1},\n{"filename" "b.mp4"}]', "list.json:2: not JSON"),
        ('{"filename": "a.mp4"}', "must be a list"),
        ('[{"filename": "a.mp4", "label": 0}, {"label": 1}]', "entry 2: needs"),
        ('[{"filename": "a.mp4", "label": [1, [2]]}]', "entry 1: the label"),
        ('[{"filename": "a.mp4", "label": true}]', "entry 1: the label True"),
        ("[3]", "entry 1: not an object"),
        ("[]", "lists no files"),
    ],
)
def test_a_malformed_json_list_is_named(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        video_sources.video_list(written(tmp_path, text, "list.json"))


def test_lists_that_cannot_be_used(tmp_path):
    with pytest.raises(UserError, match="--config.train_list=FILE and --config.val_list=FILE"):
        video_sources.video_list(None)
    with pytest.raises(UserError, match="not UTF-8"):
        (tmp_path / "wide.txt").write_text("a.mp4 1\n", "utf-16")
        video_sources.video_list(str(tmp_path / "wide.txt"))
    with pytest.raises(UserError, match="cannot read .*missing.txt"):
        video_sources.video_list(str(tmp_path / "missing.txt"))
    with pytest.raises(UserError, match="lists no files"):
        video_sources.video_list(written(tmp_path, "\n"))
    annotation = written(tmp_path, "a.mp4 5\n")
    with pytest.raises(UserError, match="no folder"):
        video_sources.video_list(annotation, str(tmp_path / "missing"))
    names = written(tmp_path, "a\nb\n", "names.txt")
    with pytest.raises(UserError, match="list.txt:1: the label 5 is out of range, there are 2 classes"):
        video_sources.video_list(annotation, class_names=names)
    with pytest.raises(UserError, match="names.txt has 2 names, but num_classes is 3"):
        video_sources.video_list(annotation, class_names=names, num_classes=3)
    with pytest.raises(UserError, match="num_classes is 3000000000, more than"):
        video_sources.video_list(annotation, num_classes=3_000_000_000)


@pytest.mark.parametrize("label", ["3000000000", "9" * 5000])
@pytest.mark.parametrize("num_classes, why", [(3, "there are 3 classes"), (0, "the largest is 1000000")])
def test_a_label_out_of_range_is_named(tmp_path, label, num_classes, why):
    """Quickly: a name for every label up to the largest would fill the memory."""
    path = written(tmp_path, f"good.mp4 2\nbad.mp4 {label}\nworse.mp4 {label}\n")
    with pytest.raises(UserError, match=f"list.txt:2: the label {label[:9]}.* is out of range, {why}$") as error:
        video_sources.video_list(path, num_classes=num_classes)
    assert len(str(error.value)) < len(path) + 200
    path = written(tmp_path, f'[{{"filename": "a", "label": 2}}, {{"filename": "b", "label": {label}}}]', "list.json")
    with pytest.raises(
        UserError, match=f"list.json: (entry 2: the label {label[:9]}.* is out of range, {why}$|not JSON .*digits)"
    ):
        video_sources.video_list(path, num_classes=num_classes)


def test_the_largest_label_is_taken_and_the_next_is_not(tmp_path):
    assert video_sources.video_list(written(tmp_path, "a.mp4 1000000\n")).labels == (1_000_000,)
    assert video_sources.video_list(written(tmp_path, "a.mp4 2\n"), num_classes=3).labels == (2,)
    for label, num_classes in ((1_000_001, 0), (3, 3)):
        with pytest.raises(UserError, match=f"list.txt:1: the label {label} is out of range"):
            video_sources.video_list(written(tmp_path, f"a.mp4 {label}\n"), num_classes=num_classes)


@pytest.mark.parametrize(
    "name, text", [("list.txt", "a.mp4 1\n"), ("list.json", '[{"filename": "a.mp4", "label": 1}]')]
)
def test_a_byte_order_mark_is_no_part_of_a_list(tmp_path, name, text):
    (tmp_path / name).write_text(text, "utf-8-sig")
    assert video_sources.video_list(str(tmp_path / name)).paths == ("a.mp4",)


def test_a_folder_has_sorted_classes_and_files(folder):
    source = video_sources.video_folder(str(folder))
    assert source.class_names == ("jump", "run")
    assert source.paths == ("jump/x.mp4", "run/a.MP4", "run/b.mp4", "run/far away/c.mkv")
    assert source.labels == (0, 1, 1, 1)
    assert video_sources.video_folder(str(folder.parent), folder.name).paths == source.paths


def test_folders_that_cannot_be_used(folder, tmp_path):
    (tmp_path / "file").write_text("")
    for root, message in (
        (None, "needs its path"),
        (str(tmp_path / "no"), "no does not exist"),
        (str(tmp_path / "file"), "file is a file"),
        (str(tmp_path), "no class"),
    ):
        with pytest.raises(UserError, match=message):
            video_sources.video_folder(root)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty holds no videos"):
        video_sources.video_folder(str(tmp_path))
    with pytest.raises(UserError, match="no videos in"):
        video_sources.flat_video_folder(str(tmp_path))
    with pytest.raises(UserError, match="no folder or file"):
        video_sources.flat_video_folder(str(tmp_path / "no"))


SOMETHING = '[{"id": "b", "template": "run [it]"}, {"id": "a", "template": "jump"}]'


@pytest.mark.parametrize("place", ["", "train"])
@pytest.mark.parametrize(
    "name, text",
    [
        ("train.csv", "path,label\nb.mp4,run it\na.mp4,jump\n"),
        ("train.csv", "label,youtube_id,time_start,time_end,split\nrun it,b,0,10,train\njump,a,0,10,train\n"),
        ("train.json", SOMETHING),
        ("train.jsonl", '{"video": "b.mp4", "label": "run it"}\n{"video": "a.mp4", "label": "jump"}'),
        ("train.txt", "gone.mp4\t1\nb.mp4\t1\na.mp4\t0\n"),
    ],
)
def test_a_list_beside_stands_for_folders_of_classes(tmp_path, name, text, place):
    (tmp_path / place).mkdir(exist_ok=True)
    for video in ("a", "b"):
        (tmp_path / place / f"{video}.mp4").touch()
    (tmp_path / "classes.txt").write_text("jump\nrun it\n")
    with pytest.raises(UserError, match="in a list .*val.csv"):
        video_sources.video_folder(str(tmp_path), "val")
    written(tmp_path, text, name)
    source = video_sources.video_folder(str(tmp_path), "train", max_frames=5)
    assert source.class_names == ("jump", "run it") and source.labels[-2:] == (1, 0) and source.max_frames == 5
    assert source.record_name(len(source) - 2) == str(tmp_path / place / "b.mp4")


def test_lists_beside_that_cannot_be_used(tmp_path):
    written(tmp_path, "a.mp4 1\n", "train.txt")
    with pytest.raises(UserError, match="train.txt: none of its videos, a.mp4 for one, is in"):
        video_sources.video_folder(str(tmp_path), "train")
    written(tmp_path, "a.mp4,1\n", "train.csv")
    with pytest.raises(UserError, match="several lists for train: train.csv, train.txt"):
        video_sources.video_folder(str(tmp_path), "train")
    (tmp_path / "train" / "jump").mkdir(parents=True)
    (tmp_path / "train" / "jump" / "a.mp4").touch()
    assert video_sources.video_folder(str(tmp_path), "train").class_names == ("jump",)


def test_a_list_beside_may_give_several_labels(tmp_path):
    (tmp_path / "a.mp4").touch()
    written(tmp_path, "a.mp4,jump;run\n", "train.csv")
    assert video_sources.video_folder(str(tmp_path), "train").multi_label


def test_a_flat_folder_and_one_file_for_prediction(folder):
    source = video_sources.flat_video_folder(str(folder))
    assert len(source) == 4 and source.class_names == ()
    alone = video_sources.flat_video_folder(str(folder / "run" / "b.mp4"))
    assert len(alone) == 1 and len(alone[0]["video"]) == 6


@pytest.mark.parametrize(
    "suffix", "mts m2ts TS mpg MPEG vob 3gp 3g2 ogv flv f4v wmv asf divx m4v qt mxf h264 ivf gif".split()
)
def test_suffixes_of_videos(suffix, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / f"a.{suffix}").touch()
    assert video_sources.video_folder(str(tmp_path)).paths == (f"run/a.{suffix}",)
    assert video_sources.flat_video_folder(str(tmp_path)).paths == (f"run/a.{suffix}",)


def test_each_video_comes_once_and_what_is_left_out_is_told(tmp_path):
    for path in ("run/a.mp4", "run/deep/b.mkv", "jump/c.mp4", "run/notes.doc", "run/d.MP5", "jump/e.mp5"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    (tmp_path / "run" / "deep" / "up").symlink_to("..")
    (tmp_path / "run" / "self").symlink_to(".")
    (tmp_path / "all").symlink_to(".")
    (tmp_path / "jump" / "again.mp4").symlink_to("c.mp4")
    os.mkfifo(tmp_path / "run" / "pipe.mp4")
    for read in (video_sources.video_folder, video_sources.flat_video_folder):
        with pytest.warns(UserWarning, match=r"left out \d: .*\.mp5 \(2\)") as told:
            source = read(str(tmp_path))
        (line,) = [str(warning.message) for warning in told]
        assert "pipes" in line and ".doc (1)" in line and "\n" not in line
        assert sorted(source.paths) == ["jump/c.mp4", "run/a.mp4", "run/deep/b.mkv"]


def test_limits_are_fields_of_a_source(tmp_path):
    (tmp_path / "run").mkdir()
    video_files.make(tmp_path / "run" / "a.mp4", 8)
    annotation = written(tmp_path, "run/a.mp4 0\n")
    for make in (
        lambda **limits: video_sources.video_list(annotation, str(tmp_path), **limits),
        lambda **limits: video_sources.video_folder(str(tmp_path), **limits),
        lambda **limits: video_sources.flat_video_folder(str(tmp_path / "run"), **limits),
    ):
        assert len(make(max_pixels=64 * 48, max_frames=8)[0]["video"]) == 8
        for limits in (dict(max_pixels=64 * 48 - 1), dict(max_frames=7)):
            with pytest.raises(UnreadableError, match=next(iter(limits))):
                len(pickle.loads(pickle.dumps(make(**limits)))[0]["video"])
        for wrong in (dict(max_pixels=0), dict(max_frames=-1)):
            with pytest.raises(UserError, match=next(iter(wrong))):
                make(**wrong)


def test_making_and_indexing_a_source_opens_no_file(tmp_path):
    source = video_sources.video_list(written(tmp_path, "missing.mp4 0\n"), str(tmp_path))
    reader = source[0]["video"]
    with pytest.raises(UnreadableError, match="cannot be opened"):
        len(reader)


def test_sources_pickle(folder):
    source = video_sources.video_folder(str(folder))
    copy = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(copy[2]["video"].get([3]), source[2]["video"].get([3]))
    assert isinstance(copy[0]["video"], Reader)


def test_a_variable_frame_rate_is_an_unreadable_record_unless_it_is_asked_for(tmp_path):
    (tmp_path / "run").mkdir()
    video_files.make(tmp_path / "run" / "even.mp4", 8)
    video_files.make(tmp_path / "run" / "uneven.mp4", 8, times=[0, 20, 40, 100, 110, 150, 300, 310])
    annotation = written(tmp_path, "even.mp4 0\nuneven.mp4 0\n")
    for make in (
        lambda **rate: video_sources.video_list(annotation, str(tmp_path / "run"), **rate),
        lambda **rate: video_sources.video_folder(str(tmp_path), **rate),
    ):
        assert len(make()[0]["video"]) == 8
        video = pickle.loads(pickle.dumps(make()[1]["video"]))
        for _ in range(2):  # opening it again changes nothing
            with pytest.raises(UnreadableError, match="variable frame rate; variable_frame_rate=True reads it exactly"):
                len(video)
        video = make(variable_frame_rate=True)[1]["video"]
        np.testing.assert_array_equal(video.get(np.arange(8)), video_files.decode(tmp_path / "run" / "uneven.mp4"))
    assert len(video_sources.flat_video_folder(str(tmp_path))[1]["video"]) == 8


def frame(value, mode="RGB"):
    file = io.BytesIO()
    Image.new(mode, (24, 20), (value, 2 * value, 255 - value) if mode == "RGB" else value).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """A set 'actions' whose frames are a Sequence of Image, and 'films', the same described as a Video."""
    import tensorflow_datasets as tfds

    data_dir = tmp_path_factory.mktemp("tfds")
    features = {
        "video": tfds.features.Sequence(tfds.features.Image(shape=(20, 24, 3), encoding_format="png")),
        "label": tfds.features.ClassLabel(names=["sit", "stand up"]),
    }
    for name in ("actions", "films"):
        examples = ({"video": [frame(10 * k + i) for i in range(3 + k)], "label": k % 2} for k in range(5))
        path = write.write(str(data_dir), name, "1.0.0", features, {"train": write.Split(examples, 5)}, shard_bytes=900)
    content = json.loads((path / "features.json").read_text())
    content["featuresDict"]["features"]["video"] = {
        "pythonClassName": "tensorflow_datasets.core.features.video_feature.Video",
        "video": {"shape": {"dimensions": ["-1", "20", "24", "3"]}, "dtype": "uint8", "encodingFormat": "png"},
    }
    (path / "features.json").write_text(json.dumps(content))
    return str(data_dir)


@pytest.mark.parametrize("name", ["actions", "films"])
def test_a_tfds_set_of_frames_is_read_without_tensorflow(data_dir, name):
    source = video_sources.tfds_video(name, "train", data_dir)
    assert len(source) == 5 and source.class_names == ("sit", "stand up")
    for index in range(5):
        example = source[index]
        assert example["label"] == index % 2 and len(example["video"]) == 3 + index
        frames = example["video"].get([2, 0])
        assert frames.shape == (2, 20, 24, 3) and frames.dtype == np.uint8
        assert frames[0, 0, 0].tolist() == [10 * index + 2, 20 * index + 4, 253 - 10 * index]
    assert pickle.loads(pickle.dumps(source))[4]["label"] == 0
    assert len(video_sources.tfds_video(name, "train[1:3]", data_dir)) == 2
    clip = video_eval_transform(16, 4, 2, short_side=16)(source[0])["video"]
    assert clip.shape == (4, 16, 16, 3)


def test_tfds_sets_that_cannot_be_used(data_dir):
    def opened(name="actions", split="train", **kwargs):
        return lambda: video_sources.tfds_video(name, split, data_dir, **kwargs)

    for make, message in (
        (opened("ucf101"), "tfds build ucf101"),
        (opened(split="test"), "no split 'test'; it has train"),
        (opened(split="train[60%:20%]"), "of its 5 records, the slice begins at 3 and ends before 1$"),
        (opened(split="train[2:1]"), "begins at 2 and ends before 1$"),
        (opened(video_key="film"), "no feature 'film'"),
        (opened(video_key="label"), "'label' of actions is not a video"),
    ):
        with pytest.raises(UserError, match=message):
            make()


def test_only_asked_frames_are_decoded_and_damaged_ones_are_named():
    video = EncodedFrames([frame(1), b"damaged", frame(3), frame(7, "L")])
    np.testing.assert_array_equal(video.get([0, 2, 0])[:, 0, 0, 0], [1, 3, 1])
    assert video.get([3])[0, 0, 0].tolist() == [7, 7, 7]
    with pytest.raises(UnreadableError, match="frame 1 is damaged"):
        video.get([0, 1])
    with pytest.raises(UnreadableError, match="no frames"):
        len(EncodedFrames([]))
    file = io.BytesIO()
    Image.new("RGB", (8, 20)).save(file, "PNG")
    with pytest.raises(UnreadableError, match=r"the size of frames changes from \(20, 24\) to \(20, 8\)"):
        EncodedFrames([frame(1), file.getvalue()]).get([0, 1])


@pytest.mark.parametrize("record", [b"", b"\xff" * 40, b"\n\x03abc"])
def test_a_damaged_record_is_unreadable(data_dir, record, monkeypatch):
    source = video_sources.tfds_video("actions", "train", data_dir)
    monkeypatch.setattr(source, "_records", [record])
    with pytest.raises(UnreadableError, match="the record is damaged"):
        source[0]
