"""Folders of images and labels: layouts, names that pair, files that do not fit, and what is said once."""

import json
import os
import pickle
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from swin_jax.core.constants import IGNORED
from swin_jax.core.errors import UnreadableError, UserError
from swin_jax.data.pipeline import EvalData, TrainData
from swin_jax.data.segmentation import checking, palettes, scan
from swin_jax.data.segmentation.folder import label_folder
from swin_jax.data.segmentation.transforms import train_transform

SIZE = (6, 9)
NAMES = ("sky", "sea", "sand")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SWIN_JAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(checking, "FEW", 3)


def image(index=0, size=SIZE):
    pixels = np.random.default_rng(index).integers(0, 256, (*size, 3))
    return Image.fromarray(pixels.astype(np.uint8))


def label(index=0, size=SIZE, classes=3):
    return np.random.default_rng(100 + index).integers(0, classes, size).astype(np.uint8)


@pytest.fixture
def root(tmp_path):
    """Three good pairs, one of them in a folder of its own."""
    root = tmp_path / "set"
    for index, name in enumerate(("a", "b", "inner/c")):
        for part in ("images", "labels"):
            (root / part / "train" / name).parent.mkdir(parents=True, exist_ok=True)
        image(index).save(root / "images/train" / f"{name}.jpg")
        Image.fromarray(label(index)).save(root / "labels/train" / f"{name}.png")
    (root / "classes.txt").write_text("\n".join(NAMES))
    return root


def save(root, name, array, **options):
    Image.fromarray(array).save(root / "labels/train" / name, **options)


def read(root, split="train", **arguments):
    return label_folder(str(root), split, **arguments)


def refused(root, *words, **arguments):
    with pytest.raises(UserError) as error:
        read(root, **arguments)
    text = str(error.value)
    assert "\n" not in text
    for word in words:
        assert word in text, (word, text)
    return text


def test_images_and_labels_of_one_name_are_a_record(root):
    source = read(root)
    assert len(source) == 3 and source.class_names == NAMES and source.palette == ()
    for index in range(3):
        record = source[index]
        np.testing.assert_array_equal(record["label"], label(index))
        assert record["label"].dtype == np.uint8 and record["image"].size == SIZE[::-1]
        assert source.image_size(index) == SIZE
    assert source.record_name(2).endswith("images/train/inner/c.jpg")
    assert pickle.loads(pickle.dumps(source))[1]["label"].shape == SIZE
    np.testing.assert_array_equal(read(root, in_memory=True)[2]["label"], label(2))


def test_training_and_evaluation_read_a_folder(root):
    data = TrainData(read(root), train_transform(8, scale=(16, 8)), batch_size=2, num_threads=0)
    batches = data.batches(0, range(2))
    batch = next(batches)
    assert batch["image"].shape == (2, 8, 8, 3) and batch["label"].shape == (2, 8, 8)
    data = EvalData(read(root), lambda record: {**record, "image": np.asarray(record["image"])}, batch_size=3)
    assert next(data.batches(3, range(3)))["label"].shape == (3, *SIZE)


@pytest.mark.parametrize("images, labels", [("training", "annotations"), ("train", "annotations")])
def test_the_layout_of_ade20k_is_found(root, images, labels):
    os.rename(root / "images/train", root / "images" / images)
    os.makedirs(root / labels)
    os.rename(root / "labels/train", root / labels / images)
    assert len(read(root)) == 3


def test_json_files_in_annotations_are_no_labels(root):
    (root / "annotations").mkdir()
    (root / "annotations/train.json").write_text("{}")
    assert len(read(root)) == 3


def test_zero_may_stand_for_everything_else(root):
    (root / "classes.txt").write_text("sea\nsand")
    source = read(root, reduce_zero_label=True)
    expected = label(0).astype(int) - 1
    np.testing.assert_array_equal(source[0]["label"], np.where(expected < 0, IGNORED, expected))
    save(root, "b.png", np.full(SIZE, IGNORED, np.uint8))
    assert (read(root, reduce_zero_label=True)[1]["label"] == IGNORED).all()
    # The message has the number that is in the file.
    save(root, "a.png", np.full(SIZE, 3, np.uint8))
    refused(root, "a.png: it has the label 3, and there are 2 classes, 1 to 2", reduce_zero_label=True)


def test_labels_that_do_not_fit_are_refused_before_training(root):
    save(root, "a.png", label(0, (6, 8)))
    save(root, "b.png", np.full(SIZE, 17, np.uint8))
    Image.fromarray(label(2)).convert("RGB").save(root / "labels/train/inner/c.png")
    text = refused(root, "3 of 3 labels", "a.png: it is 8 x 6 pixels, its image 9 x 6")
    assert "b.png: it has the label 17, and there are 3 classes, 0 to 2" in text
    assert "c.png: it is in color (RGB)" in text
    source = read(root, check=False)
    for index, words in enumerate(("8 x 6 pixels", "label 17", "in color")):
        with pytest.raises(UnreadableError, match=words):
            source[index]


@pytest.mark.parametrize(
    "mode, words",
    [
        ("RGBA", "in color (RGBA)"),
        ("LA", "(LA)"),
        ("CMYK", "(CMYK)"),
        ("jpeg", "JPEG"),
        ("I;16", "300"),
        ("F", "float32"),
    ],
)
def test_labels_of_other_kinds_are_refused(root, mode, words):
    os.remove(root / "labels/train/a.png")
    if mode == "jpeg":
        Image.fromarray(label()).save(root / "labels/train/a.jpg")
    elif mode == "I;16":
        Image.fromarray(np.full(SIZE, 300, np.uint16)).save(root / "labels/train/a.png")
    else:
        suffix = "tif" if mode in ("CMYK", "F") else "png"
        Image.fromarray(label()).convert("RGB").convert(mode).save(root / f"labels/train/a.{suffix}")
    refused(root, "1 of 3", words)


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_gray_labels_of_any_bits_keep_their_numbers(root, bits):
    classes = min(2**bits, 3)
    wanted = label(0, classes=classes)
    gray = Image.fromarray(wanted.astype({1: bool, 16: np.uint16}.get(bits, np.uint8)))
    if bits in (2, 4):
        _write_gray(root / "labels/train/a.png", wanted, bits)
    else:
        gray.save(root / "labels/train/a.png")
    np.testing.assert_array_equal(read(root)[0]["label"], wanted)


def _write_gray(path, array, bits):
    """A gray PNG of few bits, which PIL does not write: that of a palette, called gray."""
    import io
    import struct
    import zlib

    file = io.BytesIO()
    paletted = Image.fromarray(array).convert("P")
    paletted.putpalette([0] * 768)
    paletted.putdata(array.ravel().tolist())
    paletted.save(file, "PNG", bits=bits)
    data, chunks, at = file.getvalue(), [], 8
    while at < len(data):
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        body = data[at + 8 : at + 8 + length]
        if kind == b"IHDR":
            assert body[8] == bits
            body = body[:9] + b"\0" + body[10:]
        if kind != b"PLTE":
            crc = struct.pack(">I", zlib.crc32(kind + body))
            chunks.append(struct.pack(">I", len(body)) + kind + body + crc)
        at += 12 + length
    path.write_bytes(data[:8] + b"".join(chunks))


@pytest.mark.parametrize("bits", [2, 8])
def test_indices_of_a_palette_are_the_labels_and_that_is_said_once(root, bits):
    paletted = Image.fromarray(label(0)).convert("P")
    paletted.putpalette([200, 0, 0, 0, 200, 0, 0, 0, 200, *[9] * 759])
    paletted.putdata(label(0).ravel().tolist())
    paletted.save(root / "labels/train/a.png", bits=bits)
    with pytest.warns(UserWarning, match="labels/train: 1 of 3 labels have a palette") as said:
        source = read(root)
    assert len(said) == 1
    np.testing.assert_array_equal(source[0]["label"], label(0))


def test_an_image_without_a_label_is_named_with_the_label_that_differs_in_case_or_at_its_end(root):
    os.rename(root / "labels/train/a.png", root / "labels/train/A.png")
    refused(root, "1 of 3 images have no label", "a.jpg (A.png differs in case,")
    os.rename(root / "labels/train/b.png", root / "labels/train/b_mask.png")
    os.remove(root / "labels/train/inner/c.png")
    text = refused(root, "3 of 3 images", "b.jpg (b_mask.png ends in '_mask')", "inner/c.jpg")
    assert "give label_suffix='_mask'" in text
    os.rename(root / "labels/train/b_mask.png", root / "labels/train/b.jpg.png")
    refused(root, "b.jpg (b.jpg.png ends in '.jpg')")
    os.rename(root / "labels/train/b.jpg.png", root / "labels/train/b2.png")  # another name
    assert "b2.png" not in refused(root, "b.jpg")


def test_letters_that_are_composed_in_two_ways_are_named(root):
    os.rename(root / "images/train/a.jpg", root / "images/train/caf\u00e9.jpg")
    os.rename(root / "labels/train/a.png", root / "labels/train/cafe\u0301.png")
    refused(root, "1 of 3 images have no label", "or in how letters are stored")


def test_ends_of_names_pair_files_and_leave_others_out(root):
    for part, ending in (("images", "_leftImg8bit.jpg"), ("labels", "_labelIds.png")):
        for path in sorted((root / part).rglob("*.*")):
            path.rename(path.with_name(path.stem + ending))
    image().save(root / "labels/train/a_color.png")
    source = read(root, image_suffix="_leftImg8bit", label_suffix="_labelIds")
    np.testing.assert_array_equal(source[2]["label"], label(2))
    refused(root, "no image that ends in '_x'", image_suffix="_x")


def test_a_label_without_an_image_is_said_and_two_files_of_one_name_are_refused(root):
    save(root, "z.png", label())
    with pytest.warns(UserWarning, match="labels/train: there is no image for z.png"):
        read(root)
    os.remove(root / "labels/train/z.png")
    image().save(root / "images/train/b.png")
    refused(root, "two images have one name: b.jpg and b.png")


def test_what_is_missing_is_said(root, tmp_path):
    refused(root, "has no split 'trian'; it has train; did you mean 'train'?", split="trian")
    os.rename(root / "classes.txt", root / "names.txt")
    refused(root, "has no class list", "classes.txt")
    assert read(root, class_names=str(root / "names.txt")).class_names == NAMES
    (root / "classes.txt").write_text("\n".join(f"class {i}" for i in range(256)))
    refused(root, "256 names")
    (root / "classes.txt").write_text("sky\nsea\nsky")
    refused(root, "'sky' twice")
    (root / "classes.txt").write_text("\n".join(NAMES))
    os.rename(root / "labels", root / "masks")
    refused(root, "has no labels")
    os.rename(root / "images", root / "pictures")
    refused(root, "there is no folder")
    with pytest.raises(UserError, match="needs its path"):
        label_folder(None, "train")
    with pytest.raises(UserError, match="^there is no folder .*typo: give --config.data_dir=DIR"):
        label_folder(str(tmp_path / "typo"), "train")


def test_damage_is_for_training_to_replace_and_is_said(root):
    data = (root / "labels/train/a.png").read_bytes()
    (root / "labels/train/a.png").write_bytes(data[: len(data) // 2])
    (root / "images/train/b.jpg").write_bytes(b"no picture")
    with pytest.warns(UserWarning, match="2 of 3 records in .* cannot be read"):
        source = read(root)
    transform = train_transform(4, scale=None)
    batches = TrainData(source, transform, batch_size=3, num_threads=0).batches(0, range(3))
    assert sorted(next(batches)["bad"].tolist()) == [0, 1, 1]
    with pytest.raises(UserError, match="its label .*a.png"):
        next(EvalData(source, lambda record: record, batch_size=1, num_threads=0).batches(1, range(1)))


@pytest.mark.parametrize("reduce, values, listed", [(False, (255,), "255, the classes are 0 to 2"),
                                                    (True, (0, 255), "0 and 255, the classes are 1 to 3")])  # fmt: skip
def test_labels_without_a_pixel_of_any_class_are_refused_before_training(root, reduce, values, listed, capsys):
    flags = ["--reduce_zero_label"] * reduce
    for name, value in zip(("a", "b", "inner/c"), values * 3):
        save(root, f"{name}.png", np.full(SIZE, value, np.uint8))
    with pytest.raises(UserError, match=f"train: no pixel of the 3 labels belongs to a class: .*are {listed}"):
        read(root, reduce_zero_label=reduce)
    assert scan.run([f"--folder={root}", "--split=train", *flags]) == 1
    assert f"numbers are {listed}" in capsys.readouterr().out


def test_a_class_without_a_pixel_is_said_with_a_hint_for_masks_of_255(root):
    for name in ("a", "b", "inner/c"):
        save(root, f"{name}.png", np.where(label() > 0, 255, 0).astype(np.uint8))
    with pytest.warns(UserWarning, match="has no pixel of 2 of the classes: sea, sand; 255 stands for no class"):
        read(root)


def test_a_label_that_leads_nowhere_is_refused_and_labels_may_share_a_file(root):
    save(root, "empty.png", np.zeros(SIZE, np.uint8))
    for name in ("a.png", "b.png"):
        os.remove(root / "labels/train" / name)
        (root / "labels/train" / name).symlink_to("empty.png")
    with pytest.warns(UserWarning, match="there is no image for empty.png"):
        source = read(root)
    assert len(source) == 3 and not source[0]["label"].any() and not source[1]["label"].any()
    os.remove(root / "labels/train/empty.png")
    refused(root, "2 of 3 labels", "a.png: it is a link that leads nowhere")


def test_a_check_looks_at_new_and_changed_files_only_and_no_report_is_needed(root, monkeypatch, tmp_path):
    looked, check = [], checking.check_file

    def watched(source, index, decode):
        looked.append(os.path.basename(source.label_path(index)))
        return check(source, index, decode)

    monkeypatch.setattr(checking, "check_file", watched)
    read(root)
    assert sorted(looked) == ["a.png", "b.png", "c.png"]
    read(root)
    assert len(looked) == 3
    save(root, "b.png", label(7))
    image(9).save(root / "images/train/a.jpg", quality=50)
    looked.clear()
    read(root)
    assert sorted(looked) == ["a.png", "b.png"]
    looked.clear()
    (root / "classes.txt").write_text("\n".join((*NAMES, "surf")))
    with pytest.warns(UserWarning, match="no pixel of 1 of the classes: surf"):
        read(root)
    assert len(looked) == 3
    monkeypatch.setattr(checking, "FEW", 4)  # looked at each time
    looked.clear()
    with pytest.warns(UserWarning):
        read(root)
    assert len(looked) == 3
    monkeypatch.setattr(checking, "FEW", 3)
    (tmp_path / "file").touch()
    monkeypatch.setenv("SWIN_JAX_CACHE", str(tmp_path / "file"))
    looked.clear()
    with pytest.warns(UserWarning):
        read(root)
    assert len(looked) == 3


def test_a_process_that_checks_the_same_folder_is_waited_for(root, capsys):
    place = str(root / "labels/train")
    with ThreadPoolExecutor(1) as pool:
        with checking.report_of(read(root, check=False), place):
            other = pool.submit(read, root)
            said, end = "", time.monotonic() + 60
            while not said and time.monotonic() < end:
                time.sleep(0.01)
                said = capsys.readouterr().err
            assert f"waiting for another process that looks at {place}" in said and not other.done()
        assert len(other.result(timeout=60)) == 3


def test_a_damaged_report_of_a_check_is_named(root, tmp_path):
    read(root)
    (report,) = (tmp_path / "cache/scans").glob("*.jsonl")
    assert json.loads(report.read_text().splitlines()[0])["values"] == [0, 1, 2]
    report.write_text("something else\n")
    refused(root, str(report), "remove them")


def test_a_file_of_colors_is_read_and_must_have_one_for_each_class(root):
    (root / "palette.txt").write_text("1 2 3 sky\n\n#0a0B0c\n(7, 8, 9)\n")
    assert read(root).palette == ((1, 2, 3), (10, 11, 12), (7, 8, 9))
    (root / "palette.txt").write_text("1 2 3\n")
    refused(root, "has 1 color, and there are 3 classes")
    (root / "palette.txt").write_text("1 2 3\n1 2 300\n0 0 0\n")
    refused(root, "palette.txt:2: write a color", "'1 2 300'")
    (root / "colors").write_text("0,0,0\n1,1,1\n2,2,2")
    assert read(root, palette=str(root / "colors")).palette[2] == (2, 2, 2)


def test_made_colors_differ_from_each_other_black_and_white():
    colors = np.array(palettes.distinct(255))
    assert palettes.distinct(20) == tuple(map(tuple, colors[:20].tolist()))
    for count, least in ((12, 70), (150, 36), (255, 36)):
        some = np.concatenate([colors[:count], [[0, 0, 0], [255, 255, 255]]]).astype(float)
        apart = np.abs(some[:, None] - some[None]).max(axis=-1) + 999 * np.eye(len(some))
        assert apart.min() >= least, count
    with pytest.raises(UserError, match="at most 255"):
        palettes.distinct(256)


def test_a_good_folder_says_nothing(root):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read(root)
