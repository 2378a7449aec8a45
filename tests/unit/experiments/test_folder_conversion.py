"""How the pixels of a folder are taken follows what is read, also where only an evaluation reads it."""

import zipfile

import pytest
from PIL import Image

from swin_jax.core import command_line
from swin_jax.data import sources
from tests.experiments import config_path

SYNSETS, OWN = ("n01440764", "n01443537"), ("cat", "dog")


def fill(root, names, split="val"):
    for name in names:
        (root / split / name).mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(root / split / name / "0.png")


def conversions(root, *flags, name="swin_in1k_finetune:variant=tiny,folder"):
    arguments = ["launch", f"--config={config_path(name)}", "--workdir=x", f"--config.data_dir={root}", *flags]
    config = command_line.parse(arguments)[1]
    return config.evals.val.run.data.source.conversion, config.predict.source.conversion


@pytest.mark.parametrize(
    "name",
    ["swin_in1k:folder", "swin_in1k_finetune:folder", "swinv2_in1k:folder", "swinv2_finetune:folder"]
    + ["swinv2_window_transfer:folder", "simmim_finetune:folder"],
)
def test_an_evaluation_of_images_of_ones_own_displays_them(name, tmp_path):
    fill(tmp_path, OWN)
    assert conversions(tmp_path, "--config.total_steps=0", name=name) == ("display", "display")


def test_imagenet_and_its_test_sets_are_read_as_the_reference_does(tmp_path):
    fill(tmp_path / "a", SYNSETS)
    fill(tmp_path / "b", map(str, range(1000)))
    for root in (tmp_path / "a", tmp_path / "b", tmp_path / "nowhere"):
        assert conversions(root) == ("reference", "display")
    assert conversions(tmp_path / "a", "--config.num_train=2", "--config.batch_size=1") == ("display", "display")


def test_lists_and_archives_tell_it_too(tmp_path):
    fill(tmp_path, OWN)
    with zipfile.ZipFile(tmp_path / "test.zip", "w") as archive:
        for name in OWN:
            archive.write(tmp_path / "val" / name / "0.png", f"{name}/0.png")
    (tmp_path / "zip").mkdir()
    (tmp_path / "test.zip").rename(tmp_path / "zip" / "val.zip")
    (tmp_path / "list").mkdir()
    (tmp_path / "list" / "val.csv").write_text("".join(f"../val/{name}/0.png,{name}\n" for name in OWN))
    for kind in ("zip", "list"):
        assert conversions(tmp_path / kind) == ("display", "display")


def test_the_switch_wins(tmp_path):
    fill(tmp_path, OWN)
    assert conversions(tmp_path, "--config.conversion=reference") == ("reference", "reference")


def test_a_folder_that_is_filled_later_is_looked_at_again(tmp_path):
    """As in a notebook, where the config is made first."""
    assert sources.may_be_imagenet(str(tmp_path))
    for name in ("ant", "bee"):
        (tmp_path / "train" / name).mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(tmp_path / "train" / name / "0.png")
    assert not sources.may_be_imagenet(str(tmp_path))
