"""Files and colors of labels in predictions: their names, the legend, and the palette of the data set."""

import itertools
import pathlib

import numpy as np
import pytest
from etils import epath
from ml_collections import ConfigDict
from PIL import Image

from swin_jax.core import config as configs
from swin_jax.core.errors import UserError
from swin_jax.data.segmentation import palettes
from swin_jax.data.segmentation.ade20k import ade20k, names_and_colors
from swin_jax.inference import label_pictures, predict
from swin_jax.inference.trained_run import pictures
from swin_jax.train.setup import build_run
from tests.unit.data.segmentation.test_ade20k import listed


def numbers(count):
    """Names of classes where none are known."""
    return tuple(map(str, range(count)))


def test_a_legend_has_the_colors_of_the_classes_that_were_found(tmp_path):
    colors = np.array([(200, 10, 10), (10, 200, 10), (10, 10, 200)], np.uint8)
    label_pictures.draw_legend(epath.Path(tmp_path / "legend.png"), "abc", np.array([0.25, 0.0, 0.75]), colors)
    drawn = {tuple(pixel) for pixel in np.asarray(Image.open(tmp_path / "legend.png").convert("RGB")).reshape(-1, 3)}
    assert [tuple(color) in drawn for color in colors.tolist()] == [True, False, True]


def test_predictions_have_the_palette_of_the_data_set(tmp_path):
    config = ConfigDict(dict(data=dict(source=dict(root=str(tmp_path), palette=""))))
    np.testing.assert_array_equal(label_pictures.class_colors(config, numbers(3)), palettes.distinct(3))
    (tmp_path / "palette.txt").write_text("1 2 3\n4 5 6\n7 8 9\n")
    np.testing.assert_array_equal(label_pictures.class_colors(config, numbers(3)), np.arange(1, 10).reshape(3, 3))
    (tmp_path / "other").write_text("#000000\n#010101\n#020202")
    config.data.source.palette = str(tmp_path / "other")
    assert label_pictures.class_colors(config, numbers(3))[2].tolist() == [2, 2, 2]
    with pytest.raises(UserError, match="has 3 colors, and there are 4 classes"):
        label_pictures.class_colors(config, numbers(4))
    config.data.source = dict(data_dir=str(tmp_path))
    np.testing.assert_array_equal(label_pictures.class_colors(config, numbers(2)), palettes.distinct(2))


def test_colors_go_with_the_names_of_the_data_set_not_with_places(tmp_path):
    """A run that starts from a model of the same classes keeps that model's order."""
    colors = {"water": [255, 0, 0], "sky": [0, 255, 0], "grass": [0, 0, 255]}
    (tmp_path / "classes.txt").write_text("\n".join(colors))
    (tmp_path / "palette.txt").write_text("\n".join(" ".join(map(str, color)) for color in colors.values()))
    config = ConfigDict(dict(data=dict(source=dict(root=str(tmp_path), palette=""))))
    for names in itertools.permutations(colors):
        assert label_pictures.class_colors(config, names).tolist() == [colors[name] for name in names]
    for names in (numbers(3), ("Wasser", "Himmel", "Gras"), ("water", "sky", "lawn")):  # called otherwise
        assert label_pictures.class_colors(config, names).tolist() == [*colors.values()]
    with pytest.raises(UserError, match="the model lacks 'grass'; the class list of the palette lacks 'lake'"):
        label_pictures.class_colors(config, ("sky", "water", "lake"))
    (tmp_path / "other.txt").write_text("sky\nwater\ngrass")
    config.data.source.class_names = str(tmp_path / "other.txt")
    assert label_pictures.class_colors(config, ("water", "sky", "grass")).tolist()[0] == colors["sky"]


def test_labels_of_an_earlier_prediction_are_counted(tmp_path):
    folder = epath.Path(tmp_path)
    assert label_pictures.describe_earlier(folder, {"a.png"}) == ""
    for name in ("a.png", "inside/b.png", "c.png"):
        (tmp_path / "labels" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "labels" / name).touch()
    assert "of 2 pictures of an earlier prediction, c.png for one" in label_pictures.describe_earlier(
        folder, {"a.png", "other.png"}
    )
    assert label_pictures.describe_earlier(folder, {"a.png", "c.png", "inside/b.png"}) == ""


@pytest.mark.parametrize("beside", [True, False], ids=["palette.txt", "column"])
@pytest.mark.parametrize("around", [True, False])
def test_predictions_on_ade20k_have_its_colors(tmp_path, beside, around):
    root = tmp_path / "ADEChallengeData2016"
    root.mkdir()
    config = ConfigDict(dict(data=dict(source=dict(fn=ade20k, root=str(tmp_path if around else root)))))
    np.testing.assert_array_equal(label_pictures.class_colors(config, numbers(150)), palettes.distinct(150))
    (root / "objectInfo150.txt").write_text(listed())
    np.testing.assert_array_equal(label_pictures.class_colors(config, numbers(150)), palettes.distinct(150))
    text = listed(header="Idx\tRatio\tTrain\tVal\tStuff\tName\tColor", ending="\t#0102fF")
    (root / "objectInfo150.txt").write_text(text)
    wanted = (1, 2, 255)
    if beside:
        (root / "palette.txt").write_text("7 8 9\n" * 150)
        wanted = (7, 8, 9)
    assert {*map(tuple, label_pictures.class_colors(config, numbers(150)).tolist())} == {wanted}


def test_colors_of_ade20k_go_with_names(tmp_path):
    (tmp_path / "objectInfo150.txt").write_text(listed())
    (tmp_path / "palette.txt").write_text("\n".join(f"{k} 0 0" for k in range(150)))
    config = ConfigDict(dict(data=dict(source=dict(fn=ade20k, root=str(tmp_path)))))
    names, _ = names_and_colors(str(tmp_path))
    assert label_pictures.class_colors(config, names)[:, 0].tolist() == [*range(150)]
    assert label_pictures.class_colors(config, names[::-1])[:, 0].tolist() == [*range(150)][::-1]


def test_pictures_of_one_stem_have_labels_of_their_own_whatever_the_order():
    names = {"a.jpg": "a.jpg.png", "a.png": "a.png.png", "a.jpg.gif": "a.jpg.gif.png", "in/a.jpg": "in/a.png"}
    for order in itertools.permutations(names):
        found = label_pictures.label_names([pathlib.PurePath(path) for path in order])
        assert found == [names[path] for path in order]


def test_shares_name_the_file_of_the_labels_and_the_legend_counts_pixels(tmp_path):
    counts = {"/d/a.jpg": np.array([3, 1]), "/d/b.jpg": np.array([0, 12])}
    files = {"/d/a.jpg": "a.png", "/d/b.jpg": "b.png"}
    label_pictures._write_shares(epath.Path(tmp_path / "shares.csv"), ("sky", "sea"), files, counts)
    assert (tmp_path / "shares.csv").read_text().splitlines() == [
        "image,label_file,sky,sea",
        "/d/a.jpg,labels/a.png,0.750000,0.250000",
        "/d/b.jpg,labels/b.png,0.000000,1.000000",
    ]


def test_a_palette_of_other_classes_is_refused_before_weights_are_read(tmp_path, monkeypatch):
    config = configs.load("experiments/segmentation/upernet_ade20k.py:fake,folder")
    (tmp_path / "colors").write_text("1 2 3\n")
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "pictures/a.jpg")
    config.data.source = dict(root="", palette=str(tmp_path / "colors"))
    monkeypatch.setattr(predict, "open_trained", lambda config, workdir: epath.Path(workdir))
    with pytest.raises(UserError, match="has 1 color, and there are 4 classes"):
        predict.prepare(config, str(tmp_path), str(tmp_path / "pictures"))


@pytest.mark.parametrize(
    "changes, wanted",
    [
        (dict(mode="slides"), "^--config.predict_method.mode='slides' is not one of"),
        (dict(crop=8, stride=9), "^--config.predict_method.stride=9 leaves pixels between windows"),
        (dict(ratios=(0.5, 1.0)), "the ratio 0.5 multiplies the scale"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_passes_that_cannot_be_made_are_refused_before_weights_are_read(changes, wanted, tmp_path, monkeypatch):
    config = configs.load("experiments/segmentation/upernet_ade20k.py:fake,folder")
    config.predict_method.update(changes)
    if "ratios" in changes:
        config.scale = None
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    monkeypatch.setattr(predict, "open_trained", lambda config, workdir: epath.Path(workdir))
    with pytest.raises(UserError, match=wanted):
        predict.prepare(config, str(tmp_path), str(tmp_path))


def test_a_legend_has_shares_of_all_pixels(tmp_path, monkeypatch):
    """Not the mean of the shares in each picture, which would be a half."""
    config = configs.load("experiments/segmentation/upernet_ade20k.py:fake,folder")
    config.data.source = dict(root="", palette="")
    for name in ("small", "large"):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{name}.png")
    sizes = {"small.png": (1, 4), "large.png": (4, 4)}

    def found(run, state, frozen, windows, batch_size):
        for label, (name, size) in enumerate(sizes.items()):
            yield str(tmp_path / name), np.zeros((*size, 3), np.uint8), np.full(size, label, np.uint8)

    shares = []
    monkeypatch.setattr(label_pictures, "trained", lambda *_: (None, None, {}))
    monkeypatch.setattr(label_pictures, "_labels", found)
    monkeypatch.setattr(label_pictures, "draw_legend", lambda path, names, found, colors: shares.append(found))
    run, data = build_run(config), pictures(config, str(tmp_path))
    assert label_pictures.write_labels(config, run, data, epath.Path(tmp_path / "run")) == 2
    np.testing.assert_allclose(shares[0], [0.2, 0.8, 0, 0])
    assert {path.name for path in (tmp_path / "run/predictions/labels").iterdir()} == {*sizes}
