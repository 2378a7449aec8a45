"""Robustness: published label subsets, ObjectNet's mapping, and lines on the logit scale."""

import json

import numpy as np
import pytest

from swin_jax.core.errors import UserError
from swin_jax.evals.analysis import robustness
from swin_jax.evals.analysis.robustness import Measurement


@pytest.mark.parametrize("subset, ends", [(robustness.IMAGENET_A, (6, 988)), (robustness.IMAGENET_R, (1, 988))])
def test_the_subsets_have_200_classes(subset, ends):
    assert len(subset) == 200 and list(subset) == sorted(set(subset)) and (subset[0], subset[-1]) == ends


def test_the_subsets_hold_ranges():
    assert {306, 307, 311, 313, 400, 401, 402, 986, 987} <= set(robustness.IMAGENET_A)
    assert {160, 163, 365, 368, 469, 472} <= set(robustness.IMAGENET_R) and 312 not in robustness.IMAGENET_A
    # great white shark is in R only, hummingbird (94) in both
    assert 2 in robustness.IMAGENET_R and 2 not in robustness.IMAGENET_A
    assert 94 in set(robustness.IMAGENET_A) & set(robustness.IMAGENET_R)


def test_reference_figures_are_fractions_of_six_sets():
    assert len(robustness.OPENAI_CLIP) == 9
    for row in robustness.OPENAI_CLIP.values():
        assert len(row) == len(robustness.DATASETS) and all(0.2 < value < 0.9 for value in row)
    assert robustness.OPENAI_CLIP["ViT-B/32"][1] == 0.5592


def test_the_border_is_cut_off():
    image = np.arange(8 * 10 * 3).reshape(8, 10, 3)
    np.testing.assert_array_equal(robustness.crop_border(image), image[2:6, 2:8])
    np.testing.assert_array_equal(robustness.crop_border(image, 0), image)
    with pytest.raises(UserError, match="border"):
        robustness.crop_border(image, 4)


@pytest.fixture
def mappings(tmp_path):
    """Three ObjectNet classes, two of which ImageNet has; ImageNet's file is in another order than the 1000 classes."""
    files = {
        "folder_to_objectnet_label.json": {"b_clock": "Alarm clock", "a_mug": "Mug", "c_plate": "Plate"},
        "objectnet_to_imagenet_1k.json": {"Alarm clock": "analog clock; digital clock", "Mug": "coffee mug"},
        "pytorch_to_imagenet_2012_id.json": {"409": 2, "504": 0, "530": 1},
    }
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content))
    (tmp_path / "imagenet_to_label_2012_v2").write_text("coffee mug \ndigital clock\nanalog clock\n")
    return tmp_path


def test_classes_of_objectnet(mappings):
    found = robustness.objectnet_classes(mappings)
    assert [(x.folder, x.name, x.imagenet) for x in found] == [
        ("a_mug", "mug", (504,)),
        ("b_clock", "alarm clock", (409, 530)),
    ]
    (mappings / "imagenet_to_label_2012_v2").write_text("coffee mug\n")
    with pytest.raises(UserError, match="KeyError.*mappings"):
        robustness.objectnet_classes(mappings)
    with pytest.raises(UserError, match="FileNotFoundError"):
        robustness.objectnet_classes(mappings / "absent")


def test_a_class_may_stand_for_several_columns():
    scores = np.array([[9, 1, 2, 0], [9, 0, 1, 2], [9, 0, 2, 1.0]])
    groups = [(1,), (2, 3)]  # column 0 is of no class
    assert robustness.accuracy_by_any(scores, np.array([1, 1, 0]), groups) == pytest.approx(2 / 3)


def test_sets_of_labels_and_windows_of_frames():
    assert robustness.accuracy_of_sets(np.array([3, 3, 3]), [{1, 3}, {1}, set()]) == 0.5
    with pytest.raises(UserError):
        robustness.accuracy_of_sets(np.array([3]), [()])
    correct, anchor = np.array([1, 1, 0, 1, 1], bool), np.array([7, 7, 9, 9, 2])
    assert robustness.worst_case_accuracy(correct, anchor) == pytest.approx(2 / 3)
    assert robustness.worst_case_accuracy(correct, np.arange(5)) == 0.8


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def baselines(shift="sketch", slope=1.2, intercept=-0.7, noise=0.0):
    x = np.linspace(-1, 2, 9)
    y = slope * x + intercept + noise * np.random.default_rng(0).normal(size=9)
    return [Measurement(f"resnet {i}", shift, sigmoid(a), sigmoid(b)) for i, (a, b) in enumerate(zip(x, y))]


def test_the_line_is_fitted_on_the_logit_scale():
    points = baselines()
    line = robustness.fit([x.in_domain for x in points], [x.shifted for x in points])
    assert (line.slope, line.intercept) == (pytest.approx(1.2), pytest.approx(-0.7))
    assert line.expected(0.5) == pytest.approx(sigmoid(-0.7))
    assert np.isfinite(robustness.logit([0, 1])).all()
    with pytest.raises(UserError, match="two baselines"):
        robustness.fit([0.5, 0.5], [0.2, 0.3])


def test_ordinary_models_have_no_effective_robustness():
    for row in robustness.report(baselines(), baselines()):
        assert row.effective == pytest.approx(0, abs=1e-12) and row.relative is None


def test_effective_and_relative_robustness():
    clip = Measurement("clip", "sketch", 0.762, 0.602)
    probe = Measurement("probe", "sketch", 0.854, 0.574, base="clip")
    first, second = robustness.report([clip, probe], baselines())
    expected = sigmoid(1.2 * np.log(0.762 / 0.238) - 0.7)
    assert first.expected == pytest.approx(expected) and first.effective == pytest.approx(0.602 - expected)
    assert second.relative == pytest.approx(-0.028) and first.relative is None
    with pytest.raises(UserError, match="'clip'.*'sketch'"):
        robustness.report([probe], baselines())
    with pytest.raises(UserError, match="objectnet: a line needs"):
        robustness.report([Measurement("clip", "objectnet", 0.5, 0.5)], baselines())


def test_table_and_picture_of_any_pairs(tmp_path):
    measured = [Measurement("ours", "openmoji", 0.6, 0.2), Measurement("ours", "fluent-3d", 0.5, 0.4)]
    ordinary = baselines("openmoji", noise=0.1) + baselines("fluent-3d", 0.9, noise=0.1)
    lines = robustness.table(robustness.report(measured, ordinary)).splitlines()
    assert len(lines) == 5 and {line.count("|") for line in lines} == {8}
    assert lines[-1].startswith("| ours | mean | 55.0% | 30.0% |")
    robustness.plot(measured, ordinary, tmp_path / "robustness.png")
    assert (tmp_path / "robustness.png").stat().st_size > 1000
