"""Suggestions, and warnings that point at the user's own line."""

import ast
import pathlib
import warnings

import numpy as np
import pytest

import swin_jax
from swin_jax.core import errors
from swin_jax.core.config import build, spec

# A file of a detector, of which a warning says what is left out.
SCRIPT = """\
import numpy as np
from swin_jax.pretrained.swin.layouts import to_official_names

SWIN = ("backbone.patch_embed.proj.weight", "backbone.layers.0.blocks.0.norm1.weight")
FILE = {name: np.ones((1, 1, 1, 1)) for name in (*SWIN, "neck.weight")}

for _ in range(3):
    to_official_names(FILE)

to_official_names(FILE)
"""


def test_each_line_of_a_users_script_is_warned_once(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("default")
        exec(compile(SCRIPT, script, "exec"), {"__name__": "__main__"})
    assert [(one.filename, one.lineno) for one in told] == [(str(script), 8), (str(script), 10)]
    assert all(one.category is UserWarning and "neck (1)" in str(one.message) for one in told)


def test_every_warning_of_the_package_goes_the_same_way():
    """`warnings.warn` would point at a line that depends on how many functions lie between."""
    others = []
    for file in pathlib.Path(swin_jax.__file__).parent.rglob("*.py"):
        calls = [node.func for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)]
        names = [ast.unparse(call) for call in calls]
        others += [f"{file}: {name}" for name in names if name.startswith("warnings.warn")]
    assert [other.partition("swin_jax/")[2] for other in others] == ["core/errors.py: warnings.warn_explicit"]


@pytest.mark.parametrize(
    "word, cutoff, near", [("tinny", 0.4, "tiny"), ("tiny", 1.0, "tiny"), ("zzl", 0.4, None), ("zzl", 0.0, "small")]
)
def test_the_nearest_word(word, cutoff, near):
    assert errors.nearest(word, ["tiny", "small"], cutoff) == near
    assert errors.did_you_mean(word, ["tiny", "small"], cutoff) == (f"; did you mean {near!r}?" if near else "")


def test_no_word_is_the_nearest_of_none():
    assert errors.nearest("tiny", []) is None and errors.did_you_mean("tiny", []) == ""


def _raised(function) -> Exception:
    with pytest.raises(Exception) as caught:
        function()
    # As whoever catches it in the package sees it: without the callers.
    return caught.value.with_traceback(caught.value.__traceback__.tb_next.tb_next)


def test_an_error_is_ours_if_the_package_called_the_library_that_raised_it():
    def in_a_users_file():
        return np.zeros(2) + np.zeros(3)

    call = spec(in_a_users_file)
    assert not errors.is_ours(_raised(lambda: build(call)))
    assert errors.is_ours(_raised(lambda: build(spec(np.reshape, a=(1, 2), shape=3))))
    assert not errors.is_ours(ValueError("never raised"))
