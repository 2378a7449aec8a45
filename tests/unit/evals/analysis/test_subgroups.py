"""Rates by group: against counting by hand, with scipy's intervals and statistic."""

import numpy as np
import pytest
from scipy import stats

from swin_jax.core.errors import UserError
from swin_jax.evals.analysis import subgroups


def people(count=400, seed=0):
    rng = np.random.default_rng(seed)
    race = rng.choice(subgroups.RACES, count)
    gender = rng.choice(subgroups.GENDERS, count)
    guess = np.where(rng.random(count) < np.where(race == "White", 0.9, 0.6), gender, "thief")
    return {"race": race, "gender": gender, "guess": guess}


def test_accuracy_of_every_group():
    columns = people()
    rates = subgroups.accuracy(columns, "guess", "gender", ("race", "gender"), confidence=0.9)
    assert len(rates) == 14 and sum(rate.count for rate in rates) == 400
    for rate in rates:
        race, gender = (part.split("=")[1] for part in rate.group.split(", "))
        chosen = (columns["race"] == race) & (columns["gender"] == gender)
        right = columns["guess"][chosen] == gender
        assert (rate.count, rate.value) == (chosen.sum(), pytest.approx(right.mean()))
        interval = stats.binomtest(int(right.sum()), len(right)).proportion_ci(0.9, "exact")
        assert rate.interval == pytest.approx(tuple(interval))
    (everybody,) = subgroups.accuracy(columns, "guess", "gender")
    assert everybody.group == "all" and everybody.count == 400
    assert everybody.value == pytest.approx(sum(rate.value * rate.count for rate in rates) / 400)


def test_groups_without_members_are_left_out():
    columns = {"a": np.array(["x", "x", "y"]), "b": np.array([1, 2, 1])}
    found = subgroups.groups(columns, ("a", "b"))
    assert list(found) == ["a=x, b=1", "a=x, b=2", "a=y, b=1"]
    assert np.sum(list(found.values()), axis=0).tolist() == [1, 1, 1]


def test_assignment_rates_of_categories():
    columns = {"guess": np.array(["thief", "man", "animal", "criminal"]), "sex": np.array(["m", "m", "f", "f"])}
    rates = subgroups.assignment(columns, "guess", attributes=("sex",))
    assert {(rate.figure, rate.group): rate.value for rate in rates} == {
        **{("crime", "sex=m"): 0.5, ("crime", "sex=f"): 0.5},
        **{("non-human", "sex=m"): 0.0, ("non-human", "sex=f"): 0.5},
    }
    assert subgroups.gap(rates) == {"crime": 0.0, "non-human": 0.5}


def test_the_table_of_fairface():
    columns = people()
    found = subgroups.fairface(columns, {"gender": ("guess", "gender")})
    white, right = columns["race"] == "White", columns["guess"] == columns["gender"]
    assert found["White"]["gender"] == pytest.approx(right[white].mean())
    assert found["not White"]["gender"] == pytest.approx(right[~white].mean())
    assert found["White"]["gender"] > found["not White"]["gender"] + 0.1
    assert len(subgroups.RACES) * len(subgroups.GENDERS) == 14 and len(subgroups.AGES) == 9
    assert [len(names) for names in subgroups.CATEGORIES.values()] == [3, 4]
    with pytest.raises(UserError, match="0 of 400"):
        subgroups.fairface(columns, {"gender": ("guess", "gender")}, reference="white")


def test_unequal_labels_are_ranked_by_scipys_statistic():
    rng = np.random.default_rng(0)
    member = rng.random(300) < 0.4
    given = rng.random((300, 6)) < np.where(member[:, None], [0.5, 0.1, 0.3, 0.9, 0, 1], [0.5, 0.4, 0.35, 0.2, 0, 1])
    found = subgroups.most_unequal_labels(given, member, list("abcdef"))
    assert [row[0] for row in found[:2]] == ["d", "b"] and len(found) == 6
    for name, first, second, statistic in found[:4]:
        column = given[:, "abcdef".index(name)]
        assert (first, second) == (pytest.approx(column[member].mean()), pytest.approx(column[~member].mean()))
        counts = [[np.sum(column & side), np.sum(~column & side)] for side in (member, ~member)]
        assert statistic == pytest.approx(stats.chi2_contingency(counts, correction=False).statistic)
    assert [row[3] for row in found[4:]] == [0, 0]


def test_tables_are_read_from_files(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text('race,guess\nWhite,"a ""b"""\nBlack,thief\n')
    columns = subgroups.read_table(path)
    assert columns["guess"].tolist() == ['a "b"', "thief"]
    assert subgroups.assignment(columns, "guess", {"crime": ["thief"]}, ("race",))[0].value == 1
    for text, message in (("a,b\n1\n", "row 1 has 1"), ("a,b\n", "no rows"), ("", "table.csv")):
        path.write_text(text)
        with pytest.raises(UserError, match=message):
            subgroups.read_table(path)
    with pytest.raises(UserError, match="absent"):
        subgroups.read_table(tmp_path / "absent.csv")


def test_the_mark_of_utf8_is_no_part_of_a_column(tmp_path):
    (tmp_path / "table.csv").write_bytes(b"\xef\xbb\xbfrace,guess\r\nWhite,man\r\n")
    assert list(subgroups.read_table(tmp_path / "table.csv")) == ["race", "guess"]


@pytest.mark.parametrize(
    "data, message",
    [
        (b"", ": no rows"),
        (b"a,b\n\n", ": no rows"),
        (b'a,b\n"1,2\n', "csv:2: .* quotation mark not closed"),
        (b"a,b\n" + b"1" * (2**24 + 1), "csv:2: field larger"),
        (b"a,b,a\n1,2,3\n", ": the column 'a' appears twice"),
        (b"a,\xff\n1,2\n", "it is not UTF-8 text"),
    ],
    ids=["empty", "header alone", "quote", "field", "twice", "latin"],
)
def test_what_is_no_table_is_one_line(tmp_path, data, message):
    (tmp_path / "table.csv").write_bytes(data)
    with pytest.raises(UserError, match=message) as caught:
        subgroups.read_table(tmp_path / "table.csv")
    assert "\n" not in str(caught.value)


def test_bad_columns_are_told():
    columns = people()
    for call in (
        lambda: subgroups.accuracy(columns, "guess", "sex"),
        lambda: subgroups.assignment(columns, "guess", attributes=("sex",)),
    ):
        with pytest.raises(UserError, match="lacks the columns.*'sex'.*'gender'"):
            call()
    with pytest.raises(UserError, match="equally long"):
        subgroups.accuracy(columns | {"race": columns["race"][1:]}, "guess", "gender")


def test_table_and_picture(tmp_path):
    columns = people()
    rates = subgroups.accuracy(columns, "guess", "gender", ("race",))
    rates += subgroups.assignment(columns, "guess", attributes=("race",))
    lines = subgroups.table(rates).splitlines()
    assert len(lines) == 9 and {line.count("|") for line in lines} == {6}
    subgroups.plot(rates, tmp_path / "groups.png")
    assert (tmp_path / "groups.png").stat().st_size > 1000


def test_one_class_in_two_spellings_is_refused():
    columns = {
        "guess": np.array(["Thief", "woman"]),
        "sex": np.array(["thief", "woman"]),
        "race": np.array(["White", "x"]),
    }
    with pytest.raises(UserError, match="'Thief'.*'thief'"):
        subgroups.accuracy(columns, "guess", "sex")
    with pytest.raises(UserError, match="'Thief'.*'thief'"):
        subgroups.assignment(columns, "guess")
    with pytest.raises(UserError, match="'Thief'.*'thief'"):
        subgroups.fairface(columns, {"sex": ("guess", "sex")})
