"""Fitting weights to another window, image size or head."""

import dataclasses
import warnings

import numpy as np
import pytest

from swin_jax.core.errors import UserError
from swin_jax.core.params import flatten
from swin_jax.models.simmim import SimMIM
from swin_jax.models.swin import V2, Swin, param_shapes
from swin_jax.pretrained.swin import adapt, convert, finetune, simmim
from swin_jax.train.init_from import InitFrom


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
        found = adapt.adapt_head(state_dict, 1000, rows)
    np.testing.assert_array_equal(found["head.weight"], state_dict["head.weight"][rows])
    np.testing.assert_array_equal(found["head.bias"], state_dict["head.bias"][rows])
    with pytest.raises(UserError, match="row 21841"):
        adapt.head_22k_to_1k(state_dict, np.array([21841]))


def test_other_heads_become_zero_with_a_warning():
    state_dict = random_state(make(5))
    with pytest.warns(UserWarning, match="5 classes; the head of 7 classes starts from zeros"):
        found = adapt.adapt_head(state_dict, 7)
    assert found["head.weight"].shape == (7, 8) and found["head.bias"].shape == (7,)
    assert not found["head.weight"].any() and not found["head.bias"].any()
    assert "head.weight" not in adapt.adapt_head(state_dict, 0)
    with pytest.warns(UserWarning):
        assert adapt.adapt_head(random_state(make(0)), 3)["head.weight"].shape == (3, 8)


def test_another_number_of_heads_is_told():
    state_dict = random_state(make(5, num_heads=(2, 4)))
    with pytest.raises(UserError, match=r"of a Swin of num_heads=\(2, 4\)"):
        convert.from_official(finetune.remap(state_dict, make(5)), make(5))


def test_another_window_needs_a_choice_and_gets_the_choices():
    state_dict = random_state(make(5))
    with pytest.raises(UserError) as error:
        finetune.remap(state_dict, make(5, window_size=4, image_size=16))
    for part in ("(9, 1) in the weights and (49, 1) in the model", "'bicubic'", "'geometric'", "window of 2"):
        assert part in str(error.value)
    with pytest.raises(
        UserError, match=r"at image_size=4 the map of this stage is smaller than 2.* or keep the .* image"
    ):
        finetune.remap(state_dict, make(5, image_size=4))
    with pytest.raises(UserError, match="for another image size; choose resize='bicubic'"):
        finetune.remap(random_state(make(5, ape=True)), make(5, ape=True, image_size=16))
    with pytest.raises(UserError, match="resize='cubic' is not one of 'bicubic', 'geometric'"):
        finetune.remap(state_dict, make(5), "cubic")


def test_the_choice_decides_how_tables_are_resized_and_positions_are_always_bicubic():
    small, large = (make(5, ape=True, window_size=w, image_size=s) for w, s in ((4, 16), (8, 32)))
    found = {}
    for resize in finetune.RESIZES:
        with pytest.warns(UserWarning, match=f"3 position tables were resized \\({resize}\\)"):
            found[resize] = finetune.remap(random_state(small), large, resize)
        convert.from_official(found[resize], large)
    table = "layers.1.blocks.0.attn.relative_position_bias_table"
    assert np.abs(found["bicubic"][table] - found["geometric"][table]).max() > 0.1
    np.testing.assert_array_equal(found["bicubic"]["absolute_pos_embed"], found["geometric"]["absolute_pos_embed"])


def test_a_continuous_bias_is_not_resized():
    state_dict = random_state(make(5, **V2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = finetune.remap(state_dict, make(5, **V2, window_size=4, image_size=16))
    assert all(found[name] is state_dict[name] for name in state_dict)


def test_a_changed_scale_of_the_continuous_bias_is_told(tmp_path):
    trained = make(5, **V2, window_size=4, image_size=16)
    np.savez(tmp_path / "w.npz", **random_state(trained) | convert.official_buffers(trained))
    larger = dict(V2, window_size=8, image_size=32)
    with pytest.warns(UserWarning, match=r"windows of \(4, 4\); .* pretrained_window_sizes=\(4, 4\) keeps"):
        finetune.load_pretrained(tmp_path / "w.npz", make(5, **larger))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        finetune.load_pretrained(tmp_path / "w.npz", make(5, **larger, pretrained_window_sizes=(4, 4)))
        finetune.load_pretrained(tmp_path / "w.npz", make(5, **V2, window_size=4, image_size=32))
    # A run's parameters have no buffers; its config tells.
    params = convert.from_official(random_state(trained), trained)["params"]
    for inside in ("task.model.", "task.model.encoder."):
        fields = {field.name: getattr(trained, field.name) for field in dataclasses.fields(trained)}
        config = {inside + name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}
        with pytest.warns(UserWarning, match=r"windows of \(4, 4\); .* pretrained_window_sizes=\(4, 4\) keeps"):
            finetune.load_pretrained(dict(params=params, config=config), make(5, **larger))


def test_a_classifier_becomes_a_dense_backbone_with_fresh_norms():
    dense = make(5, small="keep", out_norms=(0, 1))
    state_dict = random_state(make(5))
    with pytest.warns(UserWarning, match=r"norms of the output maps of stages \[0, 1\] start as ones and zeros"):
        found = convert.from_official(finetune.remap(state_dict, dense), dense)["params"]
    np.testing.assert_array_equal(found["norm1"]["scale"], np.ones(8))
    np.testing.assert_array_equal(found["norm0"]["bias"], np.zeros(4))
    kept = random_state(dense)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_equal(finetune.remap(kept, dense), kept)


def test_load_pretrained_reads_and_fits_a_file(tmp_path):
    np.savez(tmp_path / "w.npz", **random_state(make(21841)))
    rows = np.random.default_rng(1).permutation(21841)[:1000]
    (tmp_path / "map.txt").write_text("\n".join(map(str, rows)))
    fit = finetune.pretrained(class_map=str(tmp_path / "map.txt"))
    params = fit(tmp_path / "w.npz", make(1000))["params"]
    np.testing.assert_array_equal(params["head"]["bias"], random_state(make(21841))["head.bias"][rows])
    with pytest.raises(UserError, match=r"w\.npz: .*choose resize="):
        fit(tmp_path / "w.npz", make(1000, window_size=4, image_size=16))


def test_load_pretrained_fits_the_variables_of_another_swin():
    variables = convert.from_official(random_state(make(5)), make(5))
    larger = make(5, window_size=4, image_size=16)
    with pytest.warns(UserWarning, match="2 position tables"):
        found = finetune.load_pretrained(variables, larger, "bicubic")
    assert convert.to_official(found, larger)["layers.0.blocks.0.attn.relative_position_bias_table"].shape == (49, 1)
    np.testing.assert_array_equal(found["params"]["head"]["kernel"], variables["params"]["head"]["kernel"])


@pytest.fixture(params=["v1", "v2"])
def pretrained(request):
    """(a SimMIM, its official state dict)."""
    model = SimMIM(make(0, **(V2 if request.param == "v2" else {}), window_size=4, image_size=16))
    rng = np.random.default_rng(0)
    return model, {name: rng.normal(size=s).astype(np.float32) for name, s in simmim.official_shapes(model).items()}


def test_simmims_encoder_starts_a_classifier_that_keeps_its_own_head(pretrained, tmp_path):
    model, state_dict = pretrained
    classifier = model.encoder.clone(num_classes=3, window_size=7, image_size=28, drop_path_rate=0.5)
    file = {name.replace("cpb_mlp", "rpe_mlp"): value for name, value in state_dict.items()}
    np.savez(tmp_path / "w.npz", **file)
    init = InitFrom(path=str(tmp_path / "w.npz"), backbone=True, convert=finetune.simmim_pretrained())

    class Task:
        model = classifier

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from_file, report = init.load(Task, param_shapes(classifier)["params"])
        variables = simmim.from_official(state_dict, model)
        from_run = finetune.load_simmim(variables, classifier, "geometric")["params"]
    assert "left at initialization: head/bias, head/kernel" in report
    assert "head" not in from_run and "mask_token" not in from_run
    assert_equal(from_file, flatten(from_run))
    np.testing.assert_array_equal(from_run["norm"]["scale"], state_dict["encoder.norm.weight"])


def assert_equal(found, wanted):
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
