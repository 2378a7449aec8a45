"""Whatever needs an extra of setup.py that is not installed names, in one line, the command that installs it."""

import ast
import importlib
import runpy
import sys

import jax
import numpy as np
import pytest

from swin_jax import launch
from swin_jax.core import storage
from swin_jax.core.errors import UserError
from swin_jax.data.builders import avatars, svg
from swin_jax.data.image_text import lists
from swin_jax.data.video import container, randaugment, transforms
from swin_jax.plan import tpu_compiler
from swin_jax.train import logs

FRAMES = np.zeros((2, 8, 8, 3), np.uint8)
# For tests, pages and recordings: nothing of the package imports them.
DEVELOPERS = {"test", "docs", "peers", "notebooks"}
FASTER = {"loader"}  # what it does is done without it as well
# An extra, a package of it that is hidden, and what needs that.
USES = [
    ("tpu", "libtpu", lambda folder: tpu_compiler.prepare_backend()),
    ("gs", "gcsfs", lambda folder: storage.path("gs://bucket/run")),
    ("wandb", "wandb", lambda folder: logs.Logs(folder, 100, wandb_project="p")),
    ("avatars", "python_avatars", lambda folder: avatars.build(str(folder))),
    ("avatars", "resvg_py", lambda folder: avatars.build(str(folder))),
    ("emoji", "resvg_py", lambda folder: svg.check_renderer("emoji")),
    ("parquet", "pyarrow", lambda folder: lists.table(str(folder / "pairs.parquet"))),
    ("parquet", "pyarrow.parquet", lambda folder: lists.table(str(folder / "pairs.parquet"))),
    ("video", "av", lambda folder: container.open_video(b"film")),
    ("video", "cv2", lambda folder: transforms.resize(FRAMES[0], 4, 4)),
    ("video", "cv2", lambda folder: randaugment.crop_sides(FRAMES, np.full(4, 0.2))),
]


@pytest.fixture
def hidden(monkeypatch):
    """Hides a package that may be imported already: hidden(name)."""

    def hide(name):
        monkeypatch.setitem(sys.modules, name, None)
        storage._check_installed.cache_clear()
        transforms._cv2.cache_clear()
        monkeypatch.delitem(importlib.import_module("fsspec.registry")._registry, "gcs", raising=False)

    yield hide
    storage._check_installed.cache_clear()


@pytest.mark.parametrize(("extra", "package", "use"), USES)
def test_what_is_not_installed_is_named_with_the_command(extra, package, use, hidden, tmp_path):
    (tmp_path / "pairs.parquet").write_bytes(b"PAR1")
    hidden(package)
    with pytest.raises(UserError) as error:
        use(tmp_path)
    assert f"pip install -e '.[{extra}]'" in str(error.value) and "\n" not in str(error.value)


def test_every_extra_has_its_line(root):
    keywords = [node for node in ast.walk(ast.parse((root / "setup.py").read_text())) if isinstance(node, ast.keyword)]
    (extras,) = [ast.literal_eval(node.value) for node in keywords if node.arg == "extras_require"]
    assert extras.keys() == {extra for extra, *_ in USES} | DEVELOPERS | FASTER | {"cuda"}


@pytest.mark.parametrize(
    ("platforms", "error", "line"),
    [
        ("cuda", AssertionError(), "JAX_PLATFORMS=cuda: it is not installed: pip install -e '.[cuda]'"),
        ("gpu", RuntimeError("Unable to\nstart"), "JAX_PLATFORMS=gpu: Unable to start: pip install -e '.[cuda]'"),
        ("tpu,cuda", RuntimeError("no"), "no: pip install -e '.[tpu]' or pip install -e '.[cuda]'"),
        ("nonsense", RuntimeError("not in the list"), "JAX_PLATFORMS=nonsense: not in the list"),
    ],
)
def test_a_device_that_jax_cannot_start_is_told_in_a_line(platforms, error, line, monkeypatch, capsys, root, tmp_path):
    def devices(*_):
        raise error

    monkeypatch.setenv("JAX_PLATFORMS", platforms)
    monkeypatch.setattr(jax, "devices", devices)
    config = root / "experiments" / "quickstart.py:fake"
    assert launch.run(["launch", f"--config={config}", f"--workdir={tmp_path}"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: JAX cannot start ") and err.endswith(f"{line}\n") and err.count("\n") == 1


@pytest.mark.parametrize("package", ["av", "cv2"])
def test_the_benchmark_of_video_decoders_needs_both(package, hidden, monkeypatch, capsys, root):
    monkeypatch.setattr(sys, "argv", ["video_decoder.py"])
    hidden(package)
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(root / "experiments" / "benchmarks" / "video_decoder.py"), run_name="__main__")
    assert end.value.code == 2 and "pip install -e '.[video]'" in capsys.readouterr().err
