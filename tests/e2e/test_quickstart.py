"""The quickstart as README runs it: a minute or two, and the accuracy that it promises."""

import os
import re
import subprocess
import sys

LEAST = 0.975  # README names the range over seeds


def test_it_reads_digits_as_well_as_readme_says(root, tmp_path):
    environment = os.environ | {"PYTHONPATH": str(root)}
    del environment["XLA_FLAGS"]  # which make programs quickly that run slowly
    command = [sys.executable, "-m", "swin_jax.launch", "--config=experiments/quickstart.py", f"--workdir={tmp_path}"]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    (accuracy,) = re.findall(r"eval/test/top1 +([\d.]+)", done.stdout)
    assert float(accuracy) >= LEAST
    assert (tmp_path / "curves.png").stat().st_size > 10_000 and (tmp_path / "checkpoints" / "1500").is_dir()
