"""StyleCLIP's released files, small: their forms, the shapes of another generator, and whose statistics they are."""

import pickle

import numpy as np
import pytest

from swin_jax.core.errors import UserError
from swin_jax.models.stylegan2 import style_layers
from swin_jax.pretrained.styleclip import statistics
from swin_jax.pretrained.styleclip.statistics import Statistics

LAYERS = style_layers(16, 64, 8)
FULL = style_layers(1024)


def saved(path, value):
    path.write_bytes(pickle.dumps(value))
    return path


def refused(match, call, *arguments):
    with pytest.raises(UserError, match=match) as error:
        call(*arguments)
    assert "\n" not in str(error.value) and len(str(error.value)) < 600


def styles_of(layers, samples=4, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(samples, layer.channels)).astype(np.float32) for layer in layers]


def ffhq():
    """Statistics with the averages of the released ones, whose channels differ."""
    means, deviations = [], []
    for number, (layer, (mean, std)) in enumerate(zip(FULL, statistics.FFHQ, strict=True)):
        spread = np.linspace(-0.5, 0.5, layer.channels, dtype=np.float32)
        means.append(mean + spread)
        deviations.append((std * (1 + spread)).astype(np.float32))
        if number == 0:
            means[0][:3], deviations[0][:3] = np.array(statistics.FFHQ_CHANNELS, np.float32).T
    return means, deviations


def test_statistics_are_read_and_belong_to_their_layers(tmp_path):
    styles = styles_of(LAYERS)
    expected = statistics.statistics_of(styles)
    path = saved(tmp_path / "S_mean_std", [list(expected.means), list(expected.deviations)])
    found = statistics.read_statistics(path, LAYERS)
    for ours, layer, style in zip(found.means, LAYERS, styles, strict=True):
        np.testing.assert_allclose(ours, style.mean(axis=0), atol=1e-6)
        assert ours.shape == (layer.channels,) and ours.dtype == np.float32
    np.testing.assert_allclose(found.deviations[3], styles[3].std(axis=0), atol=1e-6)
    refused("has 8 layers with a style, the generator has 11", statistics.read_statistics, path, style_layers(32))
    refused(
        "b4/conv1 has 8 channels, the generator's has 16: .*another generator",
        statistics.read_statistics,
        path,
        style_layers(16, 64, 16),
    )


def test_statistics_of_another_form_are_refused(tmp_path):
    path = tmp_path / "S_mean_std"
    rows = [style[0] for style in styles_of(LAYERS)]
    positive = [np.abs(row) for row in rows]
    for value, match in (
        (rows, r"S_mean_std is .*, and this is a list of 8"),
        ([rows, rows[:3]], "has 3 layers"),
        ([rows, [-row for row in positive]], "negative standard deviations"),
        (
            [[row[None] for row in rows], positive],
            r"b4/conv1 is an array of 1 axes, and this is float32 of shape \[1, 8\]",
        ),
        ([rows, [*positive[:-1], positive[-1] * np.nan]], "values that are not numbers"),
        ([rows, ["a"] * 8], "and this is a str"),
        ([rows, 1], "holds a int in place of a list of 8 layers"),
    ):
        refused(match, statistics.read_statistics, saved(path, value), LAYERS)


def test_styles_are_read(tmp_path):
    styles = styles_of(LAYERS, 5)
    path = saved(tmp_path / "S", [[layer.name for layer in LAYERS], styles])
    found = statistics.read_styles(path, LAYERS)
    assert all(np.array_equal(one, other) for one, other in zip(found, styles, strict=True))
    refused(
        "has 3 samples in one layer and 5",
        statistics.read_styles,
        saved(path, [[], [styles[0][:3], *styles[1:]]]),
        LAYERS,
    )
    refused("S is .names, styles., and this is a dict", statistics.read_styles, saved(path, {}), LAYERS)


def test_directions_may_end_with_any_layer(tmp_path):
    path = tmp_path / "fs3.npy"
    assert sum(layer.channels for layer in FULL if not layer.is_rgb) == 6048
    for rows in (6048, 5376, 512):
        np.save(path, np.zeros((rows, 4), np.float32))
        assert statistics.read_directions(path, FULL, 4).shape == (rows, 4)
    np.save(path, np.zeros((5952, 4), np.float32))
    refused(
        "has 5952 rows, .* it has 4928 channels .* the nearest end is 4928; .* another generator",
        statistics.read_directions,
        path,
        style_layers(256, 16384),
    )
    refused("features of width 4, the CLIP has 512", statistics.read_directions, path, FULL, 512)
    np.save(path, np.zeros(3))
    refused(
        r"fs3.npy is \(channels, features\), and this is float64 of shape \[3\]", statistics.read_directions, path, FULL
    )


def test_latents_are_read_and_a_bare_one_is_one(tmp_path):
    path = tmp_path / "w_plus.npy"
    latents = np.random.default_rng(0).normal(size=(3, 6, 4)).astype(np.float32)
    np.save(path, latents)
    np.testing.assert_array_equal(statistics.read_latents(path, 6, 4), latents)
    refused(
        r"holds latents of shape \[3, 6, 4\], and the generator's are \(n, 18, 512\)",
        statistics.read_latents,
        path,
        18,
        512,
    )
    np.save(path, latents[0])
    with pytest.warns(UserWarning, match=r"w_plus.npy: \(6, 4\) is read as one latent, not as 6"):
        assert statistics.read_latents(path, 6, 4).shape == (1, 6, 4)
    np.save(path, latents[0])
    np.testing.assert_array_equal(statistics.read_w(path, 4), latents[0])
    refused("w of width 4, the generator's have 512", statistics.read_w, path, 512)


def test_latents_are_read_from_npz_files(tmp_path, recwarn):
    path = tmp_path / "latent.npz"
    latents = np.random.default_rng(0).normal(size=(3, 6, 4)).astype(np.float32)
    np.savez(path, latents)
    np.testing.assert_array_equal(statistics.read_latents(path, 6, 4), latents)
    np.savez(path, edited_ws=latents[1], ws=latents[0])
    np.testing.assert_array_equal(statistics.read_latents(path, 6, 4), latents[:1])
    assert not recwarn.list
    np.savez(path, a=latents, b=latents)
    refused("latent.npz: holds a, b; latents are one array, or the one called ws", statistics.read_latents, path, 6, 4)


def test_released_statistics_are_identified(tmp_path):
    means, deviations = ffhq()
    found = statistics.read_statistics(saved(tmp_path / "S_mean_std", [means, deviations]), FULL)
    assert statistics.identify(found) == "stylegan2-ffhq-config-f"
    means[5] = means[5] + 0.2
    moved = Statistics(tuple(means), tuple(deviations))
    match = "not those of stylegan2-ffhq-config-f: layer 5 has mean 3.6332 .* in place of 3.4332"
    refused(match, statistics.identify, moved)
    assert statistics.identify(moved, tolerance=0.1)
    means[5] = means[5] - 0.2
    deviations[7] = deviations[7] * 1.2
    refused("layer 7 has .* deviation 0.1844 in place of .* 0.1537", statistics.identify, Statistics(means, deviations))
    means, deviations = ffhq()
    means[0] = means[0][::-1]  # the averages stay
    refused("channel 0 has mean", statistics.identify, Statistics(means, deviations))
    small = statistics.statistics_of(styles_of(LAYERS))
    refused("8 layers in place of 26", statistics.identify, small)


def test_statistics_of_another_generator_of_the_same_size_are_told():
    ours, theirs = styles_of(LAYERS, 2000), styles_of(LAYERS, 2000, seed=1)
    statistics.check_belong(statistics.statistics_of(ours), theirs, LAYERS)
    theirs[4] = theirs[4] + 0.5
    refused(
        r"of another generator: layer 4 \(b8/torgb\) has mean",
        statistics.check_belong,
        statistics.statistics_of(ours),
        theirs,
        LAYERS,
    )
