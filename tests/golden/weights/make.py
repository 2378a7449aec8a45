"""Writes the small files beside it, with PyTorch; the tests that read them need no PyTorch.

    python make.py        (torch 2.13 and safetensors 0.8 wrote the committed files)

`expected.npz` holds what every file must be read as; bfloat16 entries are stored there as float32.
"""

import argparse
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
    save_file({name: value.detach().clone().contiguous() for name, value in state.items()}, HERE / "plain.safetensors")
    expected = {name: value.detach().float() if name == "bfloat" else value.detach() for name, value in state.items()}
    np.savez_compressed(HERE / "expected.npz", **{name: value.numpy() for name, value in expected.items()})


if __name__ == "__main__":
    main()
