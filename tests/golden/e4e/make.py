"""Writes e4e_small.json and .npz: what a small Encoder4Editing computes, written down in PyTorch from its description.

    python tests/golden/e4e/make.py  # needs torch 2.13

It also writes tiny.pt, which is laid out as the released files are.

No official module is this small: the layers are those of omertov/encoder4editing (arXiv 2102.02766) with the names of
its released file, all widths and the picture are smaller. Weights and inputs follow the rules of golden.py.
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

NAME = "e4e_small"
TINY = dict(num_ws=4, image_size=16, blocks=[[2, 2, 1], [2, 3, 1], [3, 4, 1], [4, 5, 1]], w_dim=5)
CONFIG = dict(num_ws=10, image_size=64, blocks=[[8, 8, 1], [8, 16, 2], [16, 24, 2], [24, 32, 1]], w_dim=32)


class SE(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.fc1 = nn.Conv2d(width, max(width // 16, 1), 1, bias=False)
        self.fc2 = nn.Conv2d(max(width // 16, 1), width, 1, bias=False)

    def forward(self, x):
        return x * torch.sigmoid(self.fc2(F.relu(self.fc1(F.adaptive_avg_pool2d(x, 1)))))


class Block(nn.Module):
    def __init__(self, before, after, stride):
        super().__init__()
        if before == after:
            self.shortcut_layer = nn.MaxPool2d(1, stride)
        else:
            project = nn.Conv2d(before, after, 1, stride, bias=False)
            self.shortcut_layer = nn.Sequential(project, nn.BatchNorm2d(after))
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(before),
            nn.Conv2d(before, after, 3, 1, 1, bias=False),
            nn.PReLU(after),
            nn.Conv2d(after, after, 3, stride, 1, bias=False),
            nn.BatchNorm2d(after),
            SE(after),
        )

    def forward(self, x):
        return self.shortcut_layer(x) + self.res_layer(x)


class Linear(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.zeros(width, width)), nn.Parameter(torch.zeros(width))

    def forward(self, x):
        return F.linear(x, self.weight / self.weight.shape[1] ** 0.5, self.bias)


class Head(nn.Module):
    def __init__(self, before, after, side):
        super().__init__()
        layers = []
        while side > 1:
            layers += [nn.Conv2d(before, after, 3, 2, 1), nn.LeakyReLU(0.01)]
            before, side = after, side // 2
        self.convs, self.linear = nn.Sequential(*layers), Linear(after)

    def forward(self, x):
        return self.linear(self.convs(x).flatten(1))


class Encoder(nn.Module):
    def __init__(self, num_ws, image_size, blocks, w_dim):
        super().__init__()
        self.input_layer = nn.Sequential(
            nn.Conv2d(3, blocks[0][0], 3, 1, 1, bias=False), nn.BatchNorm2d(blocks[0][0]), nn.PReLU(blocks[0][0])
        )
        body, self.ends = [], []
        for before, after, count in blocks:
            body += [Block(before if i == 0 else after, after, 2 if i == 0 else 1) for i in range(count)]
            self.ends.append(len(body) - 1)
        self.body = nn.Sequential(*body)
        width, side = blocks[-1][1], image_size // 2 ** len(blocks)
        sides = [side * (1 if i < 3 else 2 if i < 7 else 4) for i in range(num_ws)]
        self.styles = nn.ModuleList([Head(width, w_dim, one) for one in sides])
        self.latlayer1 = nn.Conv2d(blocks[-2][1], width, 1)
        self.latlayer2 = nn.Conv2d(blocks[-3][1], width, 1)

    def forward(self, image):
        x, taps = self.input_layer(image), []
        for i, block in enumerate(self.body):
            x = block(x)
            taps += [x] if i in self.ends[-3:] else []
        c1, c2, c3 = taps
        twice = dict(scale_factor=2, mode="bilinear", align_corners=True)
        p2 = F.interpolate(c3, **twice) + self.latlayer1(c2)
        p1 = F.interpolate(p2, **twice) + self.latlayer2(c1)
        styles = [head(c3 if i < 3 else p2 if i < 7 else p1) for i, head in enumerate(self.styles)]
        latents = torch.stack([styles[0]] + [styles[0] + style for style in styles[1:]], dim=1)
        return dict(c1=c1, c2=c2, c3=c3, p2=p2, p1=p1, styles=torch.stack(styles, dim=1), latents=latents)


def run(dtype, keys):
    model = Encoder(**CONFIG).eval()
    model.load_state_dict({k: torch.tensor(golden.tensor(f"encoder.{k}", shape)) for k, shape in keys.items()}, False)
    model, image = model.to(dtype), torch.tensor(golden.normal_input(f"input:{NAME}", (2, 3, 64, 64), repeat=4))
    image = image.to(dtype).requires_grad_()
    outputs = model(image)
    average = torch.tensor(golden.tensor("latent_avg", (CONFIG["num_ws"], CONFIG["w_dim"]))).to(dtype)
    outputs["latents"] = outputs["latents"] + average
    weigh = torch.tensor(golden.tensor(f"cotangent:{NAME}", outputs["latents"].shape)).to(dtype)
    outputs["loss"] = (outputs["latents"] * weigh).sum()
    outputs["loss"].backward()
    outputs["gradient of image"] = image.grad
    for key in ("input_layer.2.weight", "latlayer1.weight", "styles.0.linear.weight", "styles.9.convs.0.weight"):
        outputs[f"gradient of encoder.{key}"] = model.get_parameter(key).grad
    return {name: value.detach().double().numpy() for name, value in outputs.items()}


def write_tiny():
    state = {f"encoder.{key}": value for key, value in Encoder(**TINY).state_dict().items()}
    for key, value in state.items():
        if value.is_floating_point():
            state[key] = torch.tensor(golden.tensor(key, value.shape))
    state["decoder.conv1.conv.weight"] = torch.zeros(1, 2, 2, 3, 3)
    average = torch.tensor(golden.tensor("latent_avg", (TINY["num_ws"], TINY["w_dim"])))
    opts = dict(encoder_type="Encoder4Editing", start_from_latent_avg=True, stylegan_size=8, device="cuda:0")
    torch.save(dict(state_dict=state, latent_avg=average, opts=opts), HERE / "tiny.pt")


def main():
    write_tiny()
    state = Encoder(**CONFIG).state_dict()
    keys = {key: list(value.shape) for key, value in state.items() if "num_batches" not in key}
    single, double = run(torch.float32, keys), run(torch.float64, keys)
    latents = [2, CONFIG["num_ws"], CONFIG["w_dim"]]
    manifest = dict(
        case=NAME,
        family="e4e",
        source="make.py in this folder, after omertov/encoder4editing, models/encoders/psp_encoders.py",
        config=CONFIG,
        rules="default",
        inputs=dict(image={"from": "normal", "key": f"input:{NAME}", "shape": [2, 3, 64, 64], "repeat": 4}),
        cotangents=dict(cotangent=dict(key=f"cotangent:{NAME}", shape=latents)),
        outputs={},
        keys={f"encoder.{key}": shape for key, shape in keys.items()} | {"latent_avg": latents[1:]},
    )
    arrays = {}
    for name, value in single.items():
        index = {0: "[]", 4: "[:, ::5, ::3, ::3]"}.get(value.ndim, f"[{', '.join([':'] * value.ndim)}]")
        index = "[:, :, ::5, ::3]" if name == "gradient of image" else index
        kept = golden.take(value, index)
        gap = golden.relative_error(kept, golden.take(double[name], index))
        manifest["outputs"][name] = dict(shape=list(value.shape), index=index, float64_gap=float(f"{gap:.1e}"))
        arrays[f"output.{name}"] = kept.astype(np.float32)
    (HERE / f"{NAME}.json").write_text(json.dumps(manifest, indent=1) + "\n")
    np.savez_compressed(HERE / f"{NAME}.npz", **arrays)


if __name__ == "__main__":
    main()
