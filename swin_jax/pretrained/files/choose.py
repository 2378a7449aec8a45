"""Chooses the weights among the dicts of a checkpoint, or among the parts of a dict.

The rule: the names that training scripts give to the weights come first (`WRAPPERS`, in this
order). A teacher is preferred to its student, since such methods evaluate the teacher, and the
average of a generator to the generator and its discriminator, since samples are drawn from the
average. Otherwise weights are preferred to their average. If several remain, the error lists them,
and the caller chooses with `key`.
"""

import re
from collections import deque
from collections.abc import Callable, Collection, Mapping
from typing import Any

from swin_jax.core.errors import UserError, did_you_mean
from swin_jax.pretrained.files.limits import Limits

WRAPPERS = ("model", "state_dict", "module", "model_state", "model_state_dict")
# The averages of generators, as rosinality and NVIDIA call them.
_GENERATORS = ("g_ema", "G_ema")
# An array at the top of a checkpoint that belongs to the weights inside it:
# a generator's mean latent.
BESIDE = "latent_avg"
# Entries that hold arrays other than weights.
_NO_WEIGHTS = r"opt$|amp$|rng|callbacks|loops|.*(optim|sched|scaler)"
_AVERAGES = {"ema", "average", "averaged", "avg", "swa", "momentum", "target", "k", "key", "shadow"}


def preferred(names: Collection[str]) -> str | None:
    """The name of the weights that the rule of this module chooses; None if it does not decide."""
    for name in (*WRAPPERS, *_GENERATORS):
        if name in names:
            return name
    words = {name: set(re.split(r"[._/]", name.lower())) for name in names}
    if any("teacher" in found for found in words.values()):
        words = {name: found for name, found in words.items() if "student" not in found}
    plain = [name for name, found in words.items() if not found & _AVERAGES]
    left = plain or list(words)
    return left[0] if len(left) == 1 else None


def several(names: Collection[str]) -> UserError:
    """Makes the error for weights among which the rule does not decide."""
    return UserError(
        f"there are weights under {listed(names)}: choose with key=, such as key={min(names)!r}"
    )


def chosen(name: str, others: Collection[str]) -> str:
    """The line that reports which of several weights were chosen."""
    return f"took the weights under {name[:200]}; key= selects those under {listed(others)}"


def listed(names: Collection[str]) -> str:
    """The first of some names, in one line."""
    shown = [name[:60] for name in list(names)[:8]]
    return ", ".join(shown) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def _may_hold_weights(name: Any) -> bool:
    return isinstance(name, str) and not re.match(_NO_WEIGHTS, name[:100].lower())


def numbered(value: Any) -> Any:
    """Converts a list of dicts, or dicts under numbers, to a dict whose keys are these numbers as
    text; returns anything else unchanged.

    Ensembles, folds and averages of several epochs are saved this way. Items of a list that are not
    dicts are left out.
    """
    if isinstance(value, dict):
        counted = value.items() if value and all(isinstance(name, int) for name in value) else ()
    else:
        counted = enumerate(value) if isinstance(value, (list, tuple)) else ()
    return {str(name): entry for name, entry in counted if isinstance(entry, dict)} or value


class Checkpoint:
    """The dicts of a checkpoint that hold arrays, directly or in dicts inside them.

    Args:
        top: The checkpoint; it may contain itself, or the same dict many times.
        is_array: True for a value that is an array.
        limits: Bounds on dicts and their depth.
    """

    def __init__(self, top: dict, is_array: Callable[[Any], bool], limits: Limits):
        self._top, self._is_array = top, is_array
        parents: dict[int, list[int]] = {id(top): []}
        self.places: dict[str, dict] = {"": top}
        queue, holding = deque([("", top, 0)]), []
        while queue:
            path, node, depth = queue.popleft()
            limits.check("depth", depth, "a checkpoint with more dicts inside each other")
            limits.check("names", len(parents), "a checkpoint of more dicts")
            holding += [id(node)] * any(map(is_array, node.values()))
            for name, value in node.items():
                if not isinstance(value, dict) or not _may_hold_weights(name):
                    continue
                if id(value) not in parents:
                    parents[id(value)] = []
                    inside = f"{path}.{name}" if path else name
                    limits.check("name_length", len(inside), "a longer name of an entry")
                    self.places[inside] = value
                    queue.append((inside, value, depth + 1))
                parents[id(value)].append(id(node))
        self._holds = set()
        while holding:
            if (node := holding.pop()) not in self._holds:
                self._holds.add(node)
                holding += parents[node]

    def is_empty(self) -> bool:
        """True if no dict holds arrays."""
        return not self._holds

    def weights(self, path: str = "") -> tuple[dict, tuple[str, ...]]:
        """Finds the weights inside the dict at `path`.

        Returns:
            (the dict that holds the arrays, a line for each choice that was made).

        Raises:
            UserError: Several dicts hold weights, and the rule does not decide.
        """
        node, seen, said = self.places[path], set(), []
        while id(node) not in seen:
            seen.add(id(node))
            inside = {
                name: value
                for name, value in node.items()
                if id(value) in self._holds and id(value) not in seen and _may_hold_weights(name)
            }
            known = [name for name in inside if name in WRAPPERS]
            if not known and self._arrays(node).keys() - {BESIDE} or not inside:
                break
            name = preferred(inside)
            if name is None:
                raise several(inside)
            path = f"{path}.{name}" if path else name
            if len(inside) > 1:
                said.append(chosen(path, [other for other in inside if other != name]))
            node = inside[name]
        return node, tuple(said)

    def named(self, key: str) -> tuple[dict, tuple[str, ...]]:
        """The weights that a key selects: a dict, or the arrays whose names share a part.

        Args:
            key: Names joined by dots, of nested dicts and then of parts of names; the outer dicts
                may be left out.

        Returns:
            The same as `weights`.

        Raises:
            UserError: Nothing has this name, or several dicts do.
        """
        paths, words = self._paths(), key.split(".")
        for count in range(len(words), 0, -1):
            wanted, rest = ".".join(words[:count]), ".".join(words[count:])
            found = [path for path in paths if path == wanted] or [
                path for path in paths if path.endswith(f".{wanted}")
            ]
            if len(found) > 1:
                raise several(found)
            if found:
                node, said = self.weights(found[0])
                return part(self._arrays(node), rest, paths) if rest else node, said
        arrays = {path: self._arrays(node) for path, node in self.places.items()}
        holding = [
            path
            for path, names in arrays.items()
            if any(f".{key}." in f".{name}" for name in names)
        ]
        if len(holding) > 1:
            raise several(holding)
        return part(arrays[holding[0] if holding else ""], key, paths), ()

    def with_beside(self, arrays: dict[str, Any]) -> dict[str, Any]:
        """Adds `latent_avg`, which lies at the top of a checkpoint, to some of its weights."""
        value = self._top.get(BESIDE)
        return arrays if not self._is_array(value) else {BESIDE: value, **arrays}

    def _arrays(self, node: dict) -> dict[str, Any]:
        return {str(name): leaf for name, leaf in node.items() if self._is_array(leaf)}

    def _paths(self) -> list[str]:
        """The paths of all dicts that hold arrays."""
        return [path for path, node in self.places.items() if path and id(node) in self._holds]


def part(arrays: Mapping[str, Any], key: str, others: Collection[str]) -> dict[str, Any]:
    """The arrays whose names contain `key`, under the rest of the name after it.

    Args:
        arrays: {name: array}.
        key: Whole parts of names, `student.backbone` for example.
        others: Other possible keys, for the message.

    Raises:
        UserError: No name contains the key, or names contain it in several places.
    """
    roots, starts = set(), {}
    for name in arrays:
        starts[name.split(".")[0]] = None
        place = f".{name}".find(f".{key}.")
        if place >= 0:
            roots.add(name[: place + len(key) + 1])
    outer = []
    for root in sorted(roots):
        if not outer or not root.startswith(outer[-1]):
            outer.append(root)
    if len(outer) > 1:
        raise several([root.rstrip(".") for root in outer])
    if not outer:
        what, known = ("dict", others) if others else ("name", list(starts))
        near = did_you_mean(key, [*others, *starts])
        raise UserError(f"no {what} under {key[:60]!r}; its entries are {listed(known)}{near}")
    (root,) = outer
    return {name[len(root) :]: value for name, value in arrays.items() if name.startswith(root)}
