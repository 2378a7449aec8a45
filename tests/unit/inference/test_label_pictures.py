"""Colors of labels in predictions: the legend, and the palette of the data set."""

import numpy as np
import pytest
from etils import epath
from ml_collections import ConfigDict
from PIL import Image

from swin_jax.core.errors import UserError
from swin_jax.data.segmentation import palettes
from swin_jax.inference import label_pictures


def test_a_legend_has_the_colors_of_the_classes_that_were_found(tmp_path):
    colors = np.array([(200, 10, 10), (10, 200, 10), (10, 10, 200)], np.uint8)
    label_pictures.draw_legend(epath.Path(tmp_path / "legend.png"), "abc", np.array([0.25, 0.0, 0.75]), colors)
    drawn = {tuple(pixel) for pixel in np.asarray(Image.open(tmp_path / "legend.png").convert("RGB")).reshape(-1, 3)}
    assert [tuple(color) in drawn for color in colors.tolist()] == [True, False, True]


def test_predictions_have_the_palette_of_the_data_set(tmp_path):
    config = ConfigDict(dict(data=dict(source=dict(root=str(tmp_path), palette=""))))
    np.testing.assert_array_equal(label_pictures.class_colors(config, 3), palettes.distinct(3))
    (tmp_path / "palette.txt").write_text("1 2 3\n4 5 6\n7 8 9\n")
    np.testing.assert_array_equal(label_pictures.class_colors(config, 3), np.arange(1, 10).reshape(3, 3))
    (tmp_path / "other").write_text("#000000\n#010101\n#020202")
    config.data.source.palette = str(tmp_path / "other")
    assert label_pictures.class_colors(config, 3)[2].tolist() == [2, 2, 2]
    with pytest.raises(UserError, match="has 3 colors, and there are 4 classes"):
        label_pictures.class_colors(config, 4)
    config.data.source = dict(data_dir=str(tmp_path))
    np.testing.assert_array_equal(label_pictures.class_colors(config, 2), palettes.distinct(2))


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
