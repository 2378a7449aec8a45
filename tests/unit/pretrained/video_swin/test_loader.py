"""`load` and `preprocess` for Video Swin: every source of weights, what is inferred, what is said."""

import json
import warnings

import av
import jax
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from swin_jax.core import stacking
from swin_jax.core.errors import UserError
from swin_jax.core.params import flatten
from swin_jax.models import swin, video_swin
from swin_jax.models.clip import make_clip
from swin_jax.models.video_swin import make_video_swin, param_shapes
from swin_jax.models.video_swin import presets as video_swin_presets
from swin_jax.pretrained import preprocess
from swin_jax.pretrained.load import load
from swin_jax.pretrained.swin import convert as convert_swin
from swin_jax.pretrained.swin import urls
from swin_jax.pretrained.video_swin import convert
from swin_jax.pretrained.video_swin import finetune as video_swin_finetune
from swin_jax.pretrained.video_swin import urls as video_swin_official
from swin_jax.train import checkpoint

NAME = "swin_tiny_patch244_window877_kinetics400_1k"
TINY = dict(
    num_classes=5,
    image_size=(32, 16, 16),
    patch_size=(2, 2, 2),
    window_size=(3, 4, 4),
    embed_dim=8,
    depths=(2, 2),
    num_heads=(1, 2),
)
FLAT = dict(num_classes=7, image_size=16, patch_size=2, window_size=4, embed_dim=8, depths=(2, 2), num_heads=(1, 2))


def noise(shapes):
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.fixture(scope="module")
def state_dict():
    return noise(convert.official_shapes(make_video_swin(**TINY)))


@pytest.fixture
def presets(monkeypatch):
    for module in (video_swin, video_swin_presets):
        monkeypatch.setattr(module, "PRESETS", {NAME: TINY})


def write(path, state_dict):
    with open(path, "wb") as file:
        np.savez(file, **state_dict)
    return path


def assert_holds(loaded, state_dict, **fields):
    model, variables = loaded
    assert model == make_video_swin(**TINY | fields)
    found = convert.to_official(variables, model)
    assert found.keys() == state_dict.keys()
    for name, value in state_dict.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


@pytest.mark.parametrize("name", [None, NAME, f"{NAME}.pth", "swin3d_t"])
@pytest.mark.parametrize("layout", [dict, convert.to_torchvision])
def test_a_file_is_loaded_with_and_without_a_name(name, layout, presets, state_dict, tmp_path):
    """Published files have buffers. Without these nor a name, a window of other sides may have as many rows."""
    model = make_video_swin(**TINY)
    whole = convert.to_official(convert.from_official(state_dict, model), model, buffers=True)
    file = write(tmp_path / f"{NAME}.pth", layout(whole))
    bare = write(tmp_path / "bare.pth", layout(state_dict))
    stored = dict(scan=True, remat="full")
    given = {} if name else dict(window_size=TINY["window_size"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_holds(load(name, weights=file), state_dict)
        assert_holds(load(name, weights=file, **stored), state_dict, **stored)
        assert_holds(load(name, weights=bare, **given), state_dict)
    if name is None:
        with pytest.warns(UserWarning, match=r"\(3, 4, 4\) is assumed, though \(4, 3, 4\).*give window_size") as told:
            assert_holds(load(weights=bare), state_dict)
        assert len(told) == 1


def test_a_file_in_the_way_of_a_name_is_taken(presets, state_dict, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / f"{NAME}.pth", state_dict)
    assert_holds(load(weights=f"{NAME}.pth"), state_dict)


def test_published_weights_come_from_the_cache(presets, state_dict, tmp_path, monkeypatch):
    monkeypatch.setenv("SWIN_JAX_CACHE", str(tmp_path))
    monkeypatch.setenv("SWIN_JAX_OFFLINE", "1")
    with pytest.raises(UserError, match="put it at"):
        load(NAME, weights="official")
    write(urls.locate(video_swin_official.URLS[NAME])[1], state_dict)
    for arguments in (dict(name=NAME, weights="official"), dict(weights=NAME), dict(name="swin3d_t", weights=NAME)):
        assert_holds(load(**arguments), state_dict)
    with pytest.raises(UserError, match="swin3d_t-7615ae03.pth"):
        load("swin3d_t", weights="official")


def test_without_weights_they_are_random_and_it_is_said(presets):
    with pytest.warns(UserWarning, match="random weights"):
        model, variables = load(NAME, num_classes=2, design="factorized")
    assert jax.tree.map(np.shape, variables) == jax.tree.map(lambda leaf: leaf.shape, param_shapes(model))
    assert model.backbone.temporal_window == 3


def test_overrides_change_the_model_and_fit_the_weights(state_dict, tmp_path):
    file = write(tmp_path / "weights.npz", state_dict)
    with pytest.warns(UserWarning, match="the head of 3 classes starts from zeros"):
        model, variables = load(weights=file, num_classes=3, param_dtype="bfloat16")
    assert not np.any(variables["params"]["cls_head"]["fc_cls"]["kernel"])
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {np.dtype("bfloat16")}
    with pytest.raises(UserError, match="choose resize='bicubic'"):
        load(weights=file, window_size=(4, 4, 4))
    with pytest.warns(UserWarning, match="4 position tables were resized"):
        model, variables = load(weights=file, window_size=(4, 4, 4), resize="bicubic")
    assert jax.tree.map(np.shape, variables) == jax.tree.map(lambda leaf: leaf.shape, param_shapes(model))
    with pytest.raises(UserError, match="only design='joint'"):
        load(weights=file, design="split")


def test_a_continuous_bias_tells_its_window_and_scale(tmp_path):
    fields = TINY | swin.V2
    file = write(tmp_path / "weights.npz", noise(convert.official_shapes(make_video_swin(**fields))))
    with pytest.raises(UserError, match="give it"):
        load(weights=file)
    model, _ = load(weights=file, window_size=(3, 4, 4))
    assert model == make_video_swin(**fields)


@pytest.mark.parametrize("design", ["joint", "factorized"])
def test_image_weights_are_inflated_and_it_is_said(design, presets, tmp_path):
    weights = noise(convert_swin.official_shapes(swin.Swin(**FLAT)))
    file = write(tmp_path / "image.npz", weights)
    with pytest.warns(UserWarning, match="image Swin were inflated; the head starts from zeros"):
        model, variables = load(NAME, weights=file, design=design)
    assert jax.tree.map(np.shape, variables) == jax.tree.map(lambda leaf: leaf.shape, param_shapes(model))
    found = flatten(variables["params"])
    for path, leaf in flatten(convert.inflate(weights, model)["params"]).items():
        np.testing.assert_array_equal(found[path], leaf)
    assert not np.any(found["cls_head/fc_cls/kernel"])
    assert any(np.any(leaf) for path, leaf in found.items() if "temporal" in path) == (design == "factorized")


OBLONG = FLAT | dict(image_size=(20, 52), window_size=(5, 13), depths=(1, 1))  # tables as those of 8 x 8
DEEP = dict(image_size=(4, 20, 52), window_size=(2, 5, 13), depths=(1, 1))
TABLE = "layers_0/blocks_0/attn/relative_position_bias_table"


def image_folder(path, **files):
    """A folder of the hub with weights of an oblong image Swin, without buffers."""
    weights = noise(convert_swin.official_shapes(swin.Swin(**OBLONG)))
    save_file(weights, path / "model.safetensors")
    for name, fields in files.items():
        (path / f"{name}.json").write_text(json.dumps(fields))
    return weights["layers.0.blocks.0.attn.relative_position_bias_table"]


def test_a_config_beside_image_weights_tells_the_windows_that_are_inflated(presets, tmp_path):
    config = dict(model_type="swin", window_size=[5, 13], image_size=[20, 52])
    table = np.tile(image_folder(tmp_path, config=config), (3, 1))
    model, variables = load(NAME, weights=tmp_path, **DEEP)
    np.testing.assert_array_equal(flatten(variables["params"]["backbone"])[TABLE], table)
    found = video_swin_finetune.load_pretrained(str(tmp_path), model)
    np.testing.assert_array_equal(flatten(found["params"]["backbone"])[TABLE], table)
    image_folder(tmp_path, config=config | dict(layer_norm_eps=1e-3))
    for call in (
        lambda: load(NAME, weights=tmp_path, **DEEP),
        lambda: video_swin_finetune.load_pretrained(str(tmp_path), model),
    ):
        with pytest.raises(UserError, match="layer_norm_eps=0.001 is not supported"):
            call()


def test_image_tables_that_may_be_of_a_square_window_are_not_inflated_to_an_oblong_one(tmp_path):
    image_folder(tmp_path)
    model = make_video_swin(**TINY | DEEP)
    with pytest.raises(UserError, match="it is unknown whether .* is of 8 x 8 or of 5 x 13, which the model has"):
        video_swin_finetune.load_pretrained(tmp_path / "model.safetensors", model)


def test_of_a_processor_beside_image_weights_a_video_takes_the_colors(presets, tmp_path):
    processor = dict(size=20, image_mean=[0.5, 0.25, 0.125], image_std=[0.5, 0.25, 0.75])
    config = dict(model_type="swin", window_size=[5, 13], image_size=[20, 52])
    image_folder(tmp_path, config=config, preprocessor_config=processor)
    found = preprocess.preprocess(load(NAME, weights=tmp_path, **DEEP)[0])
    assert (found.mean, found.std) == ((0.5, 0.25, 0.125), (0.5, 0.25, 0.75))
    assert found(frames(4)).shape == (1, 4, 20, 52, 3)


def make_workdir(path, **config):
    fields = {f"task.model.{key}": list(v) if isinstance(v, tuple) else v for key, v in TINY.items()}
    fields["task.model.fn"] = "swin_jax.models.video_swin.make_video_swin"
    (path / "config.json").write_text(json.dumps(fields | config))
    return path


def test_a_workdir_gives_its_newest_weights_and_prefers_the_average(state_dict, tmp_path, monkeypatch):
    make_workdir(tmp_path)
    average = convert.from_official(state_dict, make_video_swin(**TINY))["params"]
    params = jax.tree.map(np.zeros_like, average)
    monkeypatch.setattr(checkpoint, "load_params", lambda workdir: (params, average, {}))
    assert_holds(load(weights=tmp_path), state_dict)
    with pytest.warns(UserWarning, match="zeros"):
        assert load(weights=tmp_path, num_classes=2)[0].num_classes == 2
    with pytest.raises(UserError, match="omit the name"):
        load(NAME, weights=tmp_path)
    with pytest.raises(UserError, match="did you mean 'design'"):
        load(weights=tmp_path, desing="split")


def test_a_workdir_of_another_design_and_storage_is_loaded_as_it_is(tmp_path, monkeypatch):
    make_workdir(tmp_path, **{"task.model.design": "factorized", "task.model.scan": True, "task.model.depths": [1, 4]})
    model = make_video_swin(**TINY | dict(design="factorized", scan=True, depths=(1, 4)))
    params = jax.tree.map(lambda leaf: np.ones(leaf.shape, np.float32), param_shapes(model)["params"])
    monkeypatch.setattr(checkpoint, "load_params", lambda workdir: (stacking.unstack(params), None, {}))
    found, variables = load(weights=tmp_path)
    assert found == model
    assert jax.tree.map(np.shape, variables["params"]) == jax.tree.map(np.shape, params)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(name="swin_tiny_patch244_window877_kinetics400"), f"nearest name is '{NAME}'"),
        (dict(weights="swin_tiny_patch244_window877_kinetics400"), f"not a file, a workdir.*'{NAME}'"),
        (dict(name="video_swin_tiny"), f"nearest name is '{NAME}'"),
        (dict(weights="video_swin_tiny"), f"nearest name is '{NAME}'"),
        (dict(name="swin3d_x"), "nearest name is 'swin3d_.'"),
        (dict(name="video_swinv2_tiny"), "nearest name is 'video_swinv2_tiny_patch244_window888_kinetics400'"),
        (dict(name="swin_base_ssv2"), "nearest name is 'swin_base_patch244_window1677_sthv2'"),
        (dict(name="swin_tinny_patch4_window7_224"), "nearest name is 'swin_tiny_patch4_window7_224'"),
        (dict(name=NAME, weights="nothing_like_that"), "not a file, a workdir or the name of official weights"),
        (dict(name=NAME, weights="."), "not the workdir of a run"),
        (dict(name=NAME, num_clases=3), "did you mean 'num_classes'"),
    ],
)
def test_bad_arguments_are_said_in_one_line(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        load(**arguments)


def frames(count, height=300, width=260, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def test_every_form_of_a_video_gives_the_same(tmp_path):
    path = tmp_path / "a.mkv"
    shown = frames(70, 64, 80)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 80, 64, "bgr0"
        for frame in shown:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format="bgr0")))
        container.mux(stream.encode())
    apply = preprocess.preprocess(make_video_swin(image_size=(32, 32, 32)))
    wanted = apply(shown)
    assert wanted.shape == (1, 32, 32, 32, 3) and wanted.dtype == np.float32
    for form in (path, str(path), path.read_bytes(), [shown], shown[None], [path]):
        np.testing.assert_array_equal(apply(form), wanted)
    assert apply([path, frames(3, 40, 90)]).shape == (2, 32, 32, 32, 3)
    # Every second frame of the middle 64, from 3 to 65, all the frames that there are.
    changed = shown.copy()
    changed[[0, 1, 2, 4, 64, 66, 69]] = 0
    np.testing.assert_array_equal(apply(changed), wanted)
    changed[3] = 0
    assert (apply(changed) != wanted).any()


def test_pixels_are_normalized_per_channel():
    gray = np.full((40, 256, 256, 3), 128, np.uint8)
    wanted = (128 / 255 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    found = preprocess.preprocess(NAME)(gray)
    assert found.shape == (1, 32, 224, 224, 3)
    np.testing.assert_allclose(found, np.broadcast_to(wanted, found.shape), rtol=1e-5)


def test_something_something_sees_the_whole_video():
    video = np.zeros((320, 16, 16, 3), np.uint8)
    video[250:] = 255
    uniform = preprocess.preprocess("swin_base_patch244_window1677_sthv2")(video)
    assert uniform[0, -1].min() > 2 and preprocess.preprocess(NAME)(video).max() < 0


def test_a_workdir_tells_its_own_preparation(tmp_path):
    transform = {
        "fn": "swin_jax.data.video.transforms.video_views_transform",
        "size": 8,
        "length": 4,
        "clips": 2,
        "crops": 3,
    }
    config = {f"predict.transform.{key}": value for key, value in transform.items()}
    make_workdir(tmp_path, **config, **{"task.mean": [0.5] * 3, "task.std": [0.25] * 3})
    found = preprocess.preprocess(tmp_path)(np.full((9, 8, 12, 3), 255, np.uint8))
    np.testing.assert_allclose(found, np.full((6, 4, 8, 8, 3), 2.0), rtol=1e-5)
    make_workdir(tmp_path)
    with pytest.raises(UserError, match="does not say how videos are prepared"):
        preprocess.preprocess(tmp_path)


@pytest.mark.parametrize(
    "bad, message",
    [
        (np.zeros((8, 8, 3), np.uint8), "a single image"),
        (np.zeros((4, 8, 8, 3), np.float32), "not float32"),
        (np.zeros((0, 8, 8, 3), np.uint8), "no frames"),
        ([], "no videos"),
        (None, r"a video is a file or a uint8 array \(T, H, W, 3\), not None"),
        (3, r"a video is a file or a uint8 array \(T, H, W, 3\), not 3"),
        ("", r"a video is a file or a uint8 array \(T, H, W, 3\), not ''"),
        (b"", r"a video is a file or a uint8 array \(T, H, W, 3\), not b''"),
        ([np.zeros((4, 8, 8, 3), np.uint8), None], r"a video is a file or a uint8 array \(T, H, W, 3\), not None"),
        (np.uint8(3), "not uint8 of shape"),
        (np.zeros((3, 4, 8, 8), np.uint8), r"channels first\? np.moveaxis\(video, 0, -1\)"),
        (np.zeros((1, 4, 3, 8, 8), np.uint8), r"channels first\? np.moveaxis\(video, 1, -1\)"),
    ],
)
def test_what_is_not_a_video_is_refused(bad, message):
    with pytest.raises(UserError, match=message):
        preprocess.preprocess(NAME)(bad)


@pytest.mark.parametrize("bad, shown", [(None, "None"), (3, "3"), ("", "''"), (b"swin", "b'swin'")])
def test_what_names_no_preparation_is_refused(bad, shown):
    with pytest.raises(UserError, match=f"takes a model, its name, the workdir of a run or .*, not {shown}$"):
        preprocess.preprocess(bad)


@pytest.mark.parametrize("bad, shown", [(None, "None"), (3, "3"), ("", "''"), ([frames(1, 8, 8)[0], None], "None")])
def test_what_is_not_a_picture_is_refused(bad, shown):
    with pytest.raises(UserError, match=f"a picture is a file, a PIL image or a uint8 array .*, not {shown}$"):
        preprocess.preprocess("swin_tiny_patch4_window7_224")(bad)


def test_one_frame_is_told(tmp_path):
    apply = preprocess.preprocess(make_video_swin(image_size=(4, 8, 8)))
    Image.new("RGB", (16, 12)).save(tmp_path / "a.jpg")
    for still, name in ((frames(1, 12, 16), "the video"), (tmp_path / "a.jpg", "a.jpg")):
        with pytest.warns(UserWarning, match=f"{name} has only one frame"):
            assert apply(still).shape == (1, 4, 8, 8, 3)


def test_animations_are_videos_but_not_webp(tmp_path):
    apply = preprocess.preprocess(make_video_swin(image_size=(4, 8, 8)))
    first, *more = (Image.fromarray(frame) for frame in frames(5, 12, 16))
    for suffix in ("gif", "png", "webp"):
        first.save(tmp_path / f"a.{suffix}", save_all=True, append_images=more, duration=100)
    assert apply([tmp_path / "a.gif", tmp_path / "a.png"]).shape == (2, 4, 8, 8, 3)
    for form in (tmp_path / "a.webp", (tmp_path / "a.webp").read_bytes()):
        with pytest.raises(UserError, match="an animated WebP, which FFmpeg does not decode"):
            apply(form)


def test_damaged_files_are_named(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"not a video")
    with pytest.raises(UserError, match=r"a\.mp4: not a video"):
        preprocess.preprocess(NAME)(tmp_path / "a.mp4")


def test_an_oblong_model_takes_oblong_clips():
    with pytest.warns(UserWarning, match=r"assumed: size=\(16, 24\)"):
        found = preprocess.preprocess(make_video_swin(image_size=(4, 16, 24)))
    assert found(frames(4)).shape == (1, 4, 16, 24, 3)


def test_images_go_their_own_way():
    clip = make_clip(embed_dim=8, vision_layers=1, vision_width=64, image_size=16, patch_size=8)
    picture = frames(1)[0]
    assert preprocess.preprocess(clip)(picture).shape == (1, 16, 16, 3)
    assert preprocess.preprocess("swin_tiny_patch4_window7_224")(picture).shape == (1, 224, 224, 3)


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_input_channels_are_adapted_as_those_of_images(channels, state_dict, tmp_path):
    path = write(tmp_path / "a.npz", state_dict)
    with pytest.warns(UserWarning, match=f"is of 3 channels, the model of {channels}: .*adapt_input_conv"):
        model, variables = load(weights=path, in_channels=channels)
    kernel = np.asarray(variables["params"]["backbone"]["patch_embed"]["proj"]["kernel"])
    old = np.moveaxis(state_dict["backbone.patch_embed.proj.weight"], (1, 0), (-2, -1))
    repeated = np.tile(old, (1, 1, 1, 2, 1))[..., :channels, :] * np.float32(3 / channels)
    np.testing.assert_allclose(kernel, old.sum(-2, keepdims=True) if channels == 1 else repeated, rtol=1e-6)
    image = noise(convert_swin.official_shapes(swin.Swin(**FLAT)))
    write(tmp_path / "b.npz", {name: value for name, value in image.items() if not name.startswith("head.")})
    with pytest.warns(UserWarning, match="adapt_input_conv"):
        video_swin_finetune.load_pretrained(tmp_path / "b.npz", make_video_swin(**TINY | dict(in_channels=channels)))
