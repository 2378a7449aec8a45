"""Names beside logits: of the run, of the weights, of a file, or of what is installed."""

import json

import pytest

import swin_jax
from swin_jax.core import config as configs
from swin_jax.core.errors import UserError
from swin_jax.inference import class_names, predict
from swin_jax.models.clip import make_clip
from swin_jax.models.swin import Swin
from swin_jax.models.video_swin import make_video_swin
from swin_jax.pretrained import beside
from tests.experiments import config_path

IMAGENET = [f"thing {i}" for i in range(1000)]


def swin(num_classes=1000):
    return Swin(image_size=32, embed_dim=8, depths=(1,), num_heads=(1,), window_size=8, num_classes=num_classes)


def video_swin(num_classes=400):
    return make_video_swin(embed_dim=8, depths=(1,), num_heads=(1,), num_classes=num_classes)


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Makes packages: installed("timm"), laid out as those of today."""
    there = {}
    monkeypatch.setattr(class_names, "_folder", there.get)
    monkeypatch.setattr(class_names.prompts, "curated", lambda _: (_ for _ in ()).throw(UserError("none")))

    def install(package):
        there[package] = tmp_path / package
        if package == "timm":
            folder = tmp_path / package / "data" / "_info"
            folder.mkdir(parents=True)
            for name, count in (("imagenet_synsets", 1000), ("imagenet21k_goog_synsets", 21843)):
                (folder / f"{name}.txt").write_text("".join(f"n{i:08}\n" for i in range(count)))
            lines = (f"n{i:08}\tthing {i}\n" for i in range(21841))
            (folder / "imagenet_synset_to_lemma.txt").write_text("".join(lines))
        else:
            (tmp_path / package / "models").mkdir(parents=True)
            source = f"import os\n_IMAGENET_CATEGORIES = {IMAGENET}\n_KINETICS400_CATEGORIES = {IMAGENET[:400]}\n"
            (tmp_path / package / "models" / "_meta.py").write_text(source + "raise SystemExit('was imported')\n")

    return install


@pytest.mark.parametrize("package", ["timm", "torchvision"])
def test_imagenet_is_named_by_what_is_installed(package, installed):
    installed(package)
    assert swin_jax.class_names(swin()) == tuple(IMAGENET)


def test_the_curated_names_go_first_and_have_one_name_a_class(installed, monkeypatch):
    installed("timm")
    curated = (("tench", "fish"), *IMAGENET[1:])
    monkeypatch.setattr(class_names.prompts, "curated", lambda _: curated)
    assert swin_jax.class_names(swin())[:2] == ("tench", "thing 1")


def test_kinetics_is_named(installed):
    installed("timm"), installed("torchvision")
    assert swin_jax.class_names(video_swin()) == tuple(IMAGENET[:400])


@pytest.mark.parametrize(
    "make, message",
    [
        (swin, "ImageNet-1K come with a package: pip install --no-deps clip-benchmark==.*names=FILE"),
        (lambda: swin(21841), "no installed package names 21841 classes of images"),
        (video_swin, "Kinetics-400 come with a package: pip install --no-deps torchvision"),
        (lambda: video_swin(600), "no installed package names 600 classes of videos.*names=FILE"),
        (lambda: swin(7), "no installed package names 7 classes of images"),
        (lambda: swin(0), "this Swin has no classes"),
        (lambda: make_clip(embed_dim=8), "this CLIP has no classes"),
        (lambda: "swin", "takes a model that load"),
    ],
)
def test_what_has_no_names_is_one_line(make, message, installed):
    model = make()
    with pytest.raises(UserError, match=message) as caught:
        swin_jax.class_names(model)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("source", ["products.npz", "https://example.org/w.pth", None])
def test_names_that_only_their_number_tells_are_a_guess(source, tmp_path, installed, monkeypatch):
    """A thousand products are not tench; a package that is not there is told instead of a guess."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "products.npz").write_bytes(b"")
    model = swin()
    beside.attach_origin(model, source)
    first = source or "a model with random weights"
    with pytest.raises(UserError, match="come with a package"):
        swin_jax.class_names(model)
    installed("timm")
    with pytest.warns(UserWarning, match=f"^{first} does not name its classes; it has 1000, .*names=FILE"):
        assert swin_jax.class_names(model) == tuple(IMAGENET)


def test_published_weights_taken_by_their_name_are_no_guess(installed, recwarn):
    installed("timm")
    for source in ("official", "swin_tiny_patch4_window7_224"):
        model = swin()
        beside.attach_origin(model, source)
        assert swin_jax.class_names(model) == tuple(IMAGENET)
    assert not recwarn.list


def test_a_file_names_the_classes_if_there_are_as_many(tmp_path, installed):
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    assert swin_jax.class_names(swin(2), tmp_path / "names.txt") == ("cat", "dog")
    with pytest.raises(UserError, match="names.txt has 2 class names, this model 3 classes"):
        swin_jax.class_names(swin(3), tmp_path / "names.txt")


def test_weights_name_their_own_classes(tmp_path, installed):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "swin", "id2label": {"0": "cat", "1": "dog"}}))
    (tmp_path / "model.safetensors").write_bytes(b"")
    for source in (tmp_path, tmp_path / "model.safetensors"):
        model = swin(2)
        beside.attach_origin(model, source)
        assert swin_jax.class_names(model) == ("cat", "dog")


def test_words_for_weights_are_no_files_of_the_current_folder(tmp_path, installed, monkeypatch):
    (tmp_path / "config.json").write_text(json.dumps({"id2label": {str(i): f"mine {i}" for i in range(1000)}}))
    monkeypatch.chdir(tmp_path)
    installed("timm")
    model = swin()
    beside.attach_origin(model, "official")
    assert swin_jax.class_names(model) == tuple(IMAGENET)


def test_a_run_names_its_classes(tmp_path, installed, monkeypatch):
    (tmp_path / "config.json").write_text("{}")
    model, found = swin(2), [("cat", "dog")]
    monkeypatch.setattr(class_names.checkpoint, "class_names", lambda folder: found[0])
    beside.attach_origin(model, tmp_path)
    assert swin_jax.class_names(model) == ("cat", "dog")
    found[0] = ()
    with pytest.raises(UserError, match="has no class names; give names=FILE"):
        swin_jax.class_names(model)


def test_predictions_say_that_names_of_first_weights_are_a_guess(tmp_path, installed):
    config = configs.load(config_path("quickstart:fake"))
    config.init_from.path = "products.npz"
    assert predict._class_names(config, tmp_path, "image", 1000) == tuple(map(str, range(1000)))
    installed("timm")
    with pytest.warns(UserWarning, match="^products.npz does not name its classes; .*--config.init_from.class_names"):
        assert predict._class_names(config, tmp_path, "image", 1000) == tuple(IMAGENET)
