"""The Inception-v3 of FID against the package pytorch-fid, and its state dict there and back."""

import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swin_jax.core.errors import UserError
from swin_jax.core.params import flatten
from swin_jax.models.inception import Inception
from swin_jax.pretrained.inception import convert

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
spec = importlib.util.spec_from_file_location("golden", GOLDEN / "golden.py")
golden = importlib.util.module_from_spec(spec)
spec.loader.exec_module(golden)

MODEL = Inception()
CASES = [golden.load(path) for path in sorted(GOLDEN.glob("inception/*.json"))]
# Of the recorded outputs, the names here.
PLACES = {"first_pool": "pool1", "second_pool": "pool2", "before_the_last_blocks": "Mixed_6e"}


@pytest.fixture(scope="module")
def state_dict():
    return CASES[0].state_dict()


@pytest.fixture(scope="module")
def apply():
    return jax.jit(lambda variables, image: MODEL.apply(variables, image, mutable=["intermediates"]))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_output_is_the_recorded_one(case, apply):
    variables = convert.from_official(case.state_dict(), MODEL)
    features, kept = apply(variables, jnp.asarray(case.input("image")[None] / np.float32(255)))
    maps = kept["intermediates"]["outputs"]
    outputs = {name: maps[place].transpose(0, 3, 1, 2) for name, place in PLACES.items()} | {"features": features}
    errors = {name: (case.error(name, outputs[name]), case.tolerance(name)) for name in case.output_names}
    assert all(error <= tolerance for error, tolerance in errors.values()), errors


def test_the_state_dict_comes_back_bitwise_and_is_that_of_the_file(state_dict):
    own = {name: array for name, array in state_dict.items() if not name.startswith("fc.")}
    assert len(own) == len(state_dict) - 2  # the classifier has no part in the features
    assert convert.official_shapes(MODEL) == {name: array.shape for name, array in own.items()}
    counters = {"Conv2d_1a_3x3.bn.num_batches_tracked": np.zeros((), np.int64)}
    variables = convert.from_official(state_dict | counters, MODEL)
    shapes = jax.eval_shape(MODEL.init, jax.random.key(0), jnp.zeros((1, 75, 75, 3)))
    expected = {path: leaf.shape for path, leaf in flatten(shapes).items() if "intermediates" not in path}
    assert {path: leaf.shape for path, leaf in flatten(variables).items()} == expected
    back = convert.to_official(variables, MODEL)
    assert back.keys() == own.keys()
    for name, array in own.items():
        np.testing.assert_array_equal(back[name], array, err_msg=name)


def test_weights_of_another_network_are_refused_by_name(state_dict):
    wrong = {name: array for name, array in state_dict.items() if not name.startswith("Mixed_7c.branch_pool")}
    wrong["Mixed_5b.branch1x1.conv.weight"] = wrong["Mixed_5b.branch1x1.conv.weight"][:, :5]
    with pytest.raises(UserError, match=r"pt_inception.*Mixed_7c\.branch_pool.*Mixed_5b\.branch1x1\.conv\.weight"):
        convert.from_official(wrong, MODEL)


@pytest.mark.parametrize("image", [np.zeros((1, 8, 8, 3), np.uint8), np.zeros((1, 8, 8, 1), np.float32)])
def test_images_of_another_kind_are_refused(image):
    with pytest.raises(UserError, match="images are"):
        MODEL.init(jax.random.key(0), jnp.asarray(image))
