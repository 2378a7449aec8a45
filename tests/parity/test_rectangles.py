"""Rectangular windows, images and patches against timm, open_clip and PyTorch (tests/golden/rectangles)."""

import importlib.util
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from swin_jax.models import swin
from swin_jax.pretrained.swin import convert

GOLDEN = Path(__file__).resolve().parent.parent / "golden" / "rectangles"
spec = importlib.util.spec_from_file_location("rectangles", GOLDEN / "make.py")
make = importlib.util.module_from_spec(spec)
spec.loader.exec_module(make)
STORED = np.load(make.FILE)


def state_dict(case: str) -> dict[str, np.ndarray]:
    lines = (line.split(" ") for line in STORED[f"names/{case}"])
    return make.weights({name: tuple(map(int, shape.split(","))) for name, shape in lines})


def fields(case: str) -> dict:
    given = (make.SWINS | make.SWINS_V2)[case]
    version = swin.V2 if case in make.SWINS_V2 else {}
    return dict(given, **version) | dict(image_size=given["img_size"])


@pytest.mark.parametrize("case", [*make.SWINS, *make.SWINS_V2])
def test_swin_has_timms_logits(case):
    arguments = fields(case)
    del arguments["img_size"]
    model = swin.Swin(**arguments, small="shrink_axis")
    variables = convert.from_official(state_dict(case), model)
    image = make.draw(case, (2, 3, *arguments["image_size"])).transpose(0, 2, 3, 1)
    logits = model.apply(variables, jnp.asarray(image))
    np.testing.assert_allclose(logits, STORED[f"swin/{case}"], rtol=1e-4, atol=1e-4)
