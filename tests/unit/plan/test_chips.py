"""Chips and topologies: names, what is refused, and the published numbers of whole pods."""

import math

import pytest

from swin_jax.core.errors import UserError
from swin_jax.plan import chips


@pytest.mark.parametrize(
    "text, size, options",
    [
        ("v5e:1x1", 1, ["default", [1, 1, 1], 1]),
        ("v5e:2x4", 8, ["default", [2, 2, 1], 1]),
        ("v6e:16x16,slices=2", 512, ["default", [2, 2, 1], 2]),
        ("v4:2x2x1", 4, ["megacore", [2, 2, 1], 1]),
        ("v5p:16x16x16", 4096, ["megacore", [2, 2, 1], 1]),
        ("v5p:8x16x16,slices=2", 4096, ["megacore", [2, 2, 1], 2]),
        ("v5p:4x4x12", 192, ["megacore", [2, 2, 1], 1]),
    ],
)
def test_a_name_gives_chips_and_what_the_compiler_is_told(text, size, options):
    topology = chips.topology(text)
    assert (topology.name, topology.size) == (text, size)
    told = topology.compiler_options()
    assert (told["platform"], told["topology_name"]) == ("tpu", text.split(",")[0])
    assert [told[key] for key in ("chip_config_name", "chips_per_host_bounds", "num_slices")] == options


def test_every_listed_shape_reads_back():
    for chip in chips.CHIPS.values():
        for shape in chip.shapes:
            topology = chips.topology(f"{chip.name}:{'x'.join(map(str, shape))},slices=3")
            assert topology == chips.Topology(chip, shape, 3) == chips.topology(topology.name)
            assert topology.size == 3 * math.prod(shape) and math.prod(shape) <= chip.max_chips


@pytest.mark.parametrize(
    "text, says",
    [
        ("v9:2x2", "'v9' is unknown; known are v4, v5e, v5p, v6e"),
        ("v5e", "written like v5e:4x4"),
        ("v5e:4x4,slices=0", "written like v5e:4x4"),
        ("v5e:3x3", "no v5e slice of 3x3; there are 1x1, 2x2, 2x4"),
        ("v5e:4x4x4", "no v5e slice of 4x4x4"),
        ("v5e:32x32", "1,024 chips; larger ones are several slices"),
        ("v5p:4x4", "no v5p slice of 4x4"),
        ("v5p:4x4x2", "multiples of 4 in ascending order"),
        ("v5p:8x4x4", "multiples of 4 in ascending order"),
        ("v5p:0x4x4", "no v5p slice of 0x4x4"),
        ("v4:16x16x20", "5,120 chips; larger ones are several slices"),
    ],
)
def test_what_does_not_exist_is_refused_with_what_does(text, says):
    with pytest.raises(UserError, match=says) as error:
        chips.topology(text)
    assert "\n" not in str(error.value)


def test_gpus_are_arithmetic_only():
    topology = chips.topology("h100:8,slices=2")
    assert topology.size == 16 and topology.wraps == (False,)
    with pytest.raises(UserError, match="only TPUs"):
        topology.compiler_options()


def test_sides_that_are_rings():
    assert chips.topology("v5e:8x16").wraps == (False, True)
    assert chips.topology("v5e:4x4").wraps == (False, False)
    assert chips.topology("v5p:4x4x8").wraps == (True, True, True)
    assert chips.topology("v5p:2x4x4").wraps == (False, False, False)


def test_published_numbers_of_whole_pods_follow_from_those_of_a_chip():
    v4, v5e, v6e = (chips.CHIPS[name] for name in ("v4", "v5e", "v6e"))
    assert v5e.ici_bandwidth * 256 == 51.2e12  # "all-reduce bandwidth per pod"
    assert v6e.ici_bandwidth * 256 == 102.4e12
    assert v5e.dcn_bandwidth * 256 * 8 == 6.4e12 and v6e.dcn_bandwidth * 256 * 8 == 25.6e12  # bit/s
    # The links across the middle of a 16 x 16 torus: 16 rows, cut twice, in both directions.
    assert v5e.ici_link * 16 * 2 == 1.6e12 and v6e.ici_link * 16 * 2 == 3.2e12
    assert v4.peak_flops * 4096 == pytest.approx(1.1e18, rel=0.03)
    assert all(0.9 < chip.hbm_bytes / 2**30 / gib < 1.01 for chip, gib in ((v4, 32), (v5e, 16), (v6e, 32)))
