"""Writes the small files beside it, with PyTorch; the tests that read them need no PyTorch.

    python make.py        (torch 2.13 and safetensors 0.8 wrote the committed files)

`expected.npz` holds what every file must be read as; bfloat16 entries are stored there as float32.
"""

import argparse
import pickle
import sys
import types
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

HERE = Path(__file__).resolve().parent


class CfgNode(dict):
    """What yacs' CfgNode pickles as: a dict with attributes."""

    def __init__(self, entries):
        super().__init__(entries)
        self.__dict__["__immutable__"] = True


def tensors():
    """One of everything that a checkpoint's tensors can be: dtypes, views, shared storages, parameters."""
    base = torch.arange(24, dtype=torch.float32)
    return OrderedDict(
        weight=torch.linspace(-1, 1, 12).reshape(3, 4),
        parameter=torch.nn.Parameter(torch.linspace(0, 1, 5)),
        shared_a=base[4:10].reshape(2, 3),
        shared_b=base[6:],
        transposed=base.reshape(4, 6).t(),
        strided=base.reshape(4, 6)[::2, 1::2],
        expanded=torch.tensor([1.5, 2.5]).reshape(2, 1).expand(2, 3),
        half=torch.linspace(-2, 2, 5).half(),
        bfloat=torch.linspace(-2, 2, 5).bfloat16(),
        double=torch.linspace(0, 1, 3, dtype=torch.float64),
        index=torch.tensor([[1, -2], [3, 2**40]]),
        byte=torch.tensor([0, 255], dtype=torch.uint8),
        flag=torch.tensor([True, False, True]),
        scalar=torch.tensor(2.5),
        empty=torch.zeros(0, 3),
    )


def persistent():
    """A pickle as NVIDIA's StyleGAN2 writes it: networks that carry their source, in a dict."""
    modules = {
        name: types.ModuleType(name) for name in ("torch_utils", "torch_utils.persistence", "dnnlib", "dnnlib.util")
    }
    sys.modules.update(modules)

    def _reconstruct_persistent_obj(meta):
        raise AssertionError("was run")

    class EasyDict(dict):
        pass

    class Persistent:
        def __reduce__(self):
            state = super().__reduce__()[2]
            meta = dict(type="class", version=6, module_src="raise SystemExit", class_name=type(self).__name__)
            return _reconstruct_persistent_obj, (meta | dict(state=state),), None

    class Layer(Persistent, torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.arange(6.0).reshape(2, 3).t())
            self.register_parameter("bias", None)
            self.register_buffer("resample_filter", torch.ones(4, 4) / 16)
            self.conv_clamp = 256
            self.noise_strength = torch.nn.Parameter(torch.zeros([]))

    class Net(Persistent, torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = Layer(), Layer()
            self._init_kwargs = EasyDict(x=1)
            self.w_avg_beta = 0.5

    for value, module in ((_reconstruct_persistent_obj, "torch_utils.persistence"), (EasyDict, "dnnlib.util")):
        value.__module__, value.__qualname__ = module, value.__name__
        setattr(modules[module], value.__name__, value)
    nets = {name: Net() for name in ("G", "D", "G_ema")}
    return dict(training_set_kwargs=EasyDict(path="x"), **nets, augment_pipe=None)


def main():
    yacs = types.ModuleType("yacs.config")
    yacs.CfgNode = CfgNode
    CfgNode.__module__ = "yacs.config"
    sys.modules["yacs"] = types.ModuleType("yacs")
    sys.modules["yacs.config"] = yacs
    state = tensors()
    config = CfgNode({"MODEL": CfgNode({"TYPE": "swin", "SWIN": CfgNode({"EMBED_DIM": 96, "DEPTHS": [2, 2, 6, 2]})})})
    checkpoint = {
        "model": state,
        "optimizer": {"state": {0: {"exp_avg": torch.ones(3, 4)}}, "param_groups": [{"lr": 1e-3}]},
        "max_accuracy": np.float64(81.2),
        "array": np.arange(6, dtype=np.int32).reshape(2, 3),
        "epoch": 299,
        "config": config,
        "args": argparse.Namespace(path=Path("output"), size=torch.Size([1, 2]), dtype=torch.float16),
        "device": torch.device("cpu"),
    }
    torch.save(checkpoint, HERE / "zip.pth")
    torch.save(checkpoint, HERE / "legacy.pth", _use_new_zipfile_serialization=False)
    torch.save({"state_dict": {"module." + name: value for name, value in state.items()}}, HERE / "distributed.pth")
    torch.jit.script(torch.nn.Linear(1, 1)).save(str(HERE / "torchscript.pt"))
    torch.save(torch.nn.Linear(1, 1), HERE / "whole_module.pth")
    (HERE / "nvidia.pkl").write_bytes(pickle.dumps(persistent(), protocol=4))
    save_file({name: value.detach().clone().contiguous() for name, value in state.items()}, HERE / "plain.safetensors")
    expected = {name: value.detach().float() if name == "bfloat" else value.detach() for name, value in state.items()}
    np.savez_compressed(HERE / "expected.npz", **{name: value.numpy() for name, value in expected.items()})


if __name__ == "__main__":
    main()
