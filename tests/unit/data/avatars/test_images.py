"""Avatars as a source, and the transforms of those who learn from them."""

import numpy as np
import pytest

from swin_jax.core.errors import UserError
from swin_jax.data import pipeline
from swin_jax.data.avatars import attributes as avatars
from swin_jax.data.avatars import images
from swin_jax.data.avatars.captions import SUBJECTS, TEMPLATES
from swin_jax.data.image.small import small_eval_transform
from swin_jax.data.image_text.tokenizer import tokenize


@pytest.mark.parametrize(
    ("labels", "names", "marks"),
    [
        ("attributes", avatars.ATTRIBUTES, avatars.marks),
        ("identity", avatars.IDENTITY_CLASSES, avatars.identity_marks),
    ],
)
def test_labels(labels, names, marks):
    source = images.fake_faces(num_examples=12, labels=labels)
    assert source.class_names == names and source.multi_label and len(source) == 12
    for record, face in zip((source[i] for i in range(12)), source.faces):
        assert record.keys() == {"image", "label"}
        np.testing.assert_array_equal(record["label"], marks(face))
    with pytest.raises(UserError, match="attributes, identity"):
        images.fake_faces(labels="hats")


def test_batches_of_a_classifier():
    source = images.fake_faces(num_examples=10, image_size=8)
    data = pipeline.EvalData(source, small_eval_transform(8), batch_size=4, num_threads=0)
    batches = list(data.batches(4, range(4)))
    assert [batch["image"].shape for batch in batches] == [(4, 8, 8, 3)] * 3
    assert batches[0]["label"].dtype == np.int8 and batches[0]["label"].shape == (4, 8)
    np.testing.assert_array_equal(batches[1]["image"][0], source.images[4])


def test_pairs():
    source = images.fake_faces(num_examples=3, image_size=8, with_faces=True)
    transform = images.pair_train_transform(context_length=32, left_out=1.0)
    pair = transform(source[0], np.random.default_rng(0))
    assert pair.keys() == {"image", "text"} and pair["text"].dtype == np.int32
    sentences = tokenize([template.format(subject) for template in TEMPLATES for subject in SUBJECTS], 32)
    assert any((pair["text"] == tokens).all() for tokens in sentences)
    spoken = images.pair_train_transform(context_length=32, left_out=0.0)
    texts = [spoken(source[0], np.random.default_rng(seed))["text"] for seed in range(4)]
    assert len({text.tobytes() for text in texts}) > 1


def test_a_set_that_is_not_there_names_its_builder(tmp_path):
    with pytest.raises(UserError, match="swin_jax.data.builders.avatars --data_dir") as error:
        images.faces(str(tmp_path), "train")
    assert "--source" not in str(error.value)
