"""Who may import whom: the package is walked with ast, and a forbidden edge fails."""

import ast
import pathlib
import subprocess
import sys

PACKAGE = pathlib.Path(__file__).parents[2] / "swin_jax"

# What a module or subpackage may import, besides itself, `errors` and `names`.
ALLOWED = {
    "geometry": {"numpy"},
    "stacking": {"jax", "numpy"},
    "ops": {"geometry", "jax", "numpy"},
    "models": {"ops", "geometry", "sharding", "stacking", "jax", "flax", "numpy"},
    "task": {"jax", "flax", "optax"},
    "tasks": {"task", "models", "ops", "geometry", "jax", "flax", "optax"},
    "evals": {"task", "ops", "data", "jax", "numpy", "scipy", "matplotlib", "optax", "tqdm", "threadpoolctl"},
    "optim": {"stacking", "jax", "numpy", "optax"},
    "schedules": {"jax"},
    "data": {
        "numpy",
        "grain",
        "array_record",
        "tensorflow_datasets",
        "etils",
        "PIL",
        "av",
        "cv2",
        "sklearn",
        "scipy",
        "absl",
        "tqdm",
        "resvg_py",
        "instant_clip_tokenizer",
        "ftfy",
    },
    "convert": {"geometry", "stacking", "numpy", "ml_dtypes", "safetensors", "tqdm"},
    "config": {"etils", "store", "ml_collections"},
    "public_names": set(),
    "sharding": {"stacking", "jax", "numpy"},
    "logs": {"etils", "store", "numpy", "PIL", "tensorboardX", "tqdm", "wandb"},
    "curves": {"etils", "store", "logs", "numpy", "matplotlib"},
    "checkpoint": {"etils", "store", "task", "stacking", "jax", "numpy", "orbax"},
    "header": {"etils", "store", "logs", "jax", "numpy"},
    "init_from": {"store", "checkpoint", "stacking", "numpy"},
    "start": {"etils", "store", "task", "config", "sharding", "checkpoint", "jax", "orbax", "numpy"},
    "train": {
        "etils",
        "store",
        "start",
        "task",
        "config",
        "sharding",
        "checkpoint",
        "logs",
        "curves",
        "header",
        "preemption",
        "jax",
        "numpy",
    },
    "preemption": {"jax"},
    "predict": {"store", "start", "sheet", "evals", "sharding", "jax", "numpy", "tqdm"},
    "sheet": {"store", "numpy", "matplotlib"},
    "stablehlo": {"etils", "store", "start", "models", "geometry", "jax", "flax", "flatbuffers", "numpy"},
    "saved_model": {"models"},
    "similarity": {"hub", "models", "evals", "data", "jax", "numpy", "matplotlib"},
    "index": {"store", "hub", "similarity", "stacking", "evals", "data", "numpy", "tqdm"},
    "search": {
        "etils",
        "store",
        "start",
        "task",
        "config",
        "index",
        "similarity",
        "sharding",
        "sheet",
        "evals",
        "data",
        "jax",
        "numpy",
    },
    "hub_arguments": {"store", "jax", "numpy"},
    "hub_clip": {"hub_arguments", "models", "saved_model", "stacking", "convert", "checkpoint", "jax", "numpy"},
    "hub_video": {
        "store",
        "hub_arguments",
        "models",
        "saved_model",
        "stacking",
        "ops",
        "convert",
        "checkpoint",
        "data",
        "jax",
        "numpy",
    },
    "hub": {
        "store",
        "hub_arguments",
        "hub_clip",
        "hub_video",
        "models",
        "saved_model",
        "stacking",
        "ops",
        "geometry",
        "convert",
        "checkpoint",
        "data",
        "jax",
        "numpy",
    },
    "visualize": {"models", "ops", "geometry", "stacking", "jax", "numpy", "matplotlib"},
    "processes": {"jax"},
    "chips": set(),
    "pods": {"chips"},
    "hlo": set(),
    "traffic": {"hlo", "numpy"},
    "roofline": {"chips", "traffic"},
    "tpu_compiler": {"chips", "traffic", "jax"},
    "flops": {"jax"},
    "plan": {"start", "config", "chips", "flops", "roofline", "sharding", "tpu_compiler", "traffic", "jax"},
    "plan_report": {"etils", "store", "matplotlib"},
    "plan_search": {"store", "plan", "plan_report", "start", "config", "chips", "sharding", "tpu_compiler", "jax"},
    "launch": {
        "store",
        "plan_search",
        "processes",
        "search",
        "stablehlo",
        "train",
        "predict",
        "config",
        "jax",
        "absl",
        "ml_collections",
    },
    "__init__": {"hub", "stablehlo"},
    "store": {"etils", "fsspec"},
    "errors": set(),
    "pixels": set(),
    "names": {"jax"},
}


def imports(path: pathlib.Path) -> set[str]:
    """Top-level names of what a file imports; for our own package the module or subpackage."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [node.module]
            if node.module == "swin_jax":
                names = [f"swin_jax.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            found.add(parts[1] if parts[0] == "swin_jax" and len(parts) > 1 else parts[0])
    return found - set(sys.stdlib_module_names)


def test_imports_point_downward():
    forbidden = []
    for path in sorted(PACKAGE.rglob("*.py")):
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        extra = imports(path) - ALLOWED[room] - {room, "errors", "names", "pixels", "public_names"}
        forbidden += [f"{path.relative_to(PACKAGE)} imports {name}" for name in sorted(extra)]
    assert not forbidden, "\n".join(forbidden)


def test_importing_the_package_is_light():
    code = "import sys, swin_jax; print(*{m.split('.')[0] for m in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"tensorflow_datasets", "grain", "orbax", "matplotlib", "PIL", "sklearn", "flax", "optax"}
    assert not heavy & set(done.stdout.split())
