"""What a model cannot compute with is one line: empty batches, words for ids, random numbers without a key."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swin_jax.core.errors import UserError
from swin_jax.models.arcface import IRSE
from swin_jax.models.clip import make_clip
from swin_jax.models.stylegan2 import Discriminator, Generator
from swin_jax.models.swin import Swin
from swin_jax.models.video_swin import make_video_swin
from tests.stylegan2 import DISCRIMINATORS, GENERATORS

SMALL = dict(embed_dim=8, depths=(1,), num_heads=(1,), num_classes=3)
TEXTS = dict(text_width=64, text_heads=1, text_layers=1)
MODELS = {
    "swin": (lambda: Swin(image_size=32, window_size=4, drop_path_rate=0.2, **SMALL), (32, 32, 3)),
    "video_swin": (
        lambda: make_video_swin(image_size=(4, 32, 32), window_size=(2, 4, 4), drop_path_rate=0.0, **SMALL),
        (4, 32, 32, 3),
    ),
    "clip": (
        lambda: make_clip(8, 32, 1, 64, 1, patch_size=16, patch_dropout=0.5, **TEXTS),
        (32, 32, 3),
    ),
    "arcface": (lambda: IRSE(image_size=16, blocks=((1, 8, 1),), dropout=0.6), (16, 16, 3)),
}


@pytest.fixture(scope="module")
def made():
    """A model, the shapes of its variables and of one input: made(name)."""
    kept = {}

    def make(name):
        if name not in kept:
            model, size = MODELS[name][0](), MODELS[name][1]
            inputs = [jax.ShapeDtypeStruct((2, *size), jnp.float32)]
            inputs += [jax.ShapeDtypeStruct((2, 77), jnp.int32)] * (name == "clip")
            kept[name] = model, jax.eval_shape(model.init, jax.random.key(0), *inputs), inputs
        return kept[name]

    return make


def call(model, variables, *inputs, rngs=None, **options):
    """The shapes of outputs; keys are made inside, so that nothing is computed."""

    def apply(variables, *inputs):
        return model.apply(variables, *inputs, rngs=rngs, mutable=["batch_stats"], **options)[0]

    return jax.eval_shape(apply, variables, *inputs)


@pytest.mark.parametrize("name", MODELS)
def test_an_empty_batch_is_one_line(name, made):
    model, variables, (image, *others) = made(name)
    empty = jax.ShapeDtypeStruct((0, *image.shape[1:]), image.dtype)
    with pytest.raises(UserError, match="^a batch of no (images|videos) has no outputs: give at least one"):
        call(model, variables, empty, *others)
    call(model, variables, image, *others)


class Tensor:
    """Looks like an array of another library, whose types JAX does not know."""

    dtype, shape = "torch.float32", (1, 32, 32, 3)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(
    "images, kind",
    [
        ("cat.jpg", "a str"),
        (["cat.jpg"], "a list"),
        (None, "a NoneType"),
        (np.array(["cat.jpg"]), "<U7"),
        (np.zeros((1, 32, 32, 3), np.uint8), "uint8"),
        (Tensor(), "a Tensor of torch.float32"),
    ],
)
def test_images_that_are_not_floats_say_how_to_prepare_them(images, kind, name, made):
    model, variables, (_, *others) = made(name)
    with pytest.raises(UserError, match=f"^(images|videos) are {kind}[;:] .*swin_jax.preprocess"):
        jax.eval_shape(lambda variables, *others: model.apply(variables, images, *others), variables, *others)


@pytest.mark.parametrize("name", MODELS)
def test_training_without_a_key_says_which_one_to_give(name, made):
    model, variables, inputs = made(name)
    key = "patch_dropout" if name == "clip" else "dropout"
    with pytest.raises(UserError, match=f"train=True draws random numbers: give apply.*rngs={{'{key}': ") as caught:
        call(model, variables, *inputs, train=True)
    assert "\n" not in str(caught.value)
    call(model, variables, *inputs, train=True, rngs={key: jax.random.key(0)})
    call(model, variables, *inputs, train=True, rngs={"params": jax.random.key(0)})  # flax's substitute


def test_a_model_that_draws_nothing_trains_without_a_key(made):
    model, variables, inputs = made("swin")
    call(model.clone(drop_path_rate=0.0), variables, *inputs, train=True)


@pytest.mark.parametrize("texts", ["a cat", ["a cat", "a dog"], np.array(["a cat"]), None, 3.0])
def test_texts_that_are_not_tokenized_say_how_to(texts, made):
    model, variables, _ = made("clip")
    with pytest.raises(UserError, match="texts are .*; tokenize them first with .*tokenize"):
        jax.eval_shape(lambda variables: model.apply(variables, texts, method="encode_text"), variables)


def test_no_texts_have_no_features(made):
    model, variables, _ = made("clip")
    found = call(model, variables, jax.ShapeDtypeStruct((0, 77), jnp.int32), method="encode_text")
    assert found.shape == (0, 8)


def test_random_noise_without_a_key_says_which_one_to_give():
    model, z = Generator(**GENERATORS["usual"]), jax.ShapeDtypeStruct((2, 6), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), z)
    with pytest.raises(UserError, match="^noise='random' draws random numbers: give apply.*rngs={'noise': ") as caught:
        jax.eval_shape(lambda v, z: model.apply(v, z, noise="random"), variables, z)
    assert "\n" not in str(caught.value)
    none = jax.ShapeDtypeStruct((0, 6), jnp.float32)
    assert jax.eval_shape(model.apply, variables, none).shape == (0, 16, 16, 3)


def test_a_discriminator_takes_no_empty_batch():
    model, image = Discriminator(**DISCRIMINATORS["usual"]), jax.ShapeDtypeStruct((2, 16, 16, 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), image)
    with pytest.raises(UserError, match="^a batch of no images has no outputs"):
        jax.eval_shape(model.apply, variables, jax.ShapeDtypeStruct((0, 16, 16, 3), jnp.float32))
