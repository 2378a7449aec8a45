"""Images and label maps from TFDS data sets."""

import io
import pickle

import numpy as np
import pytest
from PIL import Image

from swin_jax.core.errors import UnreadableError, UserError
from swin_jax.data.builders import write
from swin_jax.data.segmentation.tfds import tfds

NAMES = ["sky", "sea", "sand"]
SIZE = (6, 9)


def png(array):
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()


def label(index):
    return np.random.default_rng(index).integers(0, 3, SIZE).astype(np.uint8)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    import tensorflow_datasets as tfds_lib

    folder = tmp_path_factory.mktemp("tfds")

    def examples():
        for index in range(4):
            image = np.random.default_rng(index).integers(0, 256, (*SIZE, 3)).astype(np.uint8)
            labels = np.full(SIZE, 7, np.uint8) if index == 3 else label(index)
            mask = labels[:, :5] if index == 2 else labels
            yield {
                "image": png(image),
                "segmentation_mask": png(mask),
                "plain": png(labels),
                "array": labels[..., None],
            }

    features = {
        "image": tfds_lib.features.Image(encoding_format="png"),
        "segmentation_mask": tfds_lib.features.LabeledImage(labels=NAMES, encoding_format="png"),
        "plain": tfds_lib.features.Image(shape=(None, None, 1), encoding_format="png"),
        "array": tfds_lib.features.Tensor(shape=(*SIZE, 1), dtype=np.uint8),
    }
    write.write(str(folder), "toy", "1.0.0", features, {"train": write.Split(examples(), 4)})
    return str(folder)


def test_records_have_labels_and_the_names_of_the_feature(data_dir):
    source = tfds("toy", "train", data_dir)
    assert source.class_names == tuple(NAMES) and len(source) == 4
    np.testing.assert_array_equal(source[1]["label"], label(1))
    assert source[1]["label"].dtype == np.uint8 and source[1]["image"].size == SIZE[::-1]
    assert source.image_size(1) == SIZE and "toy train record 1" in source.record_name(1)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(source))[0]["label"], label(0))
    np.testing.assert_array_equal(tfds("toy", "train", data_dir, in_memory=True)[0]["label"], label(0))


@pytest.mark.parametrize("key", ["plain", "array"])
def test_other_features_need_a_class_list(data_dir, tmp_path, key):
    with pytest.raises(UserError, match=f"the feature '{key}' of toy has no class names"):
        tfds("toy", "train", data_dir, label_key=key)
    (tmp_path / "names.txt").write_text("\n".join(NAMES))
    source = tfds("toy", "train", data_dir, label_key=key, class_names=str(tmp_path / "names.txt"))
    np.testing.assert_array_equal(source[1]["label"], label(1))


def test_zero_may_stand_for_everything_else(data_dir):
    source = tfds("toy", "train", data_dir, reduce_zero_label=True)
    assert source.class_names == ("sea", "sand")
    expected = label(0).astype(int) - 1
    np.testing.assert_array_equal(source[0]["label"], np.where(expected < 0, 255, expected))


def test_labels_that_do_not_fit_are_unreadable(data_dir):
    source = tfds("toy", "train", data_dir)
    with pytest.raises(UnreadableError, match="its label: it is 5 x 6 pixels, its image 9 x 6"):
        source[2]
    with pytest.raises(UnreadableError, match="the label 7, and there are 3 classes"):
        source[3]
    with pytest.raises(UserError, match="no feature 'mask'"):
        tfds("toy", "train", data_dir, label_key="mask")
