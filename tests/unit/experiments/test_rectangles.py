"""`--config.image_size=(32,64)` reaches the model, the task and every transform of each family of experiments."""

import numpy as np
import pytest
from PIL import Image

from swin_jax.core import command_line
from swin_jax.core.config import build, flatten
from swin_jax.core.errors import UserError
from tests.experiments import config_path

SMALL = "quickstart swin_in1k swin_in1k_finetune swin_in22k swinv2_in1k swinv2_finetune swinv2_giant simmim_in1k"
SMALL += (
    " finetune_folder simmim_finetune clip_openai clip_swin lit siglip swin_fashion_mnist clip_emoji video_swin_k400"
)
SIZES = ("image_size", "size")


def parse(path, *arguments):
    return command_line.parse(["launch", f"--config={path}", "--workdir=x", *arguments])[1]


@pytest.mark.parametrize("name", SMALL.split())
def test_every_size_of_an_experiment_follows(name):
    path = config_path(name if name == "quickstart" else f"{name}:fake")
    config = parse(path)
    key = "image_size" if "image_size" in config else "size"
    before = flatten(config)
    found = flatten(parse(path, f"--config.{key}=(32,64)"))
    follow = [k for k in before if k.rpartition(".")[2] in SIZES and k != key and "source" not in k]
    assert len(follow) >= 4
    assert all(found[k] in ([32, 64], [before["frames"] if "frames" in before else 0, 32, 64]) for k in follow)


@pytest.mark.parametrize("name", ["swin_in1k", "clip_openai", "simmim_in1k", "video_swin_k400"])
def test_an_example_and_a_batch_have_the_rectangle(name):
    key, path = "size" if name.startswith("video") else "image_size", config_path(f"{name}:fake")
    config = parse(path, f"--config.{key}=(32,64)")
    shapes = build(config.task).batch_shapes(2)
    shape = shapes["video" if key == "size" else "image"].shape
    assert shape[-3:] == (32, 64, 3)


@pytest.mark.parametrize("size", [(64, 32), (32, 64)])
def test_own_images_are_cut_to_a_rectangle_from_copies_that_are_large_enough(size, tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for number in range(2):
            Image.new("RGB", (300, 200)).save(tmp_path / name / f"{number}.png")
    flags = f"--config.data_dir={tmp_path}", f"--config.image_size={size}"
    data = build(parse(config_path("finetune_folder"), *flags).data, "data")
    example = data.source[0]
    assert example["image"].size == (192, 128)
    assert data.transform(example, np.random.default_rng(0))["image"].shape == (*size, 3)


@pytest.mark.parametrize("model, frames", [("clip", (16,)), ("frame", ())])
def test_the_model_of_animations_follows_their_size(model, frames):
    path = config_path(f"video_swin_emoji:fake,model={model}")
    config = parse(path, "--config.size=32", *(f"--config.num_frames={count}" for count in frames))
    shapes = build(config.task).batch_shapes(2)
    assert shapes["video" if frames else "image"].shape == (2, *frames, 32, 32, 3)
    assert config.task.model.image_size == ((*frames, 32, 32) if frames else 32)
    with pytest.raises(UserError, match="data.transform.*size=.*whole number"):  # animations are square
        build(parse(path, "--config.size=(32,64)").data, "data")


def test_a_size_of_its_own_wins_and_wrong_ones_are_refused():
    path = config_path("swin_in1k:fake")
    config = parse(path, "--config.image_size=(32,64)", "--config.evals.val.run.data.transform.size=(64,64)")
    assert config.evals.val.run.data.transform.size == (64, 64) and config.task.image_size == (32, 64)
    for wrong in ("(0,64)", "(32,-1)", "(32,6.5)", "(a,b)", "()", "(32,"):
        with pytest.raises(UserError, match="neither a whole number nor"):
            parse(path, f"--config.image_size={wrong}")
    assert parse(path, "--config.image_size=64").image_size == 64


@pytest.mark.parametrize("flags", ["=(32,64)", "=32,64", "=[32, 64]", " (32,64)", "=16 =(32,64)", "=(16,16) =32,64"])
def test_a_size_may_be_written_in_these_ways_and_the_last_one_counts(flags):
    path = config_path("swin_in1k:fake")
    given = [f"--config.image_size={text[1:]}" for text in flags.replace(", ", ",").split(" ") if text[:1] == "="]
    given = given or ["--config.image_size", flags.strip()]
    assert parse(path, *given).task.model.image_size == (32, 64)
    assert parse(path, *given, "--config.image_size=48").task.model.image_size == 48
    assert parse(path, "--config.seed", "3", *given).seed == 3


def test_a_window_for_each_stage_is_a_flag():
    path = config_path("swin_in1k:fake")
    stages = ((4, 8), 2, (2, 2), 1)
    assert parse(path, f"--config.task.model.window_size={stages}").task.model.window_size == stages
    assert parse(path, "--config.task.model.window_size=(4,8)").task.model.window_size == (4, 8)
    for flag in ("image_size=((32,64),32)", "image_size=32x64", "image_size=32.0", "task.model.window_size=((0,1),1)"):
        with pytest.raises(UserError, match=r"neither a whole number nor \(height, width\) as \(32,64\)"):
            parse(path, f"--config.{flag}")
