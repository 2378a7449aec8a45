"""A family that this package does not have: with its one line in FAMILIES it is loaded, prepared, exported, predicted.

Its modules stand in this file: what would be `models/pooled/` and `pretrained/pooled/loader.py`.
"""

import dataclasses
import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import swin_jax
from swin_jax.core.errors import UserError
from swin_jax.pretrained import load
from swin_jax.pretrained.family import Family
from swin_jax.pretrained.preparations.published import of_pictures
from swin_jax.train import checkpoint


class Pooled(nn.Module):
    """A linear classifier of the mean color: (B, H, W, 3) -> (B, num_classes)."""

    image_size: int = 8
    num_classes: int = 10

    @nn.compact
    def __call__(self, image, train=False):
        return nn.Dense(self.num_classes, name="color")(image.mean(axis=(1, 2)))


PRESETS = {"pooled_8": dict(image_size=8, num_classes=10)}


def to_variables(arrays, model):
    shape = (model.num_classes, 3)
    if arrays["color.weight"].shape != shape:
        raise UserError(f"color.weight is {arrays['color.weight'].shape}, not {shape}")
    return {"params": {"color": {"kernel": arrays["color.weight"].T, "bias": arrays["color.bias"]}}}


def load_arrays(weights, fields, resize, overrides):
    model = Pooled(**fields | overrides)
    return model, jax.device_put(to_variables(weights.arrays, model))


def load_workdir(workdir, config, resize, overrides):
    fields = {field.name: config[f"task.model.{field.name}"] for field in fields_of_pooled()}
    params, average, _ = checkpoint.load_params(workdir)
    return Pooled(**fields | overrides), jax.device_put({"params": params if average is None else average})


def fields_of_pooled():
    return [field for field in dataclasses.fields(Pooled) if field.name not in ("parent", "name")]


def inputs(model, image_size=None):
    size = image_size or model.image_size
    return {"image": jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)}


def no_published_weights(word):
    raise UserError(f"nobody published weights of {word}")


FAMILY = Family(
    title="Pooled",
    usual="pooled_8",
    names=lambda: list(PRESETS),
    fields=frozenset(("image_size", "num_classes")),
    sizes=(),
    models=(Pooled,),
    makers=(Pooled,),
    find=lambda word: word if word in PRESETS else None,
    fetch=no_published_weights,
    preset=lambda word: PRESETS[word],
    recognizes=lambda arrays: "color.weight" in arrays,
    infer=lambda arrays, known: dict(num_classes=len(arrays["color.weight"])),
    make=Pooled,
    load=load_arrays,
    load_workdir=load_workdir,
    preprocess=lambda model, word: of_pictures(model.image_size, 3, assumed=word is None),
    inputs=inputs,
    predict=lambda model, variables, batch, prepare: {"logits": model.apply(variables, prepare(batch["image"]))},
)

EXPERIMENT = """
from swin_jax.core.config import load, spec
from swin_jax.train.sharding import Partition
from tests.e2e.test_own_family import Pooled
from tests.experiments import config_path

def get_config(arg=None):
    c = load(config_path("swin_in1k:fake"))
    with c.unlocked():
        sizes = {name: c.get_oneway_ref(name) for name in ("image_size", "num_classes")}
        c.task.model = spec(Pooled, **sizes)
        c.partition = spec(Partition, rules=())
    return c
"""


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    return {"color.weight": rng.normal(size=(4, 3)).astype("f"), "color.bias": np.arange(4, dtype=np.float32)}


@pytest.fixture
def file(arrays, tmp_path):
    np.savez(tmp_path / "pooled.npz", **arrays)
    return tmp_path / "pooled.npz"


@pytest.fixture
def pictures(tmp_path):
    (tmp_path / "pictures").mkdir()
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (40, 50, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "pictures" / f"{number}.png")
    return tmp_path / "pictures"


@pytest.fixture(autouse=True)
def one_line(monkeypatch):
    monkeypatch.setattr(load, "FAMILIES", (*load.FAMILIES, FAMILY))


def test_it_is_loaded_by_name_and_by_file(arrays, file):
    assert "pooled_8" in swin_jax.list_models("pool*")
    with pytest.warns(UserWarning, match="pooled_8 has random weights"):
        model, variables = swin_jax.load("pooled_8", num_classes=5)
    assert model == Pooled(8, 5) and variables["params"]["color"]["kernel"].shape == (3, 5)
    for name in (None, "pooled_8"):
        model, variables = swin_jax.load(name, weights=file, num_classes=4)
        np.testing.assert_array_equal(variables["params"]["color"]["kernel"], arrays["color.weight"].T)
    with pytest.raises(UserError, match="nearest name is 'pooled_8'"):
        swin_jax.load("pooled")
    with pytest.raises(UserError, match="Pooled has no argument 'num_clases'; did you mean 'num_classes'"):
        swin_jax.load("pooled_8", weights=file, num_clases=4)
    with pytest.raises(UserError, match="nobody published weights of pooled_8"):
        swin_jax.load("pooled_8", weights="official")
    with pytest.raises(TypeError) as caught:  # in the family's own file, which its traceback shows
        swin_jax.load("pooled_8", weights=file, num_classes="x")
    assert not isinstance(caught.value, UserError)
    assert __file__ in map(str, (entry.path for entry in caught.traceback))


def test_a_file_that_two_families_could_be_needs_a_name(file, monkeypatch):
    other = dataclasses.replace(FAMILY, title="Pooled too", usual="too_8", names=lambda: ["too_8"])
    monkeypatch.setattr(load, "FAMILIES", (*load.FAMILIES, other))
    with pytest.raises(UserError, match="could be a Pooled or a Pooled too: .* 'pooled_8' or 'too_8' for example"):
        swin_jax.load(weights=file)
    swin_jax.load("pooled_8", weights=file, num_classes=4)


def test_it_is_prepared_and_exported(file, tmp_path):
    model, variables = swin_jax.load("pooled_8", weights=file, image_size=12, num_classes=4)
    prepared = swin_jax.preprocess(model)
    assert prepared.image_size == (12, 12) and not prepared.assumed
    assert prepared == swin_jax.preprocess("pooled_8", image_size=12, num_classes=4)
    with pytest.warns(UserWarning, match="assumed"):
        assert swin_jax.preprocess(file).image_size == (8, 8)
    facts = swin_jax.export(model, variables, tmp_path / "pooled.stablehlo")
    assert facts["inputs"] == {"image": "float32 (b, 12, 12, 3)"} and facts["preparation"]["size"] == 12
    image = prepared(np.full((20, 30, 3), 200, np.uint8))
    exported = jax.export.deserialize((tmp_path / "pooled.stablehlo").read_bytes())
    np.testing.assert_allclose(exported.call({"image": image})["logits"], model.apply(variables, image), atol=1e-6)


def test_a_run_of_it_is_loaded_prepared_exported_and_predicted(pictures, tmp_path, launch):
    (tmp_path / "pooled.py").write_text(EXPERIMENT)
    experiment, workdir = tmp_path / "pooled.py", tmp_path / "run"
    assert launch(experiment, workdir)[0] == 0
    status, _, err = launch(experiment, workdir, f"--predict={pictures}")
    assert status == 0 and len((workdir / "predictions.csv").read_text().splitlines()) == 4, err
    status, _, err = launch(experiment, workdir, f"--export={tmp_path / 'run.stablehlo'}")
    assert status == 0, err
    facts = json.loads((tmp_path / "run.stablehlo.json").read_text())

    model, variables = swin_jax.load(weights=workdir)
    assert model == Pooled(32, 10)
    prepared = swin_jax.preprocess(model)
    assert prepared == swin_jax.preprocess(workdir) and json.loads(prepared.fingerprint()) == facts["preparation"]
    paths = sorted(pictures.iterdir())
    exported = jax.export.deserialize((tmp_path / "run.stablehlo").read_bytes())
    logits = exported.call({"image": prepared.pixels(paths)})["logits"]
    np.testing.assert_allclose(logits, model.apply(variables, prepared(paths)), atol=1e-5)
    best = np.asarray(logits).argmax(axis=-1)
    rows = [line.split(",") for line in (workdir / "predictions.csv").read_text().splitlines()[1:]]
    assert [row[1] for row in rows] == [run_classes(workdir)[i] for i in best]
    with pytest.raises(UserError, match="omit the name"):
        swin_jax.load("pooled_8", weights=workdir)


def run_classes(workdir):
    return checkpoint.load_params(workdir)[2]["class_names"]
