"""Zero-shot weights against openai/CLIP's prompt notebook: names x templates through tokenizer, tower and averages."""

import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swin_jax.data.image_text.tokenizer import tokenize
from swin_jax.evals import features, zero_shot
from swin_jax.models.clip import make_clip
from swin_jax.pretrained.clip import convert

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
spec = importlib.util.spec_from_file_location("golden", GOLDEN / "golden.py")
golden = importlib.util.module_from_spec(spec)
spec.loader.exec_module(golden)

CASES = [path for path in sorted(GOLDEN.glob("clip/*.json")) if "templates" in golden.load(path).config]


def test_there_is_a_case():
    assert CASES


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_classifier_and_logits_are_the_official_ones(path):
    case = golden.load(path)
    c = case.config
    model = make_clip(
        embed_dim=c["embed_dim"],
        image_size=c["image_resolution"],
        vision_layers=c["vision_layers"],
        vision_width=c["vision_width"],
        patch_size=c["vision_patch_size"],
        context_length=c["context_length"],
        vocab_size=c["vocab_size"],
        text_width=c["transformer_width"],
        text_heads=c["transformer_heads"],
        text_layers=c["transformer_layers"],
    )
    variables = convert.from_official(case.state_dict(), model)
    encode = jax.jit(lambda text: model.apply(variables, text, method=model.encode_text))
    image = jnp.asarray(case.input("image").transpose(0, 2, 3, 1))
    with jax.default_matmul_precision("highest"):
        # 4 classes x 4 templates in batches of 6: the batches cut across classes.
        weights = zero_shot.classifier(encode, tokenize, c["classes"], c["templates"], batch_size=6, progress=False)
        image_features = jax.jit(lambda image: model.apply(variables, image, method=model.encode_image))(image)
    assert case.error("zeroshot_weights", weights) < case.tolerance("zeroshot_weights")
    logits = 100 * features.normalize(np.asarray(image_features)) @ weights
    assert case.error("logits", logits) < case.tolerance("logits")
