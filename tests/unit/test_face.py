"""The face of the package: its help, and what a type checker says of scripts that use it."""

import os
import pydoc
import re
import subprocess
import sys

import pytest

import swin_jax

RIGHT = """\
import numpy as np
import swin_jax
from swin_jax.inference import similarity

names = swin_jax.list_models("ViT-B*")
model, variables = swin_jax.load(names[0], weights="official", act="gelu")
prepared = swin_jax.preprocess(model, image_size=224)
pixels = prepared(["cat.jpg", "dog.jpg"])
features = similarity.encode_images(model, variables, pixels)
found: np.ndarray = similarity.probabilities(model, variables, "cat.jpg", ["a cat", "a dog"])
classes: tuple[str, ...] = swin_jax.class_names(model)
facts = swin_jax.export(model, variables, "clip.stablehlo", image_size=prepared.image_size)
print(names[0].upper(), pixels.shape, features.mean(), found.argmax(axis=-1), facts["inputs"])
"""
# Each line is wrong in the way that its comment says.
WRONG = """\
swin_jax.load(3)  # arg-type
swin_jax.load("ViT-B/32", resize=224)  # arg-type
swin_jax.load("ViT-B/32").apply(variables, pixels)  # attr-defined
swin_jax.preprocess()  # call-arg
swin_jax.preprocess(3)  # arg-type
prepared.imagesize  # attr-defined
prepared("cat.jpg").upper()  # attr-defined
prepared["cat.jpg"]  # index
size: int = prepared.image_size  # assignment
swin_jax.list_models(regex="ViT")  # call-arg
swin_jax.list_models(3)  # arg-type
name: str = swin_jax.list_models()  # assignment
swin_jax.export("ViT-B/32", variables, "clip.stablehlo")  # arg-type
swin_jax.export(model, variables, "clip.stablehlo", size=224)  # call-arg
swin_jax.export(model, variables, "clip.stablehlo", platforms=1)  # arg-type
similarity.probabilities(model, variables, "cat.jpg", 3)  # arg-type
similarity.cosines(model, variables, "cat.jpg", ["a cat"], preprocess="ViT-B/32")  # arg-type
swin_jax.class_names("ViT-B/32")  # arg-type
swin_jax.unload  # attr-defined
"""
# Only flax and numpy have types in the face; without the other libraries the check takes half as long.
SETTINGS = """\
[mypy]
follow_imports = skip
[mypy-swin_jax.*,flax.*,numpy.*]
follow_imports = silent
"""


@pytest.mark.parametrize("name", swin_jax.__all__)
def test_help_shows_every_argument_with_its_type_and_what_it_means(name):
    function = getattr(swin_jax, name)
    shown = pydoc.render_doc(function, renderer=pydoc.plaintext)
    assert "Args:" in shown and "Returns:" in shown
    for argument, kind in function.__annotations__.items():
        if argument == "return":
            assert f"-> {kind!r}" in shown
        else:
            assert f"{argument}: {kind!r}" in shown
            assert re.search(rf"^ +(.*, )?\*{{0,2}}{argument}(, .*)?: \S", shown, re.MULTILINE), argument


def test_a_type_checker_takes_a_right_script_and_finds_every_mistake_of_a_wrong_one(tmp_path, root):
    (tmp_path / "right.py").write_text(RIGHT)
    (tmp_path / "wrong.py").write_text(RIGHT + WRONG)
    (tmp_path / "mypy.ini").write_text(SETTINGS)
    command = [sys.executable, "-m", "mypy", "--cache-dir=cache", "right.py", "wrong.py"]
    environment = os.environ | {"MYPYPATH": str(root)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    found = re.findall(r"^(.*\.py):(\d+): error: .*\[(.*)\]$", done.stdout, re.MULTILINE)
    first = len(RIGHT.splitlines()) + 1
    wanted = [line.split("  # ")[1] for line in WRONG.splitlines()]
    assert found == [("wrong.py", str(first + i), code) for i, code in enumerate(wanted)], done
