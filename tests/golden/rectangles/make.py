"""Writes rectangles.npz: what timm, open_clip and PyTorch compute for sizes that are not square.

    python tests/golden/rectangles/make.py  # needs timm 1.0.31, open_clip_torch 3.3, torch 2.13

Weights and inputs are drawn by name, here and in the tests alike, so that only outputs are stored.
"""

import zlib
from pathlib import Path

import numpy as np

FILE = Path(__file__).with_name("rectangles.npz")
TINY = dict(embed_dim=8, depths=(2, 2, 2), num_heads=(1, 2, 4), num_classes=5)
# Arguments of timm's SwinTransformer; all maps that are shifted are whole numbers of windows.
SWINS = {
    "window": dict(TINY, img_size=(40, 48), patch_size=4, window_size=(5, 6)),
    "image": dict(TINY, img_size=(32, 64), patch_size=4, window_size=4),
    "patch": dict(TINY, img_size=(16, 64), patch_size=(2, 4), window_size=(4, 4)),
    "tall": dict(TINY, img_size=(96, 32), patch_size=4, window_size=(6, 4)),
}
SWINS_V2 = {"v2": dict(TINY, img_size=(40, 48), patch_size=4, window_size=(5, 6))}
# Arguments of open_clip's VisionTransformer, and a text tower beside it that nothing here runs.
VIT = dict(image_size=(32, 64), patch_size=8, width=64, layers=1, heads=1, mlp_ratio=4, output_dim=16)
GRIDS = ((2, 8), (4, 6), "bicubic"), ((4, 8), (3, 2), "bicubic"), ((2, 3), (4, 8), "bilinear")
TABLE = (5, 9), (7, 11)


def draw(name: str, shape: tuple[int, ...], scale: float = 1.0) -> np.ndarray:
    """A normally distributed array that depends on its name only: float32."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    return (scale * rng.standard_normal(shape)).astype(np.float32)


def weights(shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """{name: array} for {name: shape}, of a size that lets every one show in the output."""
    found = {}
    for name, shape in shapes.items():
        tables = name.endswith(("bias_table", "positional_embedding"))
        scale = 0.5 if tables or len(shape) < 2 else 2 / np.prod(shape[1:]) ** 0.5
        ones = len(shape) == 1 and "norm" in name + shape_of_norm(name) and name.endswith("weight")
        found[name] = draw(name, shape, scale) + np.float32(ones)
    return found


def shape_of_norm(name: str) -> str:
    """'norm' for the names that open_clip gives to its norms."""
    return "norm" if ".ln_" in name or name.startswith("ln_") else ""


def fill(module) -> dict[str, np.ndarray]:
    """Gives a module of PyTorch its weights."""
    import torch

    shapes = {name: tuple(p.shape) for name, p in module.named_parameters()}
    found = weights(shapes)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(torch.from_numpy(found[name]))
    return found


def main() -> None:
    import open_clip
    import torch
    from timm.models.swin_transformer import SwinTransformer
    from timm.models.swin_transformer_v2 import SwinTransformerV2

    stored = {}
    with torch.no_grad():
        for kind, cases in ((SwinTransformer, SWINS), (SwinTransformerV2, SWINS_V2)):
            for name, fields in cases.items():
                module = kind(**fields).eval()
                fill(module)
                image = draw(name, (2, 3, *fields["img_size"]))
                stored[f"swin/{name}"] = module(torch.from_numpy(image)).numpy()
                shapes = {n: p.shape for n, p in module.named_parameters()}
                stored[f"names/{name}"] = np.array([f"{n} {','.join(map(str, s))}" for n, s in shapes.items()])
        fields = {k: v for k, v in VIT.items()}
        tower = open_clip.transformer.VisionTransformer(**fields).eval()
        fill(tower)
        stored["vit"] = tower(torch.from_numpy(draw("vit", (2, 3, *VIT["image_size"])))).numpy()
        stored["names/vit"] = np.array([f"{n} {','.join(map(str, p.shape))}" for n, p in tower.named_parameters()])
        for old, new, mode in GRIDS:
            table = torch.from_numpy(draw(f"{old}", (1, 3, *old)))
            resized = torch.nn.functional.interpolate(table, new, mode=mode, antialias=True, align_corners=False)
            stored[f"positions/{old}{new}"] = resized[0].permute(1, 2, 0).reshape(-1, 3).numpy()
        table = torch.from_numpy(draw("table", (1, 2, *TABLE[0])))
        resized = torch.nn.functional.interpolate(table, TABLE[1], mode="bicubic", align_corners=False)
        stored["table"] = resized[0].permute(1, 2, 0).reshape(-1, 2).numpy()
    np.savez_compressed(FILE, **stored)


if __name__ == "__main__":
    main()
