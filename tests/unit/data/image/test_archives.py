"""Zip archives of images: the official code's map files, folders of classes, damage, and members made to harm."""

import io
import pickle
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
from PIL import Image

from swin_jax.core.errors import UnreadableError, UserError
from swin_jax.core.labels import match
from swin_jax.data import annotations, sources
from swin_jax.data.image import archives, picture

TRAIN = ("n01440764/n01440764_18.JPEG", "n01440764/n01440764_36.JPEG", "n01443537/n01443537_2.JPEG")
VAL = ("ILSVRC2012_val_00000001.JPEG", "ILSVRC2012_val_00000002.JPEG")


def encoded(value):
    file = io.BytesIO()
    Image.new("RGB", (4, 4), (value, 0, 0)).save(file, "PNG")
    return file.getvalue()


def write(path, members, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for number, (name, data) in enumerate(members.items()):
            archive.writestr(name, encoded(number) if data is None else data)
    return str(path)


@pytest.fixture
def imagenet(tmp_path):
    """ImageNet-Zip as the official README shows it; the first red value of a picture is its place in the archive."""
    for split, names, labels in (("train", TRAIN, (0, 0, 1)), ("val", VAL, (1, 0))):
        write(tmp_path / f"{split}.zip", dict.fromkeys(names), zipfile.ZIP_STORED)
        lines = (f"{name}\t{label}\n" for name, label in zip(reversed(names), reversed(labels)))
        (tmp_path / f"{split}_map.txt").write_text("".join(lines))
    return tmp_path


def colors(source):
    return [int(np.asarray(source[i]["image"])[0, 0, 0]) for i in range(len(source))]


def test_the_official_archives_are_read_by_their_maps(imagenet):
    train, val = (sources.image_folder(str(imagenet), split) for split in ("train", "val"))
    assert train.paths == TRAIN[::-1] and train.labels == (1, 0, 0) and colors(train) == [2, 1, 0]
    assert train.class_names == ("n01440764", "n01443537")  # of the folders
    assert val.labels == (0, 1) and colors(val) == [1, 0] and val.class_names == ("0", "1")
    found = match(val.class_names, train.class_names, "val", "train", subset=True)
    assert found.index == (0, 1) and "by number" in found.said
    assert "train.zip: n01443537/n01443537_2.JPEG" in train.record_name(0)


def test_a_source_pickles_without_an_open_file_and_reads_in_threads(imagenet):
    from concurrent.futures import ThreadPoolExecutor

    source = pickle.loads(pickle.dumps(sources.image_folder(str(imagenet), "train")))
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda i: np.asarray(source[i]["image"])[0, 0, 0], [0, 1, 2] * 20))
    assert found == [2, 1, 0] * 20


@pytest.mark.parametrize("top", ["", "train/"])
def test_folders_are_classes_without_a_list(tmp_path, top):
    names = {f"{top}{name}": None for name in ("b/x.png", "a/y.PNG", "b/deep/z.png")}
    others = {"__MACOSX/a/._y.png": b"", f"{top}b/notes.txt": b"", "../evil.png": b"x", "/etc/evil.png": b"x"}
    others |= {f"{top}b/@eaDir/x.png/THUMB.png": b"x"}
    with pytest.warns(UserWarning, match="left out 5"):
        source = archives.image_zip(write(tmp_path / "x.zip", names | others))
    assert source.class_names == ("a", "b") and source.labels == (0, 1, 1) and colors(source) == [1, 2, 0]
    assert not any("evil" in path for path in source.paths) and not (tmp_path.parent / "evil.png").exists()


def test_a_list_may_leave_out_the_folder_around_all_and_other_files(tmp_path):
    archive = write(tmp_path / "x.zip", {"top/a.png": None, "top/b.png": None})
    (tmp_path / "l.csv").write_text("path,label\nb.png,dog\n")
    with pytest.warns(UserWarning, match="left out 1 of 2"):
        source = archives.image_zip(archive, str(tmp_path / "l.csv"))
    assert colors(source) == [1] and source.class_names == ("dog",)


def test_several_labels_come_from_the_list(tmp_path):
    archive = write(tmp_path / "x.zip", {"a.png": None, "b.png": None})
    (tmp_path / "l.csv").write_text("a.png,cat;dog\nb.png,cat\n")
    source = archives.image_zip(archive, str(tmp_path / "l.csv"))
    assert source.multi_label and source[0]["label"].tolist() == [1, 1] and source[1]["label"].tolist() == [1, 0]
    assert pickle.loads(pickle.dumps(source)).class_names == ("cat", "dog")


def test_numbers_get_names_of_folders_only_where_each_has_its_own(tmp_path):
    archive = write(tmp_path / "x.zip", {"a/1.png": None, "b/2.png": None, "a/3.png": None})
    for labels, names in (((0, 1, 0), ("a", "b")), ((0, 1, 1), ("0", "1")), ((0, 2, 0), ("0", "1", "2"))):
        lines = "".join(f"{name} {label}\n" for name, label in zip(("a/1.png", "b/2.png", "a/3.png"), labels))
        (tmp_path / "l.txt").write_text(lines)
        assert archives.image_zip(archive, str(tmp_path / "l.txt")).class_names == names


def test_what_is_missing_or_wrong_is_one_line(tmp_path, imagenet):
    archive = str(imagenet / "train.zip")
    (tmp_path / "l.txt").write_text("n01440764/n01440764_18.JPEG 0\nnone.JPEG 1\n")
    with pytest.raises(UserError, match="lacks 1 of the 2 images of .*l.txt, 'none.JPEG'"):
        archives.image_zip(archive, str(tmp_path / "l.txt"))
    with pytest.raises(UserError, match="no archive"):
        archives.image_zip(str(tmp_path / "no.zip"))
    with pytest.raises(UserError, match="val_map.txt"):
        archives.image_zip(str(imagenet / "val.zip"))
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(tmp_path / "two.zip", "w") as twice:
        for _ in range(2):
            twice.writestr("a/x.png", b"")
    with pytest.raises(UserError, match="2 members called 'a/x.png'"):
        archives.image_zip(str(tmp_path / "two.zip"))
    whole = (imagenet / "train.zip").read_bytes()
    for damaged in (b"", b"no zip", whole[:-10], whole[: len(whole) // 2]):
        (tmp_path / "damaged.zip").write_bytes(damaged)
        with pytest.raises(UserError, match="damaged.zip is not a whole zip") as error:
            archives.image_zip(str(tmp_path / "damaged.zip"))
        assert "\n" not in str(error.value)


def edited(path, offset, layout, *values):
    """Changes the one entry of an archive's directory."""
    data = bytearray(path.read_bytes())
    struct.pack_into(layout, data, data.index(b"PK\x01\x02") + offset, *values)
    path.write_bytes(data)
    return str(path)


@pytest.mark.parametrize(
    "offset, layout, value",
    [
        (8, "<H", 1),  # encrypted
        (10, "<H", 12),  # bzip2
        (20, "<I", 2**30),  # beyond the archive
        (24, "<I", 2**31),  # too large
    ],
)
def test_members_that_are_not_read_are_counted_and_unreadable(tmp_path, offset, layout, value):
    write(tmp_path / "x.zip", {"a/x.png": None})
    with pytest.warns(UserWarning, match="1 of 1 members are .*'a/x.png'"):
        source = archives.image_zip(edited(tmp_path / "x.zip", offset, layout, value))
    with pytest.raises(UnreadableError, match="encrypted"):
        source[0]


def test_a_member_that_unpacks_to_more_than_it_says_takes_no_memory(tmp_path):
    write(tmp_path / "x.zip", {"a/x.png": bytes(2**26)})
    source = archives.image_zip(edited(tmp_path / "x.zip", 24, "<I", 1000))
    tracemalloc.start()
    with pytest.raises(UnreadableError, match="not what the directory"):
        source[0]
    assert tracemalloc.get_traced_memory()[1] < 2**21
    tracemalloc.stop()
    limited = picture.Limits(bytes=2**20)
    write(tmp_path / "y.zip", {"a/x.png": bytes(2**26)})
    with pytest.warns(UserWarning, match="too large"):
        source = archives.image_zip(str(tmp_path / "y.zip"), limits=limited)
    with pytest.raises(UnreadableError, match="too large"):
        source[0]


@pytest.mark.parametrize("offset, layout, value", [(42, "<I", 5), (16, "<I", 7), (20, "<I", 3)])
def test_a_directory_that_does_not_fit_its_members_is_damage_of_a_record(tmp_path, offset, layout, value):
    write(tmp_path / "x.zip", {"a/x.png": None})
    try:
        source = archives.image_zip(edited(tmp_path / "x.zip", offset, layout, value))
    except UserError as error:
        assert "not a whole zip" in str(error)
        return
    with pytest.raises(UnreadableError):
        source[0]


def test_an_archive_that_is_gone_later_is_an_unreadable_record(imagenet):
    source = sources.image_folder(str(imagenet), "train")
    (imagenet / "train.zip").unlink()
    with pytest.raises(UnreadableError, match="cannot be read"):
        source[0]


@pytest.mark.parametrize("prefix", ["", "./", "imagenet/", "a/b/train/", "./a/./b/"])
def test_folders_around_all_are_no_classes(tmp_path, prefix):
    names = [prefix + name for name in ("cat/1.png", "cat/2.png", "dog/deep/3.png")]
    found = archives.image_zip(write(tmp_path / "x.zip", dict.fromkeys(names)))
    assert found.class_names == ("cat", "dog") and sorted(found.labels) == [0, 0, 1] and len(colors(found)) == 3


@pytest.mark.parametrize("prefix", ["", "set/"])
def test_splits_in_an_archive_are_no_classes(tmp_path, prefix):
    names = [f"{prefix}{split}/{name}/1.png" for split in ("train", "val") for name in ("cat", "dog")]
    with pytest.raises(UserError, match="holds splits, not classes: train, val"):
        archives.image_zip(write(tmp_path / "x.zip", dict.fromkeys(names)))


@pytest.mark.parametrize("field", range(3))
def test_sizes_and_places_of_any_64_bits_are_damage_of_a_record(tmp_path, field):
    data, name, sizes = encoded(3), b"cat/1.png", [0, 0, 0]
    sizes[:2] = len(data), len(data)
    sizes[field] = 2**64 - 1
    extra = struct.pack("<HHQQQ", 1, 24, *sizes)
    local = struct.pack("<4s5H3L2H", b"PK\3\4", 45, 0, 0, 0, 0, 0, len(data), len(data), len(name), 0) + name + data
    most = 2**32 - 1
    central = struct.pack(
        "<4s6H3L5H2L", b"PK\1\2", 45, 45, 0, 0, 0, 0, 0, most, most, len(name), len(extra), 0, 0, 0, 0, most
    )
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, len(central + name + extra), len(local), 0)
    (tmp_path / "x.zip").write_bytes(local + central + name + extra + end)
    with pytest.warns(UserWarning, match="1 of 1 members are"):
        found = archives.image_zip(str(tmp_path / "x.zip"))
    with pytest.raises(UnreadableError, match="beyond the archive or too large"):
        found[0]


def test_folders_that_look_the_same_are_no_two_classes(tmp_path):
    path = write(tmp_path / "x.zip", dict.fromkeys(("caf\xe9/1.png", "cafe\u0301/2.png")))
    with pytest.raises(UserError, match="has two classes 'caf\xe9', whose letters are composed in two ways"):
        archives.image_zip(path)
    path = write(tmp_path / "y.zip", dict.fromkeys(("b/1.png", "cafe\u0301/2.png")))
    (tmp_path / "names.txt").write_text("b\ncaf\xe9\n")
    assert len(archives.image_zip(path, class_names=str(tmp_path / "names.txt")).class_names) == 2


def test_a_member_without_a_name_is_another_file(tmp_path):
    path = tmp_path / "x.zip"
    write(path, {"cat/1.png": None, "x": b"", "dog/2.png": None}, zipfile.ZIP_STORED)
    data = path.read_bytes()
    place = data.rindex(b"x", 0, data.rindex(b"dog/2.png"))  # its name in the directory
    path.write_bytes(data[:place] + b"\0" + data[place + 1 :])
    with pytest.warns(UserWarning, match="left out 1"):
        assert len(archives.image_zip(str(path))) == 2


@pytest.mark.parametrize("inside", ["", "./", "set/"])
@pytest.mark.parametrize("listed", ["", "./", "cat/../"])
def test_paths_of_a_list_may_be_written_otherwise(tmp_path, inside, listed):
    path = write(tmp_path / "x.zip", dict.fromkeys((f"{inside}cat/1.png", f"{inside}dog/2.png")))
    (tmp_path / "x.csv").write_text(f"{listed}dog/2.png,a\n{listed}cat/1.png,b\n")
    assert colors(archives.image_zip(path, str(tmp_path / "x.csv"))) == [1, 0]


@pytest.mark.parametrize("top", ["", "x\\"])
def test_archives_and_lists_of_windows(tmp_path, top):
    members = {f"{top}cat\\": b"", f"{top}cat\\1.png": None, f"{top}dog\\2.png": None}
    path = write(tmp_path / "x.zip", members)
    source = archives.image_zip(path)
    assert source.class_names == ("cat", "dog") and source.labels == (0, 1) and colors(source) == [1, 2]
    (tmp_path / "x.csv").write_text("dog\\2.png,a\ncat\\1.png,b\n")
    assert colors(archives.image_zip(path, str(tmp_path / "x.csv"))) == [2, 1]
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat/1.png").write_bytes(encoded(5))
    (tmp_path / "y.csv").write_text("path,cat,dog\ncat\\1.png,1,0\n")
    assert sources.image_list(str(tmp_path / "x.csv")).paths == ("dog/2.png", "cat/1.png")
    assert annotations.read(str(tmp_path / "y.csv")).paths == ("cat/1.png",)
    (tmp_path / "z.csv").write_text("cat/1.png,a\nwe\\ird.png,b\n")  # a name that POSIX allows
    assert sources.image_list(str(tmp_path / "z.csv")).paths == ("cat/1.png", "we\\ird.png")
