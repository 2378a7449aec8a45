"""Accelerator chips and the topologies that they come in:
what a plan compares a compiled program with.

Numbers are the makers' own, per chip. A link's and the network's are of one direction. Sources:
  v4    cloud.google.com/tpu/docs/v4: 275 TFLOP/s, 32 GiB, 1,200 GB/s; arXiv 2304.01433, table 4:
        6 links of 50 GB/s; jax-ml.github.io/scaling-book/tpus: network 25 GB/s for a host of
        4 chips.
  v5e   cloud.google.com/tpu/docs/v5e: 197 TFLOP/s, 16 GB, 819 GB/s; links 400 GB/s in both
        directions over 4 ports; network 6.4 Tbit/s for a pod of 256 chips.
  v5p   cloud.google.com/tpu/docs/v5p: 459 TFLOP/s, 95 GiB, 2,765 GB/s; links 1,200 GB/s in both
        directions (6 of them); network 50 Gbit/s.
  v6e   cloud.google.com/tpu/docs/v6e: 918 TFLOP/s, 32 GB, 1,640 GB/s; links 800 GB/s in both
        directions over 4 ports; network 25.6 Tbit/s for a pod of 256 chips.
  all   cloud.google.com/tpu/docs/system-architecture-tpu-vm: matrix units of 128 x 128, of a v6e
        256 x 256.
  h100  nvidia.com/en-us/data-center/h100, SXM: 989 TFLOP/s without sparsity, 80 GB, 3.35 TB/s,
        NVLink 900 GB/s in both directions; nvidia.com/en-us/data-center/dgx-h100: an adapter of
        400 Gbit/s for each GPU.
"""

import dataclasses
import itertools
import math
import re

from swin_jax.core.errors import UserError


@dataclasses.dataclass(frozen=True)
class Chip:
    """One chip.

    Attributes:
        name: Name in that of a topology.
        peak_flops: bfloat16 operations per second, dense.
        hbm_bytes: Memory that a program can have.
        hbm_bandwidth: Bytes per second.
        ici_link: Bytes per second that one link to a neighbor carries one way;
            to the switch where there is one.
        torus: Axes of the torus that links join chips in, two links each;
            0 where a switch joins them.
        dcn_bandwidth: Bytes per second one way, the chip's share of its host's network,
            which joins slices.
        shapes: Shapes of the slices below one that is built from whole cubes of 4x4x4, or all there
            are.
        max_chips: Most chips in a slice.
        config: The compiler's name for the mode in which a chip's cores are one device.
        matrix_unit: Side of a matrix unit; what a kernel multiplies is padded to it.
    """

    name: str
    peak_flops: float
    hbm_bytes: int
    hbm_bandwidth: float
    ici_link: float
    torus: int
    dcn_bandwidth: float
    shapes: tuple[tuple[int, ...], ...]
    max_chips: int
    config: str = "default"
    matrix_unit: int = 128

    @property
    def ici_bandwidth(self) -> float:
        """Bytes per second one way over all links."""
        return self.ici_link * max(1, 2 * self.torus)


_FLAT = ((1, 1), (2, 2), (2, 4), (4, 4), (4, 8), (8, 8), (8, 16), (16, 16))
# A v4 or v5p chip is not rented alone: one is for looking at a program's memory.
_BELOW_A_CUBE = ((1, 1, 1), (2, 2, 1), (2, 2, 2), (2, 2, 4), (2, 4, 4))
# What the compiler of libtpu 0.0.42 lets a program have, as it says where one does not fit; a
# little is the runtime's.
_HBM = {"v4": 30.75, "v5e": 15.75, "v5p": 95.74, "v6e": 31.25}  # GiB


def _hbm(name: str) -> int:
    return int(_HBM[name] * 2**30)


CHIPS = {
    chip.name: chip
    for chip in (
        Chip("v4", 275e12, _hbm("v4"), 1200e9, 50e9, 3, 6.25e9, _BELOW_A_CUBE, 4096, "megacore"),
        Chip("v5e", 197e12, _hbm("v5e"), 819e9, 50e9, 2, 3.125e9, _FLAT, 256),
        Chip("v5p", 459e12, _hbm("v5p"), 2765e9, 100e9, 3, 6.25e9, _BELOW_A_CUBE, 6144, "megacore"),
        Chip("v6e", 918e12, _hbm("v6e"), 1640e9, 100e9, 2, 12.5e9, _FLAT, 256, matrix_unit=256),
        Chip("h100", 989e12, 80 * 10**9, 3350e9, 450e9, 0, 50e9, ((1,), (2,), (4,), (8,)), 8),
    )
}


@dataclasses.dataclass(frozen=True)
class Topology:
    """Slices of chips, all of one shape: within a slice chips are joined by links,
    slices by the network.

    Attributes:
        chip: Chip that it is made of.
        shape: Chips along each axis of a slice.
        slices: Number of slices.
    """

    chip: Chip
    shape: tuple[int, ...]
    slices: int = 1

    @property
    def name(self) -> str:
        """The name, as `topology` reads it."""
        return f"{self.chip.name}:{_times(self.shape)}" + (
            f",slices={self.slices}" if self.slices > 1 else ""
        )

    @property
    def slice_size(self) -> int:
        """Chips in a slice."""
        return math.prod(self.shape)

    @property
    def size(self) -> int:
        """Chips in all slices; JAX sees each as one device."""
        return self.slice_size * self.slices

    @property
    def wraps(self) -> tuple[bool, ...]:
        """For each axis, whether the last chip is linked to the first.

        A whole side of a 16x16 pod is a ring. The cubes of 4x4x4 that larger slices are
        built from are joined by optical switches, so that every axis of those is one;
        smaller slices are meshes.
        """
        if self.chip.torus == 2:
            return tuple(n == 16 for n in self.shape)
        return (all(n % 4 == 0 for n in self.shape) and self.chip.torus == 3,) * len(self.shape)

    def compiler_options(self) -> dict[str, object]:
        """Keyword arguments for jax.experimental.topologies.get_topology_desc.

        Without `chip_config_name` libtpu 0.0.42 makes two devices of a v4 chip; without
        `chips_per_host_bounds` it assumes hosts of 2x2x1 chips and refuses a single one.

        Raises:
            UserError: Chips of this kind cannot be compiled for without having one.
        """
        if not self.chip.torus:
            raise UserError(
                f"{self.name} cannot be compiled for here: only TPUs can be, the rest is arithmetic"
            )
        return {
            "platform": "tpu",
            "topology_name": f"{self.chip.name}:{_times(self.shape)}",
            "chip_config_name": self.chip.config,
            "chips_per_host_bounds": [1, 1, 1] if self.slice_size == 1 else [2, 2, 1],
            "num_slices": self.slices,
        }


def topology(text: str) -> Topology:
    """Reads the name of a topology, 'v5p:4x4x4' or 'v5e:16x16,slices=2'.

    The compiler takes more than what can be had, a mesh of 3-D v5e chips for example;
    such shapes are refused too.

    Raises:
        UserError: An unknown chip or a slice that does not exist, with those that do.
    """
    match = re.fullmatch(r"(\w+):(\d+(?:x\d+)*)(?:,slices=([1-9]\d*))?", text.strip())
    if not match:
        raise UserError(
            f"a topology is written like v5e:4x4 or v5p:4x4x4,slices=2, not {text!r}; "
            f"chips: {_known()}"
        )
    name, sides, slices = match.groups()
    if name not in CHIPS:
        raise UserError(f"chip {name!r} is unknown; known are {_known()}")
    chip, shape = CHIPS[name], tuple(int(side) for side in sides.split("x"))
    _check(chip, shape)
    return Topology(chip, shape, int(slices or 1))


def smallest_slice(name: str, size: int) -> str:
    """The name of a topology of so many chips: the most compact slice, or several of the largest.

    Raises:
        UserError: There is none of that size.
    """
    chip = CHIPS[name]
    most = min(size, chip.max_chips)
    shapes = [shape for shape in chip.shapes if math.prod(shape) == most]
    if chip.torus == 3:
        sides = range(4, most // 16 + 1, 4)
        shapes += [
            s for s in itertools.combinations_with_replacement(sides, 3) if math.prod(s) == most
        ]
    if not shapes or size % most:
        raise UserError(f"there is no {name} slice of {size} chips")
    slices = f",slices={size // most}" if size > most else ""
    return f"{name}:{_times(min(shapes, key=max))}{slices}"


def _check(chip: Chip, shape: tuple[int, ...]) -> None:
    """Raises UserError unless there are slices of that shape."""
    if shape in chip.shapes:
        return
    known = ", ".join(_times(shape) for shape in chip.shapes)
    if chip.torus == 3:
        cubes = (
            len(shape) == 3
            and min(shape) > 0
            and all(n % 4 == 0 for n in shape)
            and list(shape) == sorted(shape)
        )
        if cubes and math.prod(shape) <= chip.max_chips:
            return
        known += f", or three multiples of 4 in ascending order, {chip.max_chips:,} chips at most"
    chips = math.prod(shape)
    more = ""
    if chips > chip.max_chips:
        more = f" ({chips:,} chips; larger ones are several slices: ,slices=2)"
    raise UserError(f"there is no {chip.name} slice of {_times(shape)}{more}; there are {known}")


def _times(shape: tuple[int, ...]) -> str:
    return "x".join(str(n) for n in shape)


def _known() -> str:
    return (
        ", ".join(name for name, chip in CHIPS.items() if chip.torus)
        + " (and h100, by arithmetic only)"
    )
