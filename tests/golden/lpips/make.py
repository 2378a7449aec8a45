"""Writes lpips_small.json and .npz: what a small LPIPS computes, written down in PyTorch from its description.

    python tests/golden/lpips/make.py  # needs torch 2.13

The layers are those of LPIPS(net='vgg') of richzhang/PerceptualSimilarity, version 0.1 (arXiv 1801.03924), with the
names of the files of torchvision and of the heads; all widths are smaller. Weights and inputs follow the rules of
golden.py.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn as nn

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
import golden  # noqa: E402

NAME = "lpips_small"
CONFIG = dict(widths=[6, 8, 10, 12, 12], depths=[2, 2, 3, 3, 3])


def vgg(widths, depths):
    layers, before = [], 3
    for width, depth in zip(widths, depths):
        for _ in range(depth):
            layers += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU()]
            before = width
        layers.append(nn.MaxPool2d(2, 2))
    return nn.Sequential(*layers)


class LPIPS(nn.Module):
    def __init__(self, widths, depths):
        super().__init__()
        self.features = vgg(widths, depths)
        self.ends = [i - 1 for i, layer in enumerate(self.features) if isinstance(layer, nn.MaxPool2d)]
        for k, width in enumerate(widths):
            head = nn.Module()
            head.model = nn.Sequential(nn.Dropout(), nn.Conv2d(width, 1, 1, bias=False))
            self.add_module(f"lin{k}", head)
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188])[None, :, None, None], persistent=False)
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450])[None, :, None, None], persistent=False)

    def maps(self, image):
        x, found = (image - self.shift) / self.scale, []
        for i, layer in enumerate(self.features):
            x = layer(x)
            if i in self.ends:
                found.append(x / (torch.sqrt((x**2).sum(1, keepdim=True)) + 1e-10))
        return found

    def forward(self, image, other):
        total = 0
        for k, (one, two) in enumerate(zip(self.maps(image), self.maps(other))):
            total = total + self.get_submodule(f"lin{k}").model((one - two) ** 2).mean([2, 3])[:, 0]
        return total


def run(dtype, keys):
    model = LPIPS(**CONFIG).eval()
    model.load_state_dict({key: torch.tensor(golden.tensor(key, shape)) for key, shape in keys.items()})
    model = model.to(dtype)
    image, other = (
        torch.tensor(golden.normal_input(f"input:{NAME}.{name}", (2, 3, 40, 48), scale=0.5, repeat=4)).to(dtype)
        for name in ("image", "other")
    )
    image.requires_grad_()
    outputs = {"distance": model(image, other)}
    weigh = torch.tensor(golden.tensor(f"cotangent:{NAME}", (2,))).to(dtype)
    outputs["loss"] = (outputs["distance"] * weigh).sum()
    outputs["loss"].backward()
    outputs["gradient of image"] = image.grad
    return {name: value.detach().double().numpy() for name, value in outputs.items()}


def main():
    keys = {key: list(value.shape) for key, value in LPIPS(**CONFIG).state_dict().items()}
    single, double = run(torch.float32, keys), run(torch.float64, keys)
    inputs = {
        name: {"from": "normal", "key": f"input:{NAME}.{name}", "shape": [2, 3, 40, 48], "scale": 0.5, "repeat": 4}
        for name in ("image", "other")
    }
    manifest = dict(
        case=NAME,
        family="lpips",
        source="make.py in this folder, after richzhang/PerceptualSimilarity, lpips/lpips.py",
        config=CONFIG,
        rules="default",
        inputs=inputs,
        cotangents=dict(cotangent=dict(key=f"cotangent:{NAME}", shape=[2])),
        outputs={},
        keys=keys,
    )
    arrays = {}
    for name, value in single.items():
        index = {0: "[]", 1: "[:]", 4: "[:, :, ::5, ::3]"}[value.ndim]
        kept = golden.take(value, index)
        gap = golden.relative_error(kept, golden.take(double[name], index))
        manifest["outputs"][name] = dict(shape=list(value.shape), index=index, float64_gap=float(f"{gap:.1e}"))
        arrays[f"output.{name}"] = kept.astype(np.float32)
    (HERE / f"{NAME}.json").write_text(json.dumps(manifest, indent=1) + "\n")
    np.savez_compressed(HERE / f"{NAME}.npz", **arrays)


if __name__ == "__main__":
    main()
