"""Patterns of shards: as a shell expands them, except that a name which exists is not a pattern."""

import os

import pytest

from swin_jax.core.errors import UserError
from swin_jax.data.image_text import patterns


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def names(root, *given):
    return [os.path.relpath(path, root) for path in patterns.expand([f"{root}/{pattern}" for pattern in given])]


def test_braces_and_wildcards(tmp_path):
    touch(tmp_path, "a0.tar", "a1.tar", "b9.tar", "b10.tar")
    assert names(tmp_path, "{b,a}*.tar") == ["b10.tar", "b9.tar", "a0.tar", "a1.tar"]
    assert names(tmp_path, "b{9..10}.tar") == ["b9.tar", "b10.tar"]
    assert names(tmp_path, "b{10..9}.tar") == ["b10.tar", "b9.tar"]
    assert names(tmp_path, "a1.tar", "a?.tar") == ["a1.tar", "a0.tar"]
    assert patterns.expand(tmp_path / "a1.tar") == [str(tmp_path / "a1.tar")]
    for pattern in ("c*.tar", "a{0..2}.tar", "a{0}.tar", "*/a0.tar"):
        with pytest.raises(UserError, match="no tar shard fits"):
            patterns.expand(f"{tmp_path}/{pattern}")


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("{008..010}", ["008", "009", "010"]),
        ("{0..10..1}", ["{0..10..1}"]),
        ("{0..2}{a,b}", ["0a", "0b", "1a", "1b", "2a", "2b"]),
        ("{a,{b,c}}", ["a", "b", "a", "c"]),
        ("x{a}y", ["x{a}y"]),
        ("x{}y{", ["x{}y{"]),
        ("{9..011}", ["009", "010", "011"]),
    ],
)
def test_braces(pattern, expected):
    assert list(patterns._braces(pattern)) == expected


# What a path is called -> what the same letters would mean as a pattern.
LITERAL = {
    "x[1].tar": "x1.tar",
    "run[1]/x.tar": "run1/x.tar",
    "run[ab]/in[12]/x.tar": "runa/in1/x.tar",
    "a*b.tar": "acb.tar",
    "a?.tar": "ab.tar",
    "{a,b}.tar": "a.tar",
    "{1..2}/x.tar": "1/x.tar",
    "data{a}/x.tar": "dataa/x.tar",
    "[!a]/x.tar": "b/x.tar",
}


@pytest.mark.parametrize(("name", "sibling"), LITERAL.items())
def test_a_name_that_exists_is_no_pattern(tmp_path, name, sibling):
    touch(tmp_path, name, sibling)
    assert names(tmp_path, name) == [name]
    folder, _, file = name.rpartition("/")
    if folder:
        assert names(tmp_path, f"{folder}/*.tar") == [name]
        assert names(tmp_path, f"{folder}/{{x,x}}.tar") == [name]
        assert name in names(tmp_path, "/".join("*" * (1 + folder.count("/"))) + f"/{file}")  # meant as a pattern
    os.remove(tmp_path / name)
    (tmp_path / name).mkdir() if not folder else None
    with pytest.raises(UserError, match="no tar shard fits"):
        names(tmp_path, name)


def test_a_wildcard_finds_names_with_signs_in_them(tmp_path):
    touch(tmp_path, "x[1].tar", "x{a,b}.tar", "x1.tar", "d[1]/y.tar")
    assert sorted(names(tmp_path, "x*.tar")) == ["x1.tar", "x[1].tar", "x{a,b}.tar"]
    assert names(tmp_path, "d*/y.tar") == ["d[1]/y.tar"]


def test_a_file_is_there_once_whatever_leads_to_it(tmp_path):
    touch(tmp_path, "s/a.tar", "s/b.tar")
    (tmp_path / "s" / "latest.tar").symlink_to("b.tar")
    (tmp_path / "t").symlink_to("s")
    for given in (["s/*.tar"], ["s/a.tar", "s/b.tar", "t/b.tar"], ["s/a.tar", "s/b.tar", "s/../s/a.tar"]):
        with pytest.warns(UserWarning, match="left out: 1 paths of tar shards that are read anyway"):
            assert names(tmp_path, *given) == ["s/a.tar", "s/b.tar"]
    with pytest.warns(UserWarning, match=r"left out: 3 paths .*\(.*/t/a.tar\)"):
        assert names(tmp_path, "s/{a,b}.tar", "t/*.tar") == ["s/a.tar", "s/b.tar"]


def test_files_only(tmp_path):
    os.mkfifo(tmp_path / "a.tar")
    (tmp_path / "b.tar").mkdir()
    touch(tmp_path, "c.tar")
    assert names(tmp_path, "*.tar") == ["c.tar"]
    for name in ("a.tar", "b.tar"):
        with pytest.raises(UserError, match="no tar shard fits"):
            names(tmp_path, name)


@pytest.mark.parametrize("pattern", ["{0..999999999}", "{a,b}" * 30, "{a,b}" * 5000, "{0..9}" * 9, "{" * 3000])
@pytest.mark.timeout(20)
def test_too_many_paths(monkeypatch, pattern):
    monkeypatch.setattr(patterns, "MAX_PATHS", 1000)
    with pytest.raises(UserError, match="too many paths"):
        patterns.expand(f"{pattern}.tar")
