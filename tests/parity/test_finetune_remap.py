"""What a model holds after the official loading functions, against every case in tests/golden/finetune_remap."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from swin_jax.models.swin import Swin
from swin_jax.pretrained.swin import convert, finetune

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
spec = importlib.util.spec_from_file_location("golden", GOLDEN / "golden.py")
golden = importlib.util.module_from_spec(spec)
spec.loader.exec_module(golden)


def read(name):
    """(the case, the model that loads its checkpoint, a file of the checkpoint as `finetune` takes it)."""
    case = golden.load(GOLDEN / "finetune_remap" / f"{name}.json")
    fields = {"image_size" if key == "img_size" else key: value for key, value in case.config["model"].items()}
    return case, Swin(**{key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()})


def assert_loaded(case, loaded, prefix=""):
    """Every stored output is met; everything else is the checkpoint's own."""
    outputs = {name.removeprefix("loaded "): name for name in case.output_names}
    assert outputs.keys() <= loaded.keys()
    for name, value in loaded.items():
        if name in outputs:
            assert case.error(outputs[name], value) <= case.tolerance(outputs[name]), name
        else:
            np.testing.assert_array_equal(value, case.weight(prefix + name), err_msg=name)


def test_supervised_fine_tuning(tmp_path):
    case, model = read("finetune_window7_to_12")
    np.savez(tmp_path / "weights.npz", **case.state_dict())
    with pytest.warns(UserWarning) as told:
        variables = finetune.load_pretrained(tmp_path / "weights.npz", model, resize="bicubic")
    assert any("5 position tables were resized (bicubic)" in str(w.message) for w in told)
    assert any("starts from zeros" in str(w.message) for w in told)
    loaded = convert.to_official(variables, model)
    assert loaded.keys() == case.keys.keys()
    assert_loaded(case, loaded)


def test_simmim_fine_tuning(tmp_path):
    case, model = read("simmim_window6_to_7")
    decoder = {"encoder.mask_token": np.zeros((1, 1, 16)), "decoder.0.bias": np.zeros(192)}
    np.savez(tmp_path / "weights.npz", **case.state_dict() | decoder)
    with pytest.warns(UserWarning) as told:
        variables = finetune.simmim_pretrained()(tmp_path / "weights.npz", model)
    assert any("4 position tables were resized (geometric)" in str(w.message) for w in told)
    assert any("ignored weights" in str(w.message) and "decoder (1)" in str(w.message) for w in told)
    loaded = convert.to_official(variables, model.clone(num_classes=0))
    assert {f"encoder.{name}" for name in loaded} == case.keys.keys()
    assert set(case.manifest["untouched"]) == {"head.weight", "head.bias"}
    assert_loaded(case, loaded, "encoder.")
