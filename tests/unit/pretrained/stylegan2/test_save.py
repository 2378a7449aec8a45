"""Files for the PyTorch code of others: read back by our reader; torch 2.13 with weights_only=True read the same."""

import pickletools
import zipfile

import numpy as np
import pytest
import safetensors.numpy

from swin_jax.core.errors import UserError
from swin_jax.models.stylegan2 import Discriminator, Generator
from swin_jax.pretrained.files import torch_zip
from swin_jax.pretrained.files.read import read
from swin_jax.pretrained.stylegan2 import convert
from swin_jax.pretrained.stylegan2.save import save_nvlabs_state_dict, save_rosinality
from swin_jax.pretrained.stylegan2.sizes import DISCRIMINATOR, GENERATOR
from tests import stylegan2

pytestmark = pytest.mark.filterwarnings("ignore:.*took the weights under")
NAMES = {"torch._utils _rebuild_tensor_v2", "torch FloatStorage", "collections OrderedDict"}


def equal(found, wanted):
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert found[name].shape == value.shape, name
        np.testing.assert_array_equal(found[name], value)


@pytest.fixture
def networks():
    generator = Generator(**stylegan2.GENERATORS["usual"])
    judge = Discriminator(**stylegan2.DISCRIMINATORS["usual"])
    return [
        convert.from_official(stylegan2.rosinality(k), m) for k, m in ((GENERATOR, generator), (DISCRIMINATOR, judge))
    ]


def test_rosinalitys_checkpoint_comes_back_bitwise(networks, tmp_path):
    generator, judge = networks
    mean = np.arange(6, dtype=np.float32)
    save_rosinality(tmp_path / "a.pt", generator | {"averages": {"mapping": {"w_avg": mean}}}, judge)
    equal(read(tmp_path / "a.pt"), stylegan2.rosinality(GENERATOR) | {"latent_avg": mean})
    equal(read(tmp_path / "a.pt", "d"), stylegan2.rosinality(DISCRIMINATOR) | {"latent_avg": mean})
    save_rosinality(tmp_path / "a.pt", generator)
    equal(read(tmp_path / "a.pt"), stylegan2.rosinality(GENERATOR))
    with pytest.raises(UserError, match="no dict under 'd'|no name under 'd'"):
        read(tmp_path / "a.pt", "d")


@pytest.mark.parametrize("suffix", (".pth", ".safetensors"))
def test_nvidias_state_dict_comes_back_bitwise(networks, tmp_path, suffix):
    for variables in networks:
        save_nvlabs_state_dict(tmp_path / f"a{suffix}", variables)
        equal(read(tmp_path / f"a{suffix}"), convert.to_official(variables))
        if suffix == ".safetensors":
            equal(safetensors.numpy.load_file(tmp_path / "a.safetensors"), convert.to_official(variables))


def test_the_pickle_names_tensors_only(networks, tmp_path):
    save_rosinality(tmp_path / "a.pt", *networks)
    with zipfile.ZipFile(tmp_path / "a.pt") as archive:
        assert archive.testzip() is None
        names = {arg for code, arg, _ in pickletools.genops(archive.read("archive/data.pkl")) if code.name == "GLOBAL"}
        data = (tmp_path / "a.pt").read_bytes()
        for member in archive.infolist():
            start = data.index(archive.read(member)[:64], member.header_offset + 30 + len(member.filename))
            assert start % 64 == 0 or not member.file_size, member.filename
    assert names == NAMES


def test_views_and_scalars_are_written_as_they_are_read(tmp_path):
    arrays = {"scalar": np.full((), 2.5, np.float32), "view": np.arange(12, dtype=np.float32).reshape(3, 4).T[1:]}
    arrays |= {"empty": np.zeros((0, 3), np.float32), "ü": np.ones((2, 1, 1), np.float32)}
    torch_zip.write(tmp_path / "a.pt", {"deep": {"model": arrays}})
    equal(read(tmp_path / "a.pt"), arrays)
    for value in ({"a": np.zeros(2)}, {"a": [1]}, {1: np.zeros(2, np.float32)}):
        with pytest.raises(TypeError):
            torch_zip.write(tmp_path / "b.pt", value)
    assert not (tmp_path / "b.pt").exists()


def test_other_files_and_networks_are_refused(networks, tmp_path):
    generator, judge = networks
    with pytest.raises(UserError, match="files of .pt, .pth are written"):
        save_rosinality(tmp_path / "a.pkl", generator)
    with pytest.raises(UserError, match=".safetensors are written"):
        save_nvlabs_state_dict(tmp_path / "a.npz", generator)
    with pytest.raises(UserError, match="of a discriminator"):
        save_rosinality(tmp_path / "a.pt", judge)
    conditional = Generator(**stylegan2.GENERATORS["conditional"])
    labeled = convert.from_official(stylegan2.official(GENERATOR, "conditional"), conditional)
    with pytest.raises(UserError, match="no generator with labels .*; write NVIDIA's state dict"):
        save_rosinality(tmp_path / "a.pt", labeled)
    assert not list(tmp_path.iterdir())
