"""Arguments of `models.video_swin.make_video_swin` for the published models: README.md of
Video-Swin-Transformer, the Video Swin paper (arXiv 2106.13230) and the Swin V2 paper
(arXiv 2111.09883, table 5).
"""

from swin_jax.models.swin.presets import V2, VARIANTS

CLASSES = {"kinetics400": 400, "kinetics600": 600, "kinetics700": 700, "sthv2": 174}

# (variant, window, data set, images of the pretraining, drop path), under the names of the
# official files. Large was published by mmaction2 only, its 384 pixels (name of the
# official config) by nobody.
_PUBLISHED = (
    ("tiny", (8, 7, 7), "kinetics400", "1k", 0.1),
    ("small", (8, 7, 7), "kinetics400", "1k", 0.1),
    ("base", (8, 7, 7), "kinetics400", "1k", 0.3),
    ("base", (8, 7, 7), "kinetics400", "22k", 0.2),
    ("base", (8, 7, 7), "kinetics600", "22k", 0.2),
    ("base", (16, 7, 7), "kinetics400", "22k", 0.2),
    ("base", (16, 7, 7), "sthv2", "", 0.4),
    ("large", (8, 7, 7), "kinetics400", "22k", 0.4),
    ("large", (8, 7, 7), "kinetics700", "22k", 0.4),
    ("large", (8, 12, 12), "kinetics400", "22k", 0.5),
    ("large", (8, 12, 12), "kinetics600", "22k", 0.5),
)


def _shown(size: int) -> str:
    """The part of a name that says the size, which others than 384 pixels do not have."""
    return "_384" if size == 384 else ""


def _v1() -> dict[str, dict]:
    presets = {}
    for variant, window, data, images, drop_path_rate in _PUBLISHED:
        size = 32 * window[1]
        windows = "".join(map(str, window))
        name = f"swin_{variant}{_shown(size)}_patch244_window{windows}_{data}"
        presets[f"{name}_{images}" if images else name] = dict(
            VARIANTS[variant],
            num_classes=CLASSES[data],
            image_size=(32, size, size),
            window_size=window,
            drop_path_rate=drop_path_rate,
        )
    return presets


def _v2() -> dict[str, dict]:
    """Version 2's blocks, in the windows of the image models that they are inflated from.
    None was released.

    The paper trained the largest one. Its 320 x 320 x 8 in windows of 20 x 20 x 8 are taken to be
    tokens in time: 16 frames, all of them in each window. (Its test at 384 pixels: `image_size=(16,
    384, 384), window_size=(8, 24, 24)`.)
    """
    presets = {}
    scales = dict(pretrained_window_sizes=((0, 12, 12), (0, 12, 12), (0, 12, 12), (0, 6, 6)))
    for variant, side, size in (
        ("tiny", 8, 256),
        ("small", 8, 256),
        ("base", 8, 256),
        ("base", 12, 384),
    ):
        windows = f"8{side}{side}"
        name = f"video_swinv2_{variant}{_shown(size)}_patch244_window{windows}_kinetics400"
        window = dict(window_size=(8, side, side), image_size=(32, size, size))
        presets[name] = dict(VARIANTS[variant], **V2, **window, **(scales if side == 12 else {}))
    window = dict(window_size=(8, 20, 20), image_size=(16, 320, 320))
    giant = dict(VARIANTS["giant"], **V2, **window, **scales, main_norm_every=6)
    presets["video_swinv2_giant_320_patch244_window82020_kinetics400"] = giant
    return {name: dict(num_classes=400) | arguments for name, arguments in presets.items()}


PRESETS = _v1() | _v2()

# torchvision's names of official weights.
TORCHVISION = {
    "swin3d_t": "swin_tiny_patch244_window877_kinetics400_1k",
    "swin3d_s": "swin_small_patch244_window877_kinetics400_1k",
    "swin3d_b": "swin_base_patch244_window877_kinetics400_1k",
    "swin3d_b_1k": "swin_base_patch244_window877_kinetics400_1k",
    "swin3d_b_22k": "swin_base_patch244_window877_kinetics400_22k",
}


def canonical_name(name: str) -> str | None:
    """The key of `PRESETS` that a name, an official file name or a name of
    torchvision means, or None.
    """
    name = name.removesuffix(".pth")
    return name if name in PRESETS else TORCHVISION.get(name)
