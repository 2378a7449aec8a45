"""PyTorch's files without PyTorch: a pickle reader that runs no foreign code, and the storages behind it.

The formats are those of `torch.save`: a zip archive (data.pkl and data/<key>), the older stream of pickles, and plain
pickles of numpy arrays; and those of `torch.jit.save`, whose data.pkl holds a tree of modules in place of a dict and
whose code is left alone. A pickle may name any function to be called; here a name is looked up in the tables below and
nothing is ever imported. Peer: `torch.load`, whose files stand in tests/golden/weights.
"""

import pickle
import struct
import zipfile
from collections import OrderedDict
from typing import BinaryIO

import ml_dtypes
import numpy as np

from swin_jax.core.errors import UserError

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
    ("collections", "defaultdict"),
    ("pathlib", "PosixPath"),
    ("pathlib", "PurePosixPath"),
    ("pathlib", "WindowsPath"),
    ("torch", "device"),
    ("torch", "Generator"),
}


class Storage:
    """The numbers behind one or more tensors; read when a tensor that is wanted needs them."""

    def __init__(self, key: str, dtype: str, size: int):
        self.key, self.dtype, self.size, self.data = key, dtype, size, None

    def array(self, dtype: str) -> np.ndarray:
        return np.frombuffer(self.data, _DTYPES[dtype])


class Tensor:
    """A view of a storage: element offset, shape and strides."""

    def __init__(self, storage: Storage, offset: int, size: tuple, stride: tuple, dtype: str | None = None):
        if not isinstance(storage, Storage):
            raise ValueError("a tensor without a storage")
        self.storage, self.offset, self.size, self.stride = storage, offset, tuple(size), tuple(stride)
        self.dtype = dtype or storage.dtype

    def array(self) -> np.ndarray:
        """The tensor as a read-only array; its storage must have been read."""
        flat = self.storage.array(self.dtype)
        if min((self.offset, *self.size, *self.stride)) < 0 or len(self.size) != len(self.stride):
            raise ValueError("a tensor with a negative size or stride")
        last = self.offset + sum((n - 1) * s for n, s in zip(self.size, self.stride))
        if 0 not in self.size and last >= flat.size:
            raise ValueError(f"a tensor that reaches past its storage of {flat.size} elements")
        if 0 in self.size:
            return np.zeros(self.size, flat.dtype)
        strides = [s * flat.itemsize for s in self.stride]
        return np.lib.stride_tricks.as_strided(flat[self.offset :], self.size, strides, writeable=False)


class NumpyArray:
    """What stands for a pickled numpy array or dtype: numpy's own reconstruction trusts its input too much."""

    def __init__(self, *arguments):
        self.value = np.dtype(arguments[0]) if arguments and isinstance(arguments[0], str) else None
        if self.value is not None and self.value.hasobject:
            raise UserError("refused: a numpy array of Python objects; save numbers only")

    def __setstate__(self, state):
        if self.value is not None:  # a dtype: (version, byte order, ...)
            self.value = self.value.newbyteorder(state[1]) if state[1] in "<>" else self.value
            return
        _, shape, dtype, fortran, data = state
        data = data.encode("latin1") if isinstance(data, str) else data
        self.value = np.frombuffer(data, dtype.value).reshape(shape, order="F" if fortran else "C")


class Sealed:
    """A function that a pickle may call, wrapped so that the pickle cannot change it."""

    __slots__ = ("_function",)

    def __init__(self, function):
        self._function = function

    def __call__(self, *arguments):
        return self._function(*arguments)

    def __setstate__(self, state):
        raise UserError("refused: the file tries to change a function of the reader")


def _scalar(dtype, data):
    """numpy.core.multiarray.scalar: one number from its bytes."""
    data = data.encode("latin1") if isinstance(data, str) else data
    return np.frombuffer(data, dtype.value)[0]


def _from_buffer(data, dtype, shape, order):
    """numpy.core.numeric._frombuffer: an array in pickle protocol 5."""
    array = NumpyArray()
    array.value = np.frombuffer(data, dtype.value).reshape(shape, order=order)
    return array


def _from_type(function, kind, arguments, state):
    """torch._tensor._rebuild_from_type_v2: a tensor with Python attributes, which are left out."""
    return function(*arguments)


_FUNCTIONS = {
    ("collections", "OrderedDict"): OrderedDict,
    ("builtins", "set"): set,
    ("builtins", "frozenset"): frozenset,
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


def state_dict(module: ScriptModule) -> dict[str, Tensor]:
    """{name: tensor} of a tree of modules, names joined by dots as in `torch.nn.Module.state_dict`."""
    found = {}
    open_nodes = [("", module, 0)]
    while open_nodes:
        prefix, node, depth = open_nodes.pop()
        children = []
        for name, value in node.attributes.items():
            if isinstance(value, Tensor):
                found[f"{prefix}{name}"] = value
            elif isinstance(value, ScriptModule):
                children.append((f"{prefix}{name}.", value, depth + 1))
        open_nodes += reversed(children)
        # A module may hold itself, or the same two modules at every level.
        if depth > 100 or len(found) + len(open_nodes) > 100_000:
            raise ValueError("a TorchScript archive whose modules have no end")
    return found


class Unpickler(pickle.Unpickler):
    """Builds plain containers, `Tensor`, `Storage` and `NumpyArray`, stand-ins for settings, and nothing else.

    Args:
        file: the pickle.
        script: whether it is of a TorchScript archive, whose own classes then become `ScriptModule`.
    """

    def __init__(self, file: BinaryIO, script: bool = False):
        super().__init__(file, encoding="latin1")
        self.storages: dict[str, Storage] = {}
        self.script = script

    def find_class(self, module: str, name: str):
        plain = (module.replace("numpy._core", "numpy.core").replace("__builtin__", "builtins"), name)
        if plain in _FUNCTIONS:
            return Sealed(_FUNCTIONS[plain])
        if plain in _SETTINGS:
            return stand_in(module, name)
        if self.script and plain in _SCRIPT_FUNCTIONS:
            return Sealed(_SCRIPT_FUNCTIONS[plain])
        if self.script and module.split(".")[0] == "__torch__":
            return ScriptModule  # as a class, which NEWOBJ asks for; a state for the class itself is a TypeError
        if plain in _MARKERS:
            return name
        if module in ("torch", "torch.storage") and name in _STORAGES:
            return _STORAGES[name]
        if module == "torch" and name in _DTYPES:
            return name
        raise UserError(
            f"refused: the file wants {module}.{name}, which is not needed to hold weights and was not run; "
            "save a state dict instead, torch.save(model.state_dict(), path)"
        )

    def persistent_load(self, pid):
        kind, dtype, key, _, size = pid[:5]
        if kind != "storage" or dtype not in _DTYPES:
            raise ValueError(f"an unknown kind of storage: {kind} {dtype}")
        if len(pid) > 5 and pid[5] is not None:
            raise ValueError("a storage that is a view of another, as torch before 0.4 wrote them")
        return self.storages.setdefault(str(key), Storage(str(key), dtype, size))


def read_zip(archive: zipfile.ZipFile) -> tuple[object, callable]:
    """The object in a zip file of `torch.save`, and a function that reads a storage's bytes."""
    names = archive.namelist()
    root = next(name for name in names if name.endswith("data.pkl"))[: -len("data.pkl")]
    script = root + "constants.pkl" in names
    if root + "byteorder" in names and archive.read(root + "byteorder") != b"little":
        raise UserError("written on a big-endian machine; save it again on a little-endian one")
    with archive.open(root + "data.pkl") as file:
        value = Unpickler(file, script).load()
    value = state_dict(value) if isinstance(value, ScriptModule) else value
    return value, lambda storage: archive.read(f"{root}data/{storage.key}")


def read_stream(file: BinaryIO) -> tuple[object, callable]:
    """The object in a plain pickle or in torch's older format, and a function that reads a storage's bytes."""
    value = Unpickler(file).load()
    if value != LEGACY_MAGIC:
        return value, None
    Unpickler(file).load()  # protocol version
    system = Unpickler(file).load()
    if not system.get("little_endian", True):
        raise UserError("written on a big-endian machine; save it again on a little-endian one")
    unpickler = Unpickler(file)
    value = unpickler.load()
    places = {}
    for key in Unpickler(file).load():
        storage = unpickler.storages[str(key)]
        (size,) = struct.unpack("<q", file.read(8))
        if size != storage.size:
            raise ValueError(f"storage {key} has {size} elements instead of {storage.size}")
        places[str(key)] = file.tell(), size * _DTYPES[storage.dtype].itemsize
        file.seek(places[str(key)][1], 1)
    end = file.tell()
    if file.seek(0, 2) < end:
        raise ValueError("the end is missing")

    def read_storage(storage):
        start, length = places[storage.key]
        file.seek(start)
        return file.read(length)

    return value, read_storage
