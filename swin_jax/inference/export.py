"""A model as one file of StableHLO, weights inside, that runs without this package,
for any number of images.

    import jax
    model = jax.export.deserialize(open("model.stablehlo", "rb").read())
    logits = model.call({"image": images})["logits"]

The program is lowered for CPU, CUDA and TPU at once, by `jax.export`, which promises that JAX
releases of the next six months (and of the last three weeks) run it.
"""

import functools
import json
import os
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from swin_jax.core import storage
from swin_jax.core.errors import UserError, is_ours
from swin_jax.core.ranges import checked
from swin_jax.core.sizes import Size
from swin_jax.inference.loaded_model import check_variables
from swin_jax.inference.trained_run import open_trained, preparation, trained
from swin_jax.pretrained.load import family_of, shapes
from swin_jax.pretrained.media import shown
from swin_jax.pretrained.preparation import Preparation
from swin_jax.pretrained.preprocess import preprocess
from swin_jax.tasks.base import check_frozen
from swin_jax.train.label_space import refuse_untrained, weights_classes
from swin_jax.train.setup import Run, build_run

PLATFORMS = ("cpu", "cuda", "tpu")
_KNOWN = (*PLATFORMS, "rocm")  # jax writes any word into the file
WEIGHTS = ("float32", "bfloat16", "float16")
# Bytes of weights: a flatbuffer ends at 2 GiB, and the program needs some of them.
_LARGEST = 2**31 - 2**24

Predict = Callable[[Any, dict[str, jax.Array]], dict[str, jax.Array]]


def prepare_run(config, workdir: str, path: str) -> Callable[[], int]:
    """Sets up the export of what a run's task predicts, with its newest checkpoint.

    The mesh of the config does not matter: the file is for one device,
    whatever the run was trained on.

    Args:
        config: The experiment's config.
        workdir: The workdir of the run; the average of the weights is used if it keeps one, the
            weights of `init_from` if it has no checkpoint.
        path: The file to write. PATH.json beside it describes inputs and outputs, the names of the
            classes and how pictures were prepared.

    Returns:
        The function that writes the file and returns the exit status, 0. It raises UserError for a
        model that is too large.

    Raises:
        UserError: No weights, a path that cannot be written, several processes, a classifier that
            was never trained.
    """
    if jax.process_count() > 1:
        raise UserError(
            "--export runs in one process; start it on one host, "
            "with JAX_PLATFORMS=cpu on that of a pod"
        )
    _check(path)
    folder = open_trained(config, workdir, writes=False)
    config.mesh.update(data=1, fsdp=1, tensor=1)
    run = build_run(config, jax.devices()[:1])
    check_frozen(run.task)
    refuse_untrained(config, folder, run.task, "--export")
    return functools.partial(_export_run, config, run, folder, path)


def _export_run(config, run: Run, folder: epath.Path, path: str) -> int:
    with jax.set_mesh(run.placement.mesh):
        state, frozen, _ = trained(config, run, folder)
        state = state.replace(opt_state=None, ema=None)

    def predict(held, batch):
        state, frozen = held
        return run.task.predict(state, batch, frozen)

    prepared = preparation(config) if "predict" in config else None
    known = {
        "step": int(state.step),
        "class_names": list(weights_classes(config, folder).names),
        **_facts(prepared),
    }
    facts = _write(predict, (state, frozen), run.task.batch_shapes(1), path, facts=known)

    def rows(arrays):
        return ", ".join(f"{name} {what}" for name, what in arrays.items())

    size = storage.size(path) / 1e6
    print(
        f"{path}: {size:.1f} MB, step {facts['step']}, for {', '.join(PLATFORMS)}; "
        "b is any number of rows"
    )
    print(f"  in:  {rows(facts['inputs'])}\n  out: {rows(facts['outputs'])}", flush=True)
    return 0


@checked
def export(
    model: nn.Module,
    variables: dict,
    path: str | os.PathLike,
    image_size: Size | None = None,
    weights: str | None = None,
    platforms: Sequence[str] = PLATFORMS,
) -> dict[str, Any]:
    """Writes a model of `load`, to be called with what `preprocess` gives;
    see `swin_jax.export`.
    """
    if weights not in (None, *WEIGHTS):
        raise UserError(f"weights={weights!r} is not one of {WEIGHTS}")
    if not isinstance(platforms, Sequence) or not platforms or not set(platforms) <= set(_KNOWN):
        raise UserError(f"platforms={platforms!r} must be some of {_KNOWN}")
    if not isinstance(path, (str, os.PathLike)) or not os.fspath(path):
        raise UserError(f"path={shown(path)} is not the path of a file")
    _check(path)
    family = family_of(model)
    check_variables(variables, shapes(model))
    inputs = family.inputs(model, image_size)

    def predict(variables, batch):
        return family.predict(model, variables, batch, lambda pixels: pixels)

    return _write(
        predict, variables, inputs, path, weights, platforms, _facts(_prepared(model, image_size))
    )


def _prepared(model: nn.Module, image_size: int | tuple[int, ...] | None) -> Preparation | None:
    try:
        return preprocess(model, **({} if image_size is None else {"image_size": image_size}))
    except UserError:
        return None


def _facts(prepared: Preparation | None) -> dict[str, Any]:
    """The preparation of pictures and texts for the exported file, for PATH.json."""
    if prepared is None:
        return {"preparation": None, "texts": None}
    return {"preparation": json.loads(prepared.fingerprint()), "texts": prepared.texts()}


def _write(
    predict: Predict,
    variables: Any,
    inputs: dict[str, jax.ShapeDtypeStruct],
    path: str | os.PathLike,
    weights: str | None = None,
    platforms: Sequence[str] = PLATFORMS,
    facts: dict | None = None,
) -> dict[str, Any]:
    """Exports `predict(variables, batch)` with the variables inside, and writes it and PATH.json,
    which it returns.
    """
    variables = jax.tree.map(np.asarray, jax.device_get(variables))
    kept = jax.tree.map(
        lambda x: x.astype(weights) if weights and x.dtype == np.float32 else x, variables
    )
    size = sum(x.nbytes for x in jax.tree.leaves(kept))
    if size > _LARGEST:
        raise UserError(
            f"{size / 2**30:.1f} GiB of weights are more than the 2 GiB of such a file; "
            "swin_jax.export(..., weights='bfloat16') halves them"
        )

    def model(batch):
        # A compiler that knows the weights computes with them by itself,
        # and gets other bits than with arguments.
        held = jax.lax.optimization_barrier(jax.tree.map(jnp.asarray, kept))
        # As part of the program: the file holds the small type.
        return predict(jax.tree.map(lambda x, old: x.astype(old.dtype), held, variables), batch)

    try:
        batch = _symbolic(model, _read(model, inputs))
        exported = jax.export.export(jax.jit(model), platforms=platforms)(batch)
    except UserError:
        raise
    except (
        ValueError,
        TypeError,
        ZeroDivisionError,
        jax.errors.InconclusiveDimensionOperation,
    ) as error:
        if not is_ours(error):
            raise
        raise UserError(
            f"the model cannot be exported: {' '.join(str(error).split())[:500]}"
        ) from error

    def shown(tree):
        return {name: f"{x.dtype} ({', '.join(map(str, x.shape))})" for name, x in tree.items()}

    outputs = jax.tree.unflatten(exported.out_tree, exported.out_avals)
    facts = {
        "inputs": shown(batch),
        "outputs": shown(outputs),
        "platforms": list(platforms),
        "versions": {"jax": jax.__version__, "jaxlib": jax.lib.__version__},
        **(facts or {}),
    }
    path = storage.path(path)
    _replace(path, exported.serialize())
    _replace(_facts_path(path), (json.dumps(facts, indent=1) + "\n").encode())
    return facts


def _read(
    predict: Callable, inputs: dict[str, jax.ShapeDtypeStruct]
) -> dict[str, jax.ShapeDtypeStruct]:
    """The inputs that a prediction depends on: a task's batch has labels, too."""
    jaxpr = jax.make_jaxpr(predict)(inputs).jaxpr
    used = {id(x) for equation in jaxpr.eqns for x in equation.invars} | {
        id(x) for x in jaxpr.outvars
    }
    return {
        name: inputs[name]
        for name, x in zip(sorted(inputs), jaxpr.invars, strict=True)
        if id(x) in used
    }


def _symbolic(
    predict: Callable, inputs: dict[str, jax.ShapeDtypeStruct]
) -> dict[str, jax.ShapeDtypeStruct]:
    """The inputs with any number of rows: the same for all,
    or one each where `predict` does not join them (a CLIP).
    """

    def resized(rows):
        return {
            name: jax.ShapeDtypeStruct((n, *x.shape[1:]), x.dtype)
            for n, (name, x) in zip(rows, inputs.items())
        }

    joined = len(inputs) == 1
    if not joined:
        try:
            jax.eval_shape(predict, resized(range(2, 2 + len(inputs))))
        except (ValueError, TypeError):
            joined = True
    names = ["b"] * len(inputs) if joined else [f"b_{name}" for name in inputs]
    distinct = list(dict.fromkeys(names))
    symbols = dict(zip(distinct, jax.export.symbolic_shape(", ".join(distinct))))
    return resized([symbols[name] for name in names])


def _check(path: str | os.PathLike) -> None:
    """Raises UserError if no file can be written, before the work."""
    path = storage.path(path)
    if path.is_dir():
        raise UserError(f"{path} is a folder; name a file in it, {path / 'model.stablehlo'}")
    storage.check_target(_facts_path(path))
    _check_replaced(path)
    if not storage.is_remote(path) and not path.parent.is_dir():
        raise UserError(f"{path} cannot be written: there is no folder {path.parent}")
    if not storage.is_remote(path) and not os.access(path.parent, os.W_OK):
        raise UserError(f"{path} cannot be written: the folder is not writable")
    try:
        import flatbuffers  # noqa: F401
    except ImportError as error:
        raise UserError("jax.export needs one more package: pip install flatbuffers") from error


def _check_replaced(path: epath.Path) -> None:
    """Raises UserError if a file would be replaced that is not from an earlier export."""
    facts = _facts_path(path)
    there = [file for file in (path, facts) if file.exists() and storage.size(file)]
    if not there:
        return
    try:
        is_export = {"inputs", "outputs"} <= storage.read_object(facts).keys()
    except UserError:
        is_export = False
    if not is_export:
        raise UserError(
            f"{there[0]} is not from an earlier export and would be overwritten: "
            "give another name, or move it away"
        )


def _facts_path(path: epath.Path) -> epath.Path:
    return path.with_name(path.name + ".json")


def _replace(path: epath.Path, data: bytes) -> None:
    """Writes a file whole or not at all."""
    try:
        storage.write(path, data)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {storage.reason(error)}") from error
