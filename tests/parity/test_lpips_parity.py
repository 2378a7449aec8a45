"""LPIPS against its description in PyTorch (tests/golden/lpips): the distance and its gradient."""

import functools
import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swin_jax.core.errors import UserError
from swin_jax.core.params import flatten
from swin_jax.models.lpips import LPIPS
from swin_jax.pretrained.lpips import convert

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
spec = importlib.util.spec_from_file_location("golden", GOLDEN / "golden.py")
golden = importlib.util.module_from_spec(spec)
spec.loader.exec_module(golden)

CASE = golden.load(GOLDEN / "lpips" / "lpips_small.json")
MODEL = LPIPS(**{name: tuple(value) for name, value in CASE.config.items()})


@pytest.fixture(scope="module")
def variables():
    return convert.from_official(CASE.state_dict(), MODEL)


def pictures():
    return (jnp.asarray(CASE.input(name).transpose(0, 2, 3, 1)) for name in ("image", "other"))


def test_distance_and_gradient_are_the_recorded_ones(variables):
    image, other = pictures()
    weigh = jnp.asarray(CASE.cotangent())

    @jax.jit
    @functools.partial(jax.value_and_grad, has_aux=True)
    def run(image):
        distance = MODEL.apply(variables, image, other)
        return (distance * weigh).sum(), distance

    (loss, distance), gradient = run(image)
    outputs = {"loss": loss, "distance": distance, "gradient of image": gradient.transpose(0, 3, 1, 2)}
    for name in CASE.output_names:
        assert CASE.error(name, outputs[name]) < CASE.tolerance(name), name


def test_a_picture_is_at_no_distance_from_itself_and_a_flat_one_has_a_gradient(variables):
    image = next(pictures())[:1, :16, :16]
    run = jax.jit(jax.value_and_grad(lambda x, variables: MODEL.apply(variables, x, image).sum()))
    assert run(image, variables)[0] == 0
    dead = jax.tree.map(lambda x: -np.abs(x), variables)  # no map of a negative layer is above 0
    assert np.isfinite(run(jnp.zeros((1, 16, 16, 3)), dead)[1]).all()


def test_convolutions_have_the_numbers_and_sizes_of_torchvision():
    numbers = [number for number, _, _ in LPIPS().convolutions()]
    assert numbers == [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28]
    shapes = convert.official_shapes(LPIPS())
    assert sum(np.prod(shape) for name, shape in shapes.items() if name.startswith("features")) == 14_714_688
    image = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    made = flatten(jax.eval_shape(LPIPS().init, jax.random.key(0), image, image))
    assert sum(np.prod(leaf.shape) for leaf in made.values()) == 14_714_688 + 64 + 128 + 256 + 512 + 512


def test_both_layouts_of_files_are_read(variables, tmp_path):
    arrays = CASE.state_dict()
    heads = {name: x for name, x in arrays.items() if name.startswith("lin")}
    vgg = {name: x for name, x in arrays.items() if name.startswith("features")}
    np.savez(tmp_path / "vgg16.npz", **vgg, **{"classifier.0.weight": np.zeros((2, 2), "f")})
    np.savez(tmp_path / "heads.npz", **heads)
    whole = {f"net.slice1.{name.removeprefix('features.')}": x for name, x in vgg.items()}
    np.savez(tmp_path / "whole.npz", **whole, **heads, **{"scaling_layer.shift": np.zeros((1, 3, 1, 1), "f")})
    read = convert.pretrained(str(tmp_path / "heads.npz"))
    for found in (read(tmp_path / "vgg16.npz", MODEL), convert.pretrained()(tmp_path / "whole.npz", MODEL)):
        assert flatten(found).keys() == flatten(variables).keys()
        for name, array in flatten(found).items():
            np.testing.assert_array_equal(array, flatten(variables)[name])


def test_what_is_missing_is_told(tmp_path):
    arrays = CASE.state_dict()
    np.savez(tmp_path / "vgg16.npz", **{name: x for name, x in arrays.items() if name.startswith("features")})
    with pytest.raises(UserError, match="vgg16.npz has no heads of LPIPS: give heads=FILE"):
        convert.pretrained()(tmp_path / "vgg16.npz", MODEL)
    with pytest.raises(UserError, match="heads=none.pth: there is no such file"):
        convert.pretrained("none.pth")
    with pytest.raises(UserError, match="not for this LPIPS: .*missing lin4.model.1.weight"):
        convert.from_official({name: x for name, x in arrays.items() if "lin4" not in name}, MODEL)


@pytest.mark.parametrize(
    "image, message",
    [
        (np.zeros((1, 32, 32, 3), np.uint8), "images are uint8: bring them to -1..1 first"),
        (np.zeros((1, 8, 32, 3), np.float32), "at least 16 x 16"),
    ],
)
def test_images_that_it_does_not_take_are_refused(image, message, variables):
    with pytest.raises(UserError, match=message):
        MODEL.apply(variables, jnp.asarray(image), jnp.asarray(image))
