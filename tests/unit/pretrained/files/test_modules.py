"""Pickles of NVIDIA's networks, of PyTorch and of TensorFlow: read as arrays, and nothing in them is run."""

import pathlib
import pickle
import pickletools

import numpy as np
import pytest

from swin_jax.core.errors import UserError
from swin_jax.pretrained.files import modules
from swin_jax.pretrained.files.limits import Limits
from swin_jax.pretrained.files.read import read
from tests import nvidia

GOLDEN = pathlib.Path(__file__).parents[3] / "golden" / "weights"


def arrays_of(seed):
    rng = np.random.default_rng(seed)
    shapes = {"fc.weight": (2, 3), "conv.noise_strength": (), "conv.resample_filter": (4, 4), "w_avg": (3,)}
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def snapshot(form="legacy"):
    nets = {name: nvidia.module_of(arrays_of(seed), form) for seed, name in enumerate(("G", "D", "G_ema"))}
    return lambda names: dict(training_set_kwargs=names.EasyDict(path="x.zip"), **nets, augment_pipe=None)


def equal(found, wanted):
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
        assert found[name].shape == np.shape(value)


@pytest.fixture(autouse=True)
def nothing_runs(tmp_path, monkeypatch):
    """The source in the pickles would touch a file here."""
    monkeypatch.chdir(tmp_path)
    yield
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("form", ("legacy", "zip"))
@pytest.mark.parametrize("protocol", (2, 4))
def test_persistent_networks_are_read(tmp_path, form, protocol):
    path = nvidia.save(tmp_path / "a.pkl", snapshot(form), protocol)
    with pytest.warns(UserWarning, match="took the weights under G_ema; key= selects those under G, D"):
        equal(read(path), arrays_of(2))
    equal(read(path, "G"), arrays_of(0))
    equal(read(path, "D"), arrays_of(1))
    with pytest.raises(UserError, match="no dict under 'E'"):
        read(path, "E")


def test_a_network_alone_is_read(tmp_path):
    equal(read(nvidia.save(tmp_path / "a.pkl", nvidia.module_of(arrays_of(0)))), arrays_of(0))


def test_numbers_that_change_outputs_come_along(tmp_path):
    net = nvidia.module_of(arrays_of(0), conv__conv_clamp=256, fc__conv_clamp=None, fc__group_size=4, conv__up=2)
    found = read(nvidia.save(tmp_path / "a.pkl", net))
    equal(found, arrays_of(0) | {"conv.conv_clamp": np.float32(256), "fc.group_size": np.float32(4)})


def test_files_of_the_library_are_read():
    """Of torch 2.13's own tensors and storages, see golden/weights/make.py."""
    with pytest.warns(UserWarning, match="G_ema"):
        found = read(GOLDEN / "nvidia.pkl")
    np.testing.assert_array_equal(found["a.weight"], np.arange(6, dtype=np.float32).reshape(2, 3).T)
    assert found["a.conv_clamp"] == 256 and found["a.noise_strength"].shape == ()


def test_networks_of_tensorflow_are_read(tmp_path):
    own, inner = {"dlatent_avg": np.arange(3.0, dtype=np.float32)}, {"4x4/Conv/noise_strength": np.float32(0.5)}

    def value(names):
        parts = {"synthesis": nvidia.network_of(names, "G_synthesis", inner)}
        generators = [nvidia.network_of(names, name, own, parts) for name in ("G", "Gs")]
        return generators[0], nvidia.network_of(names, "D", {"Output/bias": np.ones(1, np.float32)}), generators[1]

    path = nvidia.save(tmp_path / "a.pkl", value)
    with pytest.warns(UserWarning, match="G_ema"):
        equal(read(path), own | {"synthesis/4x4/Conv/noise_strength": np.float32(0.5)})
    equal(read(path, "D"), {"Output/bias": np.ones(1, np.float32)})


CALL = b"\x80\x02c%b\n%b\nX\x04\x00\x00\x00true\x85R."
FOREIGN = [(b"os", b"system"), (b"builtins", b"eval"), (b"torch.nn", b"Linear"), (b"dnnlib.util", b"open")]


@pytest.mark.parametrize("module, name", FOREIGN)
@pytest.mark.parametrize("place", ("beside", "module_src", "inner", "inner zip"))
def test_poisoned_pickles_are_refused(tmp_path, monkeypatch, module, name, place):
    payload = CALL % (module, name)
    if place == "beside":
        (tmp_path / "a.pkl").write_bytes(payload)
    elif place == "module_src":

        class Poison:
            def __reduce__(self):
                return nvidia.Storage, (None,)  # replaced in the bytes by the foreign function

        monkeypatch.setattr(nvidia, "SOURCE", Poison())
        path = nvidia.save(tmp_path / "a.pkl", snapshot(), 2)
        path.write_bytes(path.read_bytes().replace(b"ctests.nvidia\nStorage\n", b"c%b\n%b\n" % (module, name)))
    else:
        form = "zip" if "zip" in place else "legacy"

        class Blob:
            def __reduce__(self):
                data = nvidia.inner_file(nvidia.Tensor(np.ones(2), form), None, payload)
                return nvidia.sys.modules["torch.storage"]._load_from_bytes, (data,)

        monkeypatch.setattr(nvidia, "_Inner", lambda names, data: Blob())
        monkeypatch.setattr(nvidia, "_pickler", picklers(nvidia._pickler))
        nvidia.save(tmp_path / "a.pkl", nvidia.module_of(arrays_of(0), form))
    with pytest.raises(UserError, match="refused: .* was not run") as error:
        read(tmp_path / "a.pkl")
    assert f"{module.decode()}.{name.decode()}" in str(error.value) and "\n" not in str(error.value)


def picklers(make):
    """`make`, which takes no names for the pickle of an inner file that is replaced anyway."""
    return lambda file, protocol, names: make(file, protocol, names) if names else pickle.Pickler(file, protocol)


LOAD = b"ctorch.storage\n_load_from_bytes\n"


def test_inner_files_hold_storages_and_no_inner_files(tmp_path):
    def wrapped(data):
        return LOAD + b"B" + len(data).to_bytes(4, "little") + data + b"\x85R"

    deep = b"\x80\x02" + wrapped(b"\x80\x02" + wrapped(b"\x80\x02N.") + b".") + b"."
    no_bytes = b"\x80\x02" + LOAD + b"K\x01\x85R."
    no_file = b"\x80\x02" + wrapped(b"\x80\x02N.") + b"."
    for payload, match in (
        (deep, "torch.storage._load_from_bytes"),
        (no_bytes, "not bytes"),
        (no_file, "inside a pickle that are not a file of torch"),
    ):
        (tmp_path / "a.pkl").write_bytes(payload)
        with pytest.raises(UserError, match=match):
            read(tmp_path / "a.pkl")


def test_inner_files_count_toward_the_limits_of_the_file(tmp_path):
    path = nvidia.save(tmp_path / "a.pkl", nvidia.module_of({f"b{i}.weight": np.ones(2000) for i in range(20)}))
    assert len(read(path)) == 20
    outer = sum(1 for _ in pickletools.genops(path.read_bytes()))
    for limit in (dict(opcodes=outer + 100), dict(inflation=1, inflation_floor=0), dict(names=30)):
        (field,) = limit.keys() - {"inflation_floor"}
        with pytest.raises(UserError, match=f"above the limit {field}="):
            read(path, limits=Limits(**limit))


def test_modules_without_an_end_are_refused(tmp_path):
    net = nvidia.Module()
    net.state["_modules"]["a"] = {"no": "module"}
    with pytest.raises(UserError, match="holds no arrays"):
        read(nvidia.save(tmp_path / "a.pkl", net))
    held = modules.PersistentModule({"type": "class", "state": (state := {})})
    state["_modules"] = {"a": held, "b": held}
    with pytest.raises(UserError, match="no end"):
        modules.state_dict(held)
    wide = modules.PersistentModule({"type": "class", "state": {"_buffers": {f"x{i}": None for i in range(1000)}}})
    with pytest.raises(UserError, match="above the limit names="):  # entries without numbers are walked too
        modules.state_dicts({str(i): wide for i in range(200)})


@pytest.mark.parametrize(
    "meta", (None, {}, {"type": "class"}, {"type": "function", "state": {}}, {"type": "class", "state": []})
)
def test_objects_of_another_form_are_damage(meta):
    with pytest.raises(ValueError, match="without a state"):
        modules.PersistentModule(meta)
