"""Attention maps against attention written out pair by pair on the un-shifted map, bias maps, and the drawings."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swin_jax.core import stacking
from swin_jax.core.errors import UserError
from swin_jax.inference import attention_maps
from swin_jax.models import swin

WINDOW = 4
SMALL = dict(
    num_classes=0,
    image_size=16,
    patch_size=2,
    embed_dim=8,
    depths=(2,),
    num_heads=(2,),
    window_size=WINDOW,
    small="keep",
)
VERSION_2 = ("cosine_attention", "post_norm", "continuous_bias")


def make(size=(16, 16), **fields):
    """A model whose every parameter is random, and an image."""
    model = swin.Swin(**SMALL | fields)
    rng = np.random.default_rng(0)
    shapes = swin.param_shapes(model)
    variables = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 0.4, leaf.shape), jnp.float32), shapes)
    return model, variables, rng.normal(size=(*size, model.in_channels)).astype(np.float32)


def written_out(model, variables, image, stage, queries, shift, padded):
    """What tokens of the stage's shifted block attend to: for each query {position on the padded map: (h,)}."""
    features = jax.jit(lambda v, x: model.apply(v, x, mutable=["intermediates"], method="features"))
    outputs = features(variables, image[None])[1]["intermediates"]["outputs"]
    x = np.asarray(outputs[f"layers.{stage}.blocks.0"][0], np.float64)
    params = jax.tree.map(np.asarray, variables["params"][f"layers_{stage}"]["blocks_1"])
    if not model.post_norm:
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        x = x * params["norm1"]["scale"] + params["norm1"]["bias"]
    x = np.pad(x, [(0, n - have) for n, have in zip(padded, x.shape)] + [(0, 0)])
    attn = params["attn"]
    q, k = (np.einsum("hwc,cnd->hwnd", x, attn["qkv"]["kernel"][:, i]) for i in (0, 1))
    if model.cosine_attention:
        q = q + attn["q_bias"]
        q, k = (a / np.maximum(np.linalg.norm(a, axis=-1, keepdims=True), 1e-12) for a in (q, k))
        q = q * np.exp(np.minimum(attn["logit_scale"][:, 0], np.log(100)))
    else:
        q, k = (a + attn["qkv"]["bias"][i] for i, a in enumerate((q, k)))
        q = q / math.sqrt(q.shape[-1])
    bias = np.asarray(swin.position_bias(model, variables, f"layers.{stage}.blocks.1"))
    bias = bias.reshape(2 * WINDOW - 1, 2 * WINDOW - 1, -1)

    def place(position):  # its window, and on which side of the seam it is
        return [((p - s) % n // WINDOW, p < s) for p, s, n in zip(position, shift, padded)]

    for query in queries:
        keys = [key for key in itertools.product(*map(range, padded)) if place(key) == place(query)]
        steps = [tuple(a - b + WINDOW - 1 for a, b in zip(query, key)) for key in keys]
        logits = np.stack([(q[query] * k[key]).sum(-1) + bias[step] for key, step in zip(keys, steps)])
        yield dict(zip(keys, np.exp(logits) / np.exp(logits).sum(0)))


def check_written_out(model, variables, image, stage, queries, shift, padded):
    for query, weights in zip(queries, written_out(model, variables, image, stage, queries, shift, padded)):
        found = attention_maps.attention_map(model, variables, image, f"layers.{stage}.blocks.1", query)
        expected = np.zeros_like(found)
        for key in itertools.product(*map(range, found.shape[1:])):
            expected[(slice(None), *key)] = weights.get(key, 0)
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-6)
        assert found.max() > 1e-3


@pytest.mark.parametrize("choices", list(itertools.product((False, True), repeat=3)))
def test_shifted_and_padded_maps_are_what_is_written_out(choices):
    """All eight combinations of the choices of version 2, on a grid of 7 x 9 that is padded to 8 x 12."""
    model, variables, image = make((13, 18), **dict(zip(VERSION_2, choices)))
    # Token (0, 0) is alone with the corner beyond the seams, (6, 8) is next to padding.
    check_written_out(model, variables, image, 0, [(0, 0), (1, 5), (3, 4), (6, 8)], (2, 2), (8, 12))


@pytest.mark.parametrize("small, shift, padded", [("keep", (2, 2), (4, 8)), ("axis", (0, 2), (4, 8))])
def test_second_stage_with_small_grids(small, shift, padded):
    """A grid of 4 x 5: the first axis is no larger than the window."""
    model, variables, image = make((13, 18), small=small, depths=(1, 2), num_heads=(2, 2))
    check_written_out(model, variables, image, 1, [(0, 0), (3, 4)], shift, padded)


def test_shrunk_windows_are_not_shifted():
    model, variables, image = make((16, 16), small="shrink", depths=(1, 2), num_heads=(2, 2))
    maps = attention_maps.attention_map(model, variables, image, "layers.1.blocks.1", (0, 0))
    assert maps.shape == (2, 4, 4) and (maps > 0).all()


def test_masked_regions_get_nothing():
    model, variables, image = make()
    corner = attention_maps.attention_map(model, variables, image, "layers.0.blocks.1", (0, 0))
    inside = np.zeros((8, 8), bool)
    inside[:2, :2] = True  # what shifting by 2 leaves of the first window
    assert corner[:, ~inside].max() < 1e-20 and (corner[:, inside] > 1e-6).all()
    plain = attention_maps.attention_map(model, variables, image, "layers.0.blocks.0", (0, 0))
    inside[:4, :4] = True
    assert (plain[:, ~inside] == 0).all() and (plain[:, inside] > 1e-6).all()


@pytest.mark.parametrize("block", ["layers.0.blocks.0", "layers.0.blocks.1"])
def test_every_query_spreads_one(block):
    model, variables, image = make()
    maps = {
        q: attention_maps.attention_map(model, variables, image, block, q)
        for q in itertools.product(range(8), repeat=2)
    }
    for found in maps.values():
        np.testing.assert_allclose(found.sum(axis=(1, 2)), 1, atol=1e-5)
    received = attention_maps.attention_map(model, variables, image[None], block)
    np.testing.assert_allclose(received, np.mean(list(maps.values()), axis=0), atol=1e-6)
    np.testing.assert_allclose(received.sum(axis=(1, 2)), 1, atol=1e-5)


def test_padding_neither_asks_nor_shows():
    model, variables, image = make((13, 18))
    block = "layers.0.blocks.1"
    queries = itertools.product(range(7), range(9))
    mean = np.mean([attention_maps.attention_map(model, variables, image, block, q) for q in queries], axis=0)
    received = attention_maps.attention_map(model, variables, image, block)
    np.testing.assert_allclose(received, mean, atol=1e-6)
    assert (received.sum(axis=(1, 2)) < 0.99).all()


def test_scanned_stages_and_other_implementations():
    model, variables, image = make(depths=(4,))
    expected = attention_maps.attention_map(model, variables, image, "layers.0.blocks.3", (1, 7))
    scanned = model.clone(scan=True, remat="full", attention="sequential")
    stacked = {"params": stacking.stack(variables["params"], swin.param_shapes(scanned)["params"])}
    assert "blocks_3" not in stacked["params"]["layers_0"]
    found = attention_maps.attention_map(scanned, stacked, image, "layers.0.blocks.3", (1, 7))
    np.testing.assert_allclose(found, expected, atol=1e-6)
    other = attention_maps.attention_map(scanned, stacked, image, "layers.0.blocks.1", (1, 7))
    assert np.abs(other - expected).max() > 1e-3


def test_windows_that_shift_by_padding_show_the_same():
    model, variables, image = make()
    for block in ("layers.0.blocks.0", "layers.0.blocks.1"):
        maps = [
            attention_maps.attention_map(model.clone(shift=shift), variables, image, block, (3, 6))
            for shift in ("roll", "pad", "none")
        ]
        np.testing.assert_allclose(maps[1], maps[0], atol=1e-6)
    assert np.abs(maps[2] - maps[0]).max() > 1e-3 and (maps[2][:, 0:4, 4:8] > 1e-6).all()


def test_models_without_attention_in_windows_are_refused():
    for fields in (swin.MLP, dict(token_mixer="sliding", shift="none")):
        with pytest.raises(UserError, match=f"not of token_mixer='{fields['token_mixer']}'"):
            attention_maps.attention_map(*make(**fields), "layers.0.blocks.0")
    with pytest.raises(UserError, match="a Swin-MLP has no attention, and no position bias"):
        attention_maps.bias_maps(*make(**swin.MLP)[:2], "layers.0.blocks.0")
    none = make(relative_position=False)[:2]
    assert not attention_maps.bias_maps(*none, "layers.0.blocks.0").any()


def test_three_axes():
    model, variables, image = make(
        (4, 8, 12), image_size=(4, 8, 12), patch_size=(1, 2, 2), window_size=(2, 2, 3), small="axis"
    )
    maps = attention_maps.attention_map(model, variables, image, "layers.0.blocks.1", (3, 0, 2))
    assert maps.shape == (2, 4, 4, 6)
    np.testing.assert_allclose(maps.sum(axis=(1, 2, 3)), 1, atol=1e-5)
    # The last frame is beyond the seam of time, the first row beyond that of rows.
    assert set(zip(*np.nonzero(maps[0] > 1e-20))) == {(3, 0, column) for column in (1, 2, 3)}
    with pytest.raises(UserError, match="frame"):
        attention_maps.draw_attention(image[0], maps)


@pytest.mark.parametrize("version_2", [False, True])
def test_bias_maps_are_what_is_left_without_content(version_2):
    """With queries and keys of zero, attention is the softmax of the bias map cut out around the query."""
    model, variables, image = make(**dict.fromkeys(VERSION_2, version_2))
    attn = variables["params"]["layers_0"]["blocks_0"]["attn"]
    for leaf in ("q_bias", "v_bias") if version_2 else ():
        attn[leaf] = jnp.zeros_like(attn[leaf])
    attn["qkv"] = jax.tree.map(jnp.zeros_like, attn["qkv"])
    bias = attention_maps.bias_maps(model, variables, "layers.0.blocks.0")
    assert bias.shape == (2, 7, 7) and bias.std() > 0.01
    for row, column in [(0, 0), (1, 3), (3, 2)]:
        cut = bias[:, 3 - row : 7 - row, 3 - column : 7 - column]
        found = attention_maps.attention_map(model, variables, image, "layers.0.blocks.0", (4 + row, column))
        expected = jax.nn.softmax(cut.reshape(2, -1), axis=-1).reshape(2, 4, 4)
        np.testing.assert_allclose(found[:, 4:, :4], expected, rtol=1e-4)


def test_bias_map_of_a_table():
    model, variables, _ = make(window_size=(2, 3))
    table = variables["params"]["layers_0"]["blocks_1"]["attn"]["relative_position_bias_table"]
    bias = attention_maps.bias_maps(model, variables, "layers.0.blocks.1")
    assert bias.shape == (2, 3, 5)
    # One row below and two columns to the left: query minus key is (-1, 2), the last row of the table's first line.
    np.testing.assert_array_equal(bias[:, 1 + 1, 2 - 2], table[4])
    np.testing.assert_array_equal(bias[:, 1, 2], table[7])


def test_errors_say_what_to_do():
    model, variables, image = make(depths=(2, 2), num_heads=(2, 2))
    for wrong in ("layers.1.block.1", "layers_1/blocks_1", "layers.1.blocks.1.attn"):
        for look in (
            lambda b: attention_maps.attention_map(model, variables, image, b),
            lambda b: attention_maps.bias_maps(model, variables, b),
        ):
            with pytest.raises(UserError, match=r"nearest name is 'layers\.1\.blocks\.1'"):
                look(wrong)
    with pytest.raises(UserError, match=r"\(8, 0\) is not a token of layers\.0\.blocks\.1, whose grid is \(8, 8\)"):
        attention_maps.attention_map(model, variables, image, "layers.0.blocks.1", (8, 0))
    for query in ((1.5, 0), 3, (1, 2, 3), (-1, 0), (True, 0)):
        with pytest.raises(UserError, match=r"is not a token of layers\.0\.blocks\.1, whose grid is \(8, 8\)"):
            attention_maps.attention_map(model, variables, image, "layers.0.blocks.1", query)
        with pytest.raises(UserError, match=r"is not a token of the maps, whose grid is \(8, 8\)"):
            attention_maps.draw_attention(image, np.ones((1, 8, 8)), query)
    for stride in (0, -4, (4, 0), 2.5, (2, 4, 4)):
        with pytest.raises(UserError, match="stride|3 entries for 2 axes"):
            attention_maps.draw_attention(image, np.ones((1, 8, 8)), stride=stride)
    with pytest.raises(UserError, match=r"one image.*\(2, 16, 16, 3\)"):
        attention_maps.attention_map(model, variables, np.stack([image, image]), "layers.0.blocks.1")
    with pytest.raises(UserError, match=r"\(H, W, 3\), not \(5, 5, 2\)"):
        attention_maps.draw_attention(np.zeros((5, 5, 2)), np.ones((1, 4, 4)))


@pytest.mark.parametrize("heads, panels", [(1, 2), (3, 5), (12, 14)])
def test_drawn_attention(heads, panels, tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (61, 83, 3), np.uint8)
    maps = np.zeros((heads, 16, 21), np.float32)
    maps[:, 4, 5] = 1
    path = tmp_path / "attention.png"
    figure = attention_maps.draw_attention(picture, maps, (2, 20), path, stride=4, title="block")
    assert len(figure.axes) == panels and path.stat().st_size > 5000
    for axes in figure.axes:
        (mark,) = axes.patches
        assert (mark.get_x(), mark.get_y(), mark.get_width(), mark.get_height()) == (80, 8, 4, 4)
    _, heat = figure.axes[1].images
    assert tuple(heat.get_extent()) == (0, 84, 64, 0)
    alpha = np.asarray(heat.get_array())[..., 3]
    assert alpha[4, 5] > 0.5 and alpha.sum() == alpha[4, 5]


def test_patches_need_not_be_square():
    maps = np.zeros((1, 5, 3), np.float32)
    figure = attention_maps.draw_attention(np.zeros((9, 12), np.uint8), maps, (np.int64(4), 1), stride=(2, 4))
    assert tuple(figure.axes[1].images[1].get_extent()) == (0, 12, 10, 0)
    (mark,) = figure.axes[1].patches
    assert (mark.get_x(), mark.get_y(), mark.get_width(), mark.get_height()) == (4, 8, 4, 2)


def test_pictures_of_all_kinds(tmp_path):
    """What the model saw, normalized and with its batch axis, gray, or no attention at all."""
    for picture in (
        np.random.default_rng(0).normal(size=(1, 8, 8, 3)),
        np.zeros((8, 8)),
        np.zeros((8, 8, 1), np.uint8),
    ):
        figure = attention_maps.draw_attention(picture, np.zeros((2, 4, 4)), path=tmp_path / "attention.png")
        shown = np.asarray(figure.axes[0].images[0].get_array())
        assert shown.shape == (8, 8, 3) and shown.min() == 0 and shown.max() <= 1 and not figure.axes[0].patches


def test_drawn_attention_in_a_clip(tmp_path):
    rng = np.random.default_rng(0)
    clip, maps = rng.random((1, 8, 12, 20, 3)), rng.random((2, 4, 3, 5))
    figure = attention_maps.draw_video_attention(clip, maps, (2, 1, 4), tmp_path / "clip.png")
    assert (tmp_path / "clip.png").stat().st_size > 1000 and len(figure.axes) == 8
    frames = [axes.images[0].get_array() for axes in figure.axes[:4]]
    stretched = (clip[0] - clip.min()) / (clip.max() - clip.min())
    np.testing.assert_allclose(frames, stretched[::2], atol=1e-6)  # the first frame of each token in time
    shares = [f"{share:.0%}" for share in maps.mean(0).sum((1, 2))]
    assert [axes.get_title() for axes in figure.axes[4:]] == shares
    assert [len(axes.patches) for axes in figure.axes] == [0, 0, 1, 0] * 2
    assert figure.axes[2].patches[0].get_xy() == (16, 4)
    for wrong in (maps[0], maps[None]):
        with pytest.raises(UserError, match="maps are .heads, time, rows, columns."):
            attention_maps.draw_video_attention(clip, wrong)


def test_drawn_bias(tmp_path):
    maps = np.random.default_rng(0).normal(size=(8, 3, 5))
    figure = attention_maps.draw_bias(maps, tmp_path / "bias.png", "block")
    panels = [axes for axes in figure.axes if axes.get_title().startswith("head")]
    assert len(panels) == 8 and len(figure.axes) == 16  # a color bar each
    (image,) = panels[3].images
    np.testing.assert_array_equal(np.asarray(image.get_array(), np.float32), maps[3].astype(np.float32))
    assert tuple(image.get_extent()) == (-2.5, 2.5, 1.5, -1.5)
    assert panels[3].lines[0].get_xydata().tolist() == [[0, 0]]
    attention_maps.draw_bias(np.zeros((1, 3, 3)), tmp_path / "constant.png")
    assert (tmp_path / "constant.png").stat().st_size > 1000
