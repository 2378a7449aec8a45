"""The recipe of ADE20K on a folder of one's own: its flags reach the training data and the evaluation."""

import numpy as np
import pytest
from PIL import Image

from swin_jax.core import config as configs
from swin_jax.core.errors import UserError
from tests.experiments import config_path


@pytest.fixture
def root(tmp_path):
    for split, count in (("train", 3), ("val", 2)):
        for part in ("images", "labels"):
            (tmp_path / part / split).mkdir(parents=True)
        for index in range(count):
            Image.new("RGB", (9, 6)).save(tmp_path / "images" / split / f"{index}.jpg")
            label = np.arange(54).reshape(6, 9) % 3
            Image.fromarray(label.astype(np.uint8)).save(tmp_path / "labels" / split / f"{index}_mask.png")
    (tmp_path / "names.txt").write_text("sea\nsand")
    return tmp_path


def test_flags_of_a_folder_reach_both_of_its_parts(root):
    config = configs.load(config_path("upernet_ade20k:variant=tiny,folder"))
    config.update(data_dir=str(root), class_names=f"{root}/names.txt", label_suffix="_mask", reduce_zero_label=True)
    config.update(num_train=3, batch_size=2, image_size=32)
    data, evaluation = configs.build(config.data, "data"), configs.build(config.evals.val.run, "val")
    with pytest.raises(UserError, match="give --config.num_classes=2"):
        data.check_counts()
    assert [len(found.source) for found in (data, evaluation.data.data)] == [3, 2]
    for found in (data, evaluation.data):
        assert found.class_names == ("sea", "sand")
    for source in (data.source, evaluation.data.data.source):
        assert set(np.unique(source[1]["label"])) == {0, 1, 255}
    assert evaluation.data.scale == (128, 32) and [*evaluation.data.groups] == [((32, 48),)]
