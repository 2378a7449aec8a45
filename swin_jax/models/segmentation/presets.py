"""Flat arguments of UPerNet, and those of the published models: README.md of
Swin-Transformer-Semantic-Segmentation and of microsoft/Swin-Transformer.
"""

from swin_jax.core.ranges import (
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    PositiveInts,
    Rate,
    checked,
)
from swin_jax.core.sizes import Size, Windows
from swin_jax.models.segmentation.upernet import UPerNet
from swin_jax.models.swin import Swin
from swin_jax.models.swin.presets import VARIANTS


@checked
def make_upernet(
    num_classes: PositiveInt = 150,
    channels: PositiveInt = 512,
    auxiliary_channels: NonNegativeInt = 256,
    pool_scales: PositiveInts = (1, 2, 3, 6),
    dropout_rate: Rate = 0.1,
    image_size: Size = 512,
    patch_size: Size = 4,
    in_channels: PositiveInt = 3,
    embed_dim: PositiveInt = 96,
    depths: PositiveInts = (2, 2, 6, 2),
    num_heads: PositiveInts = (3, 6, 12, 24),
    window_size: Windows = 7,
    mlp_ratio: PositiveFloat = 4.0,
    qkv_bias: bool = True,
    cosine_attention: bool = False,
    post_norm: bool = False,
    continuous_bias: bool = False,
    pretrained_window_sizes: tuple[NonNegativeInt | tuple[NonNegativeInt, ...], ...] = (),
    main_norm_every: NonNegativeInt = 0,
    ape: bool = False,
    patch_norm: bool = True,
    drop_path_rate: Rate = 0.3,
    dtype: str = "float32",
    param_dtype: str = "float32",
    attention: tuple[str, ...] = ("auto",),
    remat: str = "none",
    scan: bool = False,
) -> UPerNet:
    """An UPerNet over a Swin that pads: `make_upernet(**presets.PRESETS[name])`.

    Args:
        num_classes, channels, auxiliary_channels, pool_scales, dropout_rate: The same as in
            `UPerNet`.
        image_size: Height and width of the crops that it is trained with; they count for `flops`
            and, with `ape`, for the grid of absolute positions. Pictures of any size are taken.
        patch_size, in_channels, embed_dim, depths, num_heads, window_size, mlp_ratio, qkv_bias,
            cosine_attention, post_norm, continuous_bias, pretrained_window_sizes, main_norm_every,
            ape, patch_norm, drop_path_rate, dtype, param_dtype, attention, remat, scan: of the
            backbone, see `models.swin.Swin`.
    """
    backbone = Swin(
        num_classes=0,
        image_size=image_size,
        patch_size=patch_size,
        in_channels=in_channels,
        embed_dim=embed_dim,
        depths=depths,
        num_heads=num_heads,
        window_size=window_size,
        mlp_ratio=mlp_ratio,
        qkv_bias=qkv_bias,
        cosine_attention=cosine_attention,
        post_norm=post_norm,
        continuous_bias=continuous_bias,
        pretrained_window_sizes=pretrained_window_sizes,
        main_norm_every=main_norm_every,
        ape=ape,
        patch_norm=patch_norm,
        drop_path_rate=drop_path_rate,
        small="keep",
        out_norms=tuple(range(len(depths))),
        dtype=dtype,
        param_dtype=param_dtype,
        attention=attention,
        remat=remat,
        scan=scan,
    )
    head = dict(channels=channels, auxiliary_channels=auxiliary_channels, pool_scales=pool_scales)
    return UPerNet(backbone, num_classes, dropout_rate=dropout_rate, **head)


def _preset(variant: str, window: int = 7, image_size: int = 512) -> dict:
    sizes = dict(window_size=window, image_size=image_size)
    return dict(VARIANTS[variant], **sizes, num_classes=150, channels=512)


# The window of the two that were trained at 640 pixels was never published: that of Swins for
# larger pictures is assumed. Only numbers are known of them, no weights.
PRESETS = {
    "upernet_swin_tiny_patch4_window7_512x512": _preset("tiny"),
    "upernet_swin_small_patch4_window7_512x512": _preset("small"),
    "upernet_swin_base_patch4_window7_512x512": _preset("base"),
    "upernet_swin_base_patch4_window12_640x640_22k": _preset("base", 12, 640),
    "upernet_swin_large_patch4_window12_640x640_22k": _preset("large", 12, 640),
    "moby_upernet_swin_tiny_patch4_window7_512x512": _preset("tiny"),
}
