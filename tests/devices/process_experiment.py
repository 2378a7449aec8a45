"""quickstart:fake for test_processes.py: writes down what each process reads and the state that it starts from.

Where it writes and how many records there are is told by the environment, which may also make
records unreadable (BAD_RECORDS=3,17) or reading slow (SECONDS_PER_RECORD=0.01).
"""

import dataclasses
import os
import time

import jax
import numpy as np

from experiments import quickstart
from swin_jax.core.config import spec
from swin_jax.core.params import path_name
from swin_jax.data import fake
from swin_jax.train import loop
from swin_jax.train.checkpoints import layout


@dataclasses.dataclass(frozen=True)
class Recorded:
    """Fake pictures; every record that is read becomes a line of the file RECORDS_<process>."""

    num_examples: int

    @property
    def _images(self):
        return fake.images(image_size=8, num_examples=self.num_examples, split="train", channels=1)

    @property
    def class_names(self):
        return self._images.class_names

    def __len__(self):
        return self.num_examples

    def __getitem__(self, index):
        with open(f"{os.environ['RECORDS']}_{jax.process_index()}", "a") as file:
            file.write(f"{index}\n")
        time.sleep(float(os.environ.get("SECONDS_PER_RECORD", 0)))
        if str(index) in os.environ.get("BAD_RECORDS", "").split(","):
            raise OSError("torn")
        return self._images[index]

    def record_name(self, index):
        return self._images.record_name(index)


def get_config(arg=None):
    c = quickstart.get_config("fake")
    c.task.model.update(depths=(1,), num_heads=(2,))
    c.data.source = spec(Recorded, num_examples=int(os.environ["NUM_EXAMPLES"]))
    c.update(total_steps=24, max_bad_records=100)
    c.logs.every = 1
    c.checkpoint.update(every=4, keep=99)
    c.evals.test.every = 12
    return c


def _first_state(*arguments, **keywords):
    """As `setup.first_state`; writes each array's parts in this process to STARTED_<process>.npz."""
    state, meta = first_state(*arguments, **keywords)
    parts = {}
    for part, tree in layout.parts_of(state).items():
        for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
            for shard in leaf.addressable_shards:
                ranges = (f"{s.start or 0}:{n if s.stop is None else s.stop}" for s, n in zip(shard.index, leaf.shape))
                parts[f"{part}/{path_name(path)}|{','.join(ranges)}|{shard.device.id}"] = np.asarray(shard.data)
    np.savez(f"{os.environ['STARTED']}_{jax.process_index()}.npz", **parts)
    return state, meta


first_state, loop.first_state = loop.first_state, _first_state
