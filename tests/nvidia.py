"""Pickles as NVIDIA's StyleGAN2 code writes them, of PyTorch and of TensorFlow, made without either.

`stand_ins` puts classes of the same names into modules of the same names for as long as a pickle is written.
"""

import contextlib
import io
import pickle
import struct
import sys
import types
import zipfile
from collections import OrderedDict
from unittest import mock

import numpy as np

MAGIC = 0x1950A86A20F9469CFC6C
SOURCE = "import os\nos.system('touch executed')\nraise SystemExit('the source of a pickle was run')\n"


class Tensor:
    """An array that is pickled as a tensor, its storage as a file of torch of this `form`: 'legacy' or 'zip'."""

    def __init__(self, array, form="legacy", parameter=False):
        self.array, self.form, self.parameter = np.asarray(array, np.float32), form, parameter


class Storage:
    def __init__(self, data):
        self.data = data


class Module:
    """A module that is pickled as a persistent object of NVIDIA's."""

    def __init__(self, parameters=(), buffers=(), modules=(), **attributes):
        self.state = dict(
            training=False,
            _parameters=OrderedDict(parameters),
            _buffers=OrderedDict(buffers),
            _modules=OrderedDict(modules),
            _non_persistent_buffers_set=set(),
            _init_args=(),
            **attributes,
        )


def _named(module, name):
    def function(*arguments):
        raise AssertionError(f"{module}.{name} was run")

    function.__module__, function.__qualname__, function.__name__ = module, name, name
    return function


@contextlib.contextmanager
def stand_ins():
    """The modules that the pickles name, by (module, name)."""
    names = {
        ("torch_utils.persistence", "_reconstruct_persistent_obj"),
        ("torch._utils", "_rebuild_tensor_v2"),
        ("torch._utils", "_rebuild_parameter"),
        ("torch.storage", "_load_from_bytes"),
        ("torch", "FloatStorage"),
    }
    found = {key: _named(*key) for key in names}
    for module, name, base in (("dnnlib.tflib.network", "Network", object), ("dnnlib.util", "EasyDict", dict)):
        found[module, name] = type(name, (base,), {"__module__": module})
    modules = {}
    for module, _ in found:
        parts = module.split(".")
        for count in range(1, len(parts) + 1):
            path = ".".join(parts[:count])
            modules.setdefault(path, types.ModuleType(path))
    for (module, name), value in found.items():
        setattr(modules[module], name, value)
    with mock.patch.dict(sys.modules, modules):
        yield types.SimpleNamespace(**{name: value for (_, name), value in found.items()})


def save(path, value, protocol=4):
    """Pickles a value made of this file's classes; `Network` and `EasyDict` are those of `stand_ins`."""
    with stand_ins() as names:
        value = value(names) if callable(value) else value
        file = io.BytesIO()
        _pickler(file, protocol, names).dump(value)
    path.write_bytes(file.getvalue())
    return path


def _pickler(file, protocol, names):
    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            if isinstance(value, Storage):
                return ("storage", names.FloatStorage, "0", "cpu", value.data.size, None)
            return None

        def reducer_override(self, value):
            if isinstance(value, Module):
                meta = dict(type="class", version=6, module_src=SOURCE, class_name="Net", state=value.state)
                return names._reconstruct_persistent_obj, (meta,)
            if not isinstance(value, Tensor):
                return NotImplemented
            array, inner = value.array, _Inner(names, inner_file(value, names))
            stride = tuple(size // array.itemsize for size in np.ascontiguousarray(array).strides)
            tensor = (names._rebuild_tensor_v2, (inner, 0, array.shape, stride[: array.ndim], False, OrderedDict()))
            if not value.parameter:
                return tensor
            return names._rebuild_parameter, (_Reduced(tensor), True, OrderedDict())

    return Pickler(file, protocol)


class _Inner:
    def __init__(self, names, data):
        self.names, self.data = names, data

    def __reduce__(self):
        return self.names._load_from_bytes, (self.data,)


class _Reduced:
    def __init__(self, reduced):
        self.reduced = reduced

    def __reduce__(self):
        return self.reduced


def inner_file(tensor, names, payload=None):
    """The storage of a tensor as a file of torch; `payload` replaces the pickle in it."""
    storage = Storage(np.ascontiguousarray(tensor.array))
    file = io.BytesIO()
    _pickler(file, 2, names).dump(storage)
    payload = payload or file.getvalue()
    if tensor.form == "zip":
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            archive.writestr("a/data.pkl", payload)
            archive.writestr("a/data/0", storage.data.tobytes())
        return out.getvalue()
    system = dict(protocol_version=1001, little_endian=True, type_sizes=dict(short=2, int=4, long=4))
    parts = [pickle.dumps(part, 2) for part in (MAGIC, 1001, system)]
    parts += [payload, pickle.dumps(["0"], 2), struct.pack("<q", storage.data.size), storage.data.tobytes()]
    return b"".join(parts)


def module_of(arrays, form="legacy", **attributes):
    """The tree of modules whose state dict is {name: array}; arrays of `BUFFERS` are buffers.

    Args:
        attributes: Numbers by the dotted name of their module and theirs, with '__' for dots.
    """
    trees: dict = {}
    for name, array in arrays.items():
        *path, leaf = name.split(".")
        node = trees
        for part in path:
            node = node.setdefault(part, {})
        is_buffer = leaf in ("resample_filter", "noise_const", "w_avg")
        node[leaf] = Tensor(array, form, parameter=not is_buffer)
    numbers: dict = {}
    for name, value in attributes.items():
        path, _, leaf = name.replace("__", ".").rpartition(".")
        numbers.setdefault(path, {})[leaf] = value
        node = trees
        for part in path.split("."):
            node = node.setdefault(part, {})

    def build(node, path):
        leaves = {name: value for name, value in node.items() if isinstance(value, Tensor)}
        inner = {name: build(value, f"{path}.{name}".strip(".")) for name, value in node.items() if name not in leaves}
        parameters = {name: value for name, value in leaves.items() if value.parameter}
        buffers = {name: value for name, value in leaves.items() if not value.parameter}
        return Module(parameters, buffers, inner, **numbers.get(path, {}))

    return build(trees, "")


def network_of(names, name, variables, components=None):
    """A TensorFlow network of {name: array}; scalars come out as `Session.run` gives them."""
    network = names.Network()
    network.version, network.name = 4, name
    network.static_kwargs = names.EasyDict(resolution=8)
    network.build_module_src, network.build_func_name = SOURCE, "G_main"
    network.components = dict(components or {})
    network.variables = [(key, value if np.ndim(value) else value[()]) for key, value in variables.items()]
    return network
