"""Paths of shards from patterns, as a shell expands them;
what exists by its literal name is taken as that.
"""

import glob
import itertools
import os
import re
from collections.abc import Iterator, Sequence

from swin_jax.core.errors import UserError, warn

MAX_PATHS = 1_000_000  # that braces may stand for
_MAX_BRACES = 100  # in a pattern
_RANGE = re.compile(r"(\d{1,18})\.\.(\d{1,18})")
# Others stand for themselves.
_BRACES = re.compile(rf"\{{((?:{_RANGE.pattern})|[^{{}},]*,[^{{}}]*)\}}")


def expand(patterns: str | os.PathLike | Sequence[str | os.PathLike] | None) -> list[str]:
    """Expands braces, then wildcards, in order.

    '{000..127}' counts, up or down, '{a,b}' lists; then '*', '?' and '[]' match names. A file that
    exists by the very name wins over what its name would mean as a pattern, and so do the folders
    that a path begins with: with a folder called run[1], 'run[1]/*.tar' are files of that folder
    and not of run1. A file is there once: a path that leads to one that is there already, by a link
    for example, is left out with a warning.

    Raises:
        UserError: No pattern, one that fits no file, or braces that stand for more than MAX_PATHS.
    """
    patterns = [patterns] if isinstance(patterns, (str, os.PathLike)) else patterns
    if not patterns or not all(patterns):
        raise UserError(
            "tar shards need their paths: give --config.pairs='DIR/{000..127}.tar' "
            "(for validation pairs --config.validation_pairs='DIR/{000..127}.tar')"
        )
    paths = list(itertools.chain.from_iterable(_expand(os.fspath(pattern)) for pattern in patterns))
    if not paths:
        raise UserError(f"no tar shard fits {' '.join(map(os.fspath, patterns))!r}")
    files: dict[str, str] = {}
    for path in dict.fromkeys(paths):
        files.setdefault(os.path.realpath(path), path)
    again = [path for path in dict.fromkeys(paths) if files[os.path.realpath(path)] != path]
    if again:
        warn(f"left out: {len(again)} paths of tar shards that are read anyway ({again[0]})")
    return list(files.values())


def _expand(pattern: str) -> list[str]:
    """The files that one pattern stands for; raises UserError where a path that its
    braces make fits none.
    """
    pattern = os.path.expanduser(pattern)
    if os.path.isfile(pattern):
        return [pattern]
    folder, rest = _literal_folder(pattern)
    many = rest.count("{") > _MAX_BRACES
    expanded = [] if many else list(itertools.islice(_braces(rest), MAX_PATHS + 1))
    if many or len(expanded) > MAX_PATHS:
        raise UserError(
            f"the braces in {pattern!r} expand to too many paths, more than {MAX_PATHS:,}"
        )
    paths = []
    for path in expanded:
        found = [name for name in _matches(folder, path) if os.path.isfile(name)]
        if not found:
            raise UserError(f"no tar shard fits {os.path.join(folder, path)!r}")
        paths += found
    return paths


def _literal_folder(pattern: str) -> tuple[str, str]:
    """Splits a pattern after the longest beginning that is a folder by its literal name."""
    parts = pattern.split("/")
    for length in range(len(parts) - 1, 0, -1):
        folder = "/".join(parts[:length]) or "/"
        if os.path.isdir(folder):
            return folder, "/".join(parts[length:])
    return "", pattern


def _matches(folder: str, pattern: str) -> list[str]:
    """The names that match a pattern without braces, sorted;
    a name that exists literally matches itself only.
    """
    name, _, rest = pattern.partition("/")
    literal = os.path.join(folder, name)
    if not glob.has_magic(name) or os.path.lexists(literal):
        found = [literal]
    else:
        found = sorted(
            os.path.join(folder, entry) for entry in glob.glob(name, root_dir=folder or None)
        )
    if not rest:
        return found
    return list(itertools.chain.from_iterable(_matches(path, rest) for path in found))


def _braces(pattern: str) -> Iterator[str]:
    match = _BRACES.search(pattern)
    if not match:
        yield pattern
        return
    bounds = _RANGE.fullmatch(match[1])
    parts = match[1].split(",")
    if bounds:
        padded = any(bound.startswith("0") and len(bound) > 1 for bound in bounds.groups())
        width = max(map(len, bounds.groups())) if padded else 0
        first, last = int(bounds[1]), int(bounds[2])
        numbers = range(first, last + 1) if first <= last else range(first, last - 1, -1)
        parts = (f"{number:0{width}d}" for number in numbers)
    for part in parts:
        yield from _braces(f"{pattern[: match.start()]}{part}{pattern[match.end() :]}")
