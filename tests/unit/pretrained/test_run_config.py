"""The model of a contrastive run is what its saved config says, its weights in the layout that the model stores."""

import json

import flax.linen as nn
import jax
import numpy as np
import pytest

from swin_jax.core import config, stacking
from swin_jax.core.config import spec
from swin_jax.core.errors import UserError
from swin_jax.models.clip import CLIP, TextTransformer, make_clip
from swin_jax.models.swin import Swin
from swin_jax.pretrained import run_config
from swin_jax.pretrained.load import load
from swin_jax.pretrained.preprocess import preprocess
from swin_jax.train import checkpoint

TEXT = dict(embed_dim=6, context_length=5, vocab_size=20, width=8, layers=1, num_heads=2)
SWIN = dict(image_size=16, patch_size=2, window_size=2, embed_dim=4, depths=(4, 1), num_heads=(1, 2), num_classes=6)


def saved(model):
    """A config as it comes back from JSON."""
    return json.loads(json.dumps(config.flatten({"task": {"model": model}})))


@pytest.mark.parametrize(
    "model",
    [
        spec(CLIP, visual=spec(Swin, **SWIN), text=spec(TextTransformer, **TEXT), logit_bias=-10.0),
        spec(make_clip, embed_dim=8, vision_layers=(1, 1, 1, 1), vision_width=16, patch_size=None, vocab_size=20),
        spec(make_clip, embed_dim=8, vision_layers=1, vision_width=64, act="gelu"),
    ],
)
def test_a_saved_config_gives_its_model(model):
    assert run_config.is_clip(saved(model))
    assert run_config.clip_of(saved(model)) == config.build(model)


def test_an_unknown_tower_is_named():
    model = spec(CLIP, visual=spec(nn.Dense, features=6), text=spec(TextTransformer, **TEXT))
    with pytest.raises(UserError, match=r"task.model.visual.fn is flax.linen.linear.Dense"):
        run_config.clip_of(saved(model))
    assert not run_config.is_clip(saved(spec(Swin)))


@pytest.mark.parametrize("scan", [False, True])
def test_weights_come_in_the_layout_of_the_model(scan, tmp_path, monkeypatch):
    """A resumed run may have changed how blocks are stored; its checkpoint may still hold the other way."""
    model = spec(CLIP, visual=spec(Swin, **SWIN, scan=scan), text=spec(TextTransformer, **TEXT))
    (tmp_path / "config.json").write_text(json.dumps(saved(model)))
    built = config.build(model)
    images, texts = np.zeros((1, 16, 16, 3), np.float32), np.ones((1, 5), np.int32)
    wanted = jax.jit(built.init)(jax.random.key(0), images, texts)["params"]
    other = stacking.unstack(wanted)["visual"]
    other = other if scan else stacking.stack_as(other, built.visual.clone(scan=True))
    stored = {"params": {**wanted, "visual": other}}
    monkeypatch.setattr(checkpoint, "load_variables", lambda workdir: stored)
    found, variables = load(weights=tmp_path)
    assert found == built
    jax.tree.map(np.testing.assert_array_equal, variables["params"], dict(wanted))
    with pytest.raises(UserError, match="leave out act, resize"):
        load(weights=tmp_path, act="gelu", resize="bicubic")


def test_a_config_of_another_version_or_type_is_one_line(tmp_path):
    whole = saved(spec(make_clip, embed_dim=8, vision_layers=1, vision_width=64, act="gelu"))
    for key, value in (("zzz", 3), ("vision_width", "x"), ("vision_layers", [None])):
        (tmp_path / "config.json").write_text(json.dumps(whole | {f"task.model.{key}": value}))
        with pytest.raises(UserError) as error:
            load(weights=tmp_path)
        assert "\n" not in str(error.value) and ("config.json" in str(error.value) or key in str(error.value))
    told = {"predict.transform.fn": "swin_jax.data.image.transforms.eval_transform"} | {"task.std": [1.0] * 3}
    told |= {"task.context_length": 5, "task.mean": [0.5] * 3}
    for key in ("task.mean", "task.std", "data.transform.clean", "task.context_length"):
        for value in (2.5, [None], {}, -1, True):
            (tmp_path / "config.json").write_text(json.dumps(whole | told | {key: value}))
            with pytest.raises(UserError, match=f"config.json: {key}=.* must be"):
                preprocess(tmp_path)
