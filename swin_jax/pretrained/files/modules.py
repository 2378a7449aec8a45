"""Stand-ins for the modules in a pickle: trees of attributes, without code."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from swin_jax.pretrained.files.limits import DEFAULT, Limits
from swin_jax.pretrained.files.tensors import NumpyArray, Tensor

# Attributes of NVIDIA's modules that change their outputs. They are returned as scalar arrays.
_NUMBERS = ("conv_clamp", "group_size")
# TensorFlow's networks are a tuple of three; these are the names that NVIDIA's PyTorch files have.
_NETWORKS = ("G", "D", "G_ema")


class ScriptModule:
    """A stand-in for a module of a TorchScript archive; holds the dict of its attributes, including
    submodules.
    """

    attributes: dict = {}  # the default for a module without a state; never written to
    separator = "."

    def __setstate__(self, state):
        if not isinstance(state, dict):
            raise ValueError("a TorchScript module with a custom state")
        self.attributes = state

    def entries(self) -> Iterable[tuple[Any, Any]]:
        """(name, value) of all that it holds."""
        return self.attributes.items()


class PersistentModule:
    """A stand-in for a module of NVIDIA's `torch_utils.persistence`; keeps its state and ignores
    its source code.
    """

    separator = "."

    def __init__(self, meta: Any):
        state = meta.get("state") if isinstance(meta, dict) else None
        if not isinstance(state, dict) or meta.get("type") != "class":
            raise ValueError("a persistent object without a state")
        self._state = state

    def entries(self) -> Iterable[tuple[Any, Any]]:
        """(name, value) of its parameters, buffers and submodules, and of some of its numbers."""
        for part in ("_parameters", "_buffers", "_modules"):
            found = self._state.get(part)
            if isinstance(found, dict):
                yield from found.items()
        for name in _NUMBERS:
            value = self._state.get(name)
            if isinstance(value, (int, float)):
                yield name, np.float32(value)


class Network:
    """A stand-in for a `dnnlib.tflib.network.Network`; keeps its variables and components and
    ignores its source code.
    """

    separator = "/"
    state: dict = {}  # the default for a network without a state; never written to

    def __setstate__(self, state):
        if not isinstance(state, dict):
            raise ValueError("a network with a custom state")
        self.state = state

    def entries(self) -> Iterable[tuple[Any, Any]]:
        """(name, value) of its variables and components."""
        variables, components = self.state.get("variables"), self.state.get("components")
        if not isinstance(variables, list) or not isinstance(components, dict):
            raise ValueError("a network without variables and components")
        for entry in variables:
            if not isinstance(entry, (tuple, list)) or len(entry) != 2:
                raise ValueError("a network with a variable that is not a name and array")
            yield entry[0], entry[1]
        yield from components.items()


MODULES = (ScriptModule, PersistentModule, Network)


def state_dict(module: Any, limits: Limits = DEFAULT) -> dict[str, Any]:
    """{name: tensor or array} of one of `MODULES`, see `state_dicts`."""
    return state_dicts({"": module}, limits)[""]


def state_dicts(modules: Mapping[str, Any], limits: Limits = DEFAULT) -> dict[str, dict[str, Any]]:
    """The state dicts of trees of modules, with names joined as in `torch.nn.Module.state_dict`.

    Args:
        modules: {name: an object of one of the `MODULES`}.
        limits: Bounds on the entries of all of them together.

    Returns:
        {name: {name: tensor or array}}; names are joined by dots, those of TensorFlow by slashes.

    Raises:
        UserError: There are more entries than the limits allow, for example because a module
            contains itself.
    """
    found, count = {root: {} for root in modules}, 0
    open_nodes = [(root, "", module, 0) for root, module in modules.items()]
    while open_nodes:
        root, prefix, node, depth = open_nodes.pop()
        limits.check("depth", depth, "a file whose modules have no end")
        children = []
        for name, value in node.entries():
            count += 1
            limits.check("names", count, "a file whose modules have no end")
            if not isinstance(name, str):
                continue
            value = NumpyArray.of(value) if isinstance(value, np.generic) else value
            if isinstance(value, MODULES):
                children.append((root, f"{prefix}{name}{node.separator}", value, depth + 1))
            elif isinstance(value, (Tensor, NumpyArray)):
                found[root][f"{prefix}{name}"] = value
            else:
                continue
            limits.check("name_length", len(prefix) + len(name), "a tensor with a longer name")
        open_nodes += reversed(children)
    return found


def without_modules(value: Any, limits: Limits) -> Any:
    """Replaces the modules at the top of a pickle's content by their state dicts.

    The networks in TensorFlow's pickles, a tuple of three, are named `G`, `D` and `G_ema`.
    """
    if isinstance(value, MODULES):
        return state_dict(value, limits)
    if isinstance(value, (tuple, list)) and len(value) == len(_NETWORKS):
        if all(isinstance(network, Network) for network in value):
            value = dict(zip(_NETWORKS, value))
    if not isinstance(value, dict):
        return value
    modules = {
        name: one
        for name, one in value.items()
        if isinstance(name, str) and isinstance(one, MODULES)
    }
    return {**value, **state_dicts(modules, limits)} if modules else value
