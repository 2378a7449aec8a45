"""StyleGAN2's weights, layout by layout: bitwise there and back, and errors that name both numbers."""

import math

import jax
import numpy as np
import pytest

from swin_jax.core.errors import UserError
from swin_jax.core.params import flatten
from swin_jax.models.stylegan2 import Discriminator, Generator
from swin_jax.pretrained.stylegan2 import convert, sizes
from swin_jax.pretrained.stylegan2.sizes import DISCRIMINATOR, GENERATOR
from tests import stylegan2

NETWORKS = [(GENERATOR, name) for name in stylegan2.GENERATORS]
NETWORKS += [(DISCRIMINATOR, name) for name in stylegan2.DISCRIMINATORS]


def model_of(kind, name="usual", **changes):
    if kind == GENERATOR:
        return Generator(**stylegan2.GENERATORS[name] | changes)
    return Discriminator(**stylegan2.DISCRIMINATORS[name] | changes)


def equal(found, wanted):
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert found[name].shape == value.shape and found[name].dtype == np.float32, name
        np.testing.assert_array_equal(found[name], value, err_msg=name)


def refused(match, arrays, model):
    with pytest.raises(UserError, match=match) as error:
        convert.from_official(arrays, model)
    assert "\n" not in str(error.value) and len(str(error.value)) < 600
    return str(error.value)


@pytest.mark.parametrize("kind, name", NETWORKS)
def test_official_weights_fit_the_model_and_come_back(kind, name):
    arrays, model = stylegan2.official(kind, name), model_of(kind, name)
    variables = convert.from_official(arrays, model)
    inputs = [np.zeros((1, model.z_dim) if kind == GENERATOR else (1, *2 * [model.resolution], 3), np.float32)]
    inputs += [np.zeros((1, model.c_dim), np.float32)] if model.c_dim else []
    shapes = jax.eval_shape(model.init, jax.random.key(0), *inputs)
    for collection in variables:
        ours, theirs = flatten(variables[collection]), flatten(shapes[collection])
        assert {path: leaf.shape for path, leaf in ours.items()} == {path: leaf.shape for path, leaf in theirs.items()}
    assert variables.keys() == shapes.keys() - {"intermediates"}
    equal(convert.to_official(variables, filters=False), arrays)
    full = convert.to_official(variables)
    filters = full.keys() - arrays.keys()
    assert filters and all(np.array_equal(full[filter], stylegan2.FILTER) for filter in filters)
    equal(convert.to_official(convert.from_official(full, model)), full)


@pytest.mark.parametrize("kind", (GENERATOR, DISCRIMINATOR))
@pytest.mark.parametrize("prefix", ("", "decoder.", "module.g_ema."))
def test_rosinality_goes_through_nvidia_and_back_bitwise(kind, prefix):
    arrays, model = stylegan2.rosinality(kind), model_of(kind)
    mean = {"latent_avg": np.arange(6, dtype=np.float32)} if kind == GENERATOR else {}
    found = convert.from_official({prefix + name: value for name, value in arrays.items()} | mean, model)
    nvidia = convert.to_official(found)
    assert ("mapping.w_avg" in nvidia) == (kind == GENERATOR)
    equal(convert.to_rosinality(convert.from_official(nvidia, model)), arrays | mean)


def test_layers_keep_their_places():
    """Rows of the tables in which the two layouts meet, by number and not by the tables of the code."""
    arrays = stylegan2.rosinality(GENERATOR)
    params = convert.from_official(arrays, model_of(GENERATOR))
    synthesis = params["params"]["synthesis"]
    for ours, theirs in ((("b4", "conv1"), "conv1"), (("b8", "conv0"), "convs.0"), (("b16", "conv1"), "convs.3")):
        layer = synthesis[ours[0]][ours[1]]
        kernel = arrays[f"{theirs}.conv.weight"][0]
        np.testing.assert_array_equal(layer["kernel"][1, 2, 3, 0], kernel[0, 3, 1, 2])
        np.testing.assert_array_equal(layer["affine"]["kernel"], arrays[f"{theirs}.conv.modulation.weight"].T)
        assert layer["noise_strength"] == arrays[f"{theirs}.noise.weight"][0]
    np.testing.assert_array_equal(
        params["noise"]["synthesis"]["b16"]["conv0"]["noise_const"], arrays["noises.noise_3"][0, 0]
    )
    np.testing.assert_array_equal(synthesis["b16"]["torgb"]["bias"], arrays["to_rgbs.1.bias"].ravel())
    np.testing.assert_array_equal(synthesis["b4"]["const"][1, 2], arrays["input.input"][0, :, 1, 2])
    np.testing.assert_array_equal(params["params"]["mapping"]["fc1"]["kernel"], arrays["style.2.weight"].T)
    arrays = stylegan2.rosinality(DISCRIMINATOR)
    params = convert.from_official(arrays, model_of(DISCRIMINATOR))["params"]
    np.testing.assert_array_equal(params["b16"]["conv1"]["bias"], arrays["convs.1.conv2.2.bias"])
    np.testing.assert_array_equal(params["b8"]["skip"]["kernel"][0, 0], arrays["convs.2.skip.1.weight"][:, :, 0, 0].T)


def test_the_last_maps_of_a_discriminator_are_read_in_our_order():
    arrays = stylegan2.official(DISCRIMINATOR)
    kernel = convert.from_official(arrays, model_of(DISCRIMINATOR))["params"]["b4"]["fc"]["kernel"]
    maps = np.random.default_rng(0).normal(size=(8, 4, 4)).astype(np.float32)  # channels, height, width
    wanted = arrays["b4.fc.weight"] @ maps.ravel()
    np.testing.assert_allclose(maps.transpose(1, 2, 0).ravel() @ kernel, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind, name", [pair for pair in NETWORKS if pair[1] != "gray"])
@pytest.mark.parametrize("prefix", ("", "G_"))
def test_tensorflow_is_read(kind, name, prefix):
    arrays, model = stylegan2.official(kind, name), model_of(kind, name)
    theirs = stylegan2.tensorflow(kind, arrays)
    assert len(theirs) == len(arrays) and not theirs.keys() & arrays.keys()
    theirs = {key.replace("synthesis/", f"{prefix}synthesis/"): value for key, value in theirs.items()}
    found = convert.to_official(convert.from_official(theirs | {"lod": np.zeros((), np.float32)}, model), filters=False)
    for key in [key for key in arrays if key.endswith("affine.bias")]:
        arrays[key] = arrays[key] - np.float32(1) + np.float32(1)  # as it is stored, and 1 added
    equal(found, arrays)


def test_upsampling_kernels_of_tensorflow_are_mirrored_and_no_others():
    arrays = stylegan2.official(GENERATOR)
    theirs = stylegan2.tensorflow(GENERATOR, arrays)
    synthesis = convert.from_official(theirs, model_of(GENERATOR))["params"]["synthesis"]
    up, plain = theirs["synthesis/8x8/Conv0_up/weight"], theirs["synthesis/8x8/Conv1/weight"]
    np.testing.assert_array_equal(synthesis["b8"]["conv0"]["kernel"], up[::-1, ::-1])
    np.testing.assert_array_equal(synthesis["b8"]["conv1"]["kernel"], plain)
    bias = theirs["synthesis/8x8/Conv1/mod_bias"]
    np.testing.assert_array_equal(synthesis["b8"]["conv1"]["affine"]["bias"], bias + np.float32(1))


def test_the_counts_of_parameters_are_the_papers():
    fields = dict(
        z_dim=512, w_dim=512, c_dim=0, mapping_layers=8, channel_base=32768, channel_max=512, image_channels=3
    )
    counts = {256: (30_034_338, 28_864_129), 512: (30_276_583, 28_982_849), 1024: (30_370_060, 29_012_513)}
    for resolution, wanted in counts.items():
        both = fields | dict(resolution=resolution, architecture="resnet")
        generator = sizes.generator_shapes(both)
        kept = {name: shape for name, shape in generator.items() if not name.endswith(("noise_const", "w_avg"))}
        found = (kept, sizes.discriminator_shapes(both))
        assert tuple(sum(map(math.prod, shapes.values())) for shapes in found) == wanted
    noise = sum(math.prod(shape) for name, shape in generator.items() if name.endswith("noise_const"))
    assert noise == 2_796_176


@pytest.mark.parametrize("kind, name", NETWORKS)
def test_sizes_are_inferred(kind, name):
    fields = (stylegan2.GENERATORS if kind == GENERATOR else stylegan2.DISCRIMINATORS)[name]
    arrays = stylegan2.official(kind, name)
    assert convert.read_network(arrays, kind, fields).sizes == fields
    alone = convert.read_network(arrays, kind).sizes
    widths = [layer for layer in (4, 8, 16) if layer <= fields["resolution"]]
    for side in widths:  # the base itself is not told where every width is the greatest
        assert sizes.channels_at(side, alone["channel_base"], alone["channel_max"]) == min(
            fields["channel_base"] // side, fields["channel_max"]
        )


@pytest.mark.parametrize(
    "widths, known, wanted",
    (
        ({4: 512, 8: 512}, {}, (32768, 512)),
        ({4: 512, 8: 512}, {"channel_base": 16384, "channel_max": None}, (16384, 512)),
        ({4: 512, 8: 512}, {"channel_base": 64}, (32768, 512)),
        ({4: 64, 8: 64, 16: 32}, {}, (512, 64)),
        ({4: 16, 8: 8}, {"channel_base": 64, "channel_max": 512}, (64, 512)),
        ({4: 250, 8: 125, 16: 62}, {}, (1000, 250)),
    ),
)
def test_widths_tell_base_and_maximum(widths, known, wanted):
    assert sizes._channels(widths, known) == wanted


def test_numbers_of_nvidias_modules_become_fields():
    arrays = stylegan2.official(GENERATOR)
    clamp = {"synthesis.b4.conv1.conv_clamp": np.float32(256), "synthesis.b8.torgb.conv_clamp": np.float32(256)}
    assert convert.read_network(arrays | clamp, GENERATOR).sizes["conv_clamp"] == 256
    equal(convert.to_official(convert.from_official(arrays | clamp, model_of(GENERATOR)), filters=False), arrays)
    refused(
        "conv_clamp differs", arrays | clamp | {"synthesis.b8.conv0.conv_clamp": np.float32(2)}, model_of(GENERATOR)
    )
    group = {"b4.mbstd.group_size": np.float32(8)}
    assert convert.read_network(stylegan2.official(DISCRIMINATOR) | group, DISCRIMINATOR).sizes["mbstd_group_size"] == 8


@pytest.mark.parametrize(
    "kind, layout", ((GENERATOR, "rosinality"), (GENERATOR, "official"), (DISCRIMINATOR, "official"))
)
def test_sizes_other_than_the_models_are_named_with_both_numbers(kind, layout):
    arrays = getattr(stylegan2, layout)(kind)
    refused("resolution is 16 in the weights and 32 in the model", arrays, model_of(kind, resolution=32))
    refused("channel_base is 64 in the weights and 128 in the", arrays, model_of(kind, channel_base=128))
    if kind == GENERATOR:
        refused("mapping_layers is 2 in the weights and 8 in the", arrays, model_of(kind, mapping_layers=8))
        refused("another generator .* z_dim is 6 in the weights and 5", arrays, model_of(kind, z_dim=5))
    else:
        refused("architecture is resnet in the weights and orig in", arrays, model_of(kind, architecture="orig"))


def test_arrays_that_do_not_fit_are_named_as_in_the_file():
    model, arrays = model_of(GENERATOR), stylegan2.rosinality(GENERATOR)
    bias = "convs.1.activate.bias"
    refused(rf"1 missing \({bias}\)", _without(arrays, bias), model)
    refused(r"1 unexpected \(more\)", arrays | {"more": np.ones(1)}, model)
    refused(rf"{bias} is \[7\] and not \[8\]", arrays | {bias: np.ones(7)}, model)
    refused(r"convs.1.conv.weight is \[8, 8, 3, 3\] and not \[1, 8, 8, 3, 3\]", _without_axis(arrays), model)
    refused(r"missing \(noises.noise_2\)", _without(arrays, "noises.noise_2"), model)
    refused("no to_rgb1.conv.weight", _without(arrays, "to_rgb1.conv.weight"), model)
    many = {k: v for k, v in arrays.items() if not k.endswith(("activate.bias", "modulation.bias"))}
    refused(r"13 missing \(.* \.\.\.\)", many, model)
    refused("not a filter", arrays | {"convs.0.conv.blur.kernel": stylegan2.FILTER}, model)
    refused(
        "resolution=24 must be a power of two",
        stylegan2.official(GENERATOR) | {"synthesis.b24.conv1.weight": np.ones(1)},
        model,
    )
    refused("do not fit any StyleGAN2", arrays | {"convs.1.conv.weight": np.ones((1, 9, 9, 3, 3))}, model)
    refused("hold no block of 8 pixels", {"input.input": arrays["input.input"]}, model)
    refused("no input.input, without which|missing .input.input", _without(arrays, "input.input"), model)
    refused("damaged", arrays | {"to_rgb1.conv.weight": np.ones(())}, model)


def _without(arrays, left_out):
    return {name: value for name, value in arrays.items() if name != left_out}


def _without_axis(arrays):
    return arrays | {"convs.1.conv.weight": arrays["convs.1.conv.weight"][0]}


def test_what_older_files_lack_is_left_to_the_loader():
    arrays = {name: value for name, value in stylegan2.rosinality(GENERATOR).items() if not name.startswith("noises.")}
    found = convert.from_official(arrays, model_of(GENERATOR))
    assert found.keys() == {"params"}
    equal(convert.to_rosinality(found), arrays)


def test_the_mean_latent_may_be_repeated():
    arrays, mean = stylegan2.rosinality(GENERATOR), np.arange(6, dtype=np.float32)
    found = convert.from_official(arrays | {"latent_avg": np.tile(mean, (6, 1))}, model_of(GENERATOR))
    np.testing.assert_array_equal(found["averages"]["mapping"]["w_avg"], mean)
    rows = np.tile(mean, (6, 1)) + np.eye(6, dtype=np.float32)
    refused("latent_avg has 6 rows that differ by up to 1", arrays | {"latent_avg": rows}, model_of(GENERATOR))


def test_other_architectures_and_kinds_are_named():
    generator, discriminator = stylegan2.official(GENERATOR), stylegan2.official(DISCRIMINATOR)
    resnet = generator | {"synthesis.b8.skip.weight": np.ones((8, 8, 1, 1))}
    refused("generator of the architecture 'resnet'", resnet, model_of(GENERATOR))
    resnet = stylegan2.tensorflow(GENERATOR, generator) | {"synthesis/8x8/Skip/weight": np.ones((1, 1, 8, 8))}
    refused("generator of the architecture 'resnet'", resnet, model_of(GENERATOR))
    orig = {k: v for k, v in generator.items() if "torgb" not in k or "b16" in k}
    refused("generator of the architecture 'orig'", orig, model_of(GENERATOR))
    skip = discriminator | {"b8.fromrgb.weight": np.ones((8, 3, 1, 1))}
    refused("discriminator of the architecture 'skip'", skip, model_of(DISCRIMINATOR))
    refused("of a discriminator, not of a generator", discriminator, model_of(GENERATOR))
    refused("of a generator, not of a discriminator; .* key='d'", generator, model_of(DISCRIMINATOR))
    refused("hold no generator", {"a": np.ones(1)}, model_of(GENERATOR))


def test_a_network_is_found_among_others():
    generator, model = stylegan2.rosinality(GENERATOR), model_of(GENERATOR)
    inside = {f"decoder.{name}": value for name, value in generator.items()}
    with pytest.warns(UserWarning, match="not belong to a generator: 1 others, encoder.a first"):
        found = convert.from_official(inside | {"encoder.a": np.ones(1)}, model)
    equal(convert.to_rosinality(found), generator)
    both = inside | {f"other.{name}": value for name, value in generator.items()}
    with pytest.raises(UserError, match="there are weights under decoder, other: choose with key="):
        convert.from_official(both, model)
    average = inside | {f"g_ema.{name}": value + 1 for name, value in generator.items() if "kernel" not in name}
    with pytest.warns(UserWarning, match="ignored weights"):
        found = convert.from_official(average, model)
    mean = found["params"]["synthesis"]["b4"]["const"]
    np.testing.assert_array_equal(mean, generator["input.input"][0].transpose(1, 2, 0) + 1)


def test_what_rosinalitys_code_cannot_hold_is_refused():
    for kind, name, match in (
        (GENERATOR, "conditional", "no generator with labels"),
        (GENERATOR, "gray", "no generator of 1 image channels"),
        (DISCRIMINATOR, "orig", "no discriminator without shortcuts"),
    ):
        variables = convert.from_official(stylegan2.official(kind, name), model_of(kind, name))
        with pytest.raises(UserError, match=match):
            convert.to_rosinality(variables)
    narrow = convert.from_official(stylegan2.official(GENERATOR, z_dim=4), model_of(GENERATOR, z_dim=4))
    with pytest.raises(UserError, match="z and w differ in width .4 and 6"):
        convert.to_rosinality(narrow)


def test_variables_of_no_network_are_refused():
    variables = convert.from_official(stylegan2.official(GENERATOR), model_of(GENERATOR))
    del variables["params"]["synthesis"]["b8"]["conv0"]["bias"]
    with pytest.raises(UserError, match="synthesis.b8.conv0.bias"):
        convert.to_official(variables)
    with pytest.raises(UserError, match="hold no discriminator"):
        convert.to_official({"params": {"a": np.ones(1)}})
