"""Arguments of `models.clip.make_clip` for the published models: the nine of openai/CLIP
(arXiv 2103.00020, tables 19 and 20), and configurations of mlfoundations/open_clip that
other weights come in.
"""

# (image size, blocks of the stages, width, embedding, width of the text tower)
_RESNETS = {
    "RN50": (224, (3, 4, 6, 3), 64, 1024, 512),
    "RN101": (224, (3, 4, 23, 3), 64, 512, 512),
    "RN50x4": (288, (4, 6, 10, 6), 80, 640, 640),
    "RN50x16": (384, (6, 8, 18, 8), 96, 768, 768),
    "RN50x64": (448, (3, 15, 36, 10), 128, 1024, 1024),
}
# (image size, patch size, blocks, width, embedding, width of the text tower)
_VITS = {
    "ViT-B/32": (224, 32, 12, 768, 512, 512),
    "ViT-B/16": (224, 16, 12, 768, 512, 512),
    "ViT-L/14": (224, 14, 24, 1024, 768, 768),
    "ViT-L/14@336px": (336, 14, 24, 1024, 768, 768),
}
_VITS_OF_OPEN_CLIP = {
    "ViT-S-32": (224, 32, 12, 384, 384, 384),
    "ViT-S-16": (224, 16, 12, 384, 384, 384),
    "ViT-M-32": (224, 32, 12, 512, 512, 512),
    "ViT-M-16": (224, 16, 12, 512, 512, 512),
    "ViT-B-16-plus-240": (240, 16, 12, 896, 640, 640),
    "ViT-H-14": (224, 14, 32, 1280, 1024, 1024),
    "ViT-g-14": (224, 14, 40, 1408, 1024, 1024),
    "ViT-bigG-14": (224, 14, 48, 1664, 1280, 1280),
}
# What the large models of open_clip have of their own:
# heads wider than 64, other ratios, deeper text towers.
_OTHER = {
    "ViT-H-14": dict(vision_heads=16, text_layers=24),
    "ViT-g-14": dict(vision_heads=16, vision_mlp_ratio=4.3637, text_layers=24),
    "ViT-bigG-14": dict(vision_heads=16, vision_mlp_ratio=4.9231, text_layers=32),
}


def _resnet(
    size: int, layers: tuple[int, ...], width: int, embed_dim: int, text_width: int
) -> dict:
    return dict(
        embed_dim=embed_dim,
        image_size=size,
        vision_layers=layers,
        vision_width=width,
        patch_size=None,
        text_width=text_width,
        act="quick_gelu",
    )


def _vit(
    size: int, patch: int, layers: int, width: int, embed_dim: int, text_width: int, act: str
) -> dict:
    return dict(
        embed_dim=embed_dim,
        image_size=size,
        vision_layers=layers,
        vision_width=width,
        patch_size=patch,
        text_width=text_width,
        act=act,
    )


OPENAI = {name: _resnet(*row) for name, row in _RESNETS.items()} | {
    name: _vit(*row, "quick_gelu") for name, row in _VITS.items()
}
PRESETS = OPENAI | {
    name: _vit(*row, "gelu") | _OTHER.get(name, {}) for name, row in _VITS_OF_OPEN_CLIP.items()
}


def canonical_name(name: str) -> str | None:
    """The key of `PRESETS` that a name means, or None.

    '-' may stand for '/' and '@', 'px' may be missing, and open_clip's '-quickgelu' may be there.
    """
    plain = {_plain(known): known for known in PRESETS}
    return plain.get(_plain(name))


def _plain(name: str) -> str:
    return (
        name.lower()
        .replace("/", "-")
        .replace("@", "-")
        .removesuffix("-quickgelu")
        .removesuffix("px")
    )
