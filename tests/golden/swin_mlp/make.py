"""Writes the cases of Swin-MLP in this folder: what small ones compute, written down in PyTorch from their description.

    python tests/golden/swin_mlp/make.py  # needs torch 2.13

No official module of this kind is among the recorded ones: the layers, and the names of parameters, are those of the
files swin_mlp_*.pth of microsoft/Swin-Transformer; widths and pictures are smaller. Weights and inputs follow the
rules of golden.py. Windows of 3 are shifted by 1, so that both sides are padded differently; those of 6 shrink to the
map in the last stage, and are not shifted in the last two.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
import golden  # noqa: E402

SHARED = dict(img_size=48, patch_size=4, in_chans=3, num_classes=7, embed_dim=12, depths=[2, 2, 2])
CASES = {
    "swin_mlp_window3": dict(SHARED, num_heads=[2, 3, 4], window_size=3),
    "swin_mlp_window6": dict(SHARED, num_heads=[1, 2, 4], window_size=6, mlp_ratio=2.0),
}
GRADIENTS = (
    "patch_embed.proj.weight",
    "layers.0.blocks.0.norm1.weight",
    "layers.0.blocks.1.spatial_mlp.weight",
    "layers.0.blocks.1.spatial_mlp.bias",
    "layers.1.blocks.1.spatial_mlp.weight",
    "layers.2.blocks.0.spatial_mlp.weight",
    "layers.2.blocks.1.mlp.fc1.weight",
    "head.weight",
)


class Block(nn.Module):
    """Norm, linear layers over the positions of windows, one per group of channels; then norm and MLP."""

    def __init__(self, dim, side, heads, window, shifted, ratio):
        super().__init__()
        self.window = min(side, window)
        self.shift = window // 2 if shifted and side > window else 0
        self.heads, positions = heads, self.window**2
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.spatial_mlp = nn.Conv1d(heads * positions, heads * positions, 1, groups=heads)
        self.mlp = nn.ModuleDict(dict(fc1=nn.Linear(dim, int(ratio * dim)), fc2=nn.Linear(int(ratio * dim), dim)))

    def mix(self, x):
        """One window at a time, cut out of the padded map: (B, H, W, C) to the same."""
        w, s, (batch, height, width, dim) = self.window, self.shift, x.shape
        start = w - s if s else 0
        if s:
            x = F.pad(x, (0, 0, start, s, start, s))
        out = torch.zeros_like(x)
        for top in range(0, x.shape[1], w):
            for left in range(0, x.shape[2], w):
                tokens = x[:, top : top + w, left : left + w].reshape(batch, w * w, dim)
                groups = torch.cat(tokens.chunk(self.heads, dim=2), dim=1)  # (B, heads * w * w, C / heads)
                mixed = torch.cat(self.spatial_mlp(groups).chunk(self.heads, dim=1), dim=2)
                out[:, top : top + w, left : left + w] = mixed.reshape(batch, w, w, dim)
        return out[:, start : start + height, start : start + width]

    def forward(self, x):
        x = x + self.mix(self.norm1(x))
        return x + self.mlp.fc2(F.gelu(self.mlp.fc1(self.norm2(x))))


class Merging(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.norm, self.reduction = nn.LayerNorm(4 * dim), nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x):
        corners = [x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
        return self.reduction(self.norm(torch.cat(corners, dim=-1)))


class Model(nn.Module):
    def __init__(
        self, img_size, patch_size, in_chans, num_classes, embed_dim, depths, num_heads, window_size, mlp_ratio=4
    ):
        super().__init__()
        proj = nn.Conv2d(in_chans, embed_dim, patch_size, patch_size)
        self.patch_embed = nn.ModuleDict(dict(proj=proj, norm=nn.LayerNorm(embed_dim)))
        self.layers = nn.ModuleList()
        side, dim = img_size // patch_size, embed_dim
        for stage, (depth, heads) in enumerate(zip(depths, num_heads)):
            blocks = [Block(dim, side, heads, window_size, i % 2 == 1, mlp_ratio) for i in range(depth)]
            layer = nn.ModuleDict(dict(blocks=nn.ModuleList(blocks)))
            if stage < len(depths) - 1:
                layer["downsample"] = Merging(dim)
                side, dim = side // 2, 2 * dim
            self.layers.append(layer)
        self.norm, self.head = nn.LayerNorm(dim), nn.Linear(dim, num_classes)

    def forward(self, image):
        x = self.patch_embed.norm(self.patch_embed.proj(image).permute(0, 2, 3, 1))
        outputs = {"patch_embed": x}
        for s, layer in enumerate(self.layers):
            for i, block in enumerate(layer.blocks):
                outputs[f"layers.{s}.blocks.{i}"] = x = block(x)
            outputs[f"layers.{s}"] = x = layer["downsample"](x) if "downsample" in layer else x
        outputs["norm"] = x = self.norm(x)
        outputs = {name: tokens.flatten(1, 2) for name, tokens in outputs.items()}
        return outputs | {"logits": self.head(x.mean((1, 2)))}


def run(name, dtype):
    """(outputs as float64, {key: shape}) of a case computed in a type."""
    model = Model(**CASES[name])
    keys = {key: list(value.shape) for key, value in model.state_dict().items()}
    model.load_state_dict({key: torch.tensor(golden.tensor(key, shape)) for key, shape in keys.items()})
    model = model.to(dtype)
    size = CASES[name]["img_size"]
    image = torch.tensor(golden.tensor(f"input:{name}", (2, 3, size, size))).to(dtype).requires_grad_()
    outputs = model(image)
    weigh = torch.tensor(golden.tensor(f"cotangent:{name}", outputs["logits"].shape)).to(dtype)
    outputs["loss"] = (outputs["logits"] * weigh).sum()
    outputs["loss"].backward()
    outputs["gradient of image"] = image.grad
    outputs |= {f"gradient of {key}": model.get_parameter(key).grad for key in GRADIENTS}
    return {key: value.detach().double().numpy() for key, value in outputs.items()}, keys


def write(name):
    torch.set_num_threads(1)
    (single, keys), (double, _) = run(name, torch.float32), run(name, torch.float64)
    entries, stored = {}, {}
    for key, value in single.items():
        gap = golden.relative_error(value, double[key])
        thin = value.ndim == 3 and value.size > 1500 and not key.startswith("gradient")
        index = "[:, ::5, ::2]" if thin else "[:, :, ::3, ::3]" if key == "gradient of image" else "[]"
        entries[key] = dict(shape=list(value.shape), index=index, float64_gap=float(f"{gap:.2g}"))
        stored[f"output.{key}"] = golden.take(value, index).astype(np.float32)
    size, classes = CASES[name]["img_size"], CASES[name]["num_classes"]
    manifest = dict(
        case=name,
        family="swin_mlp",
        source="make.py in this folder, with the names of microsoft/Swin-Transformer's swin_mlp_*.pth",
        config=CASES[name],
        rules="default",
        inputs={"image": {"from": "normal", "key": f"input:{name}", "shape": [2, 3, size, size]}},
        cotangents={"cotangent": {"key": f"cotangent:{name}", "shape": [2, classes]}},
        outputs=entries,
        keys=keys,
    )
    (HERE / f"{name}.json").write_text(json.dumps(manifest, indent=1) + "\n")
    np.savez_compressed(HERE / f"{name}.npz", **stored)


if __name__ == "__main__":
    for case in CASES:
        write(case)
