"""Pictures of any size to labels of the same size, with few programs."""

import jax
import numpy as np
import pytest
from PIL import Image

import swin_jax
from swin_jax.core.errors import UserError
from swin_jax.inference import segmentation
from swin_jax.inference.segmentation import Method, segment
from swin_jax.models.segmentation import make_upernet
from swin_jax.ops.resampling import resize_bilinear
from swin_jax.pretrained import beside
from swin_jax.pretrained.segmentation import convert

RNG = np.random.default_rng(0)
FIELDS = dict(embed_dim=8, depths=(1, 1), num_heads=(1, 1), window_size=4, image_size=16, num_classes=5)
MODEL = make_upernet(**FIELDS, channels=8, auxiliary_channels=0, pool_scales=(1, 2))
VARIABLES = convert.from_official(
    {
        name: np.abs(values) if name.endswith("running_var") else values
        for name, shape in convert.official_shapes(MODEL).items()
        for values in [RNG.normal(size=shape, scale=np.prod(shape[1:]) ** -0.5).astype(np.float32)]
    },
    MODEL,
)
PREPARED = swin_jax.preprocess("upernet_swin_tiny_patch4_window7_512x512", scale=(64, 16))
SLIDE = Method(mode="slide", crop=16, stride=8)


def picture(height, width):
    return RNG.integers(0, 256, (height, width, 3), np.uint8)


def programs():
    return segmentation._predict(MODEL)._cache_size()


def test_whole_pictures_have_two_resizes():
    image = picture(26, 35)
    found = segment(MODEL, VARIABLES, image, preprocess=PREPARED)
    small = PREPARED(image)
    assert small.shape == (1, 16, 22, 3)
    logits = segmentation._predict(MODEL)(VARIABLES, small)
    wanted = resize_bilinear(resize_bilinear(logits, (16, 22)), (26, 35))[0]
    assert found.shape == (26, 35) and found.dtype == np.uint8
    np.testing.assert_array_equal(found, wanted.argmax(-1))
    both = segmentation.probabilities(MODEL, VARIABLES, image, preprocess=PREPARED)
    np.testing.assert_allclose(both, jax.nn.softmax(wanted), atol=1e-5)


def test_sliding_compiles_one_program_for_pictures_of_any_size(tmp_path):
    segmentation._predict(MODEL).clear_cache()
    images = [picture(26, 35), picture(40, 20), picture(16, 61), Image.fromarray(picture(33, 33))]
    Image.fromarray(images[0]).save(tmp_path / "a.png")
    found = segment(MODEL, VARIABLES, [*images, tmp_path / "a.png"], SLIDE, PREPARED)
    assert [labels.shape for labels in found] == [(26, 35), (40, 20), (16, 61), (33, 33), (26, 35)]
    np.testing.assert_array_equal(found[0], found[-1])
    assert programs() == 1


def test_the_number_of_programs_is_said_before_the_first(tmp_path, capsys, monkeypatch):
    Image.fromarray(picture(20, 40)).save(tmp_path / "a.png")
    given = [tmp_path / "a.png", picture(10, 20), Image.fromarray(picture(30, 30)), picture(16, 16)]
    monkeypatch.setattr(segmentation, "views", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        segment(MODEL, VARIABLES, given, Method(ratios=(1.0, 1.5)), PREPARED)
    assert "4 sizes, with one program to compile for each" in "".join(capsys.readouterr())
    with pytest.raises(KeyboardInterrupt):
        segment(MODEL, VARIABLES, given, SLIDE, PREPARED)
    assert not "".join(capsys.readouterr())


def test_ratios_change_the_size_and_flips_mirror():
    passes, size = segmentation.views(MODEL, VARIABLES, picture(64, 64), Method(ratios=(1, 1.5), flip=True), PREPARED)
    assert [(one.size, one.mirrored) for one in passes] == [
        ((16, 16), False), ((16, 16), True), ((24, 24), False), ((24, 24), True)
    ]  # fmt: skip
    assert size == (64, 64)


class Labeled(list):
    class_names = ("a", "b", "c", "d", "e")


def test_the_figures_of_a_set_are_those_of_its_labels():
    images = [picture(26, 35), picture(40, 20), picture(33, 33)]
    found = [segment(MODEL, VARIABLES, image, SLIDE, PREPARED) for image in images]
    wrong = found[1].copy()
    wrong[:10] = (wrong[:10] + 1) % 5
    labels = [found[0], wrong, np.full((33, 33), 255, np.uint8)]
    source = Labeled({"image": image, "label": label} for image, label in zip(images, labels))
    figures = segmentation.mean_iou(MODEL, VARIABLES, source, SLIDE, PREPARED)
    assert figures["pixel_accuracy"] == (26 * 35 + 30 * 20) / (26 * 35 + 40 * 20)
    pairs = [(np.concatenate([x.ravel() for x in side[:2]])) for side in (found, labels)]
    each = [((pairs[0] == k) & (pairs[1] == k)).sum() / ((pairs[0] == k) | (pairs[1] == k)).sum() for k in range(5)
            if ((pairs[0] == k) | (pairs[1] == k)).any()]  # fmt: skip
    np.testing.assert_allclose(figures["mean_iou"], np.mean(each))
    assert len(figures["classes"]) == 1 + 5
    with pytest.raises(UserError, match=r"a label is \(3, 3\), its picture \(26, 35\)"):
        segmentation.mean_iou(MODEL, VARIABLES, Labeled([source[0] | {"label": np.zeros((3, 3), np.uint8)}]), SLIDE)
    with pytest.raises(UserError, match="has the class 7, the model 5 classes"):
        segmentation.mean_iou(
            MODEL, VARIABLES, Labeled([source[0] | {"label": np.full((26, 35), 7, np.uint8)}]), SLIDE, PREPARED
        )


def named(names):
    model = MODEL.clone()
    beside.attach_origin(model, "upernet.pth")
    beside.attach_class_names(model, names)
    return model


def test_labels_of_a_set_are_the_models_by_name(capsys):
    image = picture(26, 35)
    label = segment(MODEL, VARIABLES, image, SLIDE, PREPARED)
    label[:9] = (label[:9] + 1) % 5
    model, records = named(("wall", "sky", "bed ", "sea", "road")), [{"image": image, "label": label}]

    def figures(class_names, index, model=model):
        source = Labeled([record | {"label": np.array([*index, 255])[record["label"]]} for record in records])
        source.class_names = class_names
        return segmentation.mean_iou(model, VARIABLES, source, SLIDE, PREPARED)

    wanted = figures(("wall", "sky", "bed", "sea", "road"), range(5))
    assert [row[0] for row in wanted["classes"][1:]] == ["wall", "sky", "bed", "sea", "road"]
    assert not "".join(capsys.readouterr())
    assert figures(("sea", "wall", "road", "bed", "sky"), (1, 4, 3, 0, 2)) == wanted
    assert "in another order: its labels are mapped by name" in "".join(capsys.readouterr())
    with pytest.raises(UserError, match="the model lacks 'lake'.*class_names="):
        figures(("wall", "sky", "bed", "sea", "lake"), range(5))
    few = figures(("road", "sky"), (0, 1, 1, 1, 1))
    assert [row[0] for row in few["classes"][1:]] == ["wall", "sky", "bed", "sea", "road"]
    assert few["classes"][1][3] == f"{0:.6f}" and "has 2 of the 5 classes" in "".join(capsys.readouterr())
    assert figures(tuple("abcde"), range(5))["mean_iou"] == wanted["mean_iou"]
    assert "calls all classes of the model otherwise" in "".join(capsys.readouterr())
    assert figures(tuple("abcde"), range(5), MODEL)["mean_iou"] == wanted["mean_iou"]
    assert "the class names of the model are not known" in "".join(capsys.readouterr())
    with pytest.raises(UserError, match="the model has 5 classes, the data set 2"):
        figures(("road", "sky"), (0, 1, 1, 1, 1), MODEL)


@pytest.mark.parametrize("height, width", [(1, 1), (1, 40), (7, 3)])
def test_tiny_pictures_are_segmented(height, width):
    whole = PREPARED.replace(scale=(16, 16))
    assert segment(MODEL, VARIABLES, picture(height, width), preprocess=whole).shape == (height, width)


def test_what_cannot_be_segmented_is_refused():
    with pytest.raises(UserError, match="segment needs a segmenter"):
        segment(MODEL.backbone, VARIABLES, picture(8, 8))
    with pytest.raises(UserError, match="given no pictures"):
        segment(MODEL, VARIABLES, [])
    with pytest.raises(UserError, match="these variables are of another model: params/decode_head/conv_seg"):
        segment(make_upernet(**FIELDS | dict(num_classes=6), channels=8, auxiliary_channels=0, pool_scales=(1, 2)),
                VARIABLES, picture(8, 8))  # fmt: skip
    with pytest.raises(UserError, match="give a preparation with a scale"):
        segment(MODEL, VARIABLES, picture(8, 8), Method(ratios=(2.0,)), lambda image: image[None] / 255)
