"""The wheel holds the package, whole and typed, and nothing else of the repository."""

import os
import shutil
import subprocess
import sys


def test_wheel(root, tmp_path):
    source, wheels, target = tmp_path / "source", tmp_path / "wheels", tmp_path / "target"
    source.mkdir()
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(root / name, source)
    for name in ("swin_jax", "experiments", "tests"):
        shutil.copytree(root / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "golden"))
    sources = {str(path.relative_to(source)) for path in source.glob("swin_jax/**/*.py")}
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = ["wheel", source, "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", wheels]
    subprocess.run([*pip, *build], check=True)
    (wheel,) = wheels.iterdir()
    subprocess.run([*pip, "install", wheel, "--no-deps", "--no-index", "--target", target], check=True)

    installed = {str(path.relative_to(target)) for path in target.glob("swin_jax/**/*.py")}
    assert installed == sources
    assert (target / "swin_jax" / "py.typed").exists()
    assert {path.name.split("-")[0] for path in target.iterdir()} == {"bin", "swin_jax"}

    code = "import swin_jax.launch; print(swin_jax.__file__)"
    environment = os.environ | {"PYTHONPATH": str(target)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == str(target / "swin_jax" / "__init__.py")
