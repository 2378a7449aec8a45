"""Sources of a few records of each class: balanced, reproducible, nested, in order."""

import numpy as np
import pytest
from PIL import Image

from swin_jax.core.errors import UserError
from swin_jax.data import fake, sources, subsets


def labels(source):
    return [source[index]["label"] for index in range(len(source))]


def test_every_class_has_as_many_records_and_the_order_is_kept():
    source = fake.images(8, num_classes=3, num_examples=40)
    chosen = subsets.subset(source, per_class=5)
    assert sorted(labels(chosen)) == [0] * 5 + [1] * 5 + [2] * 5 and chosen.class_names == source.class_names
    assert list(chosen.indices) == sorted(set(chosen.indices)) and max(chosen.indices) < 40
    for position, index in enumerate(chosen.indices):
        np.testing.assert_array_equal(chosen[position]["image"], source[index]["image"])
        assert chosen.record_name(position) == source.record_name(index)


def test_the_seed_decides_and_more_records_contain_fewer():
    source = fake.images(8, num_classes=4, num_examples=200)
    few, many = subsets.subset(source, 5, seed=1), subsets.subset(source, 20, seed=1)
    assert few.indices == subsets.subset(source, 5, seed=1).indices != subsets.subset(source, 5, seed=2).indices
    assert set(few.indices) < set(many.indices)


@pytest.mark.parametrize("per_class, found", [(14, 13), (15, 14)])
def test_a_class_with_fewer_records_is_named(per_class, found):
    source = fake.images(8, num_classes=3, num_examples=40)  # 14, 13 and 13
    with pytest.raises(UserError, match=f"{per_class} records of each class.*has {found}"):
        subsets.subset(source, per_class)


def test_records_that_cannot_be_read_are_not_drawn(tmp_path):
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        for number in range(3):
            Image.new("RGB", (4, 4), (number, 0, 0)).save(tmp_path / label / f"{number}.png")
    (tmp_path / "a" / "1.png").write_bytes(b"damaged")
    source = sources.image_folder(str(tmp_path))
    with pytest.warns(UserWarning, match="1 of 6 records cannot be read and are not drawn"):
        assert subsets.subset(source, 2).indices[:2] == (0, 2)
    with pytest.warns(UserWarning), pytest.raises(UserError, match="class 'a' has 2"):
        subsets.subset(source, 3)


def test_records_with_a_label_for_each_pixel_are_refused():
    with pytest.raises(UserError, match="a label for each pixel"):
        subsets.subset(fake.scenes(8, num_examples=4), 1)
