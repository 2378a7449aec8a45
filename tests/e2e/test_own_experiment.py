"""The experiment with a data set of its own in docs/architecture.md, as a reader copies it: trained by the launcher."""

import json
import os
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[2]


def test_one_file_outside_the_repository_trains_on_its_own_data_set_with_workers(tmp_path):
    page = (ROOT / "docs" / "architecture.md").read_text()
    (code,) = re.findall(r"`mine\.py`:\n\n```python\n(.*?)```", page, re.DOTALL)
    assert "experiments" not in code
    (tmp_path / "mine.py").write_text(code)
    flags = ("--config.total_steps=2", "--config.data.num_workers=1", "--config.logs.every=1")
    command = [sys.executable, "-m", "swin_jax.launch", "--config=mine.py", "--workdir=run", *flags]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_NUM_CPU_DEVICES": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    saved = json.loads((tmp_path / "run" / "config.json").read_text())
    assert saved["data.source.fn"] == "experiment_mine.Shapes" and saved["data.num_workers"] == 1
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["step"] == 2 and any("eval/test/top1" in line for line in lines)
