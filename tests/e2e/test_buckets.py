"""A workdir in a bucket: training, a kill, resuming, prediction, search's index and export, without a local file."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

import swin_jax
from swin_jax.core import storage
from swin_jax.core.errors import UserError
from swin_jax.inference import image_index
from swin_jax.train import checkpoint, logs, loop
from tests.e2e import bucket
from tests.e2e.test_experiments import assert_equal_runs

ROOT = pathlib.Path(__file__).parents[2]
CONFIG = "experiments/quickstart.py:fake"
STEPS = 12
FLAGS = (
    f"--config.total_steps={STEPS}",
    "--config.logs.every=1",
    "--config.checkpoint.every=4",
    "--config.evals.test.every=6",
)
# Ends in the middle of step 7, as if killed: no handler runs, nothing is flushed.
KILLED = """
import os, sys
from tests.e2e import bucket
from swin_jax import launch
from swin_jax.train import checkpoint, loop
bucket.install(sys.argv[1])
next_batch, calls = loop.Loop.next_batch, []
def dies(self, batches):
    calls.append(0)
    if len(calls) == 7:
        checkpoint.finish(self.manager)
        os._exit(9)
    return next_batch(self, batches)
loop.Loop.next_batch = dies
sys.exit(launch.run(["launch", *sys.argv[2:]]))
"""


@pytest.fixture
def remote(tmp_path, monkeypatch):
    """A new bucket, and that nobody took its name for one of a local folder."""
    monkeypatch.setattr(bucket.gcs_utils, "get_kvstore_for_gcs", None)
    monkeypatch.setattr(bucket.gcs_utils, "is_hierarchical_namespace_enabled", None)
    storage._check_installed.cache_clear()
    storage.epath.backend.fsspec_backend._get_filesystem.cache_clear()
    here = set(os.listdir(ROOT))
    yield bucket.install(tmp_path / "bucket")
    storage.epath.backend.fsspec_backend._get_filesystem.cache_clear()
    assert set(os.listdir(ROOT)) == here, "a file of the bucket became a local one"
    assert not (tmp_path / "gs:").exists() and not pathlib.Path("/gs").exists()


def test_a_killed_run_goes_on_and_is_used(remote, launch, tmp_path, root):
    workdir, local = "gs://bucket/runs/first", tmp_path / "local"
    assert launch(CONFIG, local, *FLAGS)[0] == 0

    command = [sys.executable, "-c", KILLED, remote, f"--config={ROOT / CONFIG}", f"--workdir={workdir}", *FLAGS]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "8"}
    killed = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert killed.returncode == 9, killed.stderr[-3000:]
    assert not (tmp_path / "gs:").exists()
    assert [line["step"] for line in logs.read_metrics(workdir)] == [1, 2, 3, 4]  # those up to the checkpoint

    status, out, err = launch(CONFIG, workdir, *FLAGS, "--profile=9-10")
    assert status == 0, err
    assert "resuming at step 4" in err and f"{workdir}/metrics.jsonl" in out
    assert_equal_runs(local, remote / "runs/first", STEPS)
    for written in ("config.json", "header.json", "curves.png", "checkpoints/12/commit_success.txt"):
        assert (remote / "runs/first" / written).stat().st_size, written
    assert list((remote / "runs/first/profile").rglob("*.xplane.pb"))
    assert len(list((remote / "runs/first/tensorboard").iterdir())) == 2

    pictures = tmp_path / "pictures"
    make_pictures(pictures)
    status, out, err = launch(CONFIG, workdir, *FLAGS, f"--predict={pictures}")
    assert status == 0, err
    status, _, err = launch(CONFIG, local, *FLAGS, f"--predict={pictures}")
    assert status == 0, err
    assert (remote / "runs/first/predictions.csv").read_bytes() == (local / "predictions.csv").read_bytes()
    assert len((local / "predictions.csv").read_text().splitlines()) == 1 + 3
    assert (remote / "runs/first/predictions.png").read_bytes()[:4] == b"\x89PNG"

    status, out, err = launch(CONFIG, workdir, *FLAGS, f"--export={workdir}/model.stablehlo")
    assert status == 0, err
    assert (remote / "runs/first/model.stablehlo").stat().st_size > 10_000
    assert (remote / "runs/first/model.stablehlo.json").exists()

    model, variables = swin_jax.load(weights=workdir)
    ours, theirs = checkpoint.load_variables(workdir), checkpoint.load_variables(local)
    np.testing.assert_array_equal(ours["params"]["head"]["kernel"], theirs["params"]["head"]["kernel"])
    status, _, err = launch(
        CONFIG, "gs://bucket/runs/second", *FLAGS, "--config.total_steps=1", f"--config.init_from.path={workdir}"
    )
    assert status == 0 and f"starts from {workdir}" in err, err


def make_pictures(folder):
    """Two gray pictures and a colored one, which a model of gray ones takes too."""
    from PIL import Image

    folder.mkdir()
    rng = np.random.default_rng(0)
    for i, shape in enumerate([(28, 28), (28, 28), (28, 28, 3)]):
        Image.fromarray(rng.integers(0, 256, shape, np.uint8)).save(folder / f"{i}.png")


def test_a_checkpoint_that_was_cut_off_or_damaged_is_passed_over(remote, launch):
    workdir, kept = "gs://bucket/run", remote / "run/checkpoints"
    short = (*FLAGS, "--config.total_steps=8")
    status, _, err = launch(CONFIG, workdir, *short)
    assert status == 0, err
    (kept / "8/commit_success.txt").unlink()  # a save that was killed
    (remote / "run/metrics.jsonl").open("a").write('{"step": 5, "tr')
    status, _, err = launch(CONFIG, workdir, *short)
    assert status == 0 and "resuming at step 4" in err and "damaged" not in err, err
    assert sorted(p.name for p in kept.iterdir() if any(p.rglob("commit_success.txt"))) == ["4", "8"]
    for file in (kept / "8/params").rglob("*"):
        if file.is_file() and file.parent.name == "d":
            file.unlink()
    status, _, err = launch(CONFIG, workdir, *short)
    assert status == 0 and "the checkpoint of step 8 is damaged" in err and "resuming at step 4" in err, err
    assert (remote / "run/damaged_checkpoints/8/_CHECKPOINT_METADATA").exists()
    assert not (remote / "run/damaged_checkpoints/8/commit_success.txt").exists()


def test_an_index_lies_in_a_bucket(remote):
    fields = dict(root="/pictures", model="m", checksum="c", preparation="p", normalized=True, complete=True)
    arrays = dict(features=np.eye(1, 3, dtype=np.float32), stamps=np.zeros((1, 2), np.int64))
    found = image_index.Index(names=("a",), **arrays, **fields)
    image_index.save(found, "gs://bucket/index.npz")
    assert image_index.load("gs://bucket/index.npz").names == ("a",)


def test_a_bucket_that_cannot_be_written_to_is_one_line(remote, launch, monkeypatch):
    def refuse(*arguments, **options):
        raise PermissionError("403 forbidden")

    monkeypatch.setattr(bucket.Bucket, "_open", refuse)
    status, _, err = launch(CONFIG, "gs://bucket/run", *FLAGS)
    assert status == 2 and err.count("\n") == 1
    assert "--workdir=gs://bucket/run cannot be used: " in err and "403 forbidden" in err


def test_a_bucket_whose_kind_is_not_told_is_refused_at_the_start(remote, launch, monkeypatch):
    """With the role Storage Object Admin alone, training would stop where the first old checkpoint is deleted."""

    def refuse(path):
        raise PermissionError("403 Forbidden: storage.buckets.get")

    monkeypatch.setattr(bucket.gcs_utils, "is_hierarchical_namespace_enabled", refuse)
    status, _, err = launch(CONFIG, "gs://bucket/run", *FLAGS)
    assert status == 2 and err.count("\n") == 1
    assert "403 Forbidden: storage.buckets.get" in err and "role Storage Legacy Bucket Reader" in err


def test_a_bucket_that_fails_later_stops_before_a_checkpoint(remote, tmp_path, monkeypatch):
    spool = storage.Spool(storage.path("gs://bucket/run"), seconds=0)
    (spool.folder / "metrics.jsonl").write_text("a\n")
    spool.tick()
    spool.sync()
    assert (remote / "run/metrics.jsonl").read_text() == "a\n"
    (spool.folder / "metrics.jsonl").write_text("a\nb\n")

    def fail(*_, **__):
        raise RuntimeError("503\nretry later")

    monkeypatch.setattr(bucket.Bucket, "_open", fail)
    spool.tick()  # says so, and that's all
    with pytest.raises(UserError, match="run cannot be written: RuntimeError: 503 retry later"):
        spool.sync()
    assert (remote / "run/metrics.jsonl").read_text() == "a\n"
    monkeypatch.undo()
    bucket.install(remote)
    spool.close()
    assert (remote / "run/metrics.jsonl").read_text() == "a\nb\n" and not spool.folder.exists()


def test_a_run_that_lost_its_bucket_leaves_the_log_of_the_other(remote, launch, monkeypatch):
    next_batch, calls = loop.Loop.next_batch, []

    def steal(self, batches):
        calls.append(0)
        if len(calls) == 2:
            storage.write(self.workdir / "owner.json", '{"run": "theirs", "host": "thief", "pid": 7}')
            storage.write(self.workdir / "metrics.jsonl", "theirs\n")
        return next_batch(self, batches)

    monkeypatch.setattr(loop.Loop, "next_batch", steal)
    status, _, err = launch(CONFIG, "gs://bucket/run", *FLAGS)
    assert status == 1 and err.splitlines()[-1].startswith("error: --workdir=gs://bucket/run was taken over by another")
    assert (remote / "run/metrics.jsonl").read_text() == "theirs\n"


@pytest.mark.parametrize("name", ["s3://bucket/run", "gs:/bucket/run", "hdfs://run"])
def test_other_stores_are_refused(launch, name):
    status, _, err = launch(CONFIG, name, *FLAGS)
    assert status == 2 and err.count("\n") == 1 and "cannot hold the files of a run" in err


def test_a_missing_package_is_named(launch, monkeypatch):
    import fsspec

    def missing(name):
        raise ImportError("Please install gcsfs to access Google Storage")

    storage._check_installed.cache_clear()
    monkeypatch.setattr(fsspec, "get_filesystem_class", missing)
    status, _, err = launch(CONFIG, "gs://bucket/run", *FLAGS)
    assert status == 2 and err.count("\n") == 1 and "pip install -e '.[gs]'" in err
