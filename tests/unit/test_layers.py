"""Who may import whom: the package is walked with ast, and a forbidden edge fails."""

import ast
import pathlib
import subprocess
import sys

PACKAGE = pathlib.Path(__file__).parents[2] / "swin_jax"

# What a room may import of the package, besides itself: whole rooms, or single modules of them.
ROOMS = {
    "core": set(),
    "ops": {"core"},
    "optim": {"core"},
    "models": {"core", "ops"},
    "data": {"core"},
    "tasks": {"core", "ops", "models"},
    "evals": {"core", "ops", "data", "tasks/base"},
    "train": {"core", "ops", "tasks/base"},
    "pretrained": {"core", "ops", "models", "data", "train/checkpoint"},
    "inference": {"core", "ops", "models", "data", "optim", "tasks/base", "evals", "train", "pretrained"},
    "plan": {"core", "ops", "tasks/base", "train"},
    "launch": {"core", "train", "inference", "plan"},
    "__init__": {"pretrained", "inference"},
}

# What a room may import of other packages.
PACKAGES = {
    "core": {"absl", "jax", "numpy", "etils", "fsspec", "ml_collections", "cloudpickle", "tqdm"},
    "ops": {"jax", "numpy"},
    "optim": {"jax", "numpy", "optax"},
    "models": {"jax", "flax", "numpy"},
    "data": {
        "numpy",
        "grain",
        "array_record",
        "tensorflow_datasets",
        "etils",
        "PIL",
        "av",
        "cv2",
        "simplejpeg",
        "cykooz_resizer",
        "sklearn",
        "scipy",
        "absl",
        "tqdm",
        "resvg_py",
        "python_avatars",
        "ftfy",
        "pyarrow",
    },
    "tasks": {"jax", "flax", "optax"},
    "evals": {"jax", "numpy", "scipy", "matplotlib", "optax", "tqdm", "threadpoolctl"},
    "train": {"jax", "numpy", "etils", "orbax", "matplotlib", "PIL", "tensorboardX", "tqdm", "wandb"},
    "pretrained": {"jax", "flax", "numpy", "ml_dtypes", "safetensors", "tqdm"},
    "inference": {"jax", "flax", "flatbuffers", "numpy", "etils", "matplotlib", "tqdm"},
    "plan": {"jax", "numpy", "etils", "matplotlib", "cloudpickle"},
    "launch": {"jax", "absl", "ml_collections"},
    "__init__": {"flax"},  # for type checkers only
}

# Modules of pretrained/ that need JAX: they make models and variables. All others are converters, on numpy alone.
MAKERS = {"family", "load", "preprocess", "arguments", "run_config", "loader"}


def imports(path: pathlib.Path) -> set[str]:
    """Dotted names of what a file imports, without the standard library."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.partition(".")[0] not in sys.stdlib_module_names}


def is_allowed(room: str, name: str) -> bool:
    """True if a file of a room may import a dotted name."""
    top, *inside = name.split(".")
    if top != "swin_jax":
        return top in PACKAGES[room]
    other = inside[0]
    module = "/".join([other, *inside[1:2]])
    return other == room or not ROOMS[room].isdisjoint({other, module})


def test_imports_point_downward():
    forbidden = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        for name in sorted(imports(path)):
            if not is_allowed(parts[0], name):
                forbidden.append(f"{path.relative_to(PACKAGE)} imports {name}")
    assert not forbidden, "\n".join(forbidden)


def test_converters_import_numpy_only():
    for path in sorted(PACKAGE.glob("pretrained/**/*.py")):
        tops = {name.partition(".")[0] for name in imports(path)}
        assert path.stem in MAKERS or tops <= {"swin_jax", "numpy", "ml_dtypes", "safetensors", "tqdm"}, path


def test_importing_the_package_is_light():
    code = "import sys, swin_jax; print(*{m.split('.')[0] for m in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"tensorflow_datasets", "grain", "orbax", "matplotlib", "PIL", "sklearn", "flax", "optax"}
    assert not heavy & set(done.stdout.split())
