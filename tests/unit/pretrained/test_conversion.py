"""A person's pictures are turned upright and laid on white wherever they are read; published recipes do neither."""

import io
import json
import shutil

import numpy as np
import pytest
from experiments.simmim import simmim_in1k
from experiments.swin import swin_in1k, swinv2_finetune
from PIL import Image, ImageOps

from swin_jax.core import config as configs
from swin_jax.core.errors import UserError
from swin_jax.data import pipeline, sources
from swin_jax.data.image.transforms import clip_eval_transform, clip_preprocess, eval_transform
from swin_jax.inference import image_index, loaded_model, search, trained_run
from swin_jax.pretrained import media, preparation
from swin_jax.pretrained.preparations import published
from swin_jax.train.workdir.resume import check_resume

SIZE = 8
PREPARED = published.of_pairs(SIZE, 8, assumed=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One picture of class `a`: partly transparent, and held sideways by the camera."""
    root = tmp_path_factory.mktemp("pictures")
    (root / "train" / "a").mkdir(parents=True)
    (root / "val" / "a").mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (12, 20, 4)).astype(np.uint8)
    pixels[..., 3] = np.where(np.arange(20) < 9, 0, 200)
    exif = Image.Exif()
    exif[0x0112] = 6
    for split in ("train", "val"):
        Image.fromarray(pixels).save(root / split / "a" / "x.png", exif=exif)
    return root


@pytest.fixture(scope="module")
def path(folder):
    return folder / "train" / "a" / "x.png"


@pytest.fixture(scope="module")
def forms(path):
    """What a viewer shows, and what the reference reads."""
    image = ImageOps.exif_transpose(Image.open(path))
    displayed = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return {"display": displayed, "reference": Image.open(path).convert("RGB")}


def fitted(image, transform=None):
    return np.asarray((transform or clip_eval_transform(SIZE))({"image": image, "label": 0})["image"], np.int32)


def assert_equal(found, expected):
    np.testing.assert_allclose(np.asarray(found, np.int32), np.asarray(expected, np.int32), atol=2)


def test_the_two_forms_differ(forms):
    assert np.abs(fitted(forms["display"]) - fitted(forms["reference"])).mean() > 20


@pytest.mark.parametrize("conversion", ["display", "reference"])
def test_a_preparation_reads_files_and_images_alike(conversion, path, forms):
    prepare = PREPARED.replace(conversion=conversion)
    assert PREPARED.conversion == "display"
    expected = fitted(forms[conversion])[None]
    for form in (path, str(path), Image.open(path), [Image.open(path)]):
        assert_equal(prepare.pixels(form), expected)
    assert_equal(prepare.pixels(np.asarray(forms[conversion])), expected)  # arrays are taken as they are
    gray = preparation.Preparation(
        "image", "swin_jax.data.image.small.small_eval_transform", dict(size=SIZE, channels=1), (0.5,), (0.5,),
        channels=1, conversion=conversion,
    )  # fmt: skip
    assert_equal(gray.pixels(path), gray.pixels(np.asarray(forms[conversion])))
    assert_equal(media.open_picture(path, conversion), forms[conversion])


def test_the_published_preprocess_keeps_its_references_conversion(path):
    image = Image.open(path)
    assert_equal(
        (clip_preprocess(20, (0,) * 3, (1,) * 3, "squash")(image) * 255), image.resize((20, 20), 3).convert("RGB")
    )


def pixels_of(model, variables, prepare, data):
    """In place of features: the pixels that an encoder gets."""
    for batch in data.batches(1, range(1)):
        yield batch["label"], batch["image"].reshape(len(batch["image"]), -1).astype(np.float32)


@pytest.mark.parametrize("conversion", ["display", "reference"])
def test_index_and_similarity_read_them_so(conversion, folder, path, forms, monkeypatch):
    monkeypatch.setattr(loaded_model, "check_features", lambda *args: None)
    monkeypatch.setattr(loaded_model, "image_batches", pixels_of)
    monkeypatch.setattr(image_index, "model_checksum", lambda model, variables: "a")
    prepare = PREPARED.replace(conversion=conversion)

    class Towers:
        visual = text = None

    index = image_index.of_folder(Towers(), {}, folder / "train", preprocess=prepare, progress=False)
    assert_equal(index.features.reshape(SIZE, SIZE, 3), fitted(forms[conversion]))
    assert json.loads(index.preparation)["conversion"] == conversion
    found = image_index.similarity.encode_images(None, {}, [path, Image.open(path)], prepare)
    for row in found:
        assert_equal(row.reshape(SIZE, SIZE, 3), fitted(forms[conversion]))
    other = PREPARED.replace(conversion="display" if conversion == "reference" else "reference")
    with pytest.raises(UserError, match="pictures that were prepared differently"):
        image_index.find(index, None, {}, path, preprocess=other)


def test_a_thumbnail_shows_the_picture(path, forms):
    found = search._thumbnail(str(path))
    assert found.shape == np.asarray(forms["display"]).shape
    assert_equal(found, forms["display"])


def experiments():
    """Configs of an own folder, and the conversion that is set in them, '' for none."""
    for module in (swin_in1k, swinv2_finetune, simmim_in1k):
        for chosen in ("", "reference"):
            config = module.get_config("folder=true")
            config.num_train = 1
            if chosen:
                config.conversion = chosen
            yield config, chosen or "display"


@pytest.mark.parametrize("config, conversion", list(experiments()))
def test_an_own_folder_is_trained_evaluated_and_predicted_alike(config, conversion, folder, path, forms):
    config.data_dir = str(folder)
    for source in (config.data.source, *(item.run.data.source for item in config.evals.values())):
        assert_equal(configs.build(source)[0]["image"], forms[conversion])
    if "predict" not in config:
        return
    config.image_size = SIZE
    data = trained_run.pictures(config, str(path))
    transform = eval_transform(SIZE, config.predict.transform.crop)
    assert_equal(data.transform(data.source[0])["image"], fitted(forms[conversion], transform))
    prepared = trained_run.preparation(config)
    assert prepared.conversion == conversion == json.loads(prepared.fingerprint())["conversion"]
    assert_equal(prepared.pixels(path)[0], fitted(forms[conversion], transform))


def test_imagenet_is_read_as_its_reference_reads_it_and_predictions_are_displayed(folder, path, forms, tmp_path):
    for split in ("train", "val"):
        shutil.copytree(folder / split / "a", tmp_path / split / "n01440764")
    config = swin_in1k.get_config("folder=true")
    config.data_dir = str(tmp_path)
    assert config.num_train == 1_281_167
    assert_equal(configs.build(config.data.source)[0]["image"], forms["reference"])
    for argument in ("folder=true", "", "fake"):
        config = swin_in1k.get_config(argument)
        assert trained_run.preparation(config).conversion == "display"
        data = trained_run.pictures(config, str(path))
        assert_equal(data.source[0]["image"], forms["display"])


def test_sources_of_a_person_display_unless_they_are_told(folder, path, forms):
    for source in (sources.image_folder(str(folder / "train")), sources.flat_folder(str(folder / "train"))):
        assert_equal(source[0]["image"], forms["display"])
    source = sources.image_folder(str(folder), "train", conversion="reference")
    assert_equal(source[0]["image"], forms["reference"])
    data = pipeline.EvalData(sources.flat_folder(str(path)), eval_transform(SIZE), 1, num_threads=0)
    assert_equal(next(data.batches(1, [0]))["image"][0], fitted(forms["display"], eval_transform(SIZE)))
    with pytest.raises(UserError, match="conversion='displayed' must be 'reference' or 'display'"):
        sources.image_folder(str(folder / "train"), conversion="displayed")
    with pytest.raises(UserError, match="conversion=None must be"):
        PREPARED.replace(conversion=None)


def test_an_index_of_before_is_of_the_references_conversion():
    whole = json.loads(PREPARED.fingerprint())
    older = json.dumps({key: value for key, value in whole.items() if key != "conversion"})
    assert not preparation.same_pixels(older, PREPARED.fingerprint())
    assert preparation.same_pixels(older, PREPARED.replace(conversion="reference").fingerprint())
    clips = published.of_videos((4, 8, 8), uniform=False, assumed=False)
    assert "conversion" not in json.loads(clips.fingerprint())


@pytest.mark.parametrize("num_train, chosen, refused", [(1_281_167, "", False), (9, "", True), (9, "reference", False)])
def test_a_run_of_before_goes_on_with_the_pictures_that_it_has_seen(num_train, chosen, refused, tmp_path):
    config = swin_in1k.get_config("folder=true")
    config.num_train, config.batch_size = num_train, 3
    saved = configs.flatten(config)
    before = {key: value for key, value in saved.items() if not key.endswith(("conversion", "limits", "unreadable"))}
    (tmp_path / "config.json").write_text(json.dumps(before))
    if chosen:
        config.conversion = chosen
    if refused:
        with pytest.raises(UserError, match="data.source.conversion: reference -> display"):
            check_resume(config, tmp_path)
    else:
        check_resume(config, tmp_path)


def test_a_stripe_is_refused_in_one_line_wherever_it_is_prepared(tmp_path):
    stripe = Image.new("RGB", (1, 65_000))
    file = io.BytesIO()
    stripe.save(file, "PNG")
    (tmp_path / "stripe.png").write_bytes(file.getvalue())
    prepare = published.of_pictures(224, 3, assumed=False)
    for form, name in (
        (tmp_path / "stripe.png", "stripe.png"),
        (stripe, "the picture"),
        (np.asarray(stripe), "the picture"),
    ):
        with pytest.raises(UserError, match=f"{name}: so narrow a picture would be resized to"):
            prepare.pixels(form)


def test_a_damaged_image_of_the_user_is_one_line(path):
    data = path.read_bytes()
    for cut in (len(data) // 2, len(data) - 30):
        with pytest.raises(UserError, match="the picture cannot be read: "):
            PREPARED.pixels(Image.open(io.BytesIO(data[:cut])))


@pytest.mark.parametrize("empty", [Image.new("RGB", (0, 5)), np.zeros((0, 5, 3), np.uint8), np.zeros((5, 0), np.uint8)])
def test_a_picture_without_pixels_is_refused(empty):
    with pytest.raises(UserError, match="a picture without pixels"):
        PREPARED.pixels(empty)


def test_limits_are_given_to_a_preparation(path):
    from swin_jax.data.image.picture import Limits

    with pytest.raises(UserError, match="x.png: not a picture that can be read .* 20 x 12 pixels, more than the limit"):
        PREPARED.replace(limits=Limits(pixels=100)).pixels(path)
    source = sources.flat_folder(str(path), limits=Limits(pixels=100))
    data = pipeline.EvalData(source, eval_transform(SIZE), 1, num_threads=0)
    with pytest.raises(UserError, match="x.png cannot be read .* more than the limit of 100"):
        next(data.batches(1, [0]))
