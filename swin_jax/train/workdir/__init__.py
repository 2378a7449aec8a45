"""The folder of a run: made, tried, one place for all hosts, and owned by one run at a time."""

from swin_jax.train.workdir.folder import (
    check_entries,
    check_place,
    check_shared,
    make_workdir,
    writing_to,
)
from swin_jax.train.workdir.ownership import Ownership, own

__all__ = [
    "Ownership",
    "check_entries",
    "check_place",
    "check_shared",
    "make_workdir",
    "own",
    "writing_to",
]
