"""Tar shards: grouping, patterns, the index files, damage."""

import functools
import io
import json
import os
import pickle
import re
import tarfile
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from swin_jax.core.errors import UnreadableError, UserError
from swin_jax.data import pipeline
from swin_jax.data.image.transforms import clip_train_transform
from swin_jax.data.image_text import pairs, tar_shards
from swin_jax.data.image_text.by_image import by_image


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


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


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


@pytest.mark.parametrize("store", ["tar", "folder"])
def test_only_line_ends_separate_captions(tmp_path, store):
    """Other signs that Unicode calls the end of a line or of a page lie within captions."""
    text = "one\u2028still one\r\ntwo\x0cstill two\nthree\x85still three\u2029\rfour\x1cstill four\n"
    files = {"a.png": image(1), "a.txt": text.encode()}
    if store == "tar":
        source = tar_shards.tar_shards(str(write_tar(tmp_path / "x.tar", files)), caption_lines=True)
    else:
        for name, data in files.items():
            (tmp_path / name).write_bytes(data)
        source = pairs.folder(str(tmp_path), caption_lines=True)
    assert [re.match(r"\w+", line)[0] for line in source[0]["text"]] == ["one", "two", "three", "four"]


# What a shard or a folder holds -> {number of an image: its caption}, and what is left out.
GROUPS = {
    "numbers behind a dot": (
        {"photo.1.jpg": 1, "photo.2.jpg": 2, "photo.2.txt": "2"},
        {2: "2"},
        "1 images without .txt \\(photo.1.jpg",
    ),
    "another field first": ({"s.mask.png": 9, "s.png": 1, "s.txt": "1"}, {1: "1"}, "1 images without .txt"),
    "another field last": ({"s.png": 1, "s.mask.png": 9, "s.txt": "1"}, {1: "1"}, "\\(s.mask.png"),
    "a caption of a field": ({"s.png": 1, "s.mask.txt": "9"}, {}, "s.mask.txt"),
    "versions": ({"v1.2.jpg": 1, "v1.3.jpg": 2, "v1.3.txt": "2", "v1.2.txt": "1"}, {1: "1", 2: "2"}, None),
    "upper case": ({"a.JPG": 1, "a.TXT": "1", "b.Png": 2, "b.txt": "2"}, {1: "1", 2: "2"}, None),
    "two images": ({"a.png": 1, "a.jpg": 2, "a.txt": "1", "b.png": 3, "b.txt": "3"}, {3: "3"}, "3 of several images"),
    "two suffixes in two cases": ({"a.png": 1, "a.PNG": 2, "a.txt": "1"}, {}, "3 of several images"),
    "two texts": ({"a.png": 1, "a.txt": "1", "a.TXT": "2"}, {}, "3 of several images or .txt of one name"),
    "folders": ({"a.1/x.png": 1, "a.2/x.png": 2, "a.2/x.txt": "2", "a.1/x.txt": "1"}, {1: "1", 2: "2"}, None),
    "other folders": ({"a/x.png": 1, "b/x.txt": "2"}, {}, "1 .txt without an image \\(b/x.txt"),
    "other files": ({"a.png": 1, "a.txt": "1", "a.cls": "7", "b.1": "8"}, {1: "1"}, "2 other files|.1 \\(1\\), .cls"),
    "a caption alone": ({"a.png": 1, "a.txt": "1", "b.txt": "2"}, {1: "1"}, "1 .txt without an image \\(b.txt"),
    "hidden": ({"a.png": 1, "a.txt": "1", "._a.png": 8, "._a.txt": "8"}, {1: "1"}, None),
}


@pytest.mark.parametrize("store", ["tar", "folder"])
@pytest.mark.parametrize(("files", "expected", "left_out"), GROUPS.values(), ids=GROUPS)
def test_names_that_differ_in_the_suffix_are_pairs(tmp_path, files, expected, left_out, store):
    files = {name: image(data) if isinstance(data, int) else data.encode() for name, data in files.items()}
    if store == "tar":
        make = functools.partial(tar_shards.tar_shards, str(write_tar(tmp_path / "x.tar", files)))
    else:
        for name, data in files.items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_bytes(data)
        make = functools.partial(pairs.folder, str(tmp_path))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if not expected:
            with pytest.raises(UserError, match=left_out):
                make()
            return
        source = make()
    assert {source[i]["image"].getpixel((0, 0))[0]: source[i]["text"] for i in range(len(source))} == {
        number: (text,) for number, text in expected.items()
    }
    text = "".join(str(warning.message) for warning in caught)
    if left_out:
        assert re.search(left_out, text) and "\n" not in text
    elif store == "folder" or "._a.png" not in files:
        assert not text


def test_pairs_are_in_the_order_of_their_first_members(tmp_path):
    files = {"b.txt": b"b", "a.png": image(1), "a.txt": b"a", "c.txt": b"c", "c.png": image(3), "b.png": image(2)}
    assert texts(tar_shards.tar_shards(str(write_tar(tmp_path / "x.tar", files)))) == [("b",), ("a",), ("c",)]


def test_members_that_occur_twice_or_are_links_are_in_no_pair(tmp_path):
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as tar:
        for name, data in (
            ("a.png", image(1)),
            ("a.txt", b"1"),
            ("./a.png", image(2)),
            ("b.png", image(3)),
            ("b.txt", b"3"),
        ):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
        for name, kind in (("c.png", tarfile.SYMTYPE), ("c.txt", tarfile.LNKTYPE), ("d", tarfile.DIRTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "b.png"
            tar.addfile(member)
    for _ in range(2):  # the second time from the index
        with pytest.warns(UserWarning, match="3 of several images .* 2 links or other special members \\(c.png in"):
            source = tar_shards.tar_shards(str(path))
        assert texts(source) == [("3",)]


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


def test_a_shard_in_the_place_of_another_is_indexed_again(tmp_path):
    """Also if it has the size and the time of the one before, as cp -p and rsync -t put it."""
    files = {"1.png": image(1), "1.txt": b"one", "2.png": image(2), "2.txt": b"twenty-two"}
    shard = write_tar(tmp_path / "x.tar", files)
    tar_shards.tar_shards(str(shard))
    before = os.stat(shard)
    write_tar(shard, {name: files[name] for name in ("1.png", "2.txt", "2.png", "1.txt")})
    os.utime(shard, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert os.stat(shard).st_size == before.st_size
    assert texts(tar_shards.tar_shards(str(shard))) == [("one",), ("twenty-two",)]


def test_index_in_another_folder(tmp_path):
    (tmp_path / "data").mkdir()
    pattern = write_shards(tmp_path / "data")
    source = tar_shards.tar_shards(pattern, index_dir=str(tmp_path / "index"))
    assert len(source) == 6
    assert sorted(os.listdir(tmp_path / "data")) == ["000.tar", "001.tar"]
    assert len(os.listdir(tmp_path / "index")) == 2


def test_torn_index_files_are_made_again(tmp_path):
    shard = write_tar(tmp_path / "x.tar", {f"{i}.{kind}": image(i) for i in range(9) for kind in ("png", "txt")})
    tar_shards.tar_shards(str(shard))
    index = tmp_path / "x.tar.txt.index.npy"
    whole = index.read_bytes()
    changed = np.load(index)
    changed[-1, 0] += 512
    torn = [whole[:length] for length in (0, 5, 60, 130, 200, len(whole) - 32, len(whole) - 1)]
    torn += [whole[:-64] + bytes(64), whole[:10] + b"(" * 118 + whole[128:], whole.replace(b"<i8", b"|O8")]
    torn += [whole.replace(b"(16, 4)", b"(99, 4)"), whole + bytes(32)]
    for data in (*torn, npy(changed), npy(changed[:1]), npy(changed.ravel()), npy(np.zeros((0, 4), np.int64))):
        index.write_bytes(data)
        assert tar_shards._is_fresh(str(shard), str(index)) is (data == whole + bytes(32)), data[:200]
        assert len(tar_shards.tar_shards(str(shard))) == 9
    for column, value in ((0, -512), (1, -1), (1, 2**62), (2, 2**62), (3, shard.stat().st_size)):
        rows = np.load(io.BytesIO(whole))
        rows[-1, column] = value
        rows[0, 3] = zlib.crc32(rows[1:].tobytes())  # whole, but of places that the shard does not have
        index.write_bytes(npy(rows))
        assert not tar_shards._is_fresh(str(shard), str(index))
    os.remove(index)
    index.mkdir()
    with pytest.raises(UserError, match="index of .* cannot be written .*; give index_dir="):
        tar_shards.tar_shards(str(shard))
    assert sorted(os.listdir(tmp_path)) == ["x.tar", "x.tar.txt.index.npy"]


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
def test_a_shard_cut_between_members_is_reported(tmp_path, recwarn, blocks):
    files = {name: data for i in range(3) for name, data in ((f"{i}.png", image(i)), (f"{i}.txt", b"x"))}
    shard = write_tar(tmp_path / "x.tar", files)
    assert len(tar_shards.tar_shards(str(shard))) == 3 and not recwarn.list
    with tarfile.open(shard) as tar:
        third = tar.getmember("2.png").offset
    shard.write_bytes(shard.read_bytes()[:third] + bytes(512 * blocks))
    assert len(tar_shards.tar_shards(str(shard))) == 2
    message = str(recwarn.pop(UserWarning).message)
    assert message == f"{shard} ends without its end mark, it is probably truncated; 2 pairs of it are used"
    with pytest.warns(UserWarning, match="x.tar: 2 pairs; left out: 1 ends of shards that are damaged .*x.tar"):
        tar_shards.tar_shards(str(shard))  # from the index


def test_captions_that_are_not_utf8_are_unreadable(tmp_path):
    files = {"0.png": image(0), "0.txt": "\ufeffcafé".encode(), "1.png": image(1), "1.txt": "café".encode("latin-1")}
    source = tar_shards.tar_shards(str(write_tar(tmp_path / "x.tar", files)))
    assert source[0]["text"] == ("café",)
    with pytest.raises(UnreadableError, match="not UTF-8, at byte 4"):
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
        (b'{"text": ["a", 5]}', "caption 2 of 'text' is not text but 5"),
        (b'{"text": "a", "n": ' + b"[" * 100_000, "not JSON that can be read"),
        (b'{"text": "a", "n": ' + b"9" * 5000 + b"}", "not JSON that can be read"),
        (b'{"text": "a", "text": "b"}', "the key 'text' appears twice"),
        (b'{"text": "caf\xe9"}', "not UTF-8, at byte 14"),
        (b'{"text": "a\\u0000b"}', "NUL"),
    ],
)
def test_json_without_the_caption(tmp_path, text, message):
    shard = write_tar(tmp_path / "x.tar", {"0.png": image(0), "0.json": text})
    with pytest.raises(UnreadableError, match=message):
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


def test_chosen_records_of_one_image_are_one_image(tmp_path):
    files = {}
    for number, (pixel, text) in enumerate(((1, "one"), (2, "no"), (1, "two"), (3, "three"), (1, "no"))):
        files |= {f"{number}.png": image(pixel), f"{number}.txt": text.encode()}
    source = tar_shards.tar_shards(str(write_tar(tmp_path / "x.tar", files)))
    images = by_image(pairs.select(source, lambda record: record["text"] != ("no",)))
    assert [images.record(i)["text"] for i in range(len(images))] == [("one", "two"), ("three",)]
    assert images[1]["text"] == ("three",) and images.record_name(1) == source.record_name(3)
