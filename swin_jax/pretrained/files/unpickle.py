"""PyTorch's files without PyTorch: what their pickles may name, and the storages behind them.

The formats are those of `torch.save`: a zip archive (data.pkl and data/<key>), the older stream of pickles, and plain
pickles of numpy arrays; and those of `torch.jit.save`, whose data.pkl holds a tree of modules in place of a dict and
whose code is left alone. A pickle may name any function to be called; here a name is looked up in the tables below and
nothing is ever imported. Peer: `torch.load`, whose files stand in tests/golden/weights.
"""

import functools
import io
import math
import re
import struct
from collections.abc import Callable
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

from swin_jax.core.errors import UserError
from swin_jax.pretrained.files.archive import Archive
from swin_jax.pretrained.files.limits import DEFAULT, Budget, Limits
from swin_jax.pretrained.files.pickles import Counter, Pickle, Sealed, ordered_dict

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of torch's older format

_DTYPES = {
    "float64": np.dtype("<f8"),
    "float32": np.dtype("<f4"),
    "float16": np.dtype("<f2"),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "int64": np.dtype("<i8"),
    "int32": np.dtype("<i4"),
    "int16": np.dtype("<i2"),
    "int8": np.dtype("i1"),
    "uint8": np.dtype("u1"),
    "bool": np.dtype("?"),
    "complex64": np.dtype("<c8"),
    "complex128": np.dtype("<c16"),
}
_STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
    "UntypedStorage": "uint8",
}
# Settings that training scripts leave beside the weights. They become stand-ins that hold nothing.
_SETTINGS = {
    ("yacs.config", "CfgNode"),
    ("argparse", "Namespace"),
    ("types", "SimpleNamespace"),
    ("easydict", "EasyDict"),
    ("addict.addict", "Dict"),
    ("mmcv.utils.config", "ConfigDict"),
    ("mmengine.config.config", "ConfigDict"),
    ("ml_collections.config_dict.config_dict", "ConfigDict"),
    ("lightning_fabric.utilities.data", "AttributeDict"),
    ("lightning.fabric.utilities.data", "AttributeDict"),
    ("lightning.pytorch.utilities.parsing", "AttributeDict"),
    ("pytorch_lightning.utilities.parsing", "AttributeDict"),
    ("pytorch_lightning.callbacks.model_checkpoint", "ModelCheckpoint"),
    ("omegaconf.dictconfig", "DictConfig"),
    ("omegaconf.listconfig", "ListConfig"),
    ("omegaconf.base", "ContainerMetadata"),
    ("omegaconf.base", "Metadata"),
    *(("omegaconf.nodes", f"{kind}Node") for kind in ("Any", "Boolean", "Float", "Integer", "String")),
    ("typing", "Any"),
    ("datetime", "datetime"),
    ("datetime", "timedelta"),
    ("collections", "Counter"),
    ("collections", "defaultdict"),
    *(
        (module, f"{kind}Path")
        for module in ("pathlib", "pathlib._local")
        for kind in ("Posix", "PurePosix", "Windows")
    ),
    ("torch", "device"),
    ("torch", "Generator"),
}


class Storage:
    """The numbers behind one or more tensors; read when a tensor that is wanted needs them."""

    def __init__(self, key: str, dtype: str, size: int):
        self.key, self.dtype, self.size, self.data = key, dtype, size, None

    def array(self, dtype: str) -> np.ndarray:
        return np.frombuffer(self.data, _DTYPES[dtype])


def _are_sizes(values: tuple) -> bool:
    return all(type(value) is int and 0 <= value < 2**63 for value in values)


class Tensor:
    """A view of a storage: element offset, shape and strides."""

    def __init__(self, storage: Storage, offset: int, size: tuple, stride: tuple, dtype: str | None = None):
        if not isinstance(storage, Storage):
            raise ValueError("a tensor without a storage")
        self.storage, self.offset, self.size, self.stride = storage, offset, tuple(size), tuple(stride)
        self.dtype = storage.dtype if dtype is None else dtype
        if not _are_sizes((offset, *self.size, *self.stride)) or len(self.size) != len(self.stride):
            raise ValueError("a tensor with a size or stride that is none")
        if not isinstance(self.dtype, str) or self.dtype not in _DTYPES:
            raise ValueError("a tensor of no dtype")

    def array(self, budget: Budget, limits: Limits) -> np.ndarray:
        """The tensor as a read-only array; its storage must have been read.

        Strides may be 0 and storages may be shared, so that it can be larger than what the file holds: the bytes that
        a copy of it takes are counted.
        """
        limits.check("axes", len(self.size), "a tensor of more axes")
        flat = self.storage.array(self.dtype)
        if 0 in self.size:
            return np.zeros(self.size, flat.dtype)
        if self.offset + sum((n - 1) * s for n, s in zip(self.size, self.stride)) >= flat.size:
            raise ValueError(f"a tensor that reaches past its storage of {flat.size} elements")
        budget.take(math.prod(self.size) * flat.itemsize, "a tensor")
        strides = [s * flat.itemsize for s in self.stride]
        return np.lib.stride_tricks.as_strided(flat[self.offset :], self.size, strides, writeable=False)


class NumpyArray:
    """What stands for a pickled numpy array or dtype: numpy's own reconstruction trusts its input too much."""

    def __init__(self, *arguments):
        self.value = None
        if arguments and isinstance(arguments[0], str):
            if not re.fullmatch(r"[<>=|]?[a-zA-Z?]\d{0,9}(\[\w{1,9}\])?", arguments[0]):
                raise ValueError("a numpy array of no simple dtype")
            self.value = np.dtype(arguments[0])
            if self.value.hasobject:
                raise UserError("refused: a numpy array of Python objects; save numbers only")

    def __setstate__(self, state):
        if self.value is not None:  # a dtype: (version, byte order, ...)
            self.value = self.value.newbyteorder(state[1]) if state[1] in ("<", ">") else self.value
            return
        _, shape, dtype, fortran, data = state
        self.value = _filled(data, dtype, shape, "F" if fortran else "C")


def _filled(data: Any, dtype: Any, shape: Any, order: str) -> np.ndarray:
    """The array of these bytes."""
    if not isinstance(dtype, NumpyArray) or not isinstance(dtype.value, np.dtype):
        raise ValueError("a numpy array of no dtype")
    if not isinstance(shape, tuple) or len(shape) > 64 or not _are_sizes(shape):
        raise ValueError("a numpy array with a size that is none")
    data = data.encode("latin1") if isinstance(data, str) else data
    if math.prod(shape) == 0:
        return np.zeros(shape, dtype.value)
    return np.frombuffer(data, dtype.value).reshape(shape, order=order)


def _scalar(dtype, data):
    """numpy.core.multiarray.scalar: one number from its bytes."""
    return _filled(data, dtype, (1,), "C")[0]


def _from_buffer(data, dtype, shape, order):
    """numpy.core.numeric._frombuffer: an array in pickle protocol 5."""
    array = NumpyArray()
    array.value = _filled(data, dtype, shape, "F" if order == "F" else "C")
    return array


def _from_type(function, kind, arguments, state):
    """torch._tensor._rebuild_from_type_v2: a tensor with Python attributes, which are left out."""
    return function(*arguments)


_FUNCTIONS = {
    ("collections", "OrderedDict"): ordered_dict,
    ("builtins", "set"): lambda *_: set(),  # empty, as in `files.pickles`
    ("builtins", "frozenset"): lambda *_: frozenset(),
    ("builtins", "complex"): complex,
    ("_codecs", "encode"): lambda text, encoding="latin1": text.encode("latin1"),
    ("torch", "Size"): tuple,
    ("torch._utils", "_rebuild_tensor"): Tensor,
    ("torch._utils", "_rebuild_tensor_v2"): lambda *a: Tensor(*a[:4]),
    ("torch._utils", "_rebuild_tensor_v3"): lambda *a: Tensor(*a[:4], a[6]),
    ("torch._utils", "_rebuild_parameter"): lambda *a: a[0],
    ("torch._utils", "_rebuild_parameter_with_state"): lambda *a: a[0],
    ("torch._tensor", "_rebuild_from_type_v2"): _from_type,
    ("numpy", "dtype"): NumpyArray,
    ("numpy.core.multiarray", "_reconstruct"): lambda *a: NumpyArray(),
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
}
# What TorchScript wraps lists and containers in.
_SCRIPT_FUNCTIONS = {
    ("torch.jit._pickle", name): lambda value, *_: value
    for name in ("build_intlist", "build_doublelist", "build_boollist", "build_tensorlist", "restore_type_tag")
}
# Classes that are only named, as arguments of the functions above.
_MARKERS = {("numpy", "ndarray"), ("torch", "Tensor"), ("torch.nn.parameter", "Parameter"), ("torch", "strided")}


@functools.cache
def stand_in(module: str, name: str) -> type:
    """A class that takes whatever a pickle does to `module.name`, keeps nothing and does nothing."""

    class Settings(dict):
        def __new__(cls, *arguments, **keywords):
            return super().__new__(cls)

        def __init__(self, *arguments, **keywords):
            super().__init__()

        def __setitem__(self, key, value):
            pass

        def __setstate__(self, state):
            pass

    Settings.__name__ = Settings.__qualname__ = name
    return Settings


class ScriptModule:
    """What stands for a module of a TorchScript archive: the dict of its attributes, submodules among them."""

    attributes: dict = {}  # of a module without a state; never written to

    def __setstate__(self, state):
        if not isinstance(state, dict):
            raise ValueError("a TorchScript module with a state of its own making")
        self.attributes = state


def state_dict(module: ScriptModule, limits: Limits = DEFAULT) -> dict[str, Tensor]:
    """{name: tensor} of a tree of modules, names joined by dots as in `torch.nn.Module.state_dict`.

    Raises:
        UserError: More modules and tensors than the limits allow. A module may hold itself, or the same two modules at
            every level.
    """
    found, count = {}, 0
    open_nodes = [("", module, 0)]
    while open_nodes:
        prefix, node, depth = open_nodes.pop()
        limits.check("depth", depth, "a TorchScript archive whose modules have no end")
        children = []
        for name, value in node.attributes.items():
            if not isinstance(name, str) or not isinstance(value, (Tensor, ScriptModule)):
                continue
            count += 1
            limits.check("names", count, "a TorchScript archive whose modules have no end")
            limits.check("name_length", len(prefix) + len(name), "a tensor with a longer name")
            if isinstance(value, Tensor):
                found[f"{prefix}{name}"] = value
            else:
                children.append((f"{prefix}{name}.", value, depth + 1))
        open_nodes += reversed(children)
    return found


class _Names:
    """What the pickles of one file may name, and the storages that they have named.

    Args:
        script: True for a TorchScript archive, whose own classes then become `ScriptModule`.
    """

    def __init__(self, script: bool = False):
        self.storages: dict[str, Storage] = {}
        self._script = script

    def find(self, module: str, name: str) -> Any:
        plain = (module.replace("numpy._core", "numpy.core").replace("__builtin__", "builtins"), name)
        if plain in _FUNCTIONS:
            return Sealed(_FUNCTIONS[plain])
        if plain in _SETTINGS:
            return stand_in(*plain)
        if self._script and plain in _SCRIPT_FUNCTIONS:
            return Sealed(_SCRIPT_FUNCTIONS[plain])
        if self._script and module.split(".")[0] == "__torch__":
            return ScriptModule
        if plain in _MARKERS:
            return name
        if module in ("torch", "torch.storage") and name in _STORAGES:
            return _STORAGES[name]
        if module == "torch" and name in _DTYPES:
            return name
        raise UserError(
            f"refused: the file wants {f'{module}.{name}'[:200]}, which is not needed to hold weights and was not run; "
            "save a state dict instead, torch.save(model.state_dict(), path)"
        )

    def storage(self, pid: Any) -> Storage:
        if not isinstance(pid, tuple) or len(pid) < 5:
            raise ValueError("an unknown kind of storage")
        kind, dtype, key, _, size = pid[:5]
        if not isinstance(kind, str) or kind != "storage" or not isinstance(dtype, str) or dtype not in _DTYPES:
            raise ValueError("an unknown kind of storage")
        if not isinstance(key, (str, int)) or type(size) is not int or size < 0:
            raise ValueError("a storage without a name or a size")
        if len(pid) > 5 and pid[5] is not None:
            raise ValueError("a storage that is a view of another, as torch before 0.4 wrote them")
        return self.storages.setdefault(str(key), Storage(str(key), dtype, size))


def _load(file: BinaryIO, names: _Names, counter: Counter) -> Any:
    return Pickle(file, names.find, names.storage, (NumpyArray, ScriptModule), counter).load()


Read = Callable[[Storage], bytes]


def read_zip(archive: Archive, limits: Limits, budget: Budget) -> tuple[Any, Read]:
    """The object in a zip file of `torch.save`, and a function that reads a storage's bytes."""
    root = archive.find("data.pkl")[: -len("data.pkl")]
    if root + "byteorder" in archive.names and archive.read(root + "byteorder") != b"little":
        raise UserError("written on a big-endian machine; save it again on a little-endian one")
    names = _Names(script=root + "constants.pkl" in archive.names)
    value = _load(io.BytesIO(archive.read(root + "data.pkl")), names, Counter(limits, budget))
    value = state_dict(value, limits) if isinstance(value, ScriptModule) else value
    return value, lambda storage: archive.read(f"{root}data/{storage.key}")


def read_stream(file: BinaryIO, limits: Limits, budget: Budget) -> tuple[Any, Read | None]:
    """The object in a plain pickle or in torch's older format, and a function that reads a storage's bytes."""
    counter, names = Counter(limits, budget), _Names()
    value = _load(file, names, counter)
    if type(value) is not int or value != LEGACY_MAGIC:
        return value, None
    _load(file, names, counter)  # protocol version
    system = _load(file, names, counter)
    if not system.get("little_endian", True):
        raise UserError("written on a big-endian machine; save it again on a little-endian one")
    value = _load(file, names, counter)
    places = {}
    for key in _load(file, names, counter):
        if not isinstance(key, (str, int)):
            raise ValueError("a storage without a name")
        storage = names.storages[str(key)]
        (size,) = struct.unpack("<q", file.read(8))
        if size != storage.size:
            raise ValueError(f"storage {str(key)[:50]} has {size} elements instead of {storage.size}")
        places[str(key)] = file.tell(), size * _DTYPES[storage.dtype].itemsize
        file.seek(places[str(key)][1], 1)
    end = file.tell()
    if file.seek(0, 2) < end:
        raise ValueError("the end is missing")

    def read_storage(storage: Storage) -> bytes:
        start, length = places[storage.key]
        file.seek(start)
        return file.read(length)

    return value, read_storage
