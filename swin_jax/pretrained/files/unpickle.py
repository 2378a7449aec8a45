"""Reads PyTorch's files without PyTorch: the names that their pickles may use, and the storages.

The formats are those of `torch.save` (a zip archive with data.pkl and data/<key>, the older stream
of pickles, and plain pickles of NumPy arrays) and of `torch.jit.save`, whose data.pkl holds a tree
of modules instead of a dict and whose code is ignored. NVIDIA's pickles of generators are read too:
those of PyTorch, whose persistent objects contain source code and whose tensors are files of torch
inside the pickle, and those of TensorFlow. A pickle may ask for any function to be called; here
every name is looked up in the tables below, nothing is imported, and no source is compiled.
Reference: `torch.load`, with files in tests/golden/weights.
"""

import functools
import io
import struct
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np

from swin_jax.core.errors import UserError
from swin_jax.pretrained.files.archive import Archive
from swin_jax.pretrained.files.limits import Budget, Limits
from swin_jax.pretrained.files.modules import (
    Network,
    PersistentModule,
    ScriptModule,
    without_modules,
)
from swin_jax.pretrained.files.pickles import Counter, Pickle, Sealed, ordered_dict
from swin_jax.pretrained.files.tensors import (
    DTYPES,
    NumpyArray,
    Storage,
    Tensor,
    from_buffer,
    scalar,
)

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of torch's older format

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
# Settings that training scripts save beside the weights; they become empty stand-ins.
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
    *(
        ("omegaconf.nodes", f"{kind}Node")
        for kind in ("Any", "Boolean", "Float", "Integer", "String")
    ),
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
    ("dnnlib.util", "EasyDict"),
}


def _from_type(function, kind, arguments, state):
    """Makes a tensor, without Python attributes; replaces torch._tensor._rebuild_from_type_v2."""
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
    ("numpy.core.multiarray", "scalar"): scalar,
    ("numpy.core.numeric", "_frombuffer"): from_buffer,
}
# Functions that TorchScript wraps lists and containers in.
_SCRIPT_FUNCTIONS = {
    ("torch.jit._pickle", name): lambda value, *_: value
    for name in (
        "build_intlist",
        "build_doublelist",
        "build_boollist",
        "build_tensorlist",
        "restore_type_tag",
    )
}
_PERSISTENT = ("torch_utils.persistence", "_reconstruct_persistent_obj")
_NETWORK = ("dnnlib.tflib.network", "Network")
_INNER = ("torch.storage", "_load_from_bytes")  # a storage as a file of torch inside a plain pickle
# Classes that are only passed as arguments of the functions above.
_MARKERS = {
    ("numpy", "ndarray"),
    ("torch", "Tensor"),
    ("torch.nn.parameter", "Parameter"),
    ("torch", "strided"),
}


@functools.cache
def stand_in(module: str, name: str) -> type:
    """Makes a class that accepts anything a pickle does to `module.name` and keeps nothing."""

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


class _Names:
    """The names that the pickles of one file may use, and the storages that they have used.

    Args:
        script: True for a TorchScript archive, whose own classes become `ScriptModule`.
        counter: The limits of a plain pickle, which may contain NVIDIA's networks and files of
            torch; None for any other pickle, including those inside such files.
    """

    def __init__(self, script: bool = False, counter: Counter | None = None):
        self.storages: dict[str, Storage] = {}
        self._script, self._counter = script, counter

    def find(self, module: str, name: str) -> Any:
        plain = (
            module.replace("numpy._core", "numpy.core").replace("__builtin__", "builtins"),
            name,
        )
        if plain in _FUNCTIONS:
            return Sealed(_FUNCTIONS[plain])
        if plain in _SETTINGS:
            return stand_in(*plain)
        if self._script and plain in _SCRIPT_FUNCTIONS:
            return Sealed(_SCRIPT_FUNCTIONS[plain])
        if self._script and module.split(".")[0] == "__torch__":
            return ScriptModule
        if self._counter is not None and plain in (_PERSISTENT, _NETWORK, _INNER):
            return self._of_nvidia(plain)
        if plain in _MARKERS:
            return name
        if module in ("torch", "torch.storage") and name in _STORAGES:
            return _STORAGES[name]
        if module == "torch" and name in DTYPES:
            return name
        raise UserError(
            f"refused: the file wants {f'{module}.{name}'[:200]}, which weights do not need "
            "and which was not run; save a state dict instead, "
            "torch.save(model.state_dict(), path)"
        )

    def _of_nvidia(self, plain: tuple[str, str]) -> Any:
        if plain == _INNER:
            return Sealed(lambda data: _read_inner(data, self._counter))
        return Network if plain == _NETWORK else Sealed(PersistentModule)

    def storage(self, pid: Any) -> Storage:
        if not isinstance(pid, tuple) or len(pid) < 5:
            raise ValueError("an unknown kind of storage")
        kind, dtype, key, _, size = pid[:5]
        if (
            not isinstance(kind, str)
            or kind != "storage"
            or not isinstance(dtype, str)
            or dtype not in DTYPES
        ):
            raise ValueError("an unknown kind of storage")
        if not isinstance(key, (str, int)) or type(size) is not int or size < 0:
            raise ValueError("a storage without a name or a size")
        if len(pid) > 5 and pid[5] is not None:
            raise ValueError("a storage that is a view of another, as written by torch before 0.4")
        return self.storages.setdefault(str(key), Storage(str(key), dtype, size))


def _load(file: BinaryIO, names: _Names, counter: Counter) -> Any:
    return Pickle(
        file, names.find, names.storage, (NumpyArray, ScriptModule, Network), counter
    ).load()


Read = Callable[[Storage], bytes]


def is_array(leaf: Any) -> bool:
    """True if a value of a pickle stands for an array."""
    if isinstance(leaf, NumpyArray):
        return isinstance(leaf.value, np.ndarray)
    return isinstance(leaf, Tensor)


def array_of(
    leaf: NumpyArray | Tensor, read_storage: Read | None, limits: Limits, budget: Budget
) -> np.ndarray:
    """The read-only array that a leaf stands for; reads its storage if needed."""
    if isinstance(leaf, NumpyArray):
        return leaf.value
    if leaf.storage.data is None:
        leaf.storage.data = read_storage(leaf.storage)
    return leaf.array(budget, limits)


def read_zip(archive: Archive, limits: Limits, budget: Budget) -> tuple[Any, Read]:
    """The object in a zip file of `torch.save`, and a function that reads a storage's bytes."""
    value, read_storage = _read_zip(archive, Counter(limits, budget))
    return without_modules(value, limits), read_storage


def _read_zip(archive: Archive, counter: Counter) -> tuple[Any, Read]:
    root = archive.find("data.pkl")[: -len("data.pkl")]
    if root + "byteorder" in archive.names and archive.read(root + "byteorder") != b"little":
        raise UserError("written on a big-endian machine; save it again on a little-endian one")
    names = _Names(script=root + "constants.pkl" in archive.names)
    value = _load(io.BytesIO(archive.read(root + "data.pkl")), names, counter)
    return value, lambda storage: archive.read(f"{root}data/{storage.key}")


def read_stream(file: BinaryIO, limits: Limits, budget: Budget) -> tuple[Any, Read | None]:
    """The object in a plain pickle or in a file of torch's older format, and a function that reads
    a storage's bytes; None for that of a plain pickle.
    """
    counter = Counter(limits, budget)
    names = _Names(counter=counter)
    value = _load(file, names, counter)
    if not _is_legacy(value):
        return without_modules(value, limits), None
    return _read_legacy(file, counter)


def _read_inner(data: Any, counter: Counter) -> Storage:
    """The storage in a file of torch that a pickle holds as bytes; replaces
    torch.storage._load_from_bytes.
    """
    if not isinstance(data, bytes):
        raise ValueError("a file of torch inside a pickle that is not bytes")
    file = io.BytesIO(data)
    if data.startswith(b"PK"):
        value, read_storage = _read_zip(Archive(file, counter.limits, counter.budget), counter)
    elif _is_legacy(_load(file, _Names(), counter)):
        value, read_storage = _read_legacy(file, counter)
    else:
        raise ValueError("bytes inside a pickle that are not a file of torch")
    if not isinstance(value, Storage):
        raise ValueError("a file of torch inside a pickle that holds no storage")
    value.data = read_storage(value)
    return value


def _is_legacy(value: Any) -> bool:
    return type(value) is int and value == LEGACY_MAGIC


def _read_legacy(file: BinaryIO, counter: Counter) -> tuple[Any, Read]:
    """The same as `read_stream` for torch's older format, after its magic number."""
    names = _Names()
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
            raise ValueError(
                f"storage {str(key)[:50]} has {size} elements instead of {storage.size}"
            )
        places[str(key)] = file.tell(), size * DTYPES[storage.dtype].itemsize
        file.seek(places[str(key)][1], 1)
    end = file.tell()
    if file.seek(0, 2) < end:
        raise ValueError("the end is missing")

    def read_storage(storage: Storage) -> bytes:
        start, length = places[storage.key]
        file.seek(start)
        return file.read(length)

    return value, read_storage
