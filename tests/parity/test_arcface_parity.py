"""ArcFace's IR-SE50 against StyleCLIP's copy of it: every output of the cases in tests/golden/arcface."""

import functools
import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swin_jax.models.arcface import IRSE
from swin_jax.models.styleclip import identity_loss
from swin_jax.ops.resampling import face_view
from swin_jax.pretrained.arcface import convert

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
spec = importlib.util.spec_from_file_location("golden", GOLDEN / "golden.py")
golden = importlib.util.module_from_spec(spec)
spec.loader.exec_module(golden)

CASES = {path.stem: golden.load(path) for path in sorted(GOLDEN.glob("arcface/*.json"))}
EMBEDDINGS = [name for name, case in CASES.items() if "embedding" in case.output_names]
LOSSES = [name for name, case in CASES.items() if "loss" in case.output_names]


@functools.cache
def network():
    """The model of all cases and its variables, which depend on the keys alone."""
    first, *others = CASES.values()
    assert all(case.keys == first.keys and not case.arrays.keys() & {"weight"} for case in others)
    state_dict = first.state_dict()
    model = IRSE(**convert.infer(state_dict))
    return state_dict, model, convert.from_official(state_dict, model)


@functools.cache
def embed():
    _, model, _ = network()
    return jax.jit(lambda variables, image: model.apply(variables, image, mutable=["intermediates"]))


def errors_of(case, outputs):
    return {name: (case.error(name, outputs[name]), case.tolerance(name)) for name in case.output_names}


@pytest.mark.parametrize("name", EMBEDDINGS)
def test_every_output_is_the_official_one(name):
    case = CASES[name]
    embedding, kept = embed()(network()[2], jnp.asarray(case.input("image").transpose(0, 2, 3, 1)))
    outputs = {n: x.transpose(0, 3, 1, 2) if x.ndim == 4 else x for n, x in kept["intermediates"]["outputs"].items()}
    errors = errors_of(case, outputs | {"embedding": embedding})
    assert all(error <= tolerance for error, tolerance in errors.values()), errors


@pytest.mark.parametrize("name", LOSSES)
def test_the_identity_loss_is_the_official_one(name):
    case, variables = CASES[name], network()[2]
    images = [case.input("edited"), case.input("edited") + case.input("change")]
    faces = face_view(jnp.asarray(np.concatenate(images).transpose(0, 2, 3, 1)))
    features = jnp.concatenate([embed()(variables, face[None])[0] for face in faces])
    edited, original = jnp.split(features, 2)
    face = faces[: len(edited)].transpose(0, 3, 1, 2)
    outputs = dict(face=face, features=edited, features_original=original, loss=identity_loss(edited, original))
    errors = errors_of(case, outputs)
    assert all(error <= tolerance for error, tolerance in errors.values()), errors


def test_the_architecture_is_inferred_and_the_weights_come_back():
    state_dict, model, variables = network()
    assert model == IRSE()
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == 43_797_696
    back = convert.to_official(variables, model, buffers=True)
    assert len(back) == 397
    assert [key for key in back if "num_batches" not in key] == list(state_dict)
    for key, value in state_dict.items():
        np.testing.assert_array_equal(back[key], value, err_msg=key)
