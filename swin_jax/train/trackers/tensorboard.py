"""A run's metrics in TensorBoard."""

import pathlib
import time

from swin_jax.core import storage
from swin_jax.core.output.text import say

_told: set[str] = set()


def start(folder: pathlib.Path, step: int):
    """A writer of tensorboardX into folder/tensorboard that hides what an earlier process wrote
    after `step`, and tells of a full disk instead of raising.
    """
    from tensorboardX import SummaryWriter

    # The suffix keeps a run that resumes within the same second from overwriting the file.
    writer = SummaryWriter(
        str(folder / "tensorboard"),
        purge_step=step + 1,
        flush_secs=30,
        filename_suffix=f".{time.time_ns()}",
    )
    # An error would end its thread with a traceback,
    # and whoever hands it events would wait for room forever.
    events = writer.file_writer.event_writer._ev_writer
    for name in ("write_event", "flush", "close"):
        setattr(events, name, _tolerant(getattr(events, name), folder / "tensorboard"))
    return writer


def _tolerant(call, folder):
    """A method of TensorBoard's writer that tells of a full disk; metrics.jsonl is the record."""

    def tolerate(*arguments):
        try:
            return call(*arguments)
        except OSError as error:
            line = f"{folder} cannot be written: {storage.reason(error)}"
            if line not in _told:
                _told.add(line)
                say(line)

    return tolerate
