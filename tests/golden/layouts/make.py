"""Writes layouts.npz: what tiny Swins of transformers, torchvision and timm compute, and the names of their arrays.

    python tests/golden/layouts/make.py  # needs transformers 5.24, torchvision 0.28, timm 1.0.31, torch 2.13

Weights and inputs are drawn by name, here and in the tests alike, so that only names and outputs are stored.
"""

import json
import tempfile
import zlib
from pathlib import Path

import numpy as np

FILE = Path(__file__).with_name("layouts.npz")
TINY = dict(embed_dim=8, depths=(1, 2, 2), num_heads=(1, 2, 4))
HUGGING = dict(TINY, image_size=32, patch_size=2, window_size=4)
SCALED = dict(HUGGING, pretrained_window_sizes=(3, 3, 2))
MAPS = dict(out_features=["stage1", "stage3"])
# {case: (class, arguments of its config, sizes of images)}; 36 x 27 is of no whole patches nor windows.
TRANSFORMERS = {
    "swin": ("SwinForImageClassification", dict(HUGGING, num_labels=5), ((32, 32), (36, 27))),
    "swin_model": ("SwinModel", dict(HUGGING, use_absolute_embeddings=True, qkv_bias=False), ((32, 32),)),
    "swin_masked": ("SwinForMaskedImageModeling", dict(HUGGING, encoder_stride=8), ((32, 32),)),
    "swin_backbone": ("SwinBackbone", dict(HUGGING, **MAPS), ((20, 12),)),
    "swinv2": ("Swinv2ForImageClassification", dict(SCALED, num_labels=5), ((36, 27),)),
    "swinv2_model": ("Swinv2Model", dict(HUGGING, qkv_bias=False, mlp_ratio=3.0), ((32, 32),)),
    "swinv2_shrunk": ("Swinv2ForImageClassification", dict(HUGGING, window_size=8, num_labels=5), ((32, 32),)),
    "swinv2_masked": ("Swinv2ForMaskedImageModeling", dict(SCALED, encoder_stride=8), ((32, 32),)),
    "swinv2_backbone": ("Swinv2Backbone", dict(SCALED, **MAPS), ((32, 32),)),
}
VISION = dict(TINY, patch_size=[2, 2], num_classes=5)
# {case: (version, arguments of SwinTransformer, sizes of images)}; torchvision never makes a window smaller, and cuts
# off pixels beyond whole patches.
TORCHVISION = {
    "vision": (1, dict(VISION, window_size=[4, 4]), ((32, 32), (37, 13))),
    "vision_oblong": (1, dict(VISION, window_size=[4, 2], patch_size=[2, 4]), ((13, 42),)),
    "vision_v2": (2, dict(VISION, window_size=[4, 4], mlp_ratio=2.0), ((37, 13),)),
}
TIMM = {
    "timm": ("swin_tiny_patch4_window7_224", dict(TINY, img_size=32, patch_size=2, window_size=4)),
    "timm_two": (
        "swin_tiny_patch4_window7_224",
        dict(TINY, img_size=32, patch_size=2, window_size=4, out_indices=(1,)),
    ),
    "timm_v2": ("swinv2_tiny_window8_256", dict(TINY, img_size=32, patch_size=2, window_size=4)),
}


def draw(name: str, shape: tuple[int, ...], scale: float = 1.0) -> np.ndarray:
    """A normally distributed array that depends on its name only: float32."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    return (scale * rng.standard_normal(shape)).astype(np.float32)


def weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The array of a name, of a size that lets every one show in the output."""
    scale = 0.2 if name.endswith("bias_table") or len(shape) < 2 else 1 / np.prod(shape[1:]) ** 0.5
    is_norm = len(shape) == 1 and ("norm" in name or name == "features.0.2.weight") and name.endswith("weight")
    return draw(name, shape, scale) + np.float32(is_norm)


def image(case: str, size: tuple[int, int]) -> np.ndarray:
    """An image (1, 3, H, W)."""
    return draw(f"{case} {size}", (1, 3, *size))


def fill(module) -> dict[str, np.ndarray]:
    """Gives a module of PyTorch its weights, in double precision; {name: array}."""
    import torch

    found = {name: weight(name, tuple(p.shape)) for name, p in module.named_parameters()}
    module.double()
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(torch.from_numpy(found[name]))
    return found


def outputs(case: str, module, sizes) -> dict[str, np.ndarray]:
    """{out/case/size/number: array} of what a module puts out: logits, pooled features, or maps."""
    import torch

    stored = {}
    for size in sizes:
        out = module(torch.from_numpy(image(case, size)).double())
        keys = ("feature_maps", "logits", "pooler_output", "last_hidden_state")
        out = next((getattr(out, key) for key in keys if getattr(out, key, None) is not None), out)
        maps = out if isinstance(out, (list, tuple)) else [out]
        for i, x in enumerate(maps):
            stored[f"out/{case}/{size[0]}x{size[1]}/{i}"] = x.numpy().astype(np.float32)
    return stored


def lines(file: dict[str, np.ndarray], drawn: dict[str, np.ndarray]) -> np.ndarray:
    """'name in the file, name that it was drawn by, shape' of each array of a file."""
    rows = []
    for name, value in file.items():
        source = next((n for n, x in drawn.items() if x.shape == value.shape and np.array_equal(x, value)), None)
        if source is not None:
            rows.append(f"{name} {source} {','.join(map(str, value.shape))}")
    return np.array(rows)


def of_transformers(case: str) -> dict[str, np.ndarray]:
    import transformers
    from safetensors.numpy import load_file

    name, arguments, sizes = TRANSFORMERS[case]
    kind = transformers.Swinv2Config if name.startswith("Swinv2") else transformers.SwinConfig
    module = getattr(transformers, name)(kind(**arguments)).eval()
    drawn = fill(module)
    with tempfile.TemporaryDirectory() as folder:
        module.float().save_pretrained(folder)
        file = load_file(Path(folder) / "model.safetensors")
        config = json.loads((Path(folder) / "config.json").read_text())
    stored = {f"names/{case}": lines(file, drawn), f"config/{case}": np.array(json.dumps(config))}
    module = module.double().base_model if "Masked" in name else module.double()
    return stored | outputs(case, module, sizes)


def of_torchvision(case: str) -> dict[str, np.ndarray]:
    from torchvision.models import swin_transformer as vision

    version, arguments, sizes = TORCHVISION[case]
    kinds = dict(block=vision.SwinTransformerBlockV2, downsample_layer=vision.PatchMergingV2) if version == 2 else {}
    module = vision.SwinTransformer(**arguments, **kinds).eval()
    drawn = fill(module)
    stored = {f"names/{case}": lines(drawn, drawn)}
    for name, value in module.state_dict().items():
        if name.endswith(("relative_position_index", "relative_coords_table")):
            dtype = np.int16 if name.endswith("index") else np.float32
            stored[f"buffers/{case}/{name}"] = value.numpy().astype(dtype)
    return stored | outputs(case, module, sizes)


def of_timm(case: str) -> dict[str, np.ndarray]:
    import timm

    name, arguments = TIMM[case]
    module = timm.create_model(name, features_only=True, **arguments).eval()
    drawn = fill(module)
    assert set(drawn) == set(module.state_dict())
    return {f"names/{case}": lines(drawn, drawn)} | outputs(case, module, ((32, 32),))


def main() -> None:
    import torch

    with torch.no_grad():
        stored = {}
        for cases, record in ((TRANSFORMERS, of_transformers), (TORCHVISION, of_torchvision), (TIMM, of_timm)):
            for case in cases:
                stored |= record(case)
    np.savez_compressed(FILE, **stored)


if __name__ == "__main__":
    main()
