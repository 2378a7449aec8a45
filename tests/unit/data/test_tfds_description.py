"""What a TFDS folder says of itself imports no module, and is told in a line where it is damaged."""

import io
import json
import os
import pathlib
import shutil
import sys

import numpy as np
import pytest
from PIL import Image

from swin_jax.core.errors import UserError
from swin_jax.data import sources, tfds, tfds_description
from swin_jax.data.builders import write
from swin_jax.data.emoji import actions, images
from swin_jax.data.image_text import pairs
from swin_jax.data.video import sources as video_sources

OWN = "tensorflow_datasets.core.features."
EVIL = "evil_features.Picture"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A set of two pictures with all that ours have: labels, texts, frames, nested features."""
    from tensorflow_datasets import features

    file = io.BytesIO()
    Image.new("RGB", (4, 4)).save(file, "PNG")
    png = file.getvalue()
    described = {
        "image": features.Image(shape=(4, 4, 3), encoding_format="png"),
        "label": features.ClassLabel(names=["a", "b"]),
        "text": features.Text(),
        "captions": features.Sequence({"text": features.Text()}),
        "video": features.Sequence(features.Image(shape=(4, 4, 3), encoding_format="png")),
        "more": {"box": features.BBoxFeature(), "number": features.Scalar(np.int64)},
    }
    box = features.BBox(0.0, 0.0, 1.0, 1.0)
    example = {"image": png, "label": 1, "text": "a", "captions": {"text": ["a"]}, "video": [png, png]}
    example["more"] = {"box": box, "number": 3}
    split = write.Split([example] * 2, 2)
    return write.write(str(tmp_path_factory.mktemp("tfds")), "some", "1.0.0", described, {"train": split})


@pytest.fixture
def directory(whole, tmp_path, monkeypatch):
    """A copy of the set, and in the current folder the module that must not be imported."""
    (tmp_path / "evil_features.py").write_text("import pathlib\npathlib.Path('ran').touch()\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield pathlib.Path(shutil.copytree(whole, tmp_path / "data" / "some" / "1.0.0"))
    assert not (tmp_path / "ran").exists() and "evil_features" not in sys.modules


def readers(directory):
    """Everything that opens a folder of TFDS."""
    data_dir = str(directory.parents[1])
    yield lambda: sources.tfds("some", "train", data_dir)
    yield lambda: pairs.tfds("some", "train", data_dir)
    yield lambda: video_sources.tfds_video("some", "train", data_dir)
    yield lambda: tfds.open_builder(str(directory))
    yield lambda: images._read(str(directory))
    yield lambda: actions.EmojiActions(str(directory), ("someone",))


def _classes(value):
    """Every object in JSON that names a class."""
    if isinstance(value, dict):
        if "pythonClassName" in value:
            yield value
        for inner in value.values():
            yield from _classes(inner)


def test_own_features_are_read(directory):
    assert len(sources.tfds("some", "train", str(directory.parents[1]))) == 2
    assert len(video_sources.tfds_video("some", "train", str(directory.parents[1]))[0]["video"]) == 2


def test_features_of_others_are_not_imported_at_any_depth(directory):
    path = directory / "features.json"
    content = json.loads(path.read_text())
    found = list(_classes(content))
    assert len(found) == 12
    for place in found:
        own = place["pythonClassName"]
        for name in (
            EVIL,
            "os.system",
            OWN + "image_feature.Evil",
            OWN + "image_feature",
            "Image",
            "",
            3,
            None,
            [own, EVIL],
        ):
            place["pythonClassName"] = name
            path.write_text(json.dumps(content))
            with pytest.raises(UserError, match="not one of TFDS's own"):
                tfds_description.read_features(str(directory))
        place["pythonClassName"] = own


INNER = {"pythonClassName": EVIL, "text": {}}
OLD = {"type": EVIL, "content": {}}
DICT, SEQUENCE = OWN + "features_dict.FeaturesDict", OWN + "sequence_feature.Sequence"
HOSTILE = {
    "old": OLD,
    "old_inside": {"type": DICT, "content": {"image": OLD}},
    "old_text": {
        "type": DICT,
        "content": json.dumps({"features": {"image": INNER}}),
        "proto_cls": "tensorflow_datasets.FeaturesDict",
    },
    "json": {"pythonClassName": DICT, "jsonFeature": {"json": json.dumps({"image": OLD})}},
    "snake": {"python_class_name": EVIL, "text": {}},
    "snake_inside": {"pythonClassName": SEQUENCE, "sequence": {"feature": {"python_class_name": EVIL}}},
    "inside": {"pythonClassName": DICT, "featuresDict": {"features": {"image": INNER}}},
    "escaped": {"pythonClassName": SEQUENCE, "sequence": {"feature": INNER}},
}


@pytest.mark.parametrize("name", HOSTILE)
def test_no_form_of_the_file_imports_a_module(name, directory):
    text = json.dumps(HOSTILE[name])
    if name == "escaped":
        text = text.replace("evil", "\\u0065vil")
    (directory / "features.json").write_text(text)
    for reader in readers(directory):
        with pytest.raises(UserError, match="not one of TFDS's own") as error:
            reader()
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("key", ["moduleName", "name", "fileFormat", "configName"])
def test_the_description_of_the_set_imports_no_module(key, directory):
    path = directory / "dataset_info.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: EVIL.partition(".")[0]}))
    for reader in readers(directory):
        try:
            reader()
        except (UserError, KeyError):
            pass


@pytest.mark.parametrize("file", ["features.json", "dataset_info.json"])
@pytest.mark.parametrize(
    "text", [b"", b"{", b"[]", b"3", b"null", b'"a"', b"\xff\xfe", b"[" * 99_999, b'{"a": ' + b"9" * 5000 + b"}"]
)
def test_damaged_descriptions_are_told_in_a_line(file, text, directory):
    (directory / file).write_bytes(text)
    for reader in readers(directory):
        with pytest.raises(UserError, match=f"{file} is damaged, prepare") as error:
            reader()
        assert "\n" not in str(error.value) and len(str(error.value)) < len(str(directory)) + 350


@pytest.mark.parametrize("file", ["features.json", "dataset_info.json"])
@pytest.mark.parametrize(
    "content", [{"name": 3}, {"splits": "all"}, {"featuresDict": []}, {"featuresDict": {"features": [1]}}, {}]
)
def test_descriptions_of_another_form_are_told_in_a_line(file, content, directory):
    (directory / file).write_text(json.dumps(content))
    for reader in list(readers(directory))[:4]:
        with pytest.raises(UserError) as error:
            reader()
        assert "\n" not in str(error.value)


def test_a_missing_description_is_told_in_a_line(directory):
    (directory / "features.json").unlink()
    for reader in readers(directory):
        with pytest.raises(UserError, match="cannot read .*features.json: No such file"):
            reader()


def changed_split(directory, **fields):
    path = directory / "dataset_info.json"
    content = json.loads(path.read_text())
    content["splits"][0] |= fields
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "loop", "missing"])
def test_a_shard_that_is_no_file_is_told_in_a_line(kind, directory):
    """A pipe would be waited for, in a library that no signal ends."""
    (shard,) = directory.glob("*array_record*")
    shard.unlink()
    if kind == "pipe":
        os.mkfifo(shard)
    elif kind == "folder":
        shard.mkdir()
    elif kind != "missing":
        shard.symlink_to("/dev/zero" if kind == "device" else shard)
    for reader in list(readers(directory))[:3]:
        with pytest.raises(UserError, match="cannot read .*array_record-00000-of-00001") as error:
            reader()
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("lengths", [["1000000000000"], ["1000000"], [], ["0"], ["-1"], ["1", "1"], ["9" * 30]])
def test_lengths_that_cannot_be_are_told_in_a_line(lengths, directory):
    changed_split(directory, shardLengths=lengths)
    for reader in list(readers(directory))[:3]:
        with pytest.raises(UserError) as error:
            reader()
        assert "\n" not in str(error.value) and len(str(error.value)) < len(str(directory)) + 450


@pytest.mark.parametrize("name", ["", None, "9" * 5000])
def test_a_split_without_a_name_is_told_in_a_line(name, directory):
    changed_split(directory, name=name)
    for reader in list(readers(directory))[:3]:
        with pytest.raises(UserError) as error:
            reader()
        assert "\n" not in str(error.value) and len(str(error.value)) < len(str(directory)) + 450


def test_class_names_that_are_no_text_are_told_in_a_line(directory):
    (directory / "label.labels.txt").write_bytes(b"\xff\xfea")
    with pytest.raises(UserError, match="label.labels.txt: it is not UTF-8 text"):
        video_sources.tfds_video("some", "train", str(directory.parents[1]))
