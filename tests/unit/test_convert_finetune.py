"""Fitting weights to another window, image size or head."""

import importlib.util
import warnings
from pathlib import Path

import numpy as np
import pytest

from swin_jax.convert import finetune
from swin_jax.convert import swin as convert
from swin_jax.errors import UserError
from swin_jax.models.swin import Swin

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
spec = importlib.util.spec_from_file_location("golden", GOLDEN / "golden.py")
golden = importlib.util.module_from_spec(spec)
spec.loader.exec_module(golden)


def test_rows_of_the_matrix_sum_to_one_and_the_same_size_changes_nothing():
    for old, new in ((13, 23), (23, 13), (5, 7), (3, 9)):
        np.testing.assert_allclose(finetune.bicubic_matrix(old, new).sum(1), 1, rtol=1e-12)
    np.testing.assert_allclose(finetune.bicubic_matrix(9, 9), np.eye(9), atol=1e-12)


def test_bicubic_is_pytorchs():
    matrix = finetune.bicubic_matrix(13, 23)
    np.testing.assert_allclose(matrix[0, :3], [1.09986, -0.09986, 0], atol=1e-5)
    np.testing.assert_allclose(matrix[1, :3], [0.669434, 0.389743, -0.059176], atol=1e-6)
    np.testing.assert_allclose(matrix[11], np.eye(13)[6], atol=1e-12)
    squares = matrix @ np.arange(13.0) ** 2
    np.testing.assert_allclose(squares[:6], [-0.09986, 0.153037, 0.766335, 2.076765, 4.249938, 6.556752], atol=1e-5)
    np.testing.assert_allclose(squares[[11, -2, -1]], [36.0, 137.639681, 146.296786], atol=1e-5)


def test_rows_are_the_first_axis_and_channels_stay_apart():
    table = np.random.default_rng(0).normal(size=(9, 9, 2)).astype(np.float32)
    resized = finetune.resize_rows(table.reshape(81, 2), 15 * 15).reshape(15, 15, 2)
    swapped = finetune.resize_rows(table.transpose(1, 0, 2)[..., ::-1].reshape(81, 2), 15 * 15).reshape(15, 15, 2)
    np.testing.assert_allclose(resized, swapped.transpose(1, 0, 2)[..., ::-1], atol=1e-6)
    rows = np.repeat(np.arange(9.0), 9)[:, None]
    resized = finetune.resize_rows(rows, 15 * 15).reshape(15, 15)
    np.testing.assert_allclose(resized, np.broadcast_to(resized[:, :1], (15, 15)), atol=1e-6)
    assert np.all(np.diff(resized[1:-1, 0]) > 0)
    with pytest.raises(UserError, match="square"):
        finetune.resize_rows(np.zeros((15, 2)), 25)


def test_remap_is_the_official_loading_function():
    case = golden.load(GOLDEN / "finetune_remap" / "finetune_window7_to_12.json")
    fields = dict(case.config["model"])
    fields["image_size"] = fields.pop("img_size")
    model = Swin(**{key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()})
    with pytest.warns(UserWarning) as told:
        loaded = finetune.remap(case.state_dict(), model)
    assert any("5 position tables" in str(w.message) for w in told)
    assert any("zeros" in str(w.message) for w in told)
    outputs = {name.removeprefix("loaded "): name for name in case.output_names}
    for name, value in loaded.items():
        if name in outputs:
            assert case.error(outputs[name], value) <= case.tolerance(outputs[name]), name
        else:
            np.testing.assert_array_equal(value, case.weight(name), err_msg=name)
    convert.from_official(loaded, model)


def make(num_classes, **overrides):
    fields = dict(image_size=8, patch_size=2, embed_dim=4, depths=(1, 1), num_heads=(1, 2), window_size=2) | overrides
    return Swin(num_classes=num_classes, **fields)


def random_state(model):
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in convert.official_shapes(model).items()}


def test_weights_that_fit_pass_unchanged_and_silently():
    model = make(5)
    state_dict = random_state(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = finetune.remap(state_dict, model)
    assert all(found[name] is state_dict[name] for name in state_dict)


def test_the_22k_head_keeps_the_rows_in_the_order_of_the_map():
    state_dict = random_state(make(21841))
    rows = np.random.default_rng(1).permutation(21841)[:1000]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = finetune.adapt_head(state_dict, 1000, rows)
    np.testing.assert_array_equal(found["head.weight"], state_dict["head.weight"][rows])
    np.testing.assert_array_equal(found["head.bias"], state_dict["head.bias"][rows])
    with pytest.raises(UserError, match="row 21841"):
        finetune.head_22k_to_1k(state_dict, np.array([21841]))


def test_other_heads_become_zero_with_a_warning():
    state_dict = random_state(make(5))
    with pytest.warns(UserWarning, match="5 classes; the head of 7 classes starts from zeros"):
        found = finetune.adapt_head(state_dict, 7)
    assert found["head.weight"].shape == (7, 8) and found["head.bias"].shape == (7,)
    assert not found["head.weight"].any() and not found["head.bias"].any()
    assert "head.weight" not in finetune.adapt_head(state_dict, 0)
    with pytest.warns(UserWarning):
        assert finetune.adapt_head(random_state(make(0)), 3)["head.weight"].shape == (3, 8)


def test_another_number_of_heads_is_left_to_fail():
    state_dict = random_state(make(5, num_heads=(2, 4)))
    with pytest.raises(UserError, match="relative_position_bias_table: "):
        convert.from_official(finetune.remap(state_dict, make(5)), make(5))


def test_load_pretrained_reads_and_fits_a_file(tmp_path):
    np.savez(tmp_path / "w.npz", **random_state(make(21841)))
    rows = np.random.default_rng(1).permutation(21841)[:1000]
    (tmp_path / "map.txt").write_text("\n".join(map(str, rows)))
    params = finetune.pretrained(str(tmp_path / "map.txt"))(tmp_path / "w.npz", make(1000))["params"]
    np.testing.assert_array_equal(params["head"]["bias"], random_state(make(21841))["head.bias"][rows])


def test_load_pretrained_fits_the_variables_of_another_swin():
    variables = convert.from_official(random_state(make(5)), make(5))
    larger = make(5, window_size=4, image_size=16)
    with pytest.warns(UserWarning, match="2 position tables"):
        found = finetune.load_pretrained(variables, larger)
    assert convert.to_official(found, larger)["layers.0.blocks.0.attn.relative_position_bias_table"].shape == (49, 1)
    np.testing.assert_array_equal(found["params"]["head"]["kernel"], variables["params"]["head"]["kernel"])
