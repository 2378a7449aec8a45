"""StyleCLIP's CLIP loss against the released code: every output and gradient of the cases in tests/golden/styleclip."""

import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swin_jax.core.constants import CLIP_MEAN, CLIP_STD
from swin_jax.core.errors import UserError
from swin_jax.models.clip import make_clip
from swin_jax.models.styleclip import clip_loss, clip_view
from swin_jax.pretrained.clip import convert

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
spec = importlib.util.spec_from_file_location("golden", GOLDEN / "golden.py")
golden = importlib.util.module_from_spec(spec)
spec.loader.exec_module(golden)

CASES = sorted(GOLDEN.glob("styleclip/clip_loss*.json"))


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_every_output_and_gradient_is_the_official_one(path):
    case = golden.load(path)
    state_dict = case.state_dict()
    c = case.config["clip"]
    model = make_clip(**convert.infer(state_dict, None, c["transformer_heads"], c["image_resolution"]))
    variables = convert.from_official(state_dict, model)
    image = jnp.asarray(case.input("image").transpose(0, 2, 3, 1))

    @jax.jit
    def run(variables, image, tokens):
        texts = model.apply(variables, tokens, method="encode_text", normalize=True)
        value = lambda image: clip_loss(image, texts, model, variables)  # noqa: E731
        return value(image), jax.grad(lambda image: value(image).mean())(image)

    loss, gradient = run(variables, image, jnp.asarray(case.input("tokens")))
    outputs = {
        "pooled_image": clip_view(image, model.visual.image_size).transpose(0, 3, 1, 2),
        "logits_per_image": 100 * (1 - loss),
        "loss": loss,
        "gradient of image": gradient.transpose(0, 3, 1, 2),
    }
    errors = {name: (case.error(name, outputs[name]), case.tolerance(name)) for name in case.output_names}
    assert all(error <= tolerance for error, tolerance in errors.values()), errors


def test_the_view_of_clip_has_its_colors_and_another_word_is_refused():
    image = jnp.asarray(np.random.default_rng(0).normal(size=(1, 8, 8, 3)).astype("f"))
    shown = clip_view(image, 8, "clip")
    np.testing.assert_allclose(
        shown,
        (image * 0.5 + 0.5 - np.float32(CLIP_MEAN)[None, None, None]) / np.float32(CLIP_STD)[None, None, None],
        rtol=1e-5,
        atol=1e-6,
    )
    np.testing.assert_array_equal(clip_view(image, 8), image)
    np.testing.assert_allclose(clip_view(image, 8, "clip", (0.5,) * 3, (0.5,) * 3), image, atol=1e-6)
    with pytest.raises(UserError, match="preprocess='CLIP' must be 'compat'"):
        clip_view(image, 8, "CLIP")
