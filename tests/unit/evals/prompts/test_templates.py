"""Prompt templates: the counts of CLIP's prompts, and class names bound by name."""

import hashlib
import json
import logging

import numpy as np
import pytest

from swin_jax.core.errors import UserError
from swin_jax.evals.prompts import class_names
from swin_jax.evals.prompts import templates as prompts

# Counts of openai/CLIP's prompts file.
COUNTS = {
    **{"imagenet": 80, "food101": 1, "cifar10": 18, "cifar100": 18, "birdsnap": 1, "sun397": 2, "stanford_cars": 8},
    **{"fgvc_aircraft": 2, "voc2007": 1, "dtd": 8, "oxford_pets": 1, "caltech101": 34, "flowers102": 1, "mnist": 1},
    **{"fer2013": 6, "stl10": 2, "eurosat": 3, "resisc45": 18, "gtsrb": 3, "kitti_distance": 1, "country211": 5},
    **{"pcam": 1, "ucf101": 48, "kinetics700": 28, "clevr_counts": 1, "hateful_memes": 1, "rendered_sst2": 1},
}


@pytest.mark.parametrize("dataset", prompts.TEMPLATES)
def test_templates_are_distinct_and_have_one_place_for_the_name(dataset):
    found = prompts.templates(dataset)
    assert len(set(found)) == len(found) == COUNTS.get(dataset, 80)
    for template in found:
        assert template.count("{}") == 1 and "  " not in template and template == template.strip()
        assert not {"X", "Y"} & set(template.split())
        assert prompts.fill(template, "tench") == template.format("tench")


def test_every_data_set_of_the_paper_has_templates():
    assert set(COUNTS) <= set(prompts.TEMPLATES) and len(COUNTS) == 27


def test_the_seven_are_among_the_eighty():
    assert len(set(prompts.IMAGENET_7) & set(prompts.IMAGENET_80)) == 7


def test_counts_of_the_grammar_of_imagenet():
    def matching(*words):
        return sum(all(word in text for word in words) for text in prompts.IMAGENET_80)

    assert [matching("photo"), matching("itap"), matching("video game"), matching("photo of a")] == [43, 3, 2, 20]
    assert (
        sum(" the {}" in text or text.startswith("the ") or "photo of the" in text for text in prompts.IMAGENET_80)
        == 38
    )
    assert {"a origami {}.", "a embroidered {}.", "a photo of many {}.", "a jpeg corrupted photo of a {}."} <= set(
        prompts.IMAGENET_80
    )


def test_examples_of_other_sets():
    assert "a centered satellite photo of {}." in prompts.templates("eurosat")
    assert "aerial imagery of {}." in prompts.templates("resisc45")
    assert "a demonstration of the person practicing {}." in prompts.templates("ucf101")
    assert "a video of {}." in prompts.templates("kinetics700")
    assert "a photo of the {} texture." in prompts.templates("dtd")
    assert "a origami {}." in prompts.templates("caltech101")


def test_bad_templates_and_names_are_told():
    with pytest.raises(UserError, match="'cifar11'.*cifar10"):
        prompts.templates("cifar11")
    for template in ("a photo", "{} and {}"):
        with pytest.raises(UserError, match="exactly one"):
            prompts.fill(template, "cat")
    assert prompts.fill("{} of {x}", "a {} b") == "a {} b of {x}"


def test_names_are_bound_by_name_and_not_by_position():
    labels = ["american_bulldog", "AbyssinianCat", "aquarium fish"]
    names = ["aquarium fish", "Abyssinian cat", "American Bulldog"]
    assert class_names.bind(labels, names) == ("American Bulldog", "Abyssinian cat", "aquarium fish")
    several = {"American bulldog": ("bulldog", "dog"), "abyssinian_cat": "cat", "Aquarium-fish": ["fish"]}
    assert class_names.bind(labels, several) == (("bulldog", "dog"), "cat", ("fish",))


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 1, 0, 2]])
def test_binding_follows_the_labels_in_any_order(order):
    labels = ["red fox", "cat", "dog", "t_shirt"]
    names = {"T-shirt": "T-shirt", "dog": "dog", "Cat": "kitty", "red_fox": "fox"}
    expected = ["fox", "kitty", "dog", "T-shirt"]
    assert class_names.bind([labels[i] for i in order], names) == tuple(expected[i] for i in order)


def test_names_that_do_not_match_are_listed():
    with pytest.raises(UserError, match="'hourse'.*'horse'"):
        class_names.bind(["cat", "hourse"], ["horse", "cat"])
    with pytest.raises(UserError, match="without a name: 'dog'"):
        class_names.bind(["cat", "dog"], ["cat"])
    with pytest.raises(UserError, match="names without a label: 'dog'$"):
        class_names.bind(["cat"], ["cat", "dog"])
    with pytest.raises(UserError, match="and 7 more"):
        class_names.bind([f"label {i}" for i in range(17)], [])
    with pytest.raises(UserError, match="'T-shirt'.*'t shirt'"):
        class_names.bind(["t shirt"], ["T-shirt", "t shirt"])
    with pytest.raises(UserError, match="crane"):
        class_names.bind(["crane", "Crane"], ["crane"])


def test_numbered_labels_are_names_of_the_curated_list():
    names = [f"class {i}" for i in range(1000)]
    folders = sorted(str(i) for i in range(1000))  # ImageNetV2's folders in the order of a file system
    assert class_names.bind_imagenet(folders, names) == tuple(f"class {folder}" for folder in folders)
    synsets = [f"n{1_000_000 + 17 * i:08d}" for i in range(1000)]
    shuffled = [synsets[i] for i in np.random.default_rng(0).permutation(1000)]
    assert class_names.bind_imagenet(shuffled, names) == tuple(f"class {synsets.index(s)}" for s in shuffled)
    subset = (3, 5, 999)
    bound = class_names.bind_imagenet([synsets[999], synsets[3], synsets[5]], names, subset)
    assert bound == ("class 999", "class 3", "class 5")
    with pytest.raises(UserError, match="1000"):
        class_names.bind_imagenet(synsets[:7], names)
    with pytest.raises(UserError, match="1000"):
        class_names.bind_imagenet(["0", "1000"], names)


def test_names_are_read_from_files(tmp_path):
    (tmp_path / "a.txt").write_text("cat\ngreat white shark\n")
    assert class_names.read(tmp_path / "a.txt") == ("cat", "great white shark")
    (tmp_path / "b.txt").write_text("0\thappy/smiling\n1\tsad\n")
    assert class_names.read(tmp_path / "b.txt") == {"0": ("happy", "smiling"), "1": "sad"}
    (tmp_path / "c.json").write_text(json.dumps(["cat", ["happy", "smiling"]]))
    assert class_names.read(tmp_path / "c.json") == ("cat", ("happy", "smiling"))
    (tmp_path / "d.json").write_text(json.dumps({"0": "cat"}))
    assert class_names.read(tmp_path / "d.json") == {"0": "cat"}
    for name, text in {"e.json": "{", "f.json": "3", "g.txt": "\n", "h.json": "[3]", "i.txt": "a\tb\nc\n"}.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(UserError, match=name):
            class_names.read(tmp_path / name)
    with pytest.raises(UserError, match="absent"):
        class_names.read(tmp_path / "absent.txt")


def test_names_are_told_apart_by_line_ends_only_and_a_mark_of_utf8_is_no_letter(tmp_path):
    (tmp_path / "a.txt").write_bytes("\ufeffant\r\nnight\u2028owl\n".encode())
    assert class_names.read(tmp_path / "a.txt") == ("ant", "night\u2028owl")
    (tmp_path / "b.json").write_bytes(b'\xef\xbb\xbf["ant"]')
    assert class_names.read(tmp_path / "b.json") == ("ant",)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"a": ' * 100_000, '{"0": "ant", "0": "cow"}', "[" + "9" * 5000 + "]"]
)
def test_hostile_names_are_one_line(text, tmp_path):
    (tmp_path / "names.json").write_text(text)
    with pytest.raises(UserError, match="names.json") as caught:
        class_names.read(tmp_path / "names.json")
    assert "\n" not in str(caught.value)


def test_checksum_joins_several_names_of_a_class_with_a_slash():
    joined = hashlib.sha256(b"happy/smiling\nsad").hexdigest()
    assert class_names.checksum([("happy", "smiling"), "sad"]) == joined
    # MNIST's ten digits are the one list that is short enough to write here.
    assert class_names.check("mnist", [str(i) for i in range(10)]) is None
    with pytest.raises(UserError, match="29dd21f55e46"):
        class_names.check("mnist", [str(i) for i in reversed(range(10))])


@pytest.fixture
def benchmark(tmp_path, monkeypatch):
    """An installed distribution `clip-benchmark` whose file holds MNIST's names, and flowers that are wrong."""
    folder = tmp_path / "clip_benchmark" / "datasets"
    folder.mkdir(parents=True)
    (tmp_path / "clip_benchmark" / "__init__.py").write_text("raise ImportError('must not be imported')")
    names = {"mnist": [str(i) for i in range(10)], "flowers": ["rose", "tulip"]}
    (folder / "en_classnames.json").write_text(json.dumps(names))
    info = tmp_path / "clip_benchmark-1.6.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: clip-benchmark\nVersion: 1.6.2\n")
    monkeypatch.syspath_prepend(str(tmp_path))


def test_curated_names_come_from_the_installed_distribution(benchmark):
    assert class_names.curated("mnist") == tuple(str(i) for i in range(10))
    with pytest.raises(UserError, match="flowers102.*5429e1ef6e0e"):
        class_names.curated("flowers102")
    with pytest.raises(UserError, match="'food101'"):
        class_names.curated("food101")


def test_the_command_that_installs_the_names_is_told(monkeypatch):
    monkeypatch.setattr(class_names, "_DISTRIBUTION", "no-such-distribution")
    with pytest.raises(UserError, match="pip install --no-deps no-such-distribution"):
        class_names.curated("imagenet")


def predictions(permutation, per_class=20, accuracy=0.8, seed=0):
    rng = np.random.default_rng(seed)
    classes = len(permutation)
    label = np.repeat(np.arange(classes), per_class)
    prediction = np.where(rng.random(len(label)) < accuracy, permutation[label], rng.integers(0, classes, len(label)))
    return label, prediction


@pytest.mark.parametrize("classes", [4, 10, 37])
def test_labels_in_another_order_are_noticed(caplog, classes):
    shifted = np.roll(np.arange(classes), classes // 3)
    label, prediction = predictions(shifted, per_class=50)
    assert class_names.reordered_accuracy(label, prediction, classes) > 0.7
    with caplog.at_level(logging.WARNING):
        class_names.warn_if_reordered(label, prediction, classes)
    assert "wrong order" in caplog.text


@pytest.mark.parametrize("accuracy, per_class", [(0.8, 20), (0.0, 20), (0.0, 1)])
@pytest.mark.parametrize("classes", [2, 4, 50, 200])
def test_good_and_random_predictions_warn_of_nothing(caplog, accuracy, per_class, classes):
    with caplog.at_level(logging.WARNING):
        class_names.warn_if_reordered(*predictions(np.arange(classes), per_class, accuracy), classes)
    assert not caplog.text
