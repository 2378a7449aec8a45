"""Configs beside the weights of a Video Swin, which no library writes."""

import json

import pytest
from safetensors.numpy import save_file

from swin_jax.models.video_swin import make_video_swin
from swin_jax.pretrained.load import load
from swin_jax.pretrained.video_swin import convert
from tests.unit.pretrained.video_swin.test_loader import TINY, noise


@pytest.mark.parametrize("config", [{"model_type": "videomae"}, {"architecture": "swin_tiny", "model_args": {}}])
def test_a_config_beside_weights_of_videos_is_said_not_to_be_read(tmp_path, config):
    save_file(noise(convert.official_shapes(make_video_swin(**TINY))), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config))
    for path in (tmp_path, tmp_path / "model.safetensors"):
        with pytest.warns(UserWarning, match="config.json is not read: .* describes no Video Swin"):
            assert load(weights=path)[0].backbone.window_size == TINY["window_size"]
