"""The time that a step needs at least, from what it computes, what it moves,
and what its chips can do.

A roofline (Williams et al., CACM 2009) with collectives as in
jax-ml.github.io/scaling-book/sharding: products run at the peak and memory traffic at the full
bandwidth, at the same time; a collective uses all the links that a group of so many neighbors
has, and what crosses slices uses the network. Latencies are left out: many small collectives take
longer than is said here.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterable

from swin_jax.plan.chips import Chip, Topology
from swin_jax.plan.collectives import Collective


@dataclasses.dataclass(frozen=True)
class Roofline:
    """Seconds of one step.

    Attributes:
        chip: Chip that it runs on.
        compute: Time of the products, at the chip's peak.
        memory: Time of the traffic to main memory, beside the products.
        links: Time of collectives within a slice, by its links.
        network: Time of collectives among slices.
        exposed: Time that the program waits for collectives of both kinds: those that were not
            scheduled to run beside anything else.
    """

    chip: Chip
    compute: float
    memory: float
    links: float
    network: float
    exposed: float

    @property
    def overlapped(self) -> float:
        """The least that is possible: everything runs beside everything else."""
        return max(self.compute, self.memory, self.links, self.network)

    @property
    def serial(self) -> float:
        """The time where no collective runs beside anything else."""
        return max(self.compute, self.memory) + self.links + self.network

    @property
    def step(self) -> float:
        """The time as scheduled: collectives that can run beside the rest do,
        the program waits for the others.
        """
        hidden = self.links + self.network - self.exposed
        return max(self.compute, self.memory, hidden) + self.exposed

    @property
    def limit(self) -> str:
        """The one of compute, memory, links and network that takes longest."""
        times = {
            "compute": self.compute,
            "memory": self.memory,
            "links": self.links,
            "network": self.network,
        }
        return max(times, key=times.get)

    def mfu(self, flops: float) -> float:
        """The largest share of the chip's peak that a step of the duration `step` can reach.

        Args:
            flops: FLOPs of the model, per chip and step, without recomputation.
        """
        return flops / (self.step * self.chip.peak_flops)


def estimate(
    topology: Topology, flops: float, hbm_bytes: float, collectives: Iterable[Collective]
) -> Roofline:
    """The roofline of one step.

    Args:
        topology: Topology that it runs on.
        flops: FLOPs that each chip executes, recomputation included.
        hbm_bytes: Bytes that each chip reads and writes.
        collectives: Collectives of the program.
    """
    chip, links, network, exposed = topology.chip, 0.0, 0.0, 0.0
    for collective in collectives:
        inner, outer = seconds(collective, topology)
        links, network = links + inner, network + outer
        exposed += 0 if collective.overlaps else inner + outer
    return Roofline(
        chip, flops / chip.peak_flops, hbm_bytes / chip.hbm_bandwidth, links, network, exposed
    )


def seconds(collective: Collective, topology: Topology) -> tuple[float, float]:
    """The time of all runs of a collective: on the links of a slice,
    and on the network among slices.

    One that spans slices does what it can within each slice first, so that of each array only a
    chip's share of it crosses the network.
    """
    chip, inner, outer = topology.chip, _inner(collective), collective.slices
    moved = collective.bytes * collective.count
    if collective.kind == "collective-permute":
        return (moved / chip.ici_link, 0.0) if outer == 1 else (0.0, moved / chip.dcn_bandwidth)
    if collective.kind == "all-to-all":
        return _exchange(topology, inner) * moved, _share(outer) * moved / chip.dcn_bandwidth
    rounds = 2 if collective.kind == "all-reduce" else 1
    within = rounds * _share(inner) * moved / ring_bandwidth(topology, inner)
    return within, rounds * _share(outer) * moved / inner / chip.dcn_bandwidth


def sent_bytes(collective: Collective) -> float:
    """Bytes that a chip sends in all runs of a collective,
    by the algorithms that send the least.
    """
    inner, moved = _inner(collective), collective.bytes * collective.count
    if collective.kind == "collective-permute":
        return moved
    if collective.kind == "all-to-all":
        return _share(collective.group) * moved
    rounds = 2 if collective.kind == "all-reduce" else 1
    return rounds * moved * (_share(inner) + _share(collective.slices) / inner)


def ring_bandwidth(topology: Topology, group: int) -> float:
    """Bytes per second that each chip of a group can send to and receive from the others
    at the same time.

    Where sides of the slice multiply to the group, rings or lines run along all of these at once: a
    ring uses two links of each chip, a line only one, for its ends have no other. Part of a side is
    a line. A group is taken to be placed as well as it can be.
    """
    chip = topology.chip
    if not chip.torus:
        return chip.ici_link
    best = 1
    sides = [
        (n, 2 if wraps else 1)
        for n, wraps in zip(topology.shape, topology.wraps, strict=True)
        if n > 1
    ]
    for count in range(len(sides) + 1):
        for chosen in itertools.combinations(range(len(sides)), count):
            rest, remainder = divmod(group, math.prod(sides[i][0] for i in chosen))
            others = [n for i, (n, _) in enumerate(sides) if i not in chosen]
            if remainder == 0 and (rest == 1 or any(n % rest == 0 for n in others)):
                best = max(best, sum(sides[i][1] for i in chosen) + (rest > 1))
    return best * chip.ici_link


def _exchange(topology: Topology, group: int) -> float:
    """Seconds per byte that a chip has, half of which crosses the middle of the longest side."""
    chip = topology.chip
    if group == 1 or not chip.torus:
        return _share(group) / chip.ici_link
    side = min(group, max(topology.shape))
    wraps = any(n == side and ring for n, ring in zip(topology.shape, topology.wraps, strict=True))
    return side / (8 if wraps else 4) / chip.ici_link


def _inner(collective: Collective) -> int:
    """Chips of the group in each slice."""
    return max(1, collective.group // collective.slices)


def _share(group: int) -> float:
    """The share of an array in equal parts that the other members have."""
    return (group - 1) / group
