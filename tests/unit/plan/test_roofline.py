"""The roofline: laws that the times obey, and cells worked out by hand."""

import itertools

import pytest

from swin_jax.plan import chips, roofline
from swin_jax.plan.collectives import KINDS, Collective


def collective(kind, size, group, slices=1, count=1, overlaps=False):
    return Collective(kind, size, ("data",), group, slices, count, overlaps, "x")


def total(found, topology):
    return [sum(times) for times in zip(*(roofline.seconds(item, topology) for item in found))]


@pytest.mark.parametrize(
    "name, group, links",
    [
        ("v5e:16x16", 256, 4),  # both sides, each a ring
        ("v5e:16x16", 16, 2),
        ("v5e:16x16", 32, 3),  # a ring and part of the other side
        ("v5e:16x16", 4, 1),  # part of a side has ends
        ("v5e:8x16", 128, 3),  # the side of 8 is a line
        ("v5e:2x4", 8, 2),  # a corner has two links
        ("v5e:2x4", 2, 1),
        ("v5p:4x4x4", 64, 6),
        ("v5p:4x4x4", 16, 4),
        ("v5p:4x4x4", 4, 2),
        ("v5p:2x2x4", 16, 3),
        ("v5e:1x1", 1, 1),
        ("h100:8", 8, 1),
    ],
)
def test_links_of_a_group(name, group, links):
    topology = chips.topology(name)
    assert roofline.ring_bandwidth(topology, group) == links * topology.chip.ici_link


def test_an_all_reduce_by_hand():
    # 100 MB on 256 chips of v5e, 4 links of 50 GB/s: each chip sends all but its own part, twice.
    found = collective("all-reduce", 100_000_000, 256, count=3)
    assert roofline.seconds(found, chips.topology("v5e:16x16")) == pytest.approx((3 * 2 * 1e8 * 255 / 256 / 200e9, 0))
    assert roofline.sent_bytes(found) == pytest.approx(3 * 2 * 1e8 * 255 / 256)


@pytest.mark.parametrize("name", ["v5e:16x16,slices=2", "v5p:4x4x8,slices=4", "h100:8,slices=4"])
def test_a_reduction_is_the_sum_of_its_halves_however_it_is_split(name):
    topology, size = chips.topology(name), 1 << 26
    inner, slices = topology.slice_size, topology.slices
    whole = [collective("all-reduce", size, topology.size, slices)]
    halves = [collective(kind, size, topology.size, slices) for kind in ("reduce-scatter", "all-gather")]
    by_level = [
        collective("reduce-scatter", size, inner),
        collective("all-reduce", size // inner, slices, slices),
        collective("all-gather", size, inner),
    ]
    for split in (halves, by_level):
        assert total(split, topology) == pytest.approx(total(whole, topology))
        assert sum(map(roofline.sent_bytes, split)) == pytest.approx(roofline.sent_bytes(whole[0]))


@pytest.mark.parametrize("kind", KINDS)
def test_one_chip_alone_sends_nothing_and_bytes_and_runs_are_proportional(kind):
    topology = chips.topology("v5e:4x4,slices=2")
    if kind != "collective-permute":
        assert sum(roofline.seconds(collective(kind, 1 << 20, 1), topology)) == 0
        assert roofline.sent_bytes(collective(kind, 1 << 20, 1)) == 0
    for slices in (1, 2):
        once = sum(roofline.seconds(collective(kind, 1 << 20, 16 * slices, slices), topology))
        assert once > 0
        for scaled in (
            collective(kind, 3 << 20, 16 * slices, slices),
            collective(kind, 1 << 20, 16 * slices, slices, 3),
        ):
            assert sum(roofline.seconds(scaled, topology)) == pytest.approx(3 * once)


def test_bytes_that_a_chip_sends_to_reduce_hardly_grow_with_the_pod():
    sent = [roofline.sent_bytes(collective("all-reduce", 1 << 30, group)) for group in (8, 64, 512, 4096)]
    assert sent == sorted(sent) and sent[-1] / sent[0] < 8 / 7


def test_an_exchange_is_bound_by_the_middle_of_the_longest_side():
    exchange, moved = collective("all-to-all", 1 << 20, 16), 1 << 20
    # In a ring of 16, half of the bytes of 8 chips cross two links one way; in the middle of a line of 8, one link.
    assert roofline.seconds(exchange, chips.topology("v5e:16x16"))[0] == pytest.approx(8 * moved / 2 / 2 / 50e9)
    line = collective("all-to-all", moved, 8)
    assert roofline.seconds(line, chips.topology("v5e:8x8"))[0] == pytest.approx(4 * moved / 2 / 50e9)


def test_the_schedule_lies_between_the_bounds():
    topology = chips.topology("v5e:4x4,slices=2")
    chip = topology.chip
    for flops, moved, overlaps in itertools.product(
        (1e9, 1e12), (1e6, 1e10), itertools.product((False, True), repeat=2)
    ):
        found = [
            collective("all-reduce", 1 << 24, 32, 2, overlaps=overlaps[0]),
            collective("all-gather", 1 << 26, 16, overlaps=overlaps[1]),
        ]
        times = roofline.estimate(topology, flops, moved, found)
        assert times.overlapped <= times.step <= times.serial * (1 + 1e-12)  # sums in another order
        assert times.compute == flops / chip.peak_flops and times.memory == moved / chip.hbm_bandwidth
        if not any(overlaps):
            assert times.step == pytest.approx(times.serial)
        assert 0 < times.mfu(flops) <= 1 + 1e-12 and times.mfu(flops / 2) == pytest.approx(times.mfu(flops) / 2)


def test_what_limits_a_step():
    topology = chips.topology("v5e:4x4,slices=2")
    assert roofline.estimate(topology, 1e12, 1e6, []).limit == "compute"
    assert roofline.estimate(topology, 1e12, 1e6, []).mfu(1e12) == pytest.approx(1)
    assert roofline.estimate(topology, 1e6, 1e9, []).limit == "memory"
    assert roofline.estimate(topology, 1e6, 1e6, [collective("all-gather", 1 << 26, 16)]).limit == "links"
    assert roofline.estimate(topology, 1e6, 1e6, [collective("all-reduce", 1 << 26, 2, 2)]).limit == "network"
