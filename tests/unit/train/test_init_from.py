"""First weights from a workdir or a file: whole or the backbone only; everything that does not fit is listed."""

import dataclasses
import re
from types import SimpleNamespace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swin_jax.core.errors import UserError
from swin_jax.core.params import flatten, unflatten
from swin_jax.models.simmim import SimMIM
from swin_jax.models.swin import Swin
from swin_jax.models.video_swin import make_video_swin
from swin_jax.pretrained.swin import convert, finetune, simmim
from swin_jax.pretrained.video_swin import finetune as video_finetune
from swin_jax.tasks.base import TrainState, frozen_models
from swin_jax.train import checkpoint
from swin_jax.train.init_from import Frozen, InitFrom


class Task:
    """What `load` looks at."""

    model = "the model"


def params(classes=3, value=1.0):
    shapes = {"head/kernel": (4, classes), "head/bias": (classes,), "body/kernel": (2, 4), "body/bias": (4,)}
    return unflatten({path: np.full(shape, value, np.float32) for path, shape in shapes.items()})


def shapes(tree):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)


def save(workdir, tree, ema=None):
    manager = checkpoint.open(workdir)
    tree, ema = jax.tree.map(jnp.asarray, (tree, ema))
    checkpoint.save(manager, TrainState(jnp.int32(1), tree, {}, {}, ema), 1, {}, wait=True)
    manager.close()


def same(flat, tree):
    expected = flatten(tree)
    return flat.keys() == expected.keys() and all(np.array_equal(flat[path], expected[path]) for path in expected)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    path = tmp_path_factory.mktemp("run")
    save(path, params(value=2.0))
    return path


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "weights.npz"
    path.write_bytes(b"")
    return path


def test_of_weights_of_another_size_a_few_arrays_are_listed(tmp_path):
    tree = lambda width: unflatten({f"layer{i}/kernel": np.zeros((width,), np.float32) for i in range(9)})  # noqa: E731
    save(tmp_path, tree(3))
    with pytest.raises(UserError, match=r"other shape: layer0/kernel .*layer3/kernel [^;]*, and 5 others$") as error:
        InitFrom(path=str(tmp_path)).load(Task, shapes(tree(4)))
    assert "layer4" not in str(error.value)


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin", "model.safetensors.index.json"])
@pytest.mark.parametrize("config", ["config.json", "open_clip_config.json"])
def test_a_folder_of_the_hub_is_handed_to_what_reads_files(file, config, tmp_path):
    start = InitFrom(path=str(tmp_path), convert=lambda source, model: {"params": params(value=3.0)})
    (tmp_path / config).touch()
    with pytest.raises(UserError, match="neither a workdir with checkpoints nor a file of weights"):
        start.check()
    (tmp_path / file).touch()
    found, report = start.load(Task, shapes(params()))
    assert same(found, params(value=3.0)) and str(tmp_path) in report
    with pytest.raises(UserError, match="neither a workdir with checkpoints nor a file of weights"):
        InitFrom(path=str(tmp_path)).check()


def test_nothing_is_read_where_no_path_is_given():
    assert InitFrom().load(Task, shapes(params())) == ({}, "starts from scratch")


def test_an_experiment_may_require_weights():
    with pytest.raises(UserError, match="--config.init_from.path="):
        InitFrom(required=True).load(Task, shapes(params()))


def test_a_workdir_gives_its_parameters(workdir):
    found, report = InitFrom(path=str(workdir), required=True).load(Task, shapes(params()))
    assert same(found, params(value=2.0))
    assert report == f"starts from {workdir}: 4 of 4 parameters"


def test_the_average_of_a_workdir_is_preferred(tmp_path):
    save(tmp_path, params(value=2.0), ema=params(value=5.0))
    found, _ = InitFrom(path=str(tmp_path)).load(Task, shapes(params()))
    assert same(found, params(value=5.0))


def test_a_file_goes_through_convert(weights):
    calls = []
    convert = lambda source, model: calls.append((source, model)) or {"params": params(value=7.0)}  # noqa: E731
    found, report = InitFrom(path=str(weights), convert=convert).load(Task, shapes(params()))
    assert same(found, params(value=7.0)) and calls == [(str(weights), "the model")] and str(weights) in report


def test_a_workdir_goes_through_convert_too(workdir):
    def convert(source, model):
        assert model == "the model"
        return {"params": jax.tree.map(lambda x: x * 2, source["params"])}

    found, _ = InitFrom(path=str(workdir), convert=convert).load(Task, shapes(params()))
    assert same(found, params(value=4.0))


@pytest.mark.parametrize("classes", [3, 10])
def test_the_backbone_alone_leaves_the_head_whatever_its_shape(workdir, classes):
    found, report = InitFrom(path=str(workdir), backbone=True).load(Task, shapes(params(classes)))
    assert set(found) == {"body/kernel", "body/bias"}
    assert "2 of 4 parameters" in report and "left at initialization: head/bias, head/kernel" in report


def test_the_backbone_alone_fits_where_one_side_has_no_head(workdir, weights):
    no_head = {"body": params()["body"]}
    found, _ = InitFrom(path=str(workdir), backbone=True).load(Task, shapes(no_head))
    assert set(found) == {"body/kernel", "body/bias"}
    init = InitFrom(path=str(weights), backbone=True, convert=lambda *_: {"params": no_head})
    assert set(init.load(Task, shapes(params()))[0]) == {"body/kernel", "body/bias"}


def test_what_the_head_is_can_be_said(workdir):
    found, _ = InitFrom(path=str(workdir), backbone=True, head=r"bias$").load(Task, shapes(params()))
    assert set(found) == {"head/kernel", "body/kernel"}


def test_without_backbone_another_head_is_an_error(workdir):
    with pytest.raises(UserError, match=r"other shape: head/bias \(file \(3,\), model \(10,\)\), head/kernel"):
        InitFrom(path=str(workdir)).load(Task, shapes(params(10)))


def test_every_key_that_does_not_fit_is_listed(workdir):
    model = {"body": {"kernel": np.zeros((4, 2)), "scale": np.zeros(4)}, "head": params(5)["head"], "neck": np.zeros(1)}
    with pytest.raises(UserError) as caught:
        InitFrom(path=str(workdir)).load(Task, shapes(model))
    assert str(caught.value) == (
        f"{workdir} does not fit the model. missing: body/scale, neck; unexpected: body/bias; other shape: "
        "body/kernel (file (2, 4), model (4, 2)), head/bias (file (3,), model (5,)), "
        "head/kernel (file (4, 3), model (4, 5))"
    )
    with pytest.raises(UserError) as caught:
        InitFrom(path=str(workdir), backbone=True).load(Task, shapes(model))
    assert "head" not in str(caught.value) and "missing: body/scale, neck" in str(caught.value)


def test_a_path_that_holds_no_weights_is_an_error(tmp_path, weights):
    for init in (
        InitFrom(path=str(tmp_path / "nothing"), convert=dict),
        InitFrom(path=str(tmp_path), convert=dict),
    ):
        with pytest.raises(UserError, match="neither a workdir with checkpoints nor a file of weights"):
            init.load(Task, shapes(params()))
    with pytest.raises(UserError, match="this experiment reads no files of weights"):
        InitFrom(path=str(weights)).load(Task, shapes(params()))
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(UserError, match="no checkpoint in"):
        InitFrom(path=str(tmp_path)).load(Task, shapes(params()))


def small_swin(**fields):
    return Swin(**dict(num_classes=3, patch_size=2, embed_dim=8, depths=(1,), num_heads=(1,)) | fields)


def save_swin(workdir, model, image_size):
    size = (1, *image_size, 3)
    tree = jax.jit(model.init)(jax.random.key(0), jnp.zeros(size))["params"]
    fields = ("window_size", "image_size", "ape")
    config = {f"task.model.{name}": getattr(model, name) for name in fields}
    manager = checkpoint.open(workdir)
    checkpoint.save(manager, TrainState(jnp.int32(1), tree, {}, {}, None), 1, {"config": config}, wait=True)
    manager.close()
    return shapes(tree)


@pytest.mark.parametrize(
    "theirs, ours, says",
    [
        (dict(window_size=(2, 4)), dict(window_size=(4, 2)), r"window_size=\(2, 4\), the model's for \(4, 2\)"),
        (dict(window_size=(2, 8)), dict(window_size=(5, 3)), r"window_size=\(2, 8\), the model's for \(5, 3\)"),
        (
            dict(window_size=2, image_size=(16, 32), ape=True),
            dict(window_size=2, image_size=(32, 16), ape=True),
            r"image_size=\(16, 32\), the model's for \(32, 16\)",
        ),
        (dict(window_size=(2, 4)), dict(window_size=[2, 4]), ""),
        (dict(window_size=2), dict(window_size=(2, 2)), ""),
        (dict(window_size=2, image_size=(16, 32)), dict(window_size=2, image_size=(32, 16)), ""),
    ],
)
def test_tables_of_equal_rows_that_lie_otherwise_are_not_taken_as_they_are(theirs, ours, says, tmp_path):
    theirs, ours = ({"image_size": (32, 32)} | fields for fields in (theirs, ours))
    wanted = save_swin(tmp_path, small_swin(**theirs), theirs["image_size"])
    task = SimpleNamespace(model=small_swin(**ours))
    if says:
        with pytest.raises(UserError, match=f"{tmp_path}: .*{says}.*convert") as caught:
            InitFrom(path=str(tmp_path)).load(task, wanted)
        assert "\n" not in str(caught.value)
    else:
        InitFrom(path=str(tmp_path)).load(task, wanted)


@pytest.mark.parametrize("head, wanted", [("", "'' matches all names"), ("(", "is not a regular expression")])
def test_what_a_backbone_leaves_out_is_a_regular_expression(head, wanted):
    with pytest.raises(UserError, match=f"^head='.*{wanted}"):
        InitFrom(backbone=True, head=head)


def test_a_run_of_another_model_is_said(tmp_path):
    manager = checkpoint.open(tmp_path)
    tree = {"decode_head": jnp.zeros(3)}
    meta = {"config": {"task.model.fn": "swin_jax.models.segmentation.make_upernet"}}
    checkpoint.save(manager, TrainState(jnp.int32(1), tree, {}, {}, None), 1, meta, wait=True)
    manager.close()
    with pytest.raises(UserError, match="weights of a swin_jax.models.segmentation.make_upernet. missing: text"):
        InitFrom(path=str(tmp_path)).load(SimpleNamespace(model=None), shapes({"text": jnp.zeros(3)}))


@pytest.mark.parametrize("entry", ["image_size", "visual.image_size"])
def test_positions_of_a_clip_that_lie_otherwise_are_not_taken_as_they_are(entry, tmp_path):
    """The config of a CLIP that a function makes has the size of its images beside its towers."""
    tree = unflatten({"visual/positional_embedding": np.zeros((17, 4)), "text/positional_embedding": np.zeros((7, 4))})
    manager = checkpoint.open(tmp_path)
    meta = {"config": {f"task.model.{entry}": [16, 64]}}
    checkpoint.save(
        manager, TrainState(jnp.int32(1), jax.tree.map(jnp.asarray, tree), {}, {}, None), 1, meta, wait=True
    )
    manager.close()
    clip = lambda *size: SimpleNamespace(model=SimpleNamespace(visual=SimpleNamespace(image_size=size)))  # noqa: E731
    InitFrom(path=str(tmp_path)).load(clip(16, 64), shapes(tree))
    with pytest.raises(
        UserError, match="visual/positional_embedding is for image_size=.16, 64., the model's for .64, 16"
    ):
        InitFrom(path=str(tmp_path)).load(clip(64, 16), shapes(tree))


# ---- a model that is read and never changed ----


class Net(nn.Module):
    """The parameters of `params()`, and a running mean; takes floating-point images of 2 pixels."""

    @nn.compact
    def __call__(self, image):
        self.variable("batch_stats", "mean", jnp.zeros, (2,))
        return nn.Dense(3, name="head")(nn.Dense(4, name="body")(image))


BATCH = {"image": jax.ShapeDtypeStruct((1, 2), jnp.uint8), "text": jax.ShapeDtypeStruct((1, 7), jnp.int32)}
KEY = "task.teacher"


def save_net(workdir, value, ema=None):
    mutable = {"batch_stats": {"mean": jnp.full(2, value)}}
    tree, ema = jax.tree.map(jnp.asarray, (params(value=value), ema))
    manager = checkpoint.open(workdir)
    checkpoint.save(manager, TrainState(jnp.int32(1), tree, {}, mutable, ema), 1, {}, wait=True)
    manager.close()


@dataclasses.dataclass(frozen=True)
class Distillation:
    model: nn.Module
    teacher: Frozen


def test_a_task_finds_its_frozen_models_and_not_its_own_model():
    task = Distillation(Net(), Frozen(Net()))
    assert frozen_models(task) == {"teacher": task.teacher}


def test_the_shapes_of_a_frozen_model_need_no_file():
    found = Frozen(Net(), path="nowhere").shapes(BATCH)
    assert jax.tree.map(lambda x: x.shape, found) == {
        "params": jax.tree.map(lambda x: x.shape, params()),
        "batch_stats": {"mean": (2,)},
    }
    with pytest.raises(UserError, match="the batch has image, text and no 'video'"):
        Frozen(Net(), inputs=("video",)).shapes(BATCH)


def test_a_frozen_model_has_all_variables_of_a_workdir_and_the_average_if_there_is_one(tmp_path):
    save_net(tmp_path / "plain", 2.0)
    save_net(tmp_path / "averaged", 2.0, ema=params(value=5.0))
    for name, value in (("plain", 2.0), ("averaged", 5.0)):
        found = Frozen(Net(), path=str(tmp_path / name)).load(BATCH, KEY)
        assert same(flatten(found["params"]), params(value=value))
        np.testing.assert_array_equal(found["batch_stats"]["mean"], np.full(2, 2.0))
        assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(found))


def test_a_frozen_model_is_read_from_a_file_by_convert(weights):
    calls = []

    def convert(source, model):
        calls.append((source, model))
        return {"params": params(value=7.0), "batch_stats": {"mean": np.ones(2)}}

    found = Frozen(Net(), path=str(weights), convert=convert).load(BATCH, KEY)
    assert same(flatten(found["params"]), params(value=7.0)) and found["batch_stats"]["mean"].dtype == np.float32
    assert calls == [(str(weights), Net())]


def test_all_that_does_not_fit_a_frozen_model_is_listed(weights):
    broken = {"body": {"kernel": np.zeros((2, 4)), "scale": np.zeros(4)}, "head": params(5)["head"]}
    with pytest.raises(UserError) as caught:
        Frozen(Net(), path=str(weights), convert=lambda *_: {"params": broken}).load(BATCH, KEY)
    assert str(caught.value) == (
        f"{weights} does not fit the model. missing: batch_stats/mean, body/bias; unexpected: body/scale; other shape: "
        "head/bias (file (5,), model (3,)), head/kernel (file (4, 5), model (4, 3))"
    )


def test_a_frozen_model_without_weights_names_the_flag(tmp_path, weights):
    cases = {
        "": "give --config.task.teacher.path=FILE_OR_WORKDIR",
        str(tmp_path / "nothing"): f"task.teacher.path={tmp_path / 'nothing'} is neither a workdir",
        str(weights): "task.teacher.path=.* reads no files of weights",
    }
    for path, message in cases.items():
        for fn in (Frozen(Net(), path).check, lambda key, path=path: Frozen(Net(), path).load(BATCH, key)):
            with pytest.raises(UserError, match=message):
                fn(KEY)
    for path in ("", str(tmp_path / "nothing")):
        with pytest.raises(UserError, match=f"(give --config.|^)teacher={path or 'FILE'}"):
            Frozen(Net(), path, flag="teacher").check(KEY)


def test_a_frozen_model_that_is_not_required_is_random_and_always_the_same():
    one, other = (Frozen(Net(), required=False).load(BATCH, KEY) for _ in range(2))
    assert np.ptp(one["params"]["body"]["kernel"]) > 0
    assert jax.tree.all(jax.tree.map(np.array_equal, one, other))
    assert jax.tree.structure(one) == jax.tree.structure(Frozen(Net()).shapes(BATCH))


SWIN_BATCH = {"image": jax.ShapeDtypeStruct((1, 16, 16, 3), jnp.uint8)}
SWIN_BATCH |= {"video": jax.ShapeDtypeStruct((1, 2, 16, 16, 3), jnp.uint8)}
SWIN = dict(num_classes=3, image_size=16, patch_size=2, embed_dim=8, depths=(1, 1), num_heads=(1, 2), window_size=4)


def swin_file(path, model, prefix=""):
    arrays = {prefix + name: np.zeros(shape, np.float32) for name, shape in convert.official_shapes(model).items()}
    np.savez(path, **arrays)


@pytest.mark.parametrize("change", [dict(depths=(1, 2)), dict(embed_dim=16), dict(num_heads=(2, 4), window_size=2)])
def test_a_file_of_another_size_says_its_size_in_one_line(change, weights):
    small, large = Swin(**SWIN), Swin(**SWIN | change)
    video = make_video_swin(**SWIN | dict(image_size=(2, 16, 16), patch_size=(1, 2, 2), window_size=(2, 4, 4)))
    key, size = next(iter(change.items()))
    told = rf"{weights}: these weights are of a Swin of .*{key}={re.escape(str(size))}.*, the model is one of .*{key}="
    swin_file(weights, large)
    cases = ((small, finetune.pretrained(), ("image",)), (video, video_finetune.pretrained(), ("video",)))
    for model, fit, inputs in cases:
        for load in (
            lambda: InitFrom(path=str(weights), convert=fit).load(SimpleNamespace(model=model), {}),  # noqa: B023
            lambda: Frozen(model, str(weights), fit, inputs).load(SWIN_BATCH, KEY),  # noqa: B023
        ):
            with pytest.raises(UserError, match=told) as error:
                load()
            assert "\n" not in str(error.value)
    swin_file(weights, large.clone(num_classes=0), "encoder.")
    with np.load(weights) as arrays:
        np.savez(weights, **arrays, **{"encoder.mask_token": np.zeros((1, 1, large.embed_dim), np.float32)})
    masked = SimpleNamespace(model=SimMIM(small.clone(num_classes=0)))
    with pytest.raises(UserError, match=told):
        InitFrom(path=str(weights), convert=simmim.pretrained()).load(masked, {})
