"""docs/pretrained_table.md: every name, each architecture traced once, and the sizes that the papers give."""

import re

import pytest
from experiments.benchmarks import pretrained_table as table

import swin_jax
from swin_jax.pretrained.load import FAMILIES

ROWS = {
    name: cells.split(" | ") for name, cells in re.findall(r"^\| `(\S+)` \| (.*) \|$", table.PAGE.read_text(), re.M)
}
SECTION = {name: section for section in table.SECTIONS for name in table.names(section)}


def test_the_page_has_every_name_once():
    assert sorted(ROWS) == sorted(SECTION) == swin_jax.list_models()
    assert len(ROWS) == table.PAGE.read_text().count("\n| `") > 230


def test_published_accuracies_are_those_of_names():
    assert not {name for section in table.SECTIONS for name in section.accuracy} - set(SECTION)
    for name, cells in ROWS.items():
        assert cells[3:] == [SECTION[name].accuracy.get(name, ""), *SECTION[name].origin(name)]


def test_every_family_has_its_tables():
    assert {section.family.title for section in table.SECTIONS} == {family.title for family in FAMILIES}


def test_each_architecture_builds_and_the_page_says_its_size():
    """Of names with the same fields one is traced."""
    for name, section in SECTION.items():
        assert table.row(section, name) == f"| `{name}` | {' | '.join(ROWS[name])} |"


# Parameters and GFLOPs of the papers' tables.
@pytest.mark.parametrize(
    "name, parameters, gflops",
    [
        ("swin_tiny_patch4_window7_224", 28_288_354, 4.5),
        ("swin_base_patch4_window12_384_22kto1k", 87_903_584, 47.1),
        ("swinv2_tiny_patch4_window8_256", 28_347_154, 5.9),
        ("ViT-B/32", 151_277_313, 7.4),
        ("swin_tiny_patch244_window877_kinetics400_1k", 28_158_070, 87.8),
    ],
)
def test_sizes_are_those_of_the_papers(name, parameters, gflops):
    facts = table.facts(SECTION[name].family, name)
    assert (facts.parameters, round(facts.macs / 1e9, 1)) == (parameters, gflops)
