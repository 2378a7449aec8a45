"""The order of the data is a function of (seed, step): workers, threads, processes and restarts don't change it."""

import dataclasses
import itertools
import threading

import numpy as np
import pytest

from swin_jax.core.errors import UnreadableError, UserError
from swin_jax.data import fake, pipeline, unreadable
from swin_jax.data.pipeline import EvalData, TrainData


@dataclasses.dataclass(frozen=True)
class Numbers:
    """Record i is an image of the value i; the records in `broken` raise, as a codec does."""

    length: int
    broken: tuple[int, ...] = ()
    class_names: tuple[str, ...] = ("even", "odd")

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        if index in self.broken:
            raise OSError("image file is\ntruncated")
        return {"image": np.full((2, 2, 3), index, np.uint8), "label": index % 2}

    def record_name(self, index):
        return f"numbers record {index}"


def noisy(example, rng):
    return {**example, "noise": rng.random()}


def same(example):
    return example


def train(source=Numbers(50), batch_size=8, **kwargs):
    kwargs = {"seed": 3, "num_threads": 0, **kwargs}
    return TrainData(source=source, transform=noisy, batch_size=batch_size, **kwargs)


def take(data, count, start_step=0, rows=None):
    batches = data.batches(start_step, range(data.batch_size) if rows is None else rows)
    taken = list(itertools.islice(batches, count))
    batches.close()
    return taken


def values(batches):
    return [int(value) for batch in batches for value in batch["image"][:, 0, 0, 0]]


def assert_equal(first, second):
    assert len(first) == len(second) > 0
    for one, other in zip(first, second, strict=True):
        assert one.keys() == other.keys()
        for key in one:
            assert type(one[key]) is type(other[key]) is np.ndarray
            np.testing.assert_array_equal(one[key], other[key], err_msg=key)


def test_each_epoch_holds_every_record_once_in_another_order():
    seen = values(take(train(batch_size=10), 15))
    epochs = [seen[0:50], seen[50:100], seen[100:150]]
    assert all(sorted(epoch) == list(range(50)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]
    assert epochs[0] != sorted(epochs[0])


def test_row_i_of_update_s_is_element_s_times_batch_size_plus_i():
    small, large = take(train(batch_size=4), 6), take(train(batch_size=8), 3)
    assert values(small) == values(large)
    np.testing.assert_array_equal(
        np.concatenate([b["noise"] for b in small]), np.concatenate([b["noise"] for b in large])
    )


def test_starting_at_a_step_equals_skipping_to_it():
    assert_equal(take(train(), 4, start_step=9), take(train(), 13)[9:])


@pytest.mark.parametrize("kwargs", [{"num_threads": 2}, {"num_threads": 3, "prefetch": 1}, {"num_workers": 2}])
def test_threads_and_workers_do_not_change_batches(kwargs):
    assert_equal(take(train(**kwargs), 7, start_step=5), take(train(), 7, start_step=5))


def test_processes_that_share_a_batch_read_what_one_would():
    whole = take(train(), 5)
    first, second = take(train(), 5, rows=[0, 1, 2, 3]), take(train(), 5, rows=[4, 5, 6, 7])
    joined = [{key: np.concatenate([a[key], b[key]]) for key in a} for a, b in zip(first, second, strict=True)]
    assert_equal(joined, whole)
    assert values(take(train(), 1, rows=[6, 1])) == [values(whole[:1])[6], values(whole[:1])[1]]


def test_seed_changes_order_and_augmentation():
    one, other = take(train(seed=3), 2), take(train(seed=4), 2)
    assert values(one) != values(other)
    assert not set(np.concatenate([b["noise"] for b in one])) & set(np.concatenate([b["noise"] for b in other]))


def test_augmentation_differs_between_epochs_and_rows():
    noise = np.concatenate([batch["noise"] for batch in take(train(), 40)])
    assert len(set(noise.tolist())) == len(noise)


def test_batch_dtypes():
    (batch,) = take(train(), 1)
    assert {key: value.dtype for key, value in batch.items()} == {
        'image': np.uint8, 'label': np.int32, 'noise': np.float32, 'bad': np.uint8,
    }  # fmt: skip
    assert batch["image"].shape == (8, 2, 2, 3)


def test_a_set_smaller_than_the_batch_repeats():
    assert sorted(values(take(train(source=Numbers(3), batch_size=6), 1))) == [0, 0, 1, 1, 2, 2]


def test_the_records_of_rows_are_those_that_the_batches_hold():
    data = train(source=Numbers(5), batch_size=8)  # several epochs in few updates
    for update, batch in enumerate(take(data, 4)):
        assert data.records(update, range(8)) == values([batch])
    assert data.records(3, (6, 1)) == [data.records(3, range(8))[row] for row in (6, 1)]


@pytest.mark.parametrize("length, rows", [(5, 5), (8, 8), (9, 8)])
def test_an_evaluation_asks_for_no_more_rows_than_there_are(length, rows):
    data = EvalData(Numbers(length), same, batch_size=8)
    assert data.batch_size == rows
    assert dataclasses.replace(data, transform=noisy).batch_size == rows


@pytest.fixture(autouse=True)
def nothing_is_named_yet(monkeypatch):
    """A process warns of a record once; the tests share records and may run in any order."""
    monkeypatch.setattr(unreadable, "_named", set())


def test_unreadable_record_is_replaced_by_the_next_marked_and_named(caplog):
    sound, broken = take(train(batch_size=50), 1), take(train(source=Numbers(50, broken=(7, 8, 49)), batch_size=50), 1)
    replacement = {7: 9, 8: 9, 49: 0}
    assert values(broken) == [replacement.get(value, value) for value in values(sound)]
    np.testing.assert_array_equal(broken[0]["bad"], [value in replacement for value in values(sound)])
    np.testing.assert_array_equal(broken[0]["noise"], sound[0]["noise"])
    lines = [record.getMessage() for record in caplog.records]
    for number in replacement:
        assert any(f"numbers record {number} (OSError: image file is truncated)" in line for line in lines)


def test_unreadable_record_is_named_from_worker_processes_too(capfd):
    batches = take(train(source=Numbers(8, broken=(5,)), num_workers=1), 1)
    assert batches[0]["bad"].sum() == 1
    assert "numbers record 5" in capfd.readouterr().err


def reading(example, rng):
    """A transform that finds the records 3 and 4 damaged, after it has drawn."""
    noise = rng.random()
    if example["image"].flat[0] in (3, 4):
        raise UnreadableError("no frame could be decoded")
    return {**example, "noise": noise}


def test_a_record_that_the_transform_cannot_read_is_replaced_and_draws_as_if_nothing_had_happened(caplog):
    sound, damaged = (
        take(TrainData(source=Numbers(50), transform=transform, batch_size=50, seed=3, num_threads=0), 1)[0]
        for transform in (noisy, reading)
    )
    order = sound["image"][:, 0, 0, 0]
    np.testing.assert_array_equal(damaged["bad"], np.isin(order, (3, 4)))
    np.testing.assert_array_equal(damaged["image"][:, 0, 0, 0], np.where(np.isin(order, (3, 4)), 5, order))
    np.testing.assert_array_equal(damaged["noise"], sound["noise"])
    assert "numbers record 3" in caplog.text and "no frame could be decoded" in caplog.text


def test_evaluation_refuses_a_record_that_the_transform_cannot_read():
    data = EvalData(Numbers(5), lambda example: reading(example, np.random.default_rng(0)), 4, num_threads=0)
    with pytest.raises(UserError, match="numbers record 3 cannot be read .*no frame"):
        list(data.batches(4, range(4)))


@pytest.mark.parametrize("kwargs", [{"num_threads": 0}, {"num_threads": 2}, {"num_workers": 1}])
def test_a_long_run_of_unreadable_records_is_an_error(kwargs):
    with pytest.raises(UserError, match=f"{unreadable.MAX_RUN} records in a row"):
        take(train(source=Numbers(200, broken=tuple(range(200))), **kwargs), 1)


def test_evaluation_sees_every_record_once_in_order_for_any_rows():
    data = EvalData(source=Numbers(11), transform=same, batch_size=4)
    for batch_size in (1, 4, 11, 16):
        assert data.num_batches(batch_size) == -(-11 // batch_size)
        whole = list(data.batches(batch_size, range(batch_size)))
        real = [(v, w) for v, w in zip(values(whole), np.concatenate([b["weight"] for b in whole]), strict=True)]
        assert len(whole) == data.num_batches(batch_size) and len(real) == len(whole) * batch_size
        assert [value for value, weight in real if weight] == list(range(11))
        assert whole[0]["weight"].dtype == np.float32
        assert not any(batch["bad"].any() for batch in whole)


def test_evaluation_pads_every_process_to_the_same_number_of_batches():
    data = EvalData(source=Numbers(3), transform=same, batch_size=8)
    parts = [list(data.batches(8, range(first, first + 2))) for first in (0, 2, 4, 6)]
    assert [len(part) for part in parts] == [1, 1, 1, 1]
    assert [part[0]["weight"].tolist() for part in parts] == [[1, 1], [1, 0], [0, 0], [0, 0]]


def test_evaluation_is_equal_with_workers():
    data = EvalData(source=Numbers(11), transform=same, batch_size=4)
    workers = dataclasses.replace(data, num_workers=2)
    assert_equal(list(data.batches(4, range(4))), list(workers.batches(4, range(4))))


def test_evaluation_refuses_an_unreadable_record():
    data = EvalData(source=Numbers(6, broken=(4,)), transform=same, batch_size=4)
    with pytest.raises(UserError, match="numbers record 4 cannot be read"):
        list(data.batches(4, range(4)))


def test_bad_arguments():
    with pytest.raises(UserError, match="no examples"):
        train(source=Numbers(0))
    with pytest.raises(UserError, match="batch_size"):
        train(batch_size=0)
    with pytest.raises(UserError, match="seed"):
        train(seed=-1)
    with pytest.raises(ValueError, match="rows"):
        train().batches(0, [8])


def test_properties_come_from_the_source():
    data = train()
    assert data.num_examples == 50 and data.class_names == ("even", "odd")


def test_fake_images_are_deterministic_and_learnable():
    source, test = (
        fake.images(8, num_classes=4, num_examples=40),
        fake.images(8, num_classes=4, num_examples=40, split="test"),
    )
    images = np.stack([source[i]["image"] for i in range(40)]).astype(float)
    labels = np.array([source[i]["label"] for i in range(40)])
    np.testing.assert_array_equal(images[5], source[5]["image"])
    assert len(np.unique(images.reshape(40, -1), axis=0)) == 40
    centers = np.stack([images[labels == label].mean(0) for label in range(4)])
    for i in range(40):
        example = test[i]
        assert np.argmin(((centers - example["image"]) ** 2).sum((1, 2, 3))) == example["label"]
    assert len(source.class_names) == 4 and "5" in source.record_name(5)
    with pytest.raises(UserError, match="validation"):
        fake.images(8, split="validation")


@dataclasses.dataclass(frozen=True)
class Mistaken(Numbers):
    """A source with a mistake of its author, which one record meets."""

    error: Exception = TypeError("unsupported operand")

    def __getitem__(self, index):
        if index == 3:
            raise self.error
        return super().__getitem__(index)


@pytest.mark.parametrize(
    "error", [TypeError("no"), KeyError("label"), AttributeError("x"), IndexError("y"), ZeroDivisionError()]
)
@pytest.mark.parametrize("policy", ["refuse", "leave_out"])
def test_a_mistake_in_a_source_or_transform_is_no_unreadable_record(error, policy, caplog):
    kind = type(error)
    with pytest.raises(kind) as caught:
        take(train(source=Mistaken(8, error=error)), 1)
    assert "while numbers record 3 was read" in caught.value.__notes__
    data = EvalData(Mistaken(8, error=error), same, 4, num_threads=0, unreadable=policy)
    with pytest.raises(kind):
        list(data.batches(4, range(4)))

    def wrong(example):
        raise error

    with pytest.raises(kind):
        list(EvalData(Numbers(4), wrong, 4, num_threads=0, unreadable=policy).batches(4, range(4)))
    assert "unreadable record" not in caplog.text


@pytest.mark.parametrize("error", [OSError("truncated"), EOFError(), UnreadableError("damaged")])
def test_what_a_file_does_wrong_makes_a_record_unreadable(error):
    assert take(train(source=Mistaken(8, error=error)), 1)[0]["bad"].sum() == 1


BROKEN = (0, 4, 5, 6, 7, 10)  # the first, a whole batch of four, and the last


@pytest.mark.parametrize("processes", [1, 2, 4])
@pytest.mark.parametrize("damage", ["source", "transform"])
def test_unreadable_records_are_left_out_alike_on_any_number_of_processes(damage, processes, caplog):
    def reads(example):
        if damage == "transform" and example["image"].flat[0] in BROKEN:
            raise UnreadableError("no frame could be decoded")
        return example

    source = Numbers(11, broken=BROKEN if damage == "source" else ())
    data = EvalData(source, reads, 4, num_threads=0, unreadable="leave_out")
    own = 4 // processes
    parts = [list(data.batches(4, range(first, first + own))) for first in range(0, 4, own)]
    assert {len(part) for part in parts} == {3}
    whole = [{key: np.concatenate([batch[key] for batch in same]) for key in same[0]} for same in zip(*parts)]
    assert {batch["image"].shape for batch in whole} == {(4, 2, 2, 3)}
    weight, bad, record = (np.concatenate([batch[key] for batch in whole]) for key in ("weight", "bad", "record"))
    image = np.concatenate([batch["image"] for batch in whole])[:, 0, 0, 0]
    read = [1, 2, 3, 8, 9]
    assert record[weight > 0].tolist() == image[weight > 0].tolist() == read
    assert record[bad > 0].tolist() == list(BROKEN)
    assert (weight.sum(), bad.sum()) == (5, 6)
    assert unreadable.left_out(data, weight.sum()) == {"left_out": 6}
    assert unreadable.left_out(dataclasses.replace(data, unreadable="refuse"), 11) == {}


def test_an_evaluation_of_unreadable_records_only_is_refused_and_so_is_another_policy():
    data = EvalData(Numbers(3, broken=(0, 1, 2)), same, 2, num_threads=0, unreadable="leave_out")
    with pytest.raises(UserError, match="3 records in a row are unreadable"):
        list(data.batches(2, range(2)))
    with pytest.raises(UserError, match="unreadable='leave' must be 'refuse' or 'leave_out'; did you mean 'leave_out'"):
        EvalData(Numbers(3), same, 2, unreadable="leave")


def test_a_request_to_stop_does_not_wait_for_loaders_at_work():
    class Request(BaseException):
        """As `train.preemption.Interrupted`."""

    class Slow:
        closed, may_close = threading.Event(), threading.Event()

        def __next__(self):
            raise Request

        def close(self):
            self.may_close.wait(60)
            self.closed.set()

    batches = pipeline._closing(Slow(), 0)
    with pytest.raises(Request):
        next(batches)
    assert not Slow.closed.is_set()
    Slow.may_close.set()
    assert Slow.closed.wait(60)
