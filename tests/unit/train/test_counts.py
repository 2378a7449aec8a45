"""A record that cannot be read counts once, in whichever epoch, process or resumed run it comes up."""

import dataclasses
import json

import numpy as np
import pytest

from swin_jax.core.errors import UserError
from swin_jax.data import pipeline
from swin_jax.train import counts as module
from swin_jax.train.counts import BAD, TRUNCATED, Counts

BATCH = 8


@dataclasses.dataclass(frozen=True)
class Damaged:
    """Twelve records, of which two cannot be read."""

    broken: tuple[int, ...] = (3, 7)
    class_names: tuple[str, ...] = ("a", "b")

    def __len__(self):
        return 12

    def __getitem__(self, index):
        if index in self.broken:
            raise OSError("truncated")
        return {"label": index % 2}

    def record_name(self, index):
        return f"record {index}"


DATA = pipeline.TrainData(Damaged(), lambda example, rng: example, BATCH, num_threads=0)


def count(updates, meta=None, rows=range(BATCH), data=DATA, start=0):
    counts = Counts(meta or {}, BATCH, rows, data.records)
    batches = data.batches(start, rows)
    for _ in range(updates):
        counts.add(next(batches))
    batches.close()
    return counts


def test_files_are_counted_and_not_how_often_they_come_up():
    counts = count(9)  # six epochs
    assert counts.totals() == {BAD: 2, TRUNCATED: 0}
    counts.check(2)
    with pytest.raises(UserError, match=r"^2 records could not be read .* max_bad_records=1;"):
        counts.check(1)


def test_a_resumed_run_counts_as_an_uninterrupted_one():
    for stop in range(1, 9):
        first = count(stop)
        meta = json.loads(json.dumps({"examples_seen": stop * BATCH, **first.saved()}))
        assert count(9 - stop, meta, start=stop).saved() == count(9).saved()


def test_totals_up_to_a_mark_leave_out_what_came_later():
    counts = Counts({}, BATCH, range(BATCH), DATA.records)
    expected, marks = [], []
    batches = DATA.batches(0, range(BATCH))
    for _ in range(4):
        counts.add(next(batches))
        expected.append(counts.totals())
        marks.append(counts.mark())
    batches.close()
    assert [counts.totals(mark) for mark in marks] == expected and expected[0] != expected[-1]


def test_a_checkpoint_without_numbers_keeps_its_count():
    meta = {"examples_seen": 2 * BATCH, BAD: 5, TRUNCATED: 4}
    assert count(9, meta, start=2).totals() == {BAD: 7, TRUNCATED: 4}


def test_data_without_record_numbers_counts_rows_and_cut_texts():
    counts = Counts({}, BATCH, range(BATCH))
    for _ in range(3):
        counts.add({"bad": np.eye(BATCH, dtype=np.uint8)[2], "truncated": np.ones(BATCH, np.uint8)})
    assert counts.totals() == {BAD: 3, TRUNCATED: 24}


@pytest.mark.parametrize("parts", [(range(3), range(3, BATCH)), (range(BATCH), range(BATCH))])
def test_processes_count_a_record_once_together(parts, monkeypatch):
    """Whether they share the rows of a batch or read the same ones."""
    alone, found = count(5).saved(), [count(5, rows=rows) for rows in parts]
    calls = {}

    def gather(array):  # what a process hands over is recorded; all get everything in a second pass
        calls.setdefault(len(array), []).append(array)
        return np.stack(calls[len(array)]) if len(calls[len(array)]) > 1 else np.stack([array] * 2)

    monkeypatch.setattr(module.multihost_utils, "process_allgather", gather)
    monkeypatch.setattr(module.jax, "process_count", lambda: 2)
    for counts in found:
        last = counts.saved()
    assert last == alone


def test_a_checkpoint_of_the_step_before_lacks_what_ended_the_run():
    """Else the same command would end at once, though the files are there again."""
    counts = Counts({}, BATCH, range(BATCH), DATA.records)
    batches = DATA.batches(0, range(BATCH))
    mark = counts.mark()
    for _ in range(3):
        counts.add(next(batches))
    batches.close()
    assert counts.totals()[BAD] == 2 and counts.saved(mark)[BAD] == 0
    Counts({**counts.saved(mark), "examples_seen": 0}, BATCH, range(BATCH), DATA.records).check(0)
