"""Presets for pods: on which slice a row of an experiment trains as published,
and what makes it fit there.

An experiment file keeps them in a table PODS, {row: Pod}, a row being arguments of that file,
'variant=tiny' for example. `--config=X.py:variant=tiny,pod=v5e --plan=config` plans for the
slice of the preset.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from swin_jax.core.errors import UserError
from swin_jax.plan import chips

# How many chips of v5e one stands for: the power of two below its share of memory (a v4 has
# 2.4% less than two).
_V5E = {"v4": 2, "v5e": 1, "v5p": 4, "v6e": 2}
NAMES = ("", *_V5E, "h100")


@dataclasses.dataclass(frozen=True)
class Pod:
    """The chips that a row trains on, at the published batch size.

    Attributes:
        size: Chips of v5e; of the others as many as have about the same memory together or more,
            and eight H100.
        settings: {dotted key: value} on every chip.
        h100: {dotted key: value} on eight H100 besides.
    """

    size: int
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    h100: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def topology(self, chip: str) -> str:
        """The name of the slice."""
        if chip == "h100":
            return "h100:8"
        return chips.smallest_slice(chip, max(1, self.size // _V5E[chip]))


def use(config, arg, pods: Mapping[str, Pod]) -> None:
    """Sets the topology, and what makes a step fit it,
    as the argument `pod` of an experiment file asks.

    Args:
        config: Complete config of the file; it stays as it is where `arg.pod` is '', and where
            `arg.fake`.
        arg: The file's arguments.
        pods: The file's table; of several rows that agree with `arg` the one that says most counts.

    Raises:
        UserError: No row for these arguments.
    """
    if not arg.pod or arg.fake:
        return
    said = {row: dict(item.split("=") for item in row.split(",") if item) for row in pods}
    known = [
        row
        for row, values in said.items()
        if all(str(getattr(arg, k)) == v for k, v in values.items())
    ]
    if not known:
        raise UserError(
            f"pod={arg.pod} has no preset for these arguments; there are {'; '.join(pods)}"
        )
    pod = pods[max(known, key=lambda row: len(said[row]))]
    config.topology = pod.topology(arg.pod)
    for key, value in {**pod.settings, **(pod.h100 if arg.pod == "h100" else {})}.items():
        *path, last = key.split(".")
        node = config
        for part in path:
            node = node[part]
        node[last] = value
