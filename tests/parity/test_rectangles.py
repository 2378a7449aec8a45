"""Rectangular windows, images and patches against timm, open_clip and PyTorch (tests/golden/rectangles)."""

import importlib.util
from pathlib import Path

import jax
import numpy as np
import pytest

from swin_jax.core.errors import UserError
from swin_jax.models import swin
from swin_jax.models.clip import make_clip
from swin_jax.pretrained.clip import convert as convert_clip
from swin_jax.pretrained.clip import resize as clip_resize
from swin_jax.pretrained.load import load
from swin_jax.pretrained.swin import convert, resize

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
    logits = jax.jit(model.apply)(variables, image)
    np.testing.assert_allclose(logits, STORED[f"swin/{case}"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("old, new, mode", make.GRIDS)
def test_positions_are_stretched_as_open_clip_does(old, new, mode):
    box = make.draw(f"{old}", (1, 3, *old))[0].reshape(3, -1).T
    name = "visual.positional_embedding"
    table = {name: np.concatenate([np.ones((1, 3), np.float32), box])}
    found = clip_resize.resize_positions(table, new, 0, mode, old)[name]
    np.testing.assert_array_equal(found[0], 1)
    np.testing.assert_allclose(found[1:], STORED[f"positions/{old}{new}"], atol=1e-5)


def test_bias_tables_are_resized_as_pytorch_does():
    old, new = make.TABLE
    table = make.draw("table", (1, 2, *old))[0].reshape(2, -1).T
    np.testing.assert_allclose(resize.resize_rows(table, old, new, "bicubic"), STORED["table"], atol=1e-5)


def test_a_vit_has_open_clips_features():
    shared = dict(embed_dim=16, context_length=4, vocab_size=8, text_width=64, text_layers=1, act="gelu")
    sizes = {key: make.VIT[key] for key in ("image_size", "patch_size")}
    model = make_clip(**shared, **sizes, vision_width=64, vision_layers=1, vision_heads=1)
    shapes = convert_clip.official_shapes(model)
    file = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    file |= {f"visual.{name}": value for name, value in state_dict("vit").items()}
    variables = convert_clip.from_official(file, model, image_size=make.VIT["image_size"])
    image = make.draw("vit", (2, 3, *make.VIT["image_size"])).transpose(0, 2, 3, 1)
    features = jax.jit(lambda v, x: model.apply(v, x, method="encode_image"))(variables, image)
    np.testing.assert_allclose(features, STORED["vit"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("case", ["window", "image"])
def test_a_file_of_timm_loads_with_its_two_sizes(case, tmp_path):
    np.savez(tmp_path / "timm.npz", **state_dict(case))
    sizes = make.SWINS[case]
    with pytest.raises(UserError, match="window_size and image_size"):
        load(weights=tmp_path / "timm.npz")
    model, variables = load(
        weights=tmp_path / "timm.npz", window_size=sizes["window_size"], image_size=sizes["img_size"]
    )
    image = make.draw(case, (2, 3, *sizes["img_size"])).transpose(0, 2, 3, 1)
    logits = jax.jit(model.apply)(variables, image)
    np.testing.assert_allclose(logits, STORED[f"swin/{case}"], rtol=1e-4, atol=1e-4)
