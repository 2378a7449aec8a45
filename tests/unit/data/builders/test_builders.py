"""Builders, end to end on tiny made-up tars, folders and idx files."""

import argparse
import errno
import gzip
import hashlib
import io
import os
import resource
import subprocess
import sys
import tarfile

import numpy as np
import pytest
from PIL import Image

from swin_jax.core.errors import UserError
from swin_jax.data import sources
from swin_jax.data.builders import fashion_mnist, imagenet22k, imagenet2012, synsets, write

SYNSETS = ("n00000003", "n00000001", "n00000002")  # not sorted, as in the official tars
PER_CLASS = 3


def jpeg(number):
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(number).integers(0, 256, (12, 10, 3)).astype(np.uint8)).save(file, "JPEG")
    return file.getvalue()


def tar_bytes(files, mode="w"):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def train_files(synset):
    first = 10 * int(synset[1:])
    return {f"{synset}_{i}.JPEG": jpeg(first + i) for i in range(PER_CLASS)}


def write_train_tar(path):
    path.write_bytes(tar_bytes({f"{synset}.tar": tar_bytes(train_files(synset)) for synset in SYNSETS}))


def write_train_folders(path, as_tars=False):
    path.mkdir()
    for synset in SYNSETS:
        if as_tars:
            (path / f"{synset}.tar").write_bytes(tar_bytes(train_files(synset)))
            continue
        (path / synset).mkdir()
        for name, data in train_files(synset).items():
            (path / synset / name).write_bytes(data)


def validation_files():
    return {f"ILSVRC2012_val_{number:08d}.JPEG": jpeg(1000 + number) for number in (2, 1, 3, 4)}


VALIDATION_LABELS = [2, 0, 1, 2]  # of the images 1 to 4, in sorted synset order


def devkit():
    """ILSVRC ids count synsets in SYNSETS' order; inner nodes of the tree follow the leaves."""
    import scipy.io

    rows = [(i + 1, synset, f"words, of {synset}") for i, synset in enumerate((*SYNSETS, "n00000009"))]
    table = np.array(rows, dtype=[("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O")])
    meta = io.BytesIO()
    scipy.io.savemat(meta, {"synsets": table[:, None]})
    order = [SYNSETS.index(sorted(SYNSETS)[label]) + 1 for label in VALIDATION_LABELS]
    truth = "".join(f"{number}\n" for number in order).encode()
    return {"meta.mat": meta.getvalue(), "ILSVRC2012_validation_ground_truth.txt": truth}


def official_source(root):
    write_train_tar(root / "ILSVRC2012_img_train.tar")
    (root / "ILSVRC2012_img_val.tar").write_bytes(tar_bytes(validation_files()))
    files = {f"ILSVRC2012_devkit_t12/data/{name}": data for name, data in devkit().items()}
    (root / "ILSVRC2012_devkit_t12.tar.gz").write_bytes(tar_bytes(files, "w:gz"))
    return root


def folder_source(root):
    write_train_folders(root / "train")
    (root / "val").mkdir()
    for name, data in validation_files().items():
        label = VALIDATION_LABELS[int(name[-9:-5]) - 1]
        folder = root / "val" / sorted(SYNSETS)[label]
        folder.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)
    return root


def unpacked_source(root):
    write_train_folders(root / "train", as_tars=True)
    for folder, files in (("val", validation_files()), ("ILSVRC2012_devkit_t12/data", devkit())):
        (root / folder).mkdir(parents=True)
        for name, data in files.items():
            (root / folder / name).write_bytes(data)
    return root


def raw(source):
    """(label, file name, encoded image) of every record, sorted."""
    records = [source._records[index] for index in range(len(source))]
    return sorted((record["label"], record["file_name"].decode(), record["image"]) for record in records)


@pytest.mark.parametrize("layout", [official_source, folder_source, unpacked_source])
def test_imagenet2012_from_every_layout(tmp_path, layout):
    (tmp_path / "source").mkdir()
    imagenet2012.build(str(tmp_path / "data"), str(layout(tmp_path / "source")))
    train = sources.tfds("imagenet2012", "train", str(tmp_path / "data"))
    assert train.class_names == tuple(sorted(SYNSETS))
    expected = [
        (label, name, data)
        for label, synset in enumerate(sorted(SYNSETS))
        for name, data in train_files(synset).items()
    ]
    assert raw(train) == sorted(expected)
    validation = sources.tfds("imagenet2012", "validation", str(tmp_path / "data"))
    files = validation_files()
    expected = [(VALIDATION_LABELS[int(name[-9:-5]) - 1], name, data) for name, data in files.items()]
    assert raw(validation) == sorted(expected)
    assert validation[0]["image"].size == (10, 12)


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("ILSVRC2012_img_train.tar", "lacks the training images: ILSVRC2012_img_train.tar or train"),
        ("ILSVRC2012_img_val.tar", "lacks the validation images: ILSVRC2012_img_val.tar or val"),
        ("ILSVRC2012_devkit_t12.tar.gz", "lacks ILSVRC2012_devkit_t12.tar.gz"),
    ],
)
def test_imagenet2012_names_the_missing_file(tmp_path, missing, message):
    (official_source(tmp_path) / missing).unlink()
    with pytest.raises(UserError, match=message):
        imagenet2012.build(str(tmp_path / "data"), str(tmp_path))


def test_imagenet2012_refuses_validation_images_without_a_label(tmp_path):
    official_source(tmp_path)
    (tmp_path / "ILSVRC2012_img_val.tar").write_bytes(tar_bytes({"ILSVRC2012_val_00000005.JPEG": jpeg(5)}))
    with pytest.raises(UserError, match="ILSVRC2012_val_00000005.JPEG is not one of the 4 validation images"):
        imagenet2012.build(str(tmp_path / "data"), str(tmp_path))
    with pytest.raises(UserError, match="no data set imagenet2012"):
        sources.tfds("imagenet2012", "train", str(tmp_path / "data"))


@pytest.mark.parametrize("layout", ["tar", "tars", "folders"])
def test_imagenet22k_keeps_unreadable_files(tmp_path, layout, monkeypatch):
    files = {**train_files(SYNSETS[0]), "broken.JPEG": b"not an image"}
    monkeypatch.setitem(globals(), "train_files", lambda synset: files if synset == SYNSETS[0] else {"x.JPEG": jpeg(1)})
    path = tmp_path / "source"
    write_train_tar(path) if layout == "tar" else write_train_folders(path, as_tars=layout == "tars")
    imagenet22k.build(str(tmp_path), str(path))
    source = sources.tfds("imagenet22k", "train", str(tmp_path))
    assert source.class_names == tuple(sorted(SYNSETS))
    assert (2, "broken.JPEG", b"not an image") in raw(source) and len(source) == 2 + PER_CLASS + 1


def test_damaged_tars_are_named(tmp_path):
    path = tmp_path / "train.tar"
    write_train_tar(path)
    path.write_bytes(path.read_bytes()[:30000])
    with pytest.raises(UserError, match="train.tar"):
        imagenet22k.build(str(tmp_path), str(path))
    path.write_bytes(b"no tar at all")
    with pytest.raises(UserError, match="train.tar"):
        imagenet22k.build(str(tmp_path), str(path))
    with pytest.raises(UserError, match="there is no"):
        imagenet22k.build(str(tmp_path), str(tmp_path / "missing"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no synsets"):
        synsets.open_synsets(tmp_path / "empty")


def idx(array):
    header = np.array([0x800 + array.ndim, *array.shape], ">u4").tobytes()
    return gzip.compress(header + array.tobytes())


def fashion_files(train=7, test=4):
    rng = np.random.default_rng(0)
    files = {}
    for prefix, length in (("train", train), ("t10k", test)):
        files[f"{prefix}-images-idx3-ubyte.gz"] = idx(rng.integers(0, 256, (length, 28, 28)).astype(np.uint8))
        files[f"{prefix}-labels-idx1-ubyte.gz"] = idx((np.arange(length) % 10).astype(np.uint8))
    return files


def write_files(folder, files):
    folder.mkdir(exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return str(folder)


def test_fashion_mnist_from_a_folder(tmp_path):
    folder = write_files(tmp_path / "idx", fashion_files())
    fashion_mnist.build(str(tmp_path), folder)
    images = fashion_mnist.read_idx(tmp_path / "idx" / "train-images-idx3-ubyte.gz", 3)
    train, test = (sources.tfds("fashion_mnist", split, str(tmp_path)) for split in ("train", "test"))
    assert (len(train), len(test)) == (7, 4) and train.class_names == fashion_mnist.CLASS_NAMES
    for index in range(7):
        np.testing.assert_array_equal(np.asarray(train[index]["image"]), images[index])
        assert train[index]["label"] == index


def test_fashion_mnist_download_checks_md5(tmp_path, monkeypatch):
    files = fashion_files()
    write_files(tmp_path / "server", files)
    monkeypatch.setattr(fashion_mnist, "URL", f"{(tmp_path / 'server').as_uri()}/")
    with pytest.raises(UserError, match="md5"):
        fashion_mnist.build(str(tmp_path), download=True)
    monkeypatch.setattr(fashion_mnist, "MD5", {name: hashlib.md5(data).hexdigest() for name, data in files.items()})
    fashion_mnist.build(str(tmp_path), download=True)
    assert len(sources.tfds("fashion_mnist", "test", str(tmp_path))) == 4
    monkeypatch.setattr(fashion_mnist, "URL", f"{(tmp_path / 'nowhere').as_uri()}/")
    fashion_mnist.build(str(tmp_path), download=True, overwrite=True)  # the files are there already
    (tmp_path / "downloads" / "fashion_mnist" / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(UserError, match="cannot fetch"):
        fashion_mnist.build(str(tmp_path), download=True, overwrite=True)


def test_fashion_mnist_errors(tmp_path):
    with pytest.raises(UserError, match="apt install dataset-fashion-mnist"):
        fashion_mnist.build(str(tmp_path), str(tmp_path / "missing"))
    files = fashion_files()
    name = "t10k-images-idx3-ubyte.gz"
    for data in (files[name][:100], b"", gzip.compress(b"abc"), gzip.compress(gzip.decompress(files[name])[:-1])):
        folder = write_files(tmp_path / "idx", {**files, name: data})
        with pytest.raises(UserError, match=name):
            fashion_mnist.build(str(tmp_path), folder)
    folder = write_files(tmp_path / "idx", {**files, name: fashion_files(test=5)[name]})
    with pytest.raises(UserError, match="5 test images but 4 labels"):
        fashion_mnist.build(str(tmp_path), folder)


def test_an_existing_set_is_replaced_only_when_asked(tmp_path):
    folder = write_files(tmp_path / "idx", fashion_files())
    fashion_mnist.build(str(tmp_path), folder)
    write_files(tmp_path / "idx", fashion_files(train=5))
    with pytest.raises(UserError, match="--overwrite"):
        fashion_mnist.build(str(tmp_path), folder)
    assert len(sources.tfds("fashion_mnist", "train", str(tmp_path))) == 7
    fashion_mnist.build(str(tmp_path), folder, overwrite=True)
    assert len(sources.tfds("fashion_mnist", "train", str(tmp_path))) == 5


def test_shards_are_cut_by_size_and_a_failed_build_leaves_nothing(tmp_path, capsys):
    import tensorflow_datasets as tfds

    features = {"image": tfds.features.Image(), "label": tfds.features.ClassLabel(num_classes=20)}

    def examples(length, fails=False):
        for number in range(length):
            yield {"image": jpeg(number), "label": number}
        if fails:
            raise UserError("the source ended")

    splits = {"train": write.Split(examples(20), 21)}
    path = write.write(str(tmp_path), "toy", "1.0.0", features, splits, shard_bytes=2000)
    assert len(list(path.glob("toy-train.array_record-*"))) > 3
    assert "train has 20 examples, the full set has 21" in capsys.readouterr().err
    source = sources.tfds("toy", "train", str(tmp_path))
    assert [source[index]["label"] for index in range(20)] == list(range(20))
    splits = {"train": write.Split(examples(20, fails=True))}
    with pytest.raises(UserError, match="the source ended"):
        write.write(str(tmp_path), "toy", "2.0.0", features, splits, shard_bytes=2000)
    assert len(sources.tfds("toy", "train", str(tmp_path))) == 20
    with pytest.raises(UserError, match="'train' has no examples"):
        write.write(str(tmp_path), "toy", "2.0.0", features, {"train": write.Split([])})


def test_a_full_disk_is_one_line(tmp_path, capsys, monkeypatch):
    """Met by the writer of shards, which raises errors of its own, and by any other file."""
    import tensorflow_datasets as tfds

    def build(_):
        splits = {"train": write.Split({"image": jpeg(number)} for number in range(20))}
        return write.write(str(tmp_path), "toy", "1.0.0", {"image": tfds.features.Image()}, splits)

    def licenses(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), f"{tmp_path}/toy/LICENSES.md")

    def broken(_):
        raise FileNotFoundError(errno.ENOENT, "a mistake of ours")

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    monkeypatch.setattr(sys, "argv", ["build"])
    for made, name in ((build, "1.0.0.incomplete"), (licenses, "LICENSES.md")):
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
        try:
            with pytest.raises(SystemExit) as end:
                write.run(made, argparse.ArgumentParser())
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        (line,) = (line for line in capsys.readouterr().err.splitlines() if "error" in line.lower())
        assert end.value.code == 1 and line.startswith("error: ") and name in line and "cannot be written" in line
        assert "run the command again" in line
    with pytest.raises(FileNotFoundError):
        write.run(broken, argparse.ArgumentParser())


def test_command_line(tmp_path):
    folder = write_files(tmp_path / "idx", fashion_files())
    command = [
        sys.executable,
        "-m",
        "swin_jax.data.builders.fashion_mnist",
        "--data_dir",
        str(tmp_path),
        "--source",
        folder,
    ]
    first, second = (subprocess.run(command, capture_output=True, text=True) for _ in range(2))
    assert first.returncode == 0 and f"wrote {tmp_path}/fashion_mnist/1.0.0" in first.stdout and "train" in first.stderr
    assert second.returncode == 1 and second.stderr.startswith("error: ") and second.stderr.count("\n") == 1
    check = "import sys, swin_jax.data.sources as s; s.tfds('fashion_mnist', 'train', sys.argv[1])[0]; "
    check += "assert 'tensorflow' not in sys.modules and 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", check, str(tmp_path)], check=True)
