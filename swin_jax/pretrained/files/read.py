"""Reads files of weights into numpy arrays, whatever wrote them, without PyTorch and without running foreign code.

.pth, .pt and .pkl (see unpickle.py; TorchScript archives too), .safetensors and .npz; told apart by their content, not
by their name.
"""

import json
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np

from swin_jax.core.errors import UserError
from swin_jax.pretrained import compare
from swin_jax.pretrained.files import unpickle

# Where checkpoints keep the weights, in the order of preference.
WRAPPERS = ("model", "state_dict", "module", "model_state", "model_state_dict")

_SAFETENSORS_DTYPES = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U64": np.dtype("<u8"),
    "U32": np.dtype("<u4"),
    "U16": np.dtype("<u2"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}


def read(path, key: str | None = None) -> dict[str, np.ndarray]:
    """Reads the weights of a .pth, .pt, .pkl, .safetensors or .npz file.

    Of a checkpoint that holds more than weights, the entry `model`, `state_dict`, `module` or `model_state` is taken
    and the rest (optimizer, configuration) is dropped. Prefixes that wrappers put before every name are taken off.

    Args:
        path: the file.
        key: another entry to take, such as 'model_ema'.

    Returns:
        {name: array}; names and layout are the file's, arrays are read-only and may share memory, dtypes are kept
        (bfloat16 is `ml_dtypes.bfloat16`, which numpy converts with `astype`).

    Raises:
        UserError: no such file, a truncated or foreign one, one without arrays, or a pickle that wants to run code.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            arrays, outline = _read_open(file, path.stat().st_size, key)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    except Exception as error:  # whatever a damaged file provokes in the readers
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"{path}: not a file of weights (.pth .pt .pkl .safetensors .npz), or a damaged one: {reason}"
        ) from error
    if not arrays:
        raise UserError(f"{path}: holds no arrays{outline}")
    return compare.strip_wrappers(arrays)


def is_torchscript(path) -> bool:
    """Whether a file is an archive of `torch.jit.save`."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.split("/")[-1] == "constants.pkl" for name in archive.namelist())


def _read_open(file, size: int, key: str | None) -> tuple[dict, str]:
    """(arrays, what the file holds at its top, for an error message)."""
    head = file.read(9)
    file.seek(0)
    if head[:4] == b"PK\x03\x04":
        with zipfile.ZipFile(file) as archive:
            if any(name.endswith("data.pkl") for name in archive.namelist()):
                return _arrays(*unpickle.read_zip(archive), key)
        file.seek(0)
        with np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}, ""
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= size - 8:
        return _read_safetensors(file), ""
    return _arrays(*unpickle.read_stream(file), key)


def _read_safetensors(file) -> dict[str, np.ndarray]:
    header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    data = file.read()
    arrays = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        if entry["dtype"] not in _SAFETENSORS_DTYPES:
            raise UserError(f"{name} is {entry['dtype']}, which numpy does not have")
        begin, end = entry["data_offsets"]
        if not 0 <= begin <= end <= len(data):
            raise ValueError(f"{name} lies outside the file")
        arrays[name] = np.frombuffer(data[begin:end], _SAFETENSORS_DTYPES[entry["dtype"]]).reshape(entry["shape"])
    return arrays


def _arrays(value, read_storage, key: str | None) -> tuple[dict, str]:
    """The arrays of an unpickled object: finds the dict of weights, then reads the storages that it needs."""
    if not isinstance(value, dict):
        return {}, f": it is a {type(value).__name__}, not a dict of arrays"
    outline = f"; its entries are {', '.join(map(str, list(value)[:8]))}"
    if key is not None:
        if not isinstance(value.get(key), dict):
            raise UserError(f"no dict under {key!r}{outline}")
        value = value[key]
    while wrapper := next((name for name in WRAPPERS if _holds_arrays(value.get(name))), None):
        value = value[wrapper]
    arrays = {}
    for name, leaf in value.items():
        if isinstance(leaf, unpickle.Tensor):
            if leaf.storage.data is None:
                leaf.storage.data = read_storage(leaf.storage)
            arrays[str(name)] = leaf.array()
        elif isinstance(leaf, unpickle.NumpyArray) and isinstance(leaf.value, np.ndarray):
            arrays[str(name)] = leaf.value
    return arrays, outline


def _holds_arrays(value) -> bool:
    """Whether a dict holds arrays, or holds one that does under one of the known names."""
    if not isinstance(value, dict):
        return False
    leaves = (unpickle.Tensor, unpickle.NumpyArray)
    return any(isinstance(leaf, leaves) for leaf in value.values()) or any(
        _holds_arrays(value.get(name)) for name in WRAPPERS
    )
