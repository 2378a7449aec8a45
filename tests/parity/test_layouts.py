"""Swins as transformers, torchvision and timm keep them, against what these compute (tests/golden/layouts)."""

import importlib.util
import warnings
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from swin_jax.pretrained.load import load
from swin_jax.pretrained.swin import finetune

GOLDEN = Path(__file__).resolve().parent.parent / "golden" / "layouts"
spec = importlib.util.spec_from_file_location("layouts", GOLDEN / "make.py")
make = importlib.util.module_from_spec(spec)
spec.loader.exec_module(make)
STORED = np.load(make.FILE)
STAGES = {"swinv2_backbone": (0, 2), "timm_two": (1,)}  # whose maps are stored
METHODS = {"masked": "encode", "backbone": "features"}


def arrays(case: str, in_memory: bool = False) -> dict[str, np.ndarray]:
    """What a file holds, in its names or in those of transformers' newest models in memory."""
    found = {}
    for line in STORED[f"names/{case}"]:
        name, drawn_by, shape = line.split(" ")
        shape = tuple(map(int, shape.split(",")))
        found[drawn_by if in_memory else name] = make.weight(drawn_by, shape)
    prefix = f"buffers/{case}/"
    return found | {key.removeprefix(prefix): STORED[key] for key in STORED if key.startswith(prefix)}


def folder(path: Path, case: str, in_memory: bool = False) -> Path:
    """What `save_pretrained` writes."""
    (path / "config.json").write_text(str(STORED[f"config/{case}"]))
    save_file(arrays(case, in_memory), path / "model.safetensors")
    return path


def file(path: Path, case: str) -> Path:
    save_file(arrays(case), path / "weights.safetensors")
    return path / "weights.safetensors"


def check(model, variables, case: str, size: tuple[int, int], method: str = "__call__") -> None:
    """Compares with the stored outputs: logits to 4e-7 of the largest, maps to 1e-6."""
    image = make.image(case, size).transpose(0, 2, 3, 1)
    with jax.default_matmul_precision("highest"):
        out = jax.jit(lambda v, x: model.apply(v, x, method=method))(variables, image)
    prefix = f"out/{case}/{size[0]}x{size[1]}/"
    wanted = [STORED[key] for key in STORED if key.startswith(prefix)]
    if len(out) > len(wanted):
        out = [out[stage] for stage in STAGES[case]]
    out = out if isinstance(out, list) else [out]
    assert len(out) == len(wanted)
    for ours, theirs in zip(map(np.asarray, out), wanted):
        if theirs.ndim == 4 and theirs.shape != ours.shape:
            ours = ours.transpose(0, 3, 1, 2)
        ours = ours.reshape(theirs.shape)
        error = np.abs(ours - theirs).max() / np.abs(theirs).max()
        assert error < (4e-7 if theirs.ndim == 2 else 1e-6)


@pytest.mark.parametrize("case", make.TRANSFORMERS)
def test_a_folder_of_transformers_has_its_numbers(case, tmp_path):
    kind = case.rpartition("_")[2]
    folder(tmp_path, case)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        model, variables = load(weights=tmp_path)
    assert bool(said) == (kind == "masked" or case == "swinv2_backbone")
    for size in make.TRANSFORMERS[case][2]:
        check(model, variables, case, size, METHODS.get(kind, "__call__"))


@pytest.mark.parametrize("case", [case for case in make.TRANSFORMERS if not case.startswith("swinv2")])
def test_the_names_in_memory_are_read_as_those_of_files(case, tmp_path):
    (tmp_path / "memory").mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model, wanted = load(weights=folder(tmp_path, case))
        other, found = load(weights=folder(tmp_path / "memory", case, in_memory=True))
    assert other == model and arrays(case).keys() != arrays(case, in_memory=True).keys()
    jax.tree.map(np.testing.assert_array_equal, found, wanted)


@pytest.mark.parametrize("case", make.TORCHVISION)
def test_a_file_of_torchvision_has_its_numbers_at_every_size(case, tmp_path):
    """It never makes a window smaller, and an axis no longer than the window is padded and not shifted."""
    path = file(tmp_path, case)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model, variables = load(weights=path)
        smaller, same = load(weights=path, image_size=16)
    jax.tree.map(np.testing.assert_array_equal, same, variables)
    for size in make.TORCHVISION[case][2]:
        check(model, variables, case, size)
    assert smaller == model.clone(image_size=16)
    found = finetune.load_pretrained(path, model)
    jax.tree.map(np.testing.assert_array_equal, found, jax.device_get(variables))
    with pytest.warns(UserWarning, match="torchvision's weights at image_size=.* small='pad' is torchvision's"):
        finetune.load_pretrained(path, model.clone(small="keep"))


@pytest.mark.parametrize("case", make.TIMM)
def test_a_features_only_model_of_timm_has_its_maps(case, tmp_path):
    path = file(tmp_path, case)
    given = dict(window_size=4, image_size=32) if case == "timm_v2" else {}
    with pytest.warns(UserWarning, match="the weights end with the maps of their stages"):
        model, variables = load(weights=path, **given)
    if case == "timm_two":
        assert model.depths == (1, 2)
    check(model, variables, case, (32, 32), "features")
