"""The files that keep the numbers of compiled programs, since programs for an absent topology
cannot be kept.
"""

import json
import pathlib
from typing import Any

from swin_jax.core import storage
from swin_jax.core.errors import UserError
from swin_jax.core.output.text import say

# What every plan has, and one that fits besides: see `tpu_compiler.compiled`.
_ALWAYS, _FITTING = {"memory", "compile_seconds", "effort"}, {"hbm_bytes", "collectives"}


def read(file: pathlib.Path) -> dict[str, Any] | None:
    """The numbers in a file of the cache.

    Returns:
        What `write` was given, or None where there is no such file, or one that is torn or
        holds something else, as after a crash of the machine, which is said.
    """
    if not file.exists():
        return None
    try:
        found = storage.read_object(file)
    except UserError:
        found = {}
    memory = found.get("memory")
    if isinstance(memory, dict) and "fits" in memory:
        if found.keys() >= (_ALWAYS | _FITTING if memory["fits"] else _ALWAYS):
            return found
    say(f"{file} is damaged; the plan is made again")
    return None


def write(file: pathlib.Path, facts: dict[str, Any]) -> None:
    """Keeps the numbers of a program; says so where they cannot be kept."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        storage.write(file, json.dumps(facts, indent=1) + "\n")
    except (OSError, UserError) as error:
        say(f"the plan is not kept for the next time: {error}")
