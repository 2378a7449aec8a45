"""The story of docs/styleclip.md at toy size: faces are drawn, networks trained, a face edited by a text and judged."""

import csv
import runpy

import numpy as np
import pytest

from swin_jax.data.builders import avatars

STEPS = ("--config.total_steps=2", "--config.batch_size=8", "--config.logs.every=1")
GENERATOR = ("channel_base=128", "channel_max=8")
TOWERS = ("visual.width=8", "visual.num_heads=4", "text.width=16")
SWIN = ("embed_dim=16", "depths=(1,1)", "num_heads=(1,2)")


def overrides(prefix, *fields):
    return [f"--config.{prefix}.{field}" for field in fields]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("avatars")
    avatars.build(str(folder), num_train=24, num_test=260, workers=1)
    return folder


def test_a_face_is_edited_by_a_text_with_networks_trained_from_nothing(data, tmp_path, launch, root, monkeypatch):
    def train(experiment, name, *flags):
        path = f"experiments/{experiment}.py"
        status, out, err = launch(path, tmp_path / name, f"--config.data_dir={data}", *STEPS, *flags)
        assert status == 0 and "Done: 2 steps" in out, err

    networks = [flag for name in ("generator", "discriminator") for flag in overrides(f"task.{name}", *GENERATOR)]
    quick = ["--config.evals.quality.run.samples=8", "--config.evals.quality.run.subset_size=4"]
    train("stylegan2/stylegan2_avatars", "avatars", "--config.image_size=8", *networks, *quick)
    train("styleclip/clip_avatars", "clip", *overrides("task.model", *TOWERS))
    train("styleclip/avatars_attributes", "attributes", *overrides("task.model", *SWIN))

    flags = [f"--config.generator={tmp_path / 'avatars'}", f"--config.clip={tmp_path / 'clip'}"]
    flags += overrides("task.generator.model", *GENERATOR) + overrides("task.clip.model", *TOWERS)
    flags += ["--config.image_size=8", "--config.samples=32", "--config.images=2", "--config.channels=40"]
    flags += ["--config.text=a face with glasses", "--config.beta=(0.01,)", "--edit=seeds:3-4"]
    experiment = "experiments/styleclip/styleclip_global.py:avatars"
    status, out, err = launch(experiment, tmp_path / "global", *flags)
    assert status == 0 and "2 edits to 'a face with glasses'" in out, err
    folder = tmp_path / "global" / "edits" / "a_face_with_glasses"
    assert {"seed3.png", "seed4.npz", "seed4.csv", "before_after.png", "alpha_beta.png"} <= {
        path.name for path in folder.iterdir()
    }
    rows = list(csv.DictReader((folder / "seed3.csv").open()))
    assert rows and all(abs(float(row["weight"])) <= 4 + 1e-5 for row in rows)
    assert np.load(folder / "seed3.npz")["ws"].shape == (4, 64)

    arguments = ["avatar_samples.py", f"--data_dir={data}", f"--generator={tmp_path / 'avatars'}"]
    arguments += [f"--classifier={tmp_path / 'attributes'}", f"--out={tmp_path / 'samples'}", "--count=20"]
    monkeypatch.setattr("sys.argv", arguments)
    runpy.run_path(str(root / "experiments" / "studies" / "avatar_samples.py"), run_name="__main__")
    assert len(list(csv.DictReader((tmp_path / "samples" / "rates.csv").open()))) == 8
