"""SimMIM's conversion, decoder and mask token included."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swin_jax.core.errors import UserError
from swin_jax.models.simmim import SimMIM
from swin_jax.models.swin import V2, Swin
from swin_jax.pretrained.swin import convert as convert_swin
from swin_jax.pretrained.swin import simmim as convert

TINY = dict(num_classes=0, image_size=16, patch_size=2, embed_dim=8, depths=(2, 2), num_heads=(1, 2), window_size=4)


def make(**overrides):
    return SimMIM(Swin(**TINY | overrides))


def random_state(model):
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in convert.official_shapes(model).items()}


@pytest.mark.parametrize("overrides", [{}, V2, dict(V2, scan=True, depths=(4, 2)), dict(in_channels=1)], ids=str)
def test_to_official_is_the_inverse_of_from_official(overrides):
    model = make(**overrides)
    state_dict = random_state(model)
    variables = convert.from_official(state_dict, model)
    image = jax.ShapeDtypeStruct((1, 16, 16, model.encoder.in_channels), jnp.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), image, jax.ShapeDtypeStruct((1, 8, 8), jnp.float32))
    assert jax.tree.map(np.shape, variables) == jax.tree.map(lambda leaf: leaf.shape, shapes)
    back = convert.to_official(variables, model)
    assert list(back) == list(state_dict)
    for name, value in state_dict.items():
        np.testing.assert_array_equal(back[name], value, err_msg=name)
    buffers = convert.to_official(variables, model, buffers=True).keys() - back.keys()
    assert "encoder.layers.0.blocks.1.attn_mask" in buffers


def test_the_decoder_is_the_official_convolution():
    model = make()
    state_dict = random_state(model)
    decoder = convert.from_official(state_dict, model)["params"]["decoder"]
    x = np.random.default_rng(1).normal(size=16).astype(np.float32)
    assert decoder["kernel"].shape == (1, 1, 16, 3 * 16)
    np.testing.assert_allclose(x @ decoder["kernel"][0, 0], state_dict["decoder.0.weight"][:, :, 0, 0] @ x, rtol=1e-4)


def test_a_published_file_is_read_and_its_encoder_inferred():
    model = make(**V2)
    state_dict = random_state(model) | {
        f"encoder.{name}": value for name, value in convert_swin.official_buffers(model.encoder).items()
    }
    file = {name.replace("cpb_mlp", "rpe_mlp"): value for name, value in state_dict.items()}
    assert SimMIM(Swin(**convert.infer(file))) == model
    found = convert.to_official(convert.from_official(file, model), model, buffers=True)
    assert found.keys() == state_dict.keys()
    for name, value in state_dict.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


def test_what_is_no_pretrained_simmim_is_refused():
    model = make()
    state_dict = random_state(model)
    variables = convert.from_official(state_dict, model)
    encoder = convert_swin.to_official({"params": variables["params"]["encoder"]}, model.encoder)
    with pytest.raises(UserError, match="not a pretrained SimMIM: it has no encoder.mask_token"):
        convert.infer(encoder)
    with pytest.raises(UserError, match="not a pretrained SimMIM but a Swin without decoder"):
        convert.from_official(encoder, model)
    with pytest.raises(UserError, match=r"SimMIM\(embed_dim=8.*: decoder, mask_token missing"):
        convert.to_official({"params": {"encoder": variables["params"]["encoder"]}}, model)
    with pytest.raises(UserError, match=r"mis-shaped  decoder.0.bias: \(5,\), expected \(48,\)"):
        convert.from_official(state_dict | {"decoder.0.bias": np.zeros(5)}, model)


def test_another_window_needs_a_choice_and_gets_it(tmp_path):
    state_dict = random_state(make())
    np.savez(tmp_path / "w.npz", **state_dict)
    params = convert.from_official(state_dict, make())["params"]
    larger = make(window_size=8, image_size=32)
    for source in (tmp_path / "w.npz", dict(params=params)):
        with pytest.raises(UserError, match="resize='bicubic' .* resize='geometric'"):
            convert.load_pretrained(source, larger)
        with pytest.warns(UserWarning, match="tables were resized"):
            found = convert.pretrained("bicubic")(source, larger)["params"]
        kept = convert.load_pretrained(source, make())["params"]
        np.testing.assert_array_equal(found["mask_token"], kept["mask_token"])
        table = found["encoder"]["layers_0"]["blocks_0"]["attn"]["relative_position_bias_table"]
        assert table.shape[0] == 225


def test_the_parameters_of_a_swin_are_no_simmim():
    params = convert.from_official(random_state(make()), make())["params"]["encoder"]
    with pytest.raises(UserError, match="not a pretrained SimMIM but a Swin without decoder"):
        convert.load_pretrained(dict(params=params), make())
