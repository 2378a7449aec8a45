"""Windows and images that are not square: what a state dict tells, and how its tables are resized."""

import dataclasses
import warnings

import numpy as np
import pytest

from swin_jax.core.errors import UserError
from swin_jax.models import swin
from swin_jax.ops import window_geometry
from swin_jax.pretrained.swin import buffers, convert, finetune, windows

RECTANGLES = [
    dict(image_size=(40, 48), window_size=(5, 6)),
    dict(image_size=(32, 64), window_size=4),
    dict(image_size=(64, 32), window_size=(4, 2)),
    dict(image_size=(40, 104), window_size=(5, 13)),  # a table of as many rows as that of 8 x 8
    dict(image_size=(16, 128), window_size=(2, 8)),
    dict(image_size=(32, 64), patch_size=(2, 4), window_size=(4, 8)),
    dict(image_size=(32, 32), patch_size=(2, 4), window_size=(4, 2)),
]


def make(**overrides):
    fields = dict(patch_size=4, embed_dim=4, depths=(2, 2), num_heads=(1, 2), num_classes=3) | overrides
    return swin.Swin(**fields)


def random_state(model):
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in convert.official_shapes(model).items()}


def fields_of(model):
    return {field.name: getattr(model, field.name) for field in dataclasses.fields(model)}


def same_geometry(found, model):
    assert window_geometry.stage_geometry(found) == window_geometry.stage_geometry(model)
    assert window_geometry.stage_rules(found) == window_geometry.stage_rules(model)
    assert convert.official_shapes(found) == convert.official_shapes(model)


@pytest.mark.parametrize("window", [(5, 6), (6, 5), (1, 7), (7, 1), (4, 4), (2, 13)])
@pytest.mark.parametrize("scale", [(5, 6), (12, 4), (3, 3)])
def test_coordinates_tell_the_window_and_its_scale_along_each_axis(window, scale):
    scale = tuple(s if w > 1 else 1 for w, s in zip(window, scale))
    sides = [2 * w - 1 for w in window]
    table = window_geometry.log_coordinates(window, scale).reshape(1, *sides, 2)
    found = buffers.read_coordinates(table)
    assert tuple(v if isinstance(v, tuple) else (v, v) for v in found) == (window, scale)


@pytest.mark.parametrize("window", [(5, 6), (6, 5), (5, 13), (13, 5), (8, 8), (2, 3), (1, 1)])
def test_the_index_tells_the_window(window):
    assert buffers.read_index(window_geometry.relative_position_index(window).astype(np.int64)) == window


def test_a_line_of_tokens_does_not_tell_its_axis_and_other_indices_are_refused():
    assert buffers.read_index(window_geometry.relative_position_index((1, 7))) is None
    with pytest.raises(UserError, match="relative_position_index is not of a window"):
        buffers.read_index(np.zeros((6, 6), np.int64))


@pytest.mark.parametrize("counts", [(1, 4), (4, 1), (2, 2), (2, 8), (8, 2), (3, 5)])
@pytest.mark.parametrize("shift", [(2, 3), (0, 3), (2, 0)])
def test_a_mask_tells_how_many_windows_lie_along_each_axis(counts, shift):
    window = (5, 6)
    spatial = tuple(c * w for c, w in zip(counts, window))
    mask = window_geometry.shift_mask(spatial, window, shift)
    found = buffers.read_mask(mask, window)
    assert found == counts or (found is None and 0 in shift)


@pytest.mark.parametrize("version", [{}, swin.V2], ids=["v1", "v2"])
@pytest.mark.parametrize("ape", [False, True])
@pytest.mark.parametrize("sizes", RECTANGLES, ids=str)
def test_buffers_tell_rectangles(sizes, version, ape):
    model = make(**sizes, **version, ape=ape, small="shrink_axis")
    file = random_state(model) | convert.official_buffers(model)
    same_geometry(swin.Swin(**convert.infer(file)), model)


@pytest.mark.parametrize("sizes", RECTANGLES, ids=str)
def test_the_two_arguments_tell_rectangles_where_there_are_no_buffers(sizes):
    model = make(**sizes, small="shrink_axis")
    file = convert.to_timm(random_state(model))
    known = dict(window_size=sizes["window_size"], image_size=sizes["image_size"])
    same_geometry(swin.Swin(**convert.infer(file, **known)), model)


def test_rectangles_without_buffers_are_refused_and_a_guess_is_told():
    with pytest.raises(UserError, match="window_size and image_size"):
        convert.infer(convert.to_timm(random_state(make(**RECTANGLES[0]))))
    with pytest.warns(UserWarning, match="square ones of .* are assumed, though one of 5 x 13"):
        convert.infer(random_state(make(image_size=64, window_size=8)))


def test_absolute_positions_that_lie_as_a_map_tell_the_grid():
    model = make(image_size=(16, 64), window_size=4, ape=True, small="keep", out_norms=(0, 1), num_classes=0)
    file = random_state(model)
    positions = file["absolute_pos_embed"].reshape(1, 4, 16, 4).transpose(0, 3, 1, 2)
    assert convert.infer(file | {"absolute_pos_embed": positions})["image_size"] == (16, 64)


@pytest.mark.parametrize("resize", finetune.RESIZES)
@pytest.mark.parametrize(
    "old, new",
    [
        (dict(image_size=(40, 104), window_size=(5, 13)), dict(image_size=64, window_size=8)),
        (dict(image_size=64, window_size=8), dict(image_size=(40, 104), window_size=(5, 13))),
        (dict(image_size=(40, 48), window_size=(5, 6)), dict(image_size=(40, 64), window_size=(5, 8))),
    ],
    ids=["to a square", "to a rectangle of as many rows", "along one axis"],
)
def test_tables_are_resized_between_rectangles(old, new, resize):
    old, new = make(**old, ape=True), make(**new, ape=True)
    state_dict = random_state(old)
    file = state_dict | convert.official_buffers(old)
    with pytest.raises(UserError, match="choose resize="):
        finetune.remap(file, new)
    with pytest.warns(UserWarning, match="5 position tables were resized"):
        found = finetune.remap(file, new, resize)
        told = finetune.remap(state_dict, new, resize, made_for=old)
    name = "layers.0.blocks.0.attn.relative_position_bias_table"
    before, after = (window_geometry.stage_geometry(model)[1][0] for model in (old, new))
    # Bilinear maps go through a cubic interpolation along each axis as they are, but for the edges.
    assert found[name].shape == convert.official_shapes(new)[name]
    same = [a for a, b in zip(before, after) if a == b]
    if same:
        rows = 2 * before[0] - 1
        table, wanted = (x.reshape(rows, -1, 1) for x in (found[name], state_dict[name]))
        center = table[:, table.shape[1] // 2], wanted[:, wanted.shape[1] // 2]
        np.testing.assert_allclose(*center, atol=1e-5)
    for key in (name, "absolute_pos_embed"):
        np.testing.assert_array_equal(found[key], told[key])


def test_rows_that_two_windows_have_are_not_taken_for_the_models():
    square = random_state(make(image_size=64, window_size=8))
    wide = make(image_size=(40, 104), window_size=(5, 13))
    with pytest.raises(UserError, match="it is unknown whether .* is of 8 x 8 or of 5 x 13"):
        finetune.remap(square, wide, "bicubic")


def test_what_a_run_was_made_for_is_in_its_config():
    wide, square = make(image_size=(40, 104), window_size=(5, 13)), make(image_size=64, window_size=8)
    variables = convert.from_official(random_state(wide), wide)
    config = {f"task.model.{k}": list(v) if isinstance(v, tuple) else v for k, v in fields_of(wide).items()}
    source = {**variables, "config": config}
    with pytest.raises(UserError, match=r"weights' window of \(5, 13\)"):
        finetune.load_pretrained(source, square)
    kept = finetune.load_pretrained(source, wide)
    assert set(kept["params"]) == set(variables["params"])


def test_shapes_of_rows_begin_with_the_square():
    assert windows.windows_of_rows(225)[:2] == [(8, 8), (5, 13)]
    assert windows.windows_of_rows(9 * 11)[0] == (5, 6)
    assert windows.shapes_of_rows(64)[:2] == [(8, 8), (4, 16)]


@pytest.mark.parametrize(
    "sizes, match",
    [
        (dict(image_size=36, window_size=4), r"\(9, 9\) in windows of \(4, 4\).* pads them after the shift"),
        (dict(image_size=(36, 32), window_size=4), r"pads them after the shift"),
        (dict(image_size=(32, 64), window_size=(4, 6)), r"pads them after the shift"),
        (dict(image_size=(32, 64), window_size=8), r"small='shrink' says.*small='shrink_axis' is timm's rule"),
        (dict(image_size=32, window_size=4, small="keep"), "small='keep' says"),
    ],
    ids=str,
)
def test_timms_weights_warn_where_numbers_differ_from_timms(sizes, match):
    model = make(**sizes)
    timm = convert.to_timm(random_state(model))
    with pytest.warns(UserWarning, match=match):
        finetune.remap(timm, model, made_for=model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        finetune.remap(random_state(model), model, made_for=model)  # the official layout pads as this model does


@pytest.mark.parametrize("sizes", RECTANGLES[:3] + [dict(image_size=32, window_size=4)], ids=str)
def test_timms_weights_are_silent_where_every_map_is_whole_windows(sizes):
    model = make(**sizes, small="shrink_axis")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        finetune.remap(convert.to_timm(random_state(model)), model, made_for=model)
        shallow = make(image_size=36, window_size=4, depths=(1, 1))  # nothing is shifted
        finetune.remap(convert.to_timm(random_state(shallow)), shallow, made_for=shallow)
