"""A run is exported by the launcher and runs where this package cannot be imported."""

import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from swin_jax import launch as launcher
from swin_jax.core import config as configs
from swin_jax.inference import trained_run
from swin_jax.train import setup
from tests.experiments import config_path

ROOT = pathlib.Path(__file__).parents[2]
AVERAGE = "--config.task.ema_decay=0.5"
SMALL = {
    "quickstart": (AVERAGE, "--config.mesh.fsdp=2"),
    "simmim_in1k": (),
}
ELSEWHERE = """
import sys
sys.modules["swin_jax"] = sys.modules["flax"] = None
import jax, numpy
for rows in sys.argv[2:]:
    batch = dict(numpy.load(f"{rows}.npz"))
    model = jax.export.deserialize(open(sys.argv[1], "rb").read())
    numpy.savez(f"out{rows}.npz", **model.call(batch))
try:
    import swin_jax
except ImportError:
    print("no swin_jax")
"""


def predicted(config, workdir, batch):
    """What the task predicts in this process, with the state that `--predict` uses."""
    run = setup.build_run(config)
    with jax.set_mesh(run.placement.mesh):
        state, frozen, _ = trained_run.trained(config, run, workdir)
        return jax.device_get(jax.jit(run.task.predict)(state, batch, frozen))


@pytest.mark.parametrize("name", SMALL)
def test_a_run_leaves_the_package_behind(name, tmp_path, launch):
    workdir, path = tmp_path / "run", tmp_path / "model.stablehlo"
    config = config_path(f"{name}:fake")
    assert launch(config, workdir, *SMALL[name])[0] == 0
    status, out, err = launch(config, workdir, *SMALL[name], f"--export={path}")
    assert status == 0, err
    assert "step 3, for cpu, cuda, tpu" in out
    facts = json.loads((tmp_path / "model.stablehlo.json").read_text())
    assert facts["step"] == 3 and "label" not in facts["inputs"]
    assert bool(facts["preparation"]) == (name == "quickstart")  # SimMIM has no predictions of folders
    assert "transform" not in facts

    _, parsed = launcher.parse(["launch", f"--config={ROOT / config}", f"--workdir={workdir}", *SMALL[name]])
    shapes = configs.build(parsed.task).batch_shapes
    rng = np.random.default_rng(0)
    batches = {}
    for rows in (8, 16):
        batches[rows] = {
            key: rng.integers(0, 256 if key == "image" else 2, shapes(rows)[key].shape, np.uint8)
            for key in facts["inputs"]
        }
        np.savez(tmp_path / f"{rows}.npz", **batches[rows])
    command = [sys.executable, "-I", "-c", ELSEWHERE, path, *map(str, batches)]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout == "no swin_jax\n", done.stderr[-2000:]
    for rows, batch in batches.items():
        out = np.load(tmp_path / f"out{rows}.npz")
        want = predicted(parsed, workdir, batch)
        assert set(out) == set(want) == set(facts["outputs"])
        for key in want:
            np.testing.assert_allclose(out[key], want[key], rtol=1e-5, atol=1e-5, err_msg=f"{key} of {rows}")
