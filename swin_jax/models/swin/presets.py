"""Arguments of `models.swin.Swin` for the published models: README.md and MODELHUB.md of
microsoft/Swin-Transformer, the Swin V2 paper (arXiv 2111.09883), and the data-scaling study of
SimMIM (arXiv 2206.04664).
"""

VARIANTS = {
    "tiny": dict(embed_dim=96, depths=(2, 2, 6, 2), num_heads=(3, 6, 12, 24)),
    "tiny_c24": dict(embed_dim=96, depths=(2, 2, 6, 2), num_heads=(4, 8, 16, 32)),
    "tiny_c12": dict(embed_dim=96, depths=(2, 2, 6, 2), num_heads=(8, 16, 32, 64)),
    "tiny_c6": dict(embed_dim=96, depths=(2, 2, 6, 2), num_heads=(16, 32, 64, 128)),
    "small": dict(embed_dim=96, depths=(2, 2, 18, 2), num_heads=(3, 6, 12, 24)),
    "base": dict(embed_dim=128, depths=(2, 2, 18, 2), num_heads=(4, 8, 16, 32)),
    "large": dict(embed_dim=192, depths=(2, 2, 18, 2), num_heads=(6, 12, 24, 48)),
    "huge": dict(embed_dim=352, depths=(2, 2, 18, 2), num_heads=(11, 22, 44, 88)),
    "giant_1b": dict(embed_dim=448, depths=(2, 2, 18, 2), num_heads=(14, 28, 56, 112)),
    "giant": dict(embed_dim=512, depths=(2, 2, 42, 4), num_heads=(16, 32, 64, 128)),
}

# The three choices that make version 2.
V2 = dict(cosine_attention=True, post_norm=True, continuous_bias=True)

# What makes a Swin-MLP of version 1.
MLP = dict(token_mixer="mlp", shift="pad")


def _v1() -> dict[str, dict]:
    shapes = [(variant, 7, 224) for variant in ("tiny", "small", "base", "large")]
    shapes += [("base", 12, 384), ("large", 12, 384)]
    only_22k = {"large"}
    presets = {
        "swin_tiny_c24_patch4_window8_256": dict(
            VARIANTS["tiny_c24"], window_size=8, image_size=256
        )
    }
    for variant, size, image_size in shapes:
        name = f"swin_{variant}_patch4_window{size}_{image_size}"
        arguments = dict(VARIANTS[variant], window_size=size, image_size=image_size)
        if variant not in only_22k:
            presets[name] = arguments
        presets[name + "_22k"] = dict(arguments, num_classes=21841)
        presets[name + "_22kto1k"] = arguments
    return presets


def _v2() -> dict[str, dict]:
    presets = {}
    for variant in ("tiny", "small", "base"):
        for size in (8, 16):
            name = f"swinv2_{variant}_patch4_window{size}_256"
            presets[name] = dict(VARIANTS[variant], **V2, window_size=size, image_size=256)
    for variant in ("base", "large"):
        name = f"swinv2_{variant}_patch4_window12"
        shared = dict(VARIANTS[variant], **V2)
        presets[f"{name}_192_22k"] = dict(shared, window_size=12, image_size=192, num_classes=21841)
        for size, image_size in ((16, 256), (24, 384)):
            presets[f"{name}to{size}_192to{image_size}_22kto1k_ft"] = dict(
                shared,
                window_size=size,
                image_size=image_size,
                pretrained_window_sizes=(12, 12, 12, 6),
            )
    # Never released as classifiers: SimMIM's encoders of 192 pixels and, the last one,
    # the paper's 3B model.
    small = dict(V2, window_size=12, image_size=192, num_classes=0)
    presets["swinv2_huge"] = dict(VARIANTS["huge"], **small, main_norm_every=6)
    presets["swinv2_giant_1b"] = dict(VARIANTS["giant_1b"], **small)
    presets["swinv2_giant"] = dict(VARIANTS["giant"], **small, main_norm_every=6)
    return presets


def _mlp() -> dict[str, dict]:
    presets = {}
    for variant, size, image_size in (
        ("tiny_c24", 8, 256),
        ("tiny_c12", 8, 256),
        ("tiny_c6", 8, 256),
        ("base", 7, 224),
    ):
        name = f"swin_mlp_{variant}_patch4_window{size}_{image_size}"
        sizes = dict(window_size=size, image_size=image_size)
        presets[name] = dict(VARIANTS[variant], **MLP, **sizes)
    return presets


PRESETS = {
    name: dict(num_classes=1000) | arguments for name, arguments in (_v1() | _v2() | _mlp()).items()
}
