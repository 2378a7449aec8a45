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


def test_an_editable_install_is_found_beside_a_clone_called_as_the_package(root, tmp_path):
    """There, Python takes the clone for an empty package, unless its path leads into it."""
    clone, site = tmp_path / "swin_jax", tmp_path / "site"
    (clone / "swin_jax").mkdir(parents=True)
    for name in ("setup.py", "pyproject.toml", "README.md", "swin_jax/__init__.py", "swin_jax/py.typed"):
        shutil.copy(root / name, clone / name)
    build = "import sys; from setuptools import build_meta; build_meta.build_editable(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, str(tmp_path)], cwd=clone, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    shutil.unpack_archive(wheel, site, "zip")

    # Without site-packages of its own, where this project may be installed as well.
    code = "import site, sys; site.addsitedir(sys.argv[1]); import swin_jax; print(swin_jax.__spec__.origin)"
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, "-S", "-c", code, str(site)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(clone / "swin_jax" / "__init__.py")
