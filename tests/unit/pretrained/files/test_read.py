"""Reading weights: every format gives the same arrays, and no file makes us run its code."""

import datetime
import json
import os
import pickle
import pickletools
import struct
import sys
import types
import zipfile
from collections import Counter
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from swin_jax.core.errors import UserError
from swin_jax.pretrained.files.read import read

WEIGHTS = Path(__file__).resolve().parents[3] / "golden" / "weights"
DTYPES = {
    "half": np.float16,
    "bfloat": ml_dtypes.bfloat16,
    "double": np.float64,
    "index": np.int64,
    "byte": np.uint8,
    "flag": np.bool_,
}


def expected():
    with np.load(WEIGHTS / "expected.npz") as archive:
        return {name: archive[name] for name in archive.files}


def save_zip(path, payload: bytes, entries=()):
    """A file as torch.save writes it, with any pickle inside."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", payload)
        for name, data in entries:
            archive.writestr(f"archive/{name}", data)
    return path


@pytest.mark.parametrize("file", ["zip.pth", "legacy.pth", "distributed.pth", "plain.safetensors"])
def test_every_format_gives_the_same_arrays(file):
    found, wanted = read(WEIGHTS / file), expected()
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        assert found[name].dtype == DTYPES.get(name, np.float32), name
        np.testing.assert_array_equal(found[name].astype(array.dtype), array, err_msg=name)


def test_npz_round_trip(tmp_path):
    np.savez(tmp_path / "w.npz", **{"a.b": np.arange(3), "c": np.float32(2)})
    found = read(tmp_path / "w.npz")
    assert found.keys() == {"a.b", "c"} and found["c"].shape == ()
    np.testing.assert_array_equal(found["a.b"], np.arange(3))


@pytest.mark.parametrize("protocol", range(2, 6))
def test_plain_pickles_of_numpy_arrays_are_read(tmp_path, protocol):
    arrays = {"x": np.arange(6.0).reshape(2, 3).T, "big": np.arange(3, dtype=">i4"), "n": np.float32(1.5), "s": "text"}
    (tmp_path / "w.pkl").write_bytes(pickle.dumps({"model": arrays, "epoch": 3}, protocol))
    found = read(tmp_path / "w.pkl")
    assert found.keys() == {"x", "big"}
    np.testing.assert_array_equal(found["x"], arrays["x"])
    np.testing.assert_array_equal(found["big"], [0, 1, 2])


def test_another_entry_can_be_taken(tmp_path):
    (tmp_path / "w.pkl").write_bytes(pickle.dumps({"model": {"a": np.zeros(1)}, "ema": {"a": np.ones(1)}}))
    assert read(tmp_path / "w.pkl")["a"] == 0
    assert read(tmp_path / "w.pkl", key="ema")["a"] == 1
    with pytest.raises(UserError, match="no dict under 'other'; its entries are model, ema"):
        read(tmp_path / "w.pkl", key="other")


def test_prefixes_are_taken_off_only_where_every_name_has_them(tmp_path):
    np.savez(tmp_path / "all.npz", **{"_orig_mod.module.a": np.zeros(1), "_orig_mod.module.b": np.zeros(1)})
    np.savez(tmp_path / "some.npz", **{"module.a": np.zeros(1), "b": np.zeros(1)})
    assert read(tmp_path / "all.npz").keys() == {"a", "b"}
    assert read(tmp_path / "some.npz").keys() == {"module.a", "b"}


class Poison:
    """Pickles as a call of any function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def poisons(target):
    touch = f"touch {target}"
    yield "posix.system", pickle.dumps({"model": Poison(os.system, touch)}, 2)
    yield "builtins.eval", pickle.dumps({"model": Poison(eval, f"open({str(target)!r}, 'w')")}, 4)
    yield "builtins.exec", pickle.dumps({"model": Poison(exec, f"open({str(target)!r}, 'w')")}, 0)
    yield "builtins.getattr", pickle.dumps(Poison(getattr, "", "join"), 2)
    yield "io.open", pickle.dumps(Poison(open, str(target), "w"), 2)
    # A dotted name below an allowed module, by STACK_GLOBAL.
    yield "dotted name", b"\x80\x04\x8c\x0bcollections\x8c\x0f_sys.modules.get\x93\x8c\x02os\x85R."
    # Allowed functions and stand-ins must not be changed: BUILD on each of them.
    yield "state of a function", b"\x80\x02ccollections\nOrderedDict\n}X\x01\x00\x00\x00aK\x01sb."
    yield "state of a class", b"\x80\x02cyacs.config\nCfgNode\n}X\x01\x00\x00\x00aK\x01sb."


@pytest.mark.parametrize("number", range(8))
@pytest.mark.parametrize("container", ["zip", "stream"])
def test_a_poisoned_pickle_is_refused_and_nothing_runs(tmp_path, number, container):
    target = tmp_path / "touched"
    name, payload = list(poisons(target))[number]
    path = tmp_path / "w.pth"
    if container == "zip":
        save_zip(path, payload)
    else:
        path.write_bytes(payload)
    with pytest.raises(UserError) as error:
        read(path)
    assert not target.exists(), name
    assert str(path) in str(error.value) and "\n" not in str(error.value)
    if "." in name:
        assert f"refused: the file wants {name}, " in str(error.value).replace("__builtin__", "builtins")


def test_the_poison_would_work_elsewhere(tmp_path):
    """The check above means something: Python's own unpickler runs the command."""
    target = tmp_path / "touched"
    pickle.loads(next(poisons(target))[1])
    assert target.exists()


def test_a_whole_module_is_refused_and_a_script_gives_its_weights():
    with pytest.raises(UserError, match=r"refused: the file wants torch\.nn\.modules\.linear\.Linear"):
        read(WEIGHTS / "whole_module.pth")
    found = read(WEIGHTS / "torchscript.pt")
    assert {name: value.shape for name, value in found.items()} == {"weight": (1, 1), "bias": (1,)}


def test_arrays_of_objects_are_refused(tmp_path):
    np.savez(tmp_path / "w.npz", a=np.array([{}], object))
    (tmp_path / "w.pkl").write_bytes(pickle.dumps({"a": np.array([{}], object)}))
    for file in ("w.npz", "w.pkl"):
        with pytest.raises(UserError):
            read(tmp_path / file)


@pytest.mark.parametrize("file", ["zip.pth", "legacy.pth", "plain.safetensors", "expected.npz"])
def test_truncated_files_are_one_clear_line(tmp_path, file):
    data = (WEIGHTS / file).read_bytes()
    for keep in (0, 1, 5, 12, len(data) // 4, len(data) // 2, len(data) - 8):
        (tmp_path / file).write_bytes(data[:keep])
        with pytest.raises(UserError) as error:
            read(tmp_path / file)
        assert file in str(error.value) and "\n" not in str(error.value)


def test_flipped_bytes_never_escape_as_another_error(tmp_path):
    rng = np.random.default_rng(0)
    for file in ("zip.pth", "legacy.pth", "plain.safetensors"):
        data = bytearray((WEIGHTS / file).read_bytes())
        for _ in range(150):
            broken = bytearray(data)
            broken[rng.integers(len(data))] ^= 1 << rng.integers(8)
            (tmp_path / file).write_bytes(broken)
            try:
                read(tmp_path / file)
            except UserError as error:
                assert file in str(error)


@pytest.mark.parametrize(
    "offset, size, stride", [(0, (5,), (1,)), (3, (2,), (1,)), (0, (2, 2), (1, 3)), (-1, (1,), (1,)), (0, (2,), (-1,))]
)
def test_a_tensor_never_reaches_past_its_storage(tmp_path, offset, size, stride):
    def number(n):
        return b"K" + bytes([n]) if n >= 0 else b"J" + struct.pack("<i", n)

    def numbers(values):
        return b"(" + b"".join(map(number, values)) + b"t"

    def text(word):
        return b"X" + struct.pack("<I", len(word)) + word.encode()

    storage = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + number(4) + b"tQ"
    rest = number(offset) + numbers(size) + numbers(stride) + b"\x89N"
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + rest + b"tR"
    payload = b"\x80\x02}" + text("a") + tensor + b"s."
    assert len(list(pickletools.genops(payload))) > 10  # a well-formed pickle
    path = save_zip(tmp_path / "w.pth", payload, [("data/0", np.arange(4, dtype=np.float32).tobytes())])
    with pytest.raises(UserError):
        read(path)


def test_a_safetensors_entry_outside_the_file_is_an_error(tmp_path):
    header = json.dumps({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    for data, fits in ((bytes(8), True), (bytes(7), False)):
        (tmp_path / "w.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + data)
        if fits:
            assert read(tmp_path / "w.safetensors")["a"].shape == (2,)
        else:
            with pytest.raises(UserError, match="outside the file"):
                read(tmp_path / "w.safetensors")


def test_files_without_weights(tmp_path):
    (tmp_path / "a.pth").write_text("<html>Not found</html>")
    (tmp_path / "b.pkl").write_bytes(pickle.dumps({"epoch": 3, "lr": 0.1}))
    (tmp_path / "c.pkl").write_bytes(pickle.dumps([1, 2]))
    for file, message in (
        ("a.pth", "not a file of weights"),
        ("b.pkl", "holds no arrays; its entries are epoch, lr"),
        ("c.pkl", r"holds no arrays by name: it is a list, .*; save the model's state_dict\(\)"),
        ("d.pth", "No such file"),
        ("", "cannot be read"),
    ):
        with pytest.raises(UserError, match=message):
            read(tmp_path / file)


@pytest.mark.parametrize("protocol", range(2, 6))
def test_settings_of_training_scripts_are_passed_over(tmp_path, monkeypatch, protocol):
    """As Lightning, OmegaConf and others leave them beside the weights."""
    settings = {"when": datetime.datetime(2026, 1, 1), "where": Path("output"), "counts": Counter("ab")}
    for module, name in (("lightning_fabric.utilities.data", "AttributeDict"), ("omegaconf.dictconfig", "DictConfig")):
        kind = type(name, (dict,), {"__module__": module})
        parts = module.split(".")
        for end in range(len(parts)):  # pickle imports the packages around it as well
            monkeypatch.setitem(sys.modules, ".".join(parts[: end + 1]), types.SimpleNamespace(**{name: kind}))
        settings[name] = kind({"lr": 0.1, "size": [1, 2]})
        settings[name].__dict__["frozen"] = True
    checkpoint = {"state_dict": {"a": np.ones(1)}, "hyper_parameters": settings, "callbacks": {"x": {"b": np.ones(1)}}}
    (tmp_path / "w.ckpt").write_bytes(pickle.dumps(checkpoint, protocol))
    assert read(tmp_path / "w.ckpt").keys() == {"a"}


def test_the_average_of_a_generator_goes_first_and_takes_its_mean_latent_along(tmp_path):
    nets = {name: {"w": np.full(2, number)} for number, name in enumerate(("g", "d", "g_ema"))}
    checkpoint = {**nets, "latent_avg": np.arange(3), "g_optim": {"state": {0: {"exp_avg": np.ones(2)}}}}
    (tmp_path / "w.pkl").write_bytes(pickle.dumps(checkpoint))
    with pytest.warns(UserWarning, match="took the weights under g_ema; key= selects those under g, d"):
        found = read(tmp_path / "w.pkl")
    assert found.keys() == {"w", "latent_avg"} and found["w"][0] == 2
    assert read(tmp_path / "w.pkl", "d")["w"][0] == 1
    inside = {"state_dict": {"decoder.w": np.ones(1), "encoder.w": np.zeros(1)}, "latent_avg": np.arange(3), "opts": {}}
    (tmp_path / "e.pkl").write_bytes(pickle.dumps(inside))
    assert read(tmp_path / "e.pkl").keys() == {"decoder.w", "encoder.w", "latent_avg"}
    assert read(tmp_path / "e.pkl", "decoder").keys() == {"w", "latent_avg"}


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32])
@pytest.mark.parametrize("kind", ["pickle", "npz"])
def test_quantized_weights_are_not_taken_for_numbers(tmp_path, dtype, kind):
    """Their scales may lie elsewhere; buffers and tables of indices are whole numbers by right."""
    index = {"attn.relative_position_index": np.arange(4).reshape(2, 2), "bn.num_batches_tracked": np.full((), 3)}
    weights = {"head.bias": np.ones(2, np.float32), "head.weight": np.ones((2, 3), np.float32), **index}
    path = tmp_path / kind

    def save(arrays):
        if kind == "npz":
            with path.open("wb") as file:
                np.savez(file, **arrays)
        else:
            path.write_bytes(pickle.dumps(arrays))

    save(weights)
    assert set(read(path)) == set(weights)
    save(weights | {"head.weight": np.ones((2, 3), dtype)})
    says = f"head.weight holds {np.dtype(dtype)}, so these weights are quantized"
    with pytest.raises(UserError, match=says) as error:
        read(path)
    assert "\n" not in str(error.value)
