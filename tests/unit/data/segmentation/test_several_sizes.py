"""Pictures of several sizes in batches of one size: each once, none padded, labels with their own sizes."""

import dataclasses

import numpy as np
import pytest

from swin_jax.core.constants import IGNORED
from swin_jax.core.errors import UnreadableError, UserError
from swin_jax.data.labels import Relabeled
from swin_jax.data.pipeline import EvalData
from swin_jax.data.segmentation.several_sizes import SeveralSizes
from swin_jax.data.segmentation.transforms import eval_transform

SIZES = ((20, 30), (40, 60), (30, 20), (20, 30), (10, 15), (20, 29))


@dataclasses.dataclass(frozen=True)
class Pictures:
    """A picture of each size, of one color, whose labels are its number."""

    sizes: tuple = SIZES
    class_names: tuple = tuple("abcdef")

    def __len__(self):
        return len(self.sizes)

    def __getitem__(self, index):
        shape = self.sizes[index]
        return {"image": np.full((*shape, 3), index, np.uint8), "label": np.full(shape, index, np.uint8)}

    def record_name(self, index):
        return f"picture {index}"


class Heads(Pictures):
    """The same, of which a head tells the size; the head of one may be damaged."""

    damaged = -1

    def image_size(self, index):
        if index == self.damaged:
            raise UnreadableError("no head")
        return self.sizes[index]


def several(source, batch_size=2, scale=(24, 16)):
    return SeveralSizes(EvalData(source, eval_transform(scale), batch_size, num_threads=0), scale)


@pytest.mark.parametrize("source", [Pictures(), Heads(), Relabeled(Heads(), tuple(range(6)), tuple("abcdef"))])
def test_every_picture_once_at_its_own_size(source):
    data, seen = several(source), {}
    # 24 x 16 fits 2 : 3 whichever way round, and the last one a little lower.
    assert {size: records for size, (records, _) in data.groups.items()} == {
        ((16, 23),): [5],
        ((16, 24),): [0, 1, 3, 4],
        ((24, 16),): [2],
    }
    assert data.groups[((16, 24),)][1] == (40, 60)
    for batch in data.batches(2, [0, 1]):
        assert len({*batch["weight"]} - {0, 1}) == 0
        for row in np.flatnonzero(batch["weight"]):
            record = int(batch["record"][row])
            height, width = batch["original"][row]
            assert (height, width) == SIZES[record] and record not in seen
            seen[record] = batch["image"].shape[1:3]
            assert (batch["image"][row] == record).all() and (batch["label"][row, :height, :width] == record).all()
            assert (batch["label"][row, height:] == IGNORED).all() and (batch["label"][row, :, width:] == IGNORED).all()
    assert seen == {0: (16, 24), 1: (16, 24), 3: (16, 24), 4: (16, 24), 2: (24, 16), 5: (16, 23)}


def test_a_scale_that_is_not_that_of_the_transform_is_refused():
    data = EvalData(Pictures(), eval_transform((24, 16)), 2, num_threads=0)
    for scale in ((48, 32), None):
        with pytest.raises(UserError, match=r"transform's scale=\(24, 16\).*--config.scale="):
            SeveralSizes(data, scale)
    assert SeveralSizes(data, [24, 16]).groups == SeveralSizes(data, (16, 24)).groups
    own = dataclasses.replace(data, transform=lambda example: example)  # says nothing of a scale
    assert SeveralSizes(own, None).groups


def test_processes_see_their_rows_of_the_same_batches():
    data = several(Pictures())
    whole = list(data.batches(2, [0, 1]))
    for row in (0, 1):
        for both, own in zip(whole, data.batches(2, [row]), strict=True):
            for key in both:
                np.testing.assert_array_equal(both[key][row : row + 1], own[key])


def test_a_picture_without_a_size_is_named():
    source = Heads()
    object.__setattr__(source, "damaged", 3)
    with pytest.raises(UserError, match="^picture 3 cannot be read .*no head"):
        several(source).groups  # noqa: B018


@dataclasses.dataclass(frozen=True)
class Damaged(Heads):
    """The same, where some heads, and of others what follows, cannot be read."""

    heads: tuple = ()
    others: tuple = ()

    def image_size(self, index):
        if index in self.heads:
            raise UnreadableError("no head")
        return self.sizes[index]

    def __getitem__(self, index):
        if index in (*self.heads, *self.others):
            raise UnreadableError("no picture")
        return super().__getitem__(index)


@pytest.mark.parametrize("damage", [((3,), ()), ((), (0, 1)), ((2, 5), (3,)), ((), (2,)), ((0, 1, 3, 4), ())])
def test_unreadable_pictures_are_left_out_and_processes_have_rows_of_one_size(damage):
    source = Damaged(heads=damage[0], others=damage[1])
    data = several(source)
    data = dataclasses.replace(data, data=dataclasses.replace(data.data, unreadable="leave_out"))
    seen = []
    rows = [list(data.batches(2, [row])) for row in (0, 1)]
    for first, second in zip(*rows, strict=True):
        assert first["image"].shape == second["image"].shape
        for batch in (first, second):
            seen += batch["record"][batch["weight"] > 0].tolist()
    assert sorted(seen) == sorted({*range(6)} - {*damage[0], *damage[1]})


def test_a_set_without_a_readable_picture_is_refused():
    data = several(Damaged(heads=tuple(range(6))))
    data = dataclasses.replace(data, data=dataclasses.replace(data.data, unreadable="leave_out"))
    with pytest.raises(UserError, match="no picture of the data set can be read"):
        data.groups  # noqa: B018


def test_labels_of_another_set_keep_the_groups():
    data = several(Pictures()).with_classes((5, 4, 3, 2, 1, 0), tuple("fedcba"))
    assert data.class_names == tuple("fedcba") and data.num_examples == 6
    first = next(data.batches(2, [0, 1]))
    assert first["record"][0] == 5 and first["label"][0, 0, 0] == 0


def test_several_ratios_are_several_images_of_one_picture():
    """In groups of pictures that have one size at every ratio."""
    data = dataclasses.replace(several(Pictures()), ratios=(1.0, 0.5), flip=True)
    assert data.scales == ((24, 16), (12, 8))
    assert [*data.groups] == [((16, 23), (8, 12)), ((16, 24), (8, 12)), ((24, 16), (12, 8))]
    for batch in data.batches(2, [0, 1]):
        sizes = batch["image"].shape[1:3], batch["image_1"].shape[1:3]
        assert sizes in data.groups and (batch["image_1"][:, 0, 0, 0] == batch["image"][:, 0, 0, 0]).all()
    for wrong in (dict(ratios=()), dict(ratios=(0.5,), scale=None)):
        with pytest.raises(UserError, match="^ratios="):
            dataclasses.replace(data, **wrong)
