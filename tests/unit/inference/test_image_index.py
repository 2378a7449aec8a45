"""The index of a folder: what is saved is found again, only what changed is read, other weights are refused."""

import dataclasses
import io
import os
import struct
import zipfile

import jax
import numpy as np
import pytest
from PIL import Image

from swin_jax.core.errors import UserError
from swin_jax.data import sources
from swin_jax.data.pipeline import EvalData
from swin_jax.inference import image_index, similarity
from swin_jax.models.clip import make_clip
from swin_jax.pretrained.preprocess import preprocess

TINY = dict(embed_dim=6, image_size=16, context_length=8, text_width=8, text_heads=2, text_layers=1, vision_layers=1,
            vision_width=8, vision_heads=2, patch_size=8)  # fmt: skip


def write(path, value):
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(np.full((6, 6, 3), value, np.uint8)).save(path)


@pytest.fixture
def folder(tmp_path):
    """Seven pictures of one color, 10, 20, ..., the last in a sub-folder, and one that is none."""
    root = tmp_path / "pictures"
    root.mkdir()
    for i in range(6):
        write(root / f"{i}.png", 10 * (i + 1))
    write(root / "sub" / "6.png", 70)
    (root / "broken.png").write_bytes(b"no picture")
    return root


def transform(example):
    return {"image": np.asarray(example["image"])[:1, :1], "label": example["label"]}


def data_of(folder):
    return EvalData(sources.flat_folder(str(folder)), transform, batch_size=3)


@dataclasses.dataclass
class Counting:
    """An encoder of (value, 1), which counts the batches and records that it read."""

    stop_after: int = 99
    batches: int = 0
    records: int = 0

    def __call__(self, data):
        for batch in data.batches(3, range(3)):
            if self.batches == self.stop_after:
                raise KeyboardInterrupt
            real = batch["weight"] > 0
            self.batches, self.records = self.batches + 1, self.records + int(real.sum())
            value = batch["image"][real][:, 0, 0, 0].astype(np.float32)
            yield batch["label"][real], np.stack([value, np.ones_like(value)], -1)


def build(folder, encode=None, checksum="a", preparation="p", **arguments):
    encode = encode or Counting()
    return image_index.build(data_of(folder), encode, "m", checksum, preparation, False, progress=False, **arguments)


def test_pictures_are_indexed_and_unreadable_ones_named(folder):
    found, unreadable = build(folder)
    assert found.names == ("0.png", "1.png", "2.png", "3.png", "4.png", "5.png", os.path.join("sub", "6.png"))
    np.testing.assert_array_equal(found.features, [[10.0 * (i + 1), 1] for i in range(7)])
    assert found.complete and found.root == str(folder)
    assert len(unreadable) == 1 and "broken.png (UnreadableError: it is not a picture" in unreadable[0]


def test_an_index_is_saved_and_loaded(folder, tmp_path):
    found, _ = build(folder, path=tmp_path / "i.npz")
    again = image_index.load(tmp_path / "i.npz")
    for field in dataclasses.fields(image_index.Index):
        np.testing.assert_array_equal(getattr(again, field.name), getattr(found, field.name), err_msg=field.name)
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["i.npz"]


def test_names_may_be_of_any_characters(folder, tmp_path):
    write(folder / "Ünï $x$ 水.png", 5)
    build(folder, path=tmp_path / "i.npz")
    assert "Ünï $x$ 水.png" in image_index.load(tmp_path / "i.npz").names


def test_only_new_and_changed_files_are_read(folder):
    before, _ = build(folder)
    write(folder / "new.png", 200)
    write(folder / "2.png", 250)
    os.utime(folder / "2.png", ns=(1, 1))
    (folder / "4.png").unlink()
    encode = Counting()
    found, unreadable = build(folder, encode, previous=before)
    assert encode.records == 3 and len(unreadable) == 1  # the broken one is tried again
    fresh, _ = build(folder)
    assert found.names == fresh.names
    np.testing.assert_array_equal(found.features, fresh.features)
    np.testing.assert_array_equal(found.stamps, fresh.stamps)


@pytest.mark.parametrize("change", [dict(checksum="b"), dict(preparation="q"), dict(preparation="")])
def test_nothing_is_taken_from_an_index_made_otherwise(folder, change):
    before, _ = build(folder, preparation=change.get("preparation", "p") and "p")
    encode = Counting()
    build(folder, encode, previous=before, **change)
    assert encode.records == 8


def test_an_interrupted_index_goes_on(folder, tmp_path):
    path = tmp_path / "i.npz"
    with pytest.raises(KeyboardInterrupt):
        build(folder, Counting(stop_after=1), path=path)
    part = image_index.load(path)
    assert len(part) == 3 and not part.complete
    encode = Counting()
    found, _ = build(folder, encode, previous=part, path=path)
    assert encode.records == 5 and found.complete
    np.testing.assert_array_equal(image_index.load(path).features, build(folder)[0].features)


def test_an_index_of_other_pictures_is_kept(folder, tmp_path):
    """It was replaced without a word, by that of another folder or of a single picture."""
    path, other = tmp_path / "i.npz", tmp_path / "other"
    build(folder, path=path)
    write(other / "0.png", 5)
    with pytest.warns(UserWarning, match=f"the index of 7 images in {folder} is kept as {tmp_path}/i.1.npz"):
        build(other, previous=image_index.load(path), path=path)
    assert (len(image_index.load(path)), len(image_index.load(tmp_path / "i.1.npz"))) == (1, 7)
    os.replace(tmp_path / "i.1.npz", path)
    with pytest.warns(UserWarning, match="is kept as"):
        build(folder / "3.png", previous=image_index.load(path), path=path)
    assert image_index.load(path).names == ("3.png",) and len(image_index.load(tmp_path / "i.1.npz")) == 7


def test_an_index_that_grows_or_loses_deleted_pictures_is_replaced(folder, tmp_path):
    build(folder, path=tmp_path / "i.npz")
    (folder / "0.png").unlink()
    for _ in range(2):
        build(folder, previous=image_index.load(tmp_path / "i.npz"), path=tmp_path / "i.npz")
        write(folder / "new.png", 5)
    assert len(image_index.load(tmp_path / "i.npz")) == 7 and not (tmp_path / "i.1.npz").exists()


def test_the_nearest_come_first_whether_normalized_or_not(folder):
    rng = np.random.default_rng(0)
    found, _ = build(folder)
    rows = rng.normal(size=(7, 4)).astype(np.float32)
    unit = rows / np.linalg.norm(rows, axis=-1, keepdims=True)
    raw, normalized = (dataclasses.replace(found, features=x, normalized=n) for x, n in ((rows, False), (unit, True)))
    query = rng.normal(size=4)
    cosines = unit @ query / np.linalg.norm(query)
    for one in (raw, normalized):
        hits = image_index.search(one, query, top=3)
        assert [name for name, _ in hits] == [str(folder / found.names[i]) for i in np.argsort(-cosines)[:3]]
        np.testing.assert_allclose([cosine for _, cosine in hits], np.sort(cosines)[::-1][:3], atol=1e-6)
    assert len(image_index.search(raw, query, top=99)) == 7
    with pytest.raises(UserError, match="features"):
        image_index.search(raw, query[:3])
    with pytest.raises(UserError, match="top=0"):
        image_index.search(raw, query, top=0)
    with pytest.raises(UserError, match="top=1.5"):
        image_index.search(raw, query, top=1.5)


def test_a_folder_without_readable_pictures_is_refused(tmp_path):
    with pytest.raises(UserError, match="no images"):
        data_of(tmp_path)
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match="none of the 1 images in .* can be read: .*a.png"):
        build(tmp_path)


MISFITS = {
    "names": [np.array(["a"]), np.array("abc"), np.array([["a", "b", "c"]]), np.arange(3)],
    "features": [np.ones(3, np.float32), np.eye(2, 3, dtype=np.float32), np.array([["a"] * 3] * 3)],
    "stamps": [np.zeros((1, 2), np.int64), np.zeros(3, np.int64)],
}


@pytest.mark.parametrize("name, array", [(name, array) for name, arrays in MISFITS.items() for array in arrays])
def test_arrays_that_do_not_fit_each_other_are_no_index(tmp_path, name, array):
    arrays = {"names": np.array(["a", "b", "c"]), "features": np.eye(3), "stamps": np.zeros((3, 2), np.int64)}
    facts = dict(format=1, root="r", normalized=True, complete=True, model="m", checksum="c", preparation="")
    np.savez(tmp_path / "i.npz", **facts, **arrays)
    assert len(image_index.load(tmp_path / "i.npz")) == 3
    np.savez(tmp_path / "i.npz", **facts, **(arrays | {name: array}))
    with pytest.raises(UserError, match="is not an index .its arrays do not fit each other"):
        image_index.load(tmp_path / "i.npz")


def test_what_is_no_index_is_refused(tmp_path):
    with pytest.raises(UserError, match="there is no index"):
        image_index.load(tmp_path / "i.npz")
    (tmp_path / "i.npz").write_bytes(b"PK no index")
    with pytest.raises(UserError, match="is not an index"):
        image_index.load(tmp_path / "i.npz")
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    with pytest.raises(UserError, match="is not an index"):
        image_index.load(tmp_path / "other.npz")
    np.save(tmp_path / "array.npy", np.zeros(3))
    with pytest.raises(UserError, match="is not an index"):
        image_index.load(tmp_path / "array.npy")
    np.savez(tmp_path / "old.npz", format=0)
    with pytest.raises(UserError, match=r"^\S+old.npz is an index of another version; rebuild it$"):
        image_index.load(tmp_path / "old.npz")


@pytest.mark.parametrize("value", [True, False])
def test_an_index_of_before_the_american_spelling_is_read(tmp_path, value):
    facts = dict(format=1, root="r", normalised=value, complete=True, model="m", checksum="c", preparation="")
    facts |= dict(names=np.array(["a"]), features=np.ones((1, 4), np.float32), stamps=np.zeros((1, 2), np.int64))
    np.savez(tmp_path / "i.npz", **facts)
    assert image_index.load(tmp_path / "i.npz").normalized is value


def test_sizes_are_held_against_the_file(tmp_path):
    fields = dict(format=1, root="r", normalized=True, complete=True, model="m", checksum="c", preparation="")
    fields |= dict(names=np.array(["a"]), features=np.ones((1, 4), np.float32), stamps=np.zeros((1, 2), np.int64))
    np.savez(tmp_path / "i.npz", **fields)
    assert len(image_index.load(tmp_path / "i.npz")) == 1
    for changes in (dict(preparation='{"a":' * 100_000), dict(format=np.array([1, 1]))):
        np.savez(tmp_path / "i.npz", **fields | changes)
        with pytest.raises(UserError, match="i.npz is not an index"):
            image_index.load(tmp_path / "i.npz")
    for shape in ((10**12,), (10**20, 4), (-1, 4), (30_000, 10_000)):
        with zipfile.ZipFile(tmp_path / "i.npz", "w", zipfile.ZIP_DEFLATED) as archive:
            for name, value in fields.items():
                data = io.BytesIO()
                np.save(data, value)
                if name == "features":
                    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
                    count = 10**8 if shape == (30_000, 10_000) else 16
                    data = io.BytesIO(
                        b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + bytes(count)
                    )
                archive.writestr(f"{name}.npy", data.getvalue())
        with pytest.raises(UserError, match="i.npz is not an index"):
            image_index.load(tmp_path / "i.npz")
    os.mkfifo(tmp_path / "pipe.npz")
    with pytest.raises(UserError, match="there is no index"):
        image_index.load(tmp_path / "pipe.npz")


def test_a_query_is_a_picture_or_a_text(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(folder))
    (folder / "LICENSE").write_text("no picture")
    assert image_index.picture_of("3.png") == "3.png"
    assert image_index.picture_of("~/3.png") == str(folder / "3.png")
    for text in ("a boat", "sub ", "LICENSE ", "~cat", "a" * 5000, "a\0b", ""):
        assert image_index.picture_of(text) is None
    for path, message in {
        "sub": "sub is a folder; give a text or one picture",
        "~": "~ is a folder",
        "LICENSE": "LICENSE is a file but not a picture that can be read; to search for the word",
        "broken.png": "not a picture that can be read",
        **{path: f"there is no picture {path}" for path in ("nope.gif", "NOPE.JPEG", "a.heic", "~/x", "./x", "/x/y")},
    }.items():
        with pytest.raises(UserError, match=message):
            image_index.picture_of(path)


def test_a_model_indexes_and_finds(folder, tmp_path, caplog):
    model = make_clip(**TINY)
    arguments = np.zeros((1, 16, 16, 3), np.float32), np.zeros((1, 8), np.int32)
    variables = jax.jit(model.init)(jax.random.key(0), *arguments)
    found = image_index.of_folder(model, variables, folder, tmp_path / "i.npz", batch_size=4, progress=False)
    assert "broken.png" in caplog.text
    paths = [folder / name for name in found.names]
    np.testing.assert_allclose(found.features, similarity.encode_images(model, variables, paths), atol=1e-6)
    assert found.normalized and "VisionTransformer" in found.model
    hits = image_index.find(found, model, variables, folder / "3.png", top=2)
    assert hits[0][0] == str(folder / "3.png") and abs(hits[0][1] - 1) < 1e-5
    assert image_index.find(found, model, variables, str(folder / "3.png"), top=2) == hits  # a path, not a text
    with pytest.raises(UserError, match="is a folder"):
        image_index.find(found, model, variables, str(folder))
    cosines = similarity.cosines(model, variables, paths, "a boat")[:, 0]
    assert image_index.find(found, model, variables, "a boat")[0][0] == str(paths[cosines.argmax()])
    with pytest.raises(UserError, match="text 0 is ''"):
        image_index.find(found, model, variables, "")
    squashed = preprocess(model, mode="squash", context_length=4)
    with pytest.raises(UserError, match="pictures that were prepared differently"):
        image_index.find(found, model, variables, folder / "3.png", preprocess=squashed)
    with pytest.warns(UserWarning, match="cut to 4 tokens"):
        image_index.find(found, model, variables, "a boat on a lake", preprocess=squashed)
    other = jax.tree.map(lambda x: x + 1, variables)
    with pytest.raises(UserError, match="the index is of other weights"):
        image_index.find(found, model, other, "a boat")
    again = image_index.of_folder(model, other, folder, tmp_path / "i.npz", batch_size=4, progress=False)
    assert abs(again.features - found.features).max() > 1e-3


def test_an_index_is_of_one_activation():
    """The same weights: features of the other activation were taken for those of this one."""
    variables = {"params": {"visual": {"a": np.ones(2)}}}

    def checksum(**changes):
        return image_index.model_checksum(make_clip(**TINY | changes), variables)

    same = checksum()
    assert checksum(act="gelu") != same != checksum(vision_heads=4)
    assert same == checksum(remat="full") == checksum(dtype="bfloat16") == checksum(text_heads=4)
    made = dict(root="r", names=("a",), features=np.ones((1, 2), np.float32), stamps=np.zeros((1, 2), int))
    index = image_index.Index(**made, normalized=True, model="m", checksum=same)
    image_index.check(index, checksum(remat="full"))
    with pytest.raises(UserError, match="was made with another activation"):
        image_index.check(index, checksum(act="gelu"))
    older = dataclasses.replace(index, checksum=same.partition("-")[0])
    with pytest.warns(UserWarning, match="does not tell with which activation it was made"):
        image_index.check(older, same)
