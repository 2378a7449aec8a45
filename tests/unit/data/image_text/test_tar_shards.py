"""Tar shards: grouping, patterns, the index files, damage."""

import io
import json
import logging
import os
import pickle
import tarfile

import pytest
from PIL import Image

from swin_jax.core.errors import UserError
from swin_jax.data import pipeline
from swin_jax.data.image.transforms import clip_train_transform
from swin_jax.data.image_text import pairs, tar_shards


def image(number, format="PNG"):
    file = io.BytesIO()
    Image.new("RGB", (9, 10), (number, number, number)).save(file, format)
    return file.getvalue()


def write_tar(path, files, mode="w"):
    with tarfile.open(path, mode) as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def write_shards(folder, shards=2, records=3):
    for shard in range(shards):
        files = {}
        for record in range(records):
            number = shard * records + record
            files[f"{number:04d}.png"] = image(number)
            files[f"{number:04d}.txt"] = f"number {number}\n".encode()
            files[f"{number:04d}.json"] = json.dumps({"caption": f"json {number}", "all": ["a", f"b{number}"]}).encode()
        write_tar(folder / f"{shard:03d}.tar", files)
    return f"{folder}/{{000..{shards - 1:03d}}}.tar"


def texts(source):
    return [source[i]["text"] for i in range(len(source))]


def test_records_of_all_shards_in_order(tmp_path):
    source = tar_shards.tar_shards(write_shards(tmp_path))
    assert texts(source) == [(f"number {i}",) for i in range(6)]
    assert [source[i]["image"].getpixel((0, 0))[0] for i in range(6)] == list(range(6))
    assert source.record(4) == {"text": ("number 4",)} and "001.tar" in source.record_name(4)
    assert texts(pickle.loads(pickle.dumps(source))) == texts(source)
    with pytest.raises(IndexError):
        source[6]


def test_captions_of_json_members(tmp_path):
    pattern = write_shards(tmp_path)
    assert texts(tar_shards.tar_shards(pattern, text_key="caption"))[5] == ("json 5",)
    assert texts(tar_shards.tar_shards(pattern, text_key="all"))[5] == ("a", "b5")


def test_grouping_by_name_up_to_the_first_dot(tmp_path, caplog):
    files = {
        "a/1.0.jpg": image(1, "JPEG"),
        "b/1.TXT": b"of b",
        "a/1.txt": b"of a",
        "b/1.WEBP": image(2, "WEBP"),
        "c.png": image(3),
        "d.txt": b"without image",
        ".hidden": b"",
    }
    with caplog.at_level(logging.WARNING):
        source = tar_shards.tar_shards(str(write_tar(tmp_path / "x.tar", files)))
    assert texts(source) == [("of a",), ("of b",)]
    assert "1 images in 1 shards have no .txt member" in caplog.text


def test_index_is_made_once_and_again_when_the_shard_changes(tmp_path, capsys):
    shard = write_tar(tmp_path / "x.tar", {"1.png": image(1), "1.txt": b"one"})
    tar_shards.tar_shards(str(shard))
    index = tmp_path / "x.tar.txt.index.npy"
    stamp = index.stat().st_mtime_ns
    capsys.readouterr()
    tar_shards.tar_shards(str(shard))
    assert index.stat().st_mtime_ns == stamp and "indexing" not in capsys.readouterr().err
    write_tar(shard, {"2.png": image(2), "2.txt": b"two", "3.png": image(3), "3.txt": b"three"})
    assert texts(tar_shards.tar_shards(str(shard))) == [("two",), ("three",)]
    index.write_bytes(b"not an index")
    assert len(tar_shards.tar_shards(str(shard))) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.tar", "x.tar.txt.index.npy"]


def test_index_in_another_folder(tmp_path):
    (tmp_path / "data").mkdir()
    pattern = write_shards(tmp_path / "data")
    source = tar_shards.tar_shards(pattern, index_dir=str(tmp_path / "index"))
    assert len(source) == 6
    assert sorted(os.listdir(tmp_path / "data")) == ["000.tar", "001.tar"]
    assert len(os.listdir(tmp_path / "index")) == 2


def test_patterns(tmp_path):
    for name in ("a0.tar", "a1.tar", "b9.tar", "b10.tar"):
        (tmp_path / name).touch()

    def names(patterns):
        return [os.path.basename(path) for path in tar_shards.expand(patterns)]

    assert names(f"{tmp_path}/{{b,a}}*.tar") == ["b10.tar", "b9.tar", "a0.tar", "a1.tar"]
    assert names(f"{tmp_path}/b{{9..10}}.tar") == ["b9.tar", "b10.tar"]
    assert names([f"{tmp_path}/a1.tar", f"{tmp_path}/a?.tar"]) == ["a1.tar", "a0.tar"]
    assert tar_shards._braces("{008..010}") == ["008", "009", "010"]
    for pattern in ("c*.tar", "a{0..2}.tar"):
        with pytest.raises(UserError, match="no tar shard fits"):
            tar_shards.expand(f"{tmp_path}/{pattern}")


def test_not_a_plain_tar(tmp_path):
    files = {"1.png": image(1), "1.txt": b"one"}
    (tmp_path / "text.tar").write_text("not a tar at all" * 100)
    for shard in (write_tar(tmp_path / "x.tar.gz", files, "w:gz"), tmp_path / "text.tar"):
        with pytest.raises(UserError, match="not an uncompressed tar"):
            tar_shards.tar_shards(str(shard))


def test_no_pairs(tmp_path):
    shard = write_tar(tmp_path / "x.tar", {"1.png": image(1), "1.json": b"{}"})
    with pytest.raises(UserError, match="give text_key"):
        tar_shards.tar_shards(str(shard))


def test_truncated_shard_keeps_its_whole_records(tmp_path):
    files = {name: data for i in range(3) for name, data in ((f"{i}.txt", b"x"), (f"{i}.png", image(i) + bytes(5000)))}
    shard = write_tar(tmp_path / "x.tar", files)
    shard.write_bytes(shard.read_bytes()[:16000])
    assert len(tar_shards.tar_shards(str(shard))) == 2


@pytest.mark.parametrize("blocks", [0, 1])
def test_a_shard_cut_between_members_is_reported(tmp_path, caplog, blocks):
    files = {name: data for i in range(3) for name, data in ((f"{i}.png", image(i)), (f"{i}.txt", b"x"))}
    shard = write_tar(tmp_path / "x.tar", files)
    assert len(tar_shards.tar_shards(str(shard))) == 3 and not caplog.text
    with tarfile.open(shard) as tar:
        third = tar.getmember("2.png").offset
    shard.write_bytes(shard.read_bytes()[:third] + bytes(512 * blocks))
    assert len(tar_shards.tar_shards(str(shard))) == 2
    assert f"{shard} ends without its end mark, it is probably truncated; 2 records of it are used" in caplog.text


def test_captions_that_are_not_utf8_are_unreadable(tmp_path):
    files = {"0.png": image(0), "0.txt": "\ufeffcafé".encode(), "1.png": image(1), "1.txt": "café".encode("latin-1")}
    source = tar_shards.tar_shards(str(write_tar(tmp_path / "x.tar", files)))
    assert source[0]["text"] == ("café",)
    with pytest.raises(UnicodeDecodeError):
        source[1]


@pytest.mark.parametrize("patterns", [None, "", [], [""]])
def test_no_pattern(patterns):
    with pytest.raises(UserError, match=r"--config.pairs='DIR.*\.tar'.*--config.validation_pairs="):
        tar_shards.tar_shards(patterns)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b'{"caption": "a", "id": 1}', "no key 'text'; it has 'caption', 'id': give --config.data.source.text_key="),
        (b"{}", "no key 'text'; it has none"),
        (b"[]", "not a JSON object"),
        (b'{"text": null}', "no caption"),
    ],
)
def test_json_without_the_caption(tmp_path, text, message):
    shard = write_tar(tmp_path / "x.tar", {"0.png": image(0), "0.json": text})
    with pytest.raises(ValueError, match=message):
        tar_shards.tar_shards(str(shard), text_key="text")[0]


def test_records_are_named_by_their_member(tmp_path):
    shard = write_tar(tmp_path / "x.tar", {"a/0.txt": b"0", "a/0.png": image(0), "a/1.png": b"?", "a/1.txt": b"1"})
    source = tar_shards.tar_shards(str(shard))
    assert source.record_name(0) == f"{shard} member a/0.png (image at byte 1536)"
    assert "member a/1.png" in source.record_name(1)
    os.remove(shard)
    assert source.record_name(0) == f"{shard} (image at byte 1536)"


def test_empty_and_damaged_records_are_replaced_in_training(tmp_path):
    files = {"0.png": image(7), "0.txt": b"zero", "1.png": image(1), "1.txt": b"\n", "2.png": b"x", "2.txt": b"two"}
    source = tar_shards.tar_shards(str(write_tar(tmp_path / "x.tar", files)))
    assert len(source) == 3
    transform = pairs.train_transform(clip_train_transform(8))
    batch = next(pipeline.TrainData(source, transform, 3, num_threads=0).batches(0, range(3)))
    assert sorted(batch["bad"].tolist()) == [0, 1, 1]
    assert (batch["image"] == 7).all() and (batch["text"] == batch["text"][0]).all()
