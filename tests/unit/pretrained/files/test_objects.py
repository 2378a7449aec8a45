"""Arrays without names: .npy, lists in pickles, tensors of torch.save."""

import io
import pickle
import struct
import zipfile

import numpy as np
import pytest

from swin_jax.core.errors import UserError
from swin_jax.pretrained.files.limits import Limits
from swin_jax.pretrained.files.objects import class_names, read_object
from tests import nvidia


def refused(path, match, **arguments):
    with pytest.raises(UserError, match=match) as error:
        read_object(path, **arguments)
    assert "\n" not in str(error.value) and str(error.value).startswith(str(path))


@pytest.mark.parametrize("order", "CF")
def test_an_array_of_numpy_is_read(tmp_path, order):
    array = np.asarray(np.arange(6, dtype=np.float32).reshape(2, 3), order=order)
    np.save(tmp_path / "a.npy", array)
    np.testing.assert_array_equal(read_object(tmp_path / "a.npy"), array)
    (tmp_path / "a.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:-1])
    refused(tmp_path / "a.npy", "has 23 bytes instead of 24")
    np.save(tmp_path / "a.npy", np.array([{}]), allow_pickle=True)
    refused(tmp_path / "a.npy", "Python objects")


@pytest.mark.parametrize("protocol", (0, 2, 4, 5))
def test_lists_of_arrays_are_read(tmp_path, protocol):
    arrays = [np.arange(3, dtype=np.float32), np.ones((2, 2))]
    path = tmp_path / "S"
    path.write_bytes(pickle.dumps([["a", "b"], tuple(arrays), {"n": np.float64(2)}, None], protocol))
    names, found, numbers, nothing = read_object(path)
    assert names == ["a", "b"] and numbers == {"n": 2} and nothing is None
    for ours, theirs in zip(found, arrays, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_tensor_alone_is_read(tmp_path):
    """A file of torch.save with one tensor, as latents.pt is."""
    array = np.arange(12, dtype=np.float32).reshape(2, 2, 3)
    stored = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x0ctQ"
    data = (
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n("
        + stored
        + b"K\x00K\x02K\x02K\x03\x87K\x06K\x03K\x01\x87\x89NtR."
    )
    with zipfile.ZipFile(tmp_path / "latents.pt", "w") as archive:
        archive.writestr("latents/data.pkl", data)
        archive.writestr("latents/data/0", array.tobytes())
    np.testing.assert_array_equal(read_object(tmp_path / "latents.pt"), array)
    nvidia.save(tmp_path / "plain.pkl", [nvidia.Tensor(array)])
    np.testing.assert_array_equal(read_object(tmp_path / "plain.pkl")[0], array)


def test_what_is_no_array_is_refused(tmp_path):
    path = tmp_path / "a.pt"
    path.write_bytes(b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R.")
    refused(path, "os.system.* was not run")
    path.write_bytes(pickle.dumps([{1, 2}]))
    refused(path, "holds a set; only arrays")
    path.write_bytes(b"no pickle")
    refused(path, "not a file of arrays")
    np.savez(tmp_path / "a.npz", a=np.ones(1))
    refused(tmp_path / "a.npz", "archive of named arrays")
    refused(tmp_path / "none.npy", "No such file")
    refused(tmp_path, "folder")


def test_objects_keep_the_limits(tmp_path):
    held: list = []
    held.append(held)
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps(held))
    refused(path, "above the limit depth=100")
    doubled = [1]
    for _ in range(40):
        doubled = [doubled, doubled]
    path.write_bytes(pickle.dumps(doubled))
    refused(path, "above the limit names=")
    buffer = io.BytesIO()
    np.save(buffer, np.ones(4))
    header = buffer.getvalue().replace(b"(4,)", b"(" + b"9" * 18 + b",)")
    path.write_bytes(header[:8] + struct.pack("<H", len(header) - 10 - 32) + header[10:])
    refused(path, "instead of")
    path.write_bytes(pickle.dumps([[[np.ones(2)]]]))
    refused(path, "above the limit depth=2", limits=Limits(depth=2))


@pytest.mark.parametrize("meta", [{"CLASSES": ("wall", "bed ")}, {"dataset_meta": {"classes": ["wall", "bed"]}}])
def test_class_names_of_openmmlab_are_found_beside_the_arrays(tmp_path, meta):
    path = tmp_path / "a.pth"
    path.write_bytes(pickle.dumps({"state_dict": {"a": np.ones(2)}, "meta": {"mmcv_version": "1.3.0", **meta}}))
    assert class_names(path) == ("wall", "bed")


@pytest.mark.parametrize(
    "value", [{"meta": {"CLASSES": [1, 2]}}, {"meta": "CLASSES"}, [np.ones(1)], {"CLASSES": ("a",)}]
)
def test_files_that_tell_no_class_names_have_none(tmp_path, value):
    (tmp_path / "a.pth").write_bytes(pickle.dumps(value))
    assert class_names(tmp_path / "a.pth") == ()
    (tmp_path / "torn.pth").write_bytes(pickle.dumps(value)[:-3])
    assert class_names(tmp_path / "torn.pth") == class_names(tmp_path / "none.pth") == ()
