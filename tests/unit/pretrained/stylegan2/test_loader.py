"""StyleGAN2 through `swin_jax.load`: by name, by file alone, from every kind of file."""

import json
import logging
import pickle

import jax
import numpy as np
import pytest

import swin_jax
from swin_jax.core.errors import UserError
from swin_jax.models.stylegan2 import Discriminator, Generator, presets
from swin_jax.pretrained.load import FAMILIES
from swin_jax.pretrained.stylegan2 import convert, loader
from swin_jax.pretrained.stylegan2.sizes import DISCRIMINATOR, GENERATOR
from swin_jax.train import checkpoint
from tests import nvidia, stylegan2

TINY = dict(stylegan2.GENERATORS["usual"])
pytestmark = pytest.mark.filterwarnings("ignore:.*took the weights under")


@pytest.fixture
def rosinality(tmp_path):
    nets = {"g_ema": stylegan2.rosinality(GENERATOR), "d": stylegan2.rosinality(DISCRIMINATOR)}
    nets["g"] = {name: value + 1 for name, value in nets["g_ema"].items() if not name.endswith("kernel")}
    checkpoint = {**nets, "latent_avg": np.arange(6, dtype=np.float32), "ada_aug_p": 0.0}
    (tmp_path / "stylegan2-ffhq.pt").write_bytes(pickle.dumps(checkpoint))
    return tmp_path / "stylegan2-ffhq.pt"


@pytest.fixture
def persistent(tmp_path):
    nets = {"G_ema": nvidia.module_of(stylegan2.official(GENERATOR), b4__conv_clamp=None)}
    nets["D"] = nvidia.module_of(stylegan2.official(DISCRIMINATOR), b4__mbstd__group_size=2, b8__conv0__conv_clamp=256)
    return nvidia.save(tmp_path / "network.pkl", nets)


@pytest.fixture
def tiny(monkeypatch):
    """A published network that is tiny."""
    monkeypatch.setitem(presets.PRESETS, "stylegan2-tiny", TINY)
    fields = {name: TINY[name] for name in ("resolution", "channel_base", "channel_max")}
    monkeypatch.setitem(presets.DISCRIMINATORS, "stylegan2-tiny", fields)


def const(variables):
    return np.asarray(variables["params"]["synthesis"]["b4"]["const"])


def test_rosinalitys_file_is_loaded_alone_by_name_and_by_key(rosinality, tiny):
    for name in (None, "stylegan2-tiny", "StyleGAN2_tiny"):
        model, variables = swin_jax.load(name, weights=rosinality)
        assert model == Generator(**TINY) and set(variables) == {"params", "noise", "averages"}
        assert const(variables)[0, 0, 0] == stylegan2.rosinality(GENERATOR)["input.input"][0, 0, 0, 0]
        np.testing.assert_array_equal(variables["averages"]["mapping"]["w_avg"], np.arange(6))
    trained = const(swin_jax.load(weights=rosinality, key="g")[1])
    np.testing.assert_array_equal(trained, const(variables) + 1)
    for name in (None, "stylegan2-tiny-discriminator"):
        model, variables = swin_jax.load(name, weights=rosinality, key="d")
        assert model == Discriminator(16, channel_base=64, channel_max=8) and set(variables) == {"params"}
    with pytest.raises(UserError, match="of a generator, not of a discriminator; .*key='d'"):
        swin_jax.load("stylegan2-tiny-discriminator", weights=rosinality)


def test_nvidias_pickles_are_loaded_and_tell_clamps_and_groups(persistent):
    model, variables = swin_jax.load(weights=persistent)
    assert model == Generator(**TINY)
    expected = convert.from_official(stylegan2.official(GENERATOR), model)
    jax.tree.map(np.testing.assert_array_equal, variables, expected)
    model, _ = swin_jax.load(weights=persistent, key="D")
    assert model == Discriminator(16, channel_base=64, channel_max=8, conv_clamp=256, mbstd_group_size=2)
    assert swin_jax.load(weights=persistent, key="D", conv_clamp=1.0)[0].conv_clamp == 1


def test_tensorflows_pickles_are_loaded(tmp_path):
    arrays = stylegan2.official(GENERATOR)
    theirs = stylegan2.tensorflow(GENERATOR, arrays)

    def networks(names):
        own, parts = {"dlatent_avg": theirs["dlatent_avg"]}, {}
        for part in ("mapping", "synthesis"):
            inside = {name.removeprefix(f"{part}/"): value for name, value in theirs.items() if name.startswith(part)}
            parts[part] = nvidia.network_of(names, f"G_{part}", inside)
        judge = nvidia.network_of(names, "D", stylegan2.tensorflow(DISCRIMINATOR, stylegan2.official(DISCRIMINATOR)))
        return nvidia.network_of(names, "G", own, parts), judge, nvidia.network_of(names, "Gs", own, parts)

    path = nvidia.save(tmp_path / "stylegan2-tiny.pkl", networks)
    model, variables = swin_jax.load(weights=path)
    assert model == Generator(**TINY)
    np.testing.assert_array_equal(variables["params"]["mapping"]["fc0"]["kernel"], arrays["mapping.fc0.weight"].T)
    assert isinstance(swin_jax.load(weights=path, key="D")[0], Discriminator)


def test_what_is_missing_is_made_and_said(tmp_path):
    arrays = {name: value for name, value in stylegan2.rosinality(GENERATOR).items() if not name.startswith("noises")}
    arrays |= {name: value * 100 for name, value in arrays.items() if name.startswith("style") and value.ndim == 2}
    np.savez(tmp_path / "old.npz", **arrays)
    with pytest.warns(UserWarning) as warned:
        model, variables = swin_jax.load(weights=tmp_path / "old.npz")
    texts = [str(warning.message) for warning in warned]
    assert len(texts) == 2 and "no noise maps" in texts[0] and "no mean latent" in texts[1]
    draws = np.random.default_rng(1).normal(size=(4096, 6))
    w = model.apply(variables, draws, method="map")[:, 0]
    np.testing.assert_allclose(variables["averages"]["mapping"]["w_avg"], w.mean(axis=0), atol=0.1 * float(w.std()))
    noises = jax.tree.leaves(variables["noise"])
    assert sorted(map(np.shape, noises)) == [(4, 4), (8, 8), (8, 8), (16, 16), (16, 16)]


def test_weights_of_another_size_than_their_name_are_refused_with_both_numbers(rosinality, tiny, monkeypatch):
    match = r"resolution=16, channel_base=64, mapping_layers=2\), not a .*config-f \(resolution=1024, .*_layers=8\)"
    with pytest.raises(UserError, match=match):
        swin_jax.load("stylegan2-ffhq-config-f", weights=rosinality)
    monkeypatch.setitem(presets.PRESETS, "stylegan2-deep", TINY | {"mapping_layers": 8})
    with pytest.raises(UserError, match="a stylegan2-tiny .mapping_layers=2., not a stylegan2-deep .mapping_layers=8"):
        swin_jax.load("stylegan2-deep", weights=rosinality)
    with pytest.raises(UserError, match="resolution is 16 in the weights and 32 in the model"):
        swin_jax.load(weights=rosinality, resolution=32)
    with pytest.raises(UserError, match="has nothing to resize"):
        swin_jax.load(weights=rosinality, resize="bicubic")
    with pytest.raises(UserError, match="Generator has no argument 'resolutoin'; did you mean 'resolution'"):
        swin_jax.load("stylegan2-tiny", weights=rosinality, resolutoin=16)


def test_published_weights_are_not_downloaded_and_their_license_is_named(rosinality, persistent, caplog):
    match = "not downloaded, .* non-commercial .* CC BY-NC-SA 4.0.*: get stylegan2-ffhq-config-f.pkl from .*stylegan2"
    with pytest.raises(UserError, match=match):
        swin_jax.load("stylegan2-ffhq-config-f", weights="official")
    with pytest.raises(UserError, match="get afhqdog.pkl from .*stylegan2-ada-pytorch"):
        swin_jax.load("stylegan2-ada-afhqdog-discriminator", weights="official")
    with caplog.at_level(logging.INFO, "swin_jax.pretrained.stylegan2.loader"):
        swin_jax.load(weights=rosinality)
        swin_jax.load(weights=persistent, key="D")
    first, second = (record.getMessage() for record in caplog.records)
    assert "NVIDIA Source Code License" in first and "CC BY-NC-SA" in first
    assert "non-commercial" in second and "FFHQ" not in second


def test_names_of_published_networks_make_models():
    names = swin_jax.list_models("stylegan2*")
    assert len(names) == 2 * len(presets.PRESETS) and "stylegan2-ada-metfaces-discriminator" in names
    family, judge = loader.FAMILY, loader.DISCRIMINATOR_FAMILY
    assert family in FAMILIES and judge in FAMILIES
    models = {name: family.make(**family.preset(name)) for name in family.names()}
    judges = {name: judge.make(**judge.preset(name)) for name in judge.names()}
    sides = {"stylegan2-ffhq-config-f": 1024, "stylegan2-ada-afhqcat": 512, "stylegan2-ada-cifar10": 32}
    for name, side in sides.items():
        assert models[name].resolution == judges[f"{name}-discriminator"].resolution == side
    cifar = judges["stylegan2-ada-cifar10-discriminator"]
    assert (cifar.architecture, cifar.c_dim, cifar.mbstd_group_size) == ("orig", 10, 32)
    assert models["stylegan2-ada-cifar10"].mapping_layers == 2 and models["stylegan2-ada-metfaces"].mapping_layers == 8


def test_a_generator_takes_latents_and_a_discriminator_pictures(rosinality, tmp_path):
    model, variables = swin_jax.load(weights=rosinality)
    for what in (model, rosinality, "stylegan2-ffhq-config-f"):
        with pytest.raises(UserError, match="a generator takes latents, not pictures"):
            swin_jax.preprocess(what)
    facts = swin_jax.export(model, variables, tmp_path / "g.stablehlo")
    assert facts["inputs"] == {"z": "float32 (b, 6)"} and facts["preparation"] is None
    judge, judged = swin_jax.load(weights=rosinality, key="d")
    with pytest.warns(UserWarning, match="assumed"):
        prepared = swin_jax.preprocess(judge)
    pixels = np.array([[[0, 127, 255]]], np.uint8).repeat(16, 0).repeat(16, 1)
    image = prepared(pixels)
    np.testing.assert_allclose(image[0, 0, 0], [-1, -1 / 255, 1], atol=1e-6)
    assert judge.apply(judged, image).shape == (1, 1)


def test_conditional_networks_take_labels(tmp_path):
    np.savez(tmp_path / "g.npz", **stylegan2.official(GENERATOR, "conditional"))
    model, variables = swin_jax.load(weights=tmp_path / "g.npz")
    assert model.c_dim == 3 and loader.latents(model)["c"].shape == (1, 3)
    outputs = loader.generate(model, variables, {"z": np.zeros((2, 5)), "c": np.eye(3)[:2]}, lambda x: x)
    assert outputs["image"].shape == (2, 8, 8, 3)
    arrays = {
        name: value for name, value in stylegan2.official(GENERATOR, "conditional").items() if "w_avg" not in name
    }
    np.savez(tmp_path / "g.npz", **arrays)
    with pytest.warns(UserWarning, match="no mean latent"):
        model, variables = swin_jax.load(weights=tmp_path / "g.npz")
    assert np.abs(variables["averages"]["mapping"]["w_avg"]).min() > 0


def test_no_other_family_recognizes_them():
    assert [family.title for family in FAMILIES if family.recognizes(stylegan2.rosinality(GENERATOR))] == ["StyleGAN2"]
    assert [family.title for family in FAMILIES if family.recognizes(stylegan2.official(GENERATOR))] == ["StyleGAN2"]
    found = [family.title for family in FAMILIES if family.recognizes(stylegan2.official(DISCRIMINATOR))]
    assert found == ["StyleGAN2 discriminator"]


def test_the_generator_of_an_e4e_is_taken_by_name_or_key(tmp_path, tiny):
    inside = {f"decoder.{name}": value for name, value in stylegan2.rosinality(GENERATOR).items()}
    weights = inside | {"encoder.input_layer.0.weight": np.ones((1, 1, 1, 1), np.float32)}
    mean = np.tile(np.arange(6, dtype=np.float32), (6, 1))
    (tmp_path / "e4e.pt").write_bytes(pickle.dumps({"state_dict": weights, "latent_avg": mean, "opts": {}}))
    by_key = swin_jax.load(weights=tmp_path / "e4e.pt", key="decoder")
    with pytest.warns(UserWarning, match="ignored weights"):
        by_name = swin_jax.load("stylegan2-tiny", weights=tmp_path / "e4e.pt")
    assert by_name[0] == by_key[0] == Generator(**TINY)
    jax.tree.map(np.testing.assert_array_equal, by_name[1], by_key[1])
    np.testing.assert_array_equal(by_key[1]["averages"]["mapping"]["w_avg"], mean[0])


def of_run(generator, judge=None):
    """What `checkpoint.load_variables` gives of a run of `tasks.gan`."""
    params = {"generator": generator["params"]} | ({"discriminator": judge["params"]} if judge else {})
    others = {name: generator[name] for name in ("noise", "averages")}
    return {"params": params, "generator": others, "path_mean": np.zeros(()), "penalties": {"r1": np.zeros(())}}


def test_the_generator_of_a_run_is_loaded_as_it_was_trained(tmp_path, monkeypatch):
    fields = {"fn": "swin_jax.models.stylegan2.Generator", **TINY}
    config = {f"task.generator.{name}": value for name, value in fields.items()}
    (tmp_path / "config.json").write_text(json.dumps(config | {"task.fn": "swin_jax.tasks.gan.GAN"}))
    variables = convert.from_official(stylegan2.official(GENERATOR), Generator(**TINY))
    monkeypatch.setattr(checkpoint, "load_variables", lambda workdir: of_run(variables))
    model, found = swin_jax.load(weights=tmp_path)
    assert model == Generator(**TINY)
    jax.tree.map(np.testing.assert_array_equal, found, variables)
    with pytest.raises(UserError, match="a generator takes latents"):
        swin_jax.preprocess(model)
    assert swin_jax.load(weights=tmp_path, dtype="bfloat16", remat="full")[0].remat == "full"
    with pytest.raises(UserError, match="loaded as it was trained; leave out resolution"):
        swin_jax.load(weights=tmp_path, resolution=32)


def test_an_experiment_fills_its_networks_from_a_file_or_a_run(rosinality, caplog):
    generator, judge = Generator(**TINY), Discriminator(16, channel_base=64, channel_max=8)
    take = loader.pretrained()
    with caplog.at_level(logging.INFO, "swin_jax.pretrained.stylegan2.loader"):
        variables, judged = take(rosinality, generator), take(rosinality, judge, key="d")
    assert len(caplog.records) == 2 and "non-commercial" in caplog.text
    assert set(variables) == {"params", "noise", "averages"} and set(judged) == {"params"}
    for run in (of_run(variables, judged), {**variables, "config": {}}):
        jax.tree.map(np.testing.assert_array_equal, take(run, generator), variables)
    jax.tree.map(np.testing.assert_array_equal, take(of_run(variables, judged), judge), judged)
    with pytest.raises(UserError, match="keeps an average of its generator and none of its discriminator"):
        take(of_run(variables), judge)
    with pytest.raises(UserError, match="resolution is 16 in the weights and 32 in the model"):
        take(rosinality, Generator(**TINY | {"resolution": 32}))
