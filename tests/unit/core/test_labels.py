"""Class names of two sets that must mean the same numbers: mapped by name, or refused with the names."""

import pytest

from swin_jax.core import labels
from swin_jax.core.errors import UserError
from swin_jax.core.labels import match, read_names, same_spelling, share

ANIMALS = ("ant", "cow", "dog")
WNIDS = ("n01440764", "n01443537", "n01484850")
TWELVE = tuple(map(str, range(12)))


def found(names, reference, subset=False):
    return match(names, reference, "the evaluation 'val'", "the training data", subset)


@pytest.mark.parametrize("names", [(), ANIMALS, TWELVE, ("crane", "crane"), ("crane", "maillot", "crane")])
def test_equal_names_stay_without_a_word(names):
    assert found(names, names) == found(list(names), names) == match(names, names, "a", "b", True)
    assert found(names, names).index is None and found(names, names).said == ""


@pytest.mark.parametrize(
    "names, reference, index",
    [
        (("dog", "ant", "cow"), ANIMALS, (2, 0, 1)),
        (tuple(sorted(TWELVE)), TWELVE, (0, 1, 10, 11, 2, 3, 4, 5, 6, 7, 8, 9)),
        (TWELVE, tuple(sorted(TWELVE)), (0, 1, 4, 5, 6, 7, 8, 9, 10, 11, 2, 3)),
        (("café", "bar"), ("bar", "cafe\u0301"), (1, 0)),  # as Linux and as macOS write it
    ],
)
def test_names_in_another_order_are_mapped_and_said(names, reference, index):
    assert found(names, reference).index == index
    assert "another order" in found(names, reference).said and "'val'" in found(names, reference).said


@pytest.mark.parametrize(
    "names, parts",
    [
        (("Cow", "ant", "dog"), ["'Cow'", "'cow'", "case"]),
        (("ant", "cows", "dog"), ["'cows'", "did you mean 'cow'?"]),
        (("ant", "cow", "dog "), ["'dog '", "'dog'"]),
        (("ant", "cow", "zebra"), ["'zebra'", "lacks"]),
        (("ant", "bee", "cow", "dog"), ["'bee'"]),
        (("ant", "cow"), ["'dog'"]),
        (WNIDS, ["n01440764", "no class in common"]),
        (tuple("abcdefghij"), ["'a'", "and 5 more"]),
        (("0", "1", "2", "3"), ["4 classes", "3"]),
        (("0", "1"), ["2 classes", "3"]),
        (("1", "2", "3"), ["'3'", "2"]),
        (("ant", "ant", "cow"), ["'ant'", "twice"]),
    ],
)
def test_other_names_are_refused_with_both_sets_and_the_classes(names, parts):
    with pytest.raises(UserError) as error:
        found(names, ANIMALS)
    for part in [*parts, "the evaluation 'val'", "the training data"]:
        assert part in str(error.value), str(error.value)
    assert "\n" not in str(error.value) and "num_classes" not in str(error.value)


def test_a_subset_is_mapped_and_said_where_it_may_be_one():
    assert found(("dog", "cow"), ANIMALS, subset=True).index == (2, 1)
    assert "2 of the 3 classes" in found(("dog", "cow"), ANIMALS, subset=True).said
    with pytest.raises(UserError, match="'Dog'"):
        found(("Dog", "cow"), ANIMALS, subset=True)


def test_folders_named_by_numbers_count_in_the_order_of_the_names():
    """ImageNetV2 has the folders 0 ... 999, which sort as 0, 1, 10, 100."""
    reference = tuple(f"n{i:08d}" for i in range(12))
    numbered = found(tuple(sorted(TWELVE)), reference)
    assert numbered.index == (0, 1, 10, 11, 2, 3, 4, 5, 6, 7, 8, 9) and "number" in numbered.said
    padded = found(("00", "01", "02"), WNIDS)
    assert padded.index == (0, 1, 2) and "number" in padded.said


@pytest.mark.parametrize("subset", [False, True])
def test_sets_without_names_are_compared_by_count_and_that_is_said(subset):
    assert found((), ANIMALS, subset).index == (0, 1, 2) and "not known" in found((), ANIMALS, subset).said
    assert found(ANIMALS, (), subset).index is None and "not known" in found(ANIMALS, (), subset).said
    for names, reference, index in ((("0", "1", "2"), ANIMALS, (0, 1, 2)), (ANIMALS, ("0", "1", "2"), None)):
        assert found(names, reference, subset).index == index and "number" in found(names, reference, subset).said
    with pytest.raises(UserError, match="3 classes"):
        found(ANIMALS, ("0", "1"), subset)
    with pytest.raises(UserError, match="3 classes"):
        found(ANIMALS, TWELVE, subset)  # which three of the twelve?


def test_a_list_without_its_last_classes_is_a_subset_by_number():
    assert found(("0", "1"), ANIMALS, subset=True).index == (0, 1)
    assert found(("0", "1"), ("0", "1", "2"), subset=True).index == (0, 1)


def test_columns_of_a_table_must_spell_classes_alike():
    same_spelling(["cow", "ant"], ["ant", "dog"], "predictions", "labels")
    for word in ("Cow", " cow", "COW"):
        with pytest.raises(UserError, match=f"{word!r}.*'cow'"):
            same_spelling([word, "ant"], ["ant", "cow"], "predictions", "labels")


class Named:
    """A data set that remembers how it was mapped."""

    def __init__(self, *names, index=None):
        self.class_names, self.index = names, index

    def with_classes(self, index, class_names):
        return Named(*class_names, index=index)


def test_sets_of_a_probe_have_the_labels_of_the_first():
    train, test = Named(*ANIMALS), Named("dog", "ant")
    with pytest.warns(UserWarning, match="the probe's test set has 2 of the 3 classes"):
        found = share({"train": train, "test": test, "validation": None}, "the probe's")
    assert found["train"] is train and found["test"].index == (2, 0) and list(found) == ["train", "test"]
    with pytest.raises(UserError, match="the probe's validation set and its train set.*'Ant'"):
        share({"train": train, "test": train, "validation": Named("Ant", "cow")}, "the probe's")


def test_names_in_a_file_are_one_a_line(tmp_path):
    file = tmp_path / "names.txt"
    file.write_bytes("\ufeffdog\r\n\ncow \nBär".encode())
    assert read_names(str(file)) == ("dog", "cow", "Bär")
    for data, says in ((b"", "lists no classes"), (b"\xff\xfe", "UTF-8"), (None, "cannot read")):
        file.unlink() if data is None else file.write_bytes(data)
        with pytest.raises(UserError, match=f"names.txt.*{says}|{says}.*names.txt"):
            read_names(str(file))


@pytest.mark.parametrize(
    "name, text",
    [
        ("names.csv", "id,name\n0,dog\n1,cow\n"),  # kinetics_400_labels.csv
        ("names.csv", "1,cow\n0,dog\n"),
        ("names.csv", 'name;label\ndog;0\n"cow";1\n'),
        ("names.tsv", "label\tname\n1\tcow\n0\tdog\n"),
        ("names.txt", "0 dog\n1 cow\n"),
        ("names.txt", "1 cow\n0 dog\n"),
        ("names.txt", "dog 0\ncow 1\n"),
        ("names.txt", "0\tdog\n1\tcow\n"),
        ("names.csv", "dog\ncow\n"),
    ],
)
def test_labels_beside_names_are_obeyed(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    assert read_names(str(tmp_path / name)) == ("dog", "cow")


def test_numbers_within_names_are_no_labels(tmp_path):
    for names in (
        ["3 of clubs", "2 of hearts"],
        ["Boeing 747", "Boeing 737"],
        ["7", "3"],
        ["0 people"],
        ["a, b", "c"],
        ["kind 0", "kind 1"],
    ):
        (tmp_path / "names.txt").write_text("\n".join(names))
        assert read_names(str(tmp_path / "names.txt")) == tuple(names)
    (tmp_path / "names.csv").write_text('"tench, Tinca tinca",0\n"cow, Bos",1\n')
    assert read_names(str(tmp_path / "names.csv")) == ("tench, Tinca tinca", "cow, Bos")


@pytest.mark.parametrize(
    "name, text, says",
    [
        ("names.txt", "1 dog\n2 cow\n", "counts its classes from 1: write one name a line"),  # UCF101's classInd.txt
        ("names.csv", "id,name\n2,dog\n1,cow\n", "counts its classes from 1"),
        ("names.csv", "id,name\n0,dog\n2,cow\n", "one name a line, or a label from 0 and its name"),
        ("names.csv", "id,name,more\n0,dog,a\n1,cow,b\n", "one name a line, or a label from 0 and its name"),
    ],
)
def test_tables_that_are_no_names_are_refused(tmp_path, name, text, says):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=says) as error:
        read_names(str(tmp_path / name))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "text, says",
    [
        ('["dog", "cow"]', ""),
        ('{"cow": "1", "dog": 0}', ""),
        ('{"0": "dog", "1": "cow"}', ""),  # id2label of transformers
        ('{"model_type": "swin", "id2label": {"1": "cow", "0": "dog"}}', ""),  # its config.json
        ('{"0": "dog", "2": "cow"}', "count up from 0"),
        ('{"0": ["n1", "dog"], "1": ["n2", "cow"]}', "count up from 0"),
        ('{"dog": true, "cow": false}', "count up from 0"),
        ('{"dog": 0, "cow": %s}' % ("1" * 5000), "not a list of names"),
        ("[" * 100_000, "not a list of names"),
        ('{"dog": 0, "cow": 1, "dog": 2}', "the key 'dog' appears twice"),
        ('{"0": "dog", "1": "cow", "1": "elk"}', "the key '1' appears twice"),
        ("[1, 2]", "must list class names"),
    ],
)
def test_names_in_json(tmp_path, text, says):
    (tmp_path / "names.json").write_text(text)
    if not says:
        assert read_names(str(tmp_path / "names.json")) == ("dog", "cow")
        return
    with pytest.raises(UserError, match=says) as error:
        read_names(str(tmp_path / "names.json"))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "name, text",
    [
        ("imagenet1000_clsidx_to_labels.txt", "{0: 'tench, Tinca tinca',\n 1: 'goldfish',\n 2: \"owl's\"}"),
        (
            "imagenet_class_index.json",
            '{"0": ["n01440764", "tench, Tinca tinca"], "1": ["n01443537", "goldfish"], "2": ["n01622779", "owl\'s"]}',
        ),
        ("names.txt", "['tench, Tinca tinca', 'goldfish', \"owl's\"]"),
        ("names.txt", "['tench, Tinca tinca' 'goldfish'\n \"owl's\"]\n"),  # as NumPy prints an array
        ("synset_words.txt", "n01440764 tench, Tinca tinca\nn01443537 goldfish\nn01622779 owl's\n"),
        ("names.csv", '"tench, Tinca tinca"\ngoldfish\n"owl\'s"\n'),
    ],
)
def test_names_are_read_as_they_are_handed_around(name, text, tmp_path):
    (tmp_path / name).write_text(text)
    assert labels.read_names(str(tmp_path / name)) == ("tench, Tinca tinca", "goldfish", "owl's")


@pytest.mark.parametrize(
    "name, text",
    [
        ("data.yaml", "nc: 2\nnames: ['cat', 'dog']\n"),
        ("a.txt", "{0: 'a', 5: 'b'}"),
        ("a.txt", "{cat, dog}"),
        ("a.txt", "[1, 2]"),
    ]
    + [("a.txt", "[" * 5000 + "]" * 5000), ("a.txt", "{0: 'a', [1]: 'b'}"), ("a.txt", "{x\n: y}")]
    # A label twice, and a comma that is missing.
    + [("a.txt", "{0: 'a', 1: 'b', 1: 'c'}"), ("a.txt", "['a' 'b', 'c']"), ("a.txt", "{0: 'a' 'b', 1: 'c'}")],
)
def test_what_only_looks_like_names_is_one_line(name, text, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=name) as caught:
        labels.read_names(str(tmp_path / name))
    assert "\n" not in str(caught.value)


def test_a_near_name_is_looked_for_where_it_is_shown_only(monkeypatch):
    """Each look goes through all names: minutes for the 21,841 of ImageNet-22K."""
    looked, nearest = [], labels.nearest
    monkeypatch.setattr(labels, "nearest", lambda name, *others: looked.append(name) or nearest(name, *others))
    names = [f"class {i}" for i in range(100)]
    with pytest.raises(UserError, match="train lacks 'klass 0' \\(did you mean 'class 0'\\?\\), .* and 45 more;"):
        labels.match(
            [name.replace("c", "k", 1) if i < 50 else name for i, name in enumerate(names)], names, "val", "train"
        )
    assert len(looked) == 5
