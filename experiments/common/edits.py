"""The networks that edit pictures by texts, read and never changed:
those of photographs, or of avatars.
"""

from ml_collections import ConfigDict

from experiments.common import run
from swin_jax.core.config import spec
from swin_jax.models.arcface import IRSE
from swin_jax.models.clip import CLIP, ModifiedResNet, TextTransformer, make_clip, presets
from swin_jax.models.stylegan2 import Generator
from swin_jax.models.stylegan2.presets import PRESETS
from swin_jax.pretrained.arcface import convert as arcface
from swin_jax.pretrained.clip import finetune as clip
from swin_jax.pretrained.stylegan2 import loader as stylegan2
from swin_jax.train.init_from import Frozen


def sizes(avatars: bool, **fields) -> ConfigDict:
    """A config with these fields, seed 0, sizes of latents and pictures,
    and a key for each file of weights.

    Args:
        avatars: The networks of experiments/styleclip, of 32 pixels,
            in place of StyleGAN2's of faces.
        **fields: Further keys of the config.
    """
    c = ConfigDict(dict(seed=0, max_bad_records=0, generator="", clip="", arcface="", **fields))
    if avatars:
        c.update(image_size=32, z_dim=64, w_dim=64, context_length=32)
    else:
        c.update(image_size=1024, z_dim=512, w_dim=512, context_length=77)
    c.edit_batch_size = 4
    return c


def networks(c: ConfigDict, avatars: bool) -> dict[str, ConfigDict]:
    """Specs of the frozen generator, CLIP and network of faces: {field of a task: spec}.

    Args:
        c: Config of `sizes`, whose keys `generator`,
            `clip` and `arcface` are the files or workdirs.
        avatars: The same as in `sizes`.
    """
    ref = c.get_oneway_ref
    inside = dict(resolution=ref("image_size"), **run.refs(c, "z_dim", "w_dim"))
    if avatars:
        widths = dict(mapping_layers=2, channel_base=2048, channel_max=64)
        visual = dict(layers=(1, 1, 1, 1), embed_dim=128, image_size=32, width=24, num_heads=12)
        text = dict(
            width=64, layers=1, num_heads=2, embed_dim=128, context_length=ref("context_length")
        )
        towers = spec(
            CLIP, visual=spec(ModifiedResNet, **visual), text=spec(TextTransformer, **text)
        )
        faces = dict(blocks=((24, 24, 1), (24, 48, 1), (48, 96, 1)), image_size=32, embed_dim=64)
    else:
        widths = {
            key: PRESETS["stylegan2-ffhq-config-f"][key]
            for key in ("mapping_layers", "channel_base")
        }
        towers, faces = spec(make_clip, **presets.PRESETS["ViT-B/32"]), {}
    return dict(
        generator=_frozen(
            c, "generator", spec(Generator, **inside, **widths), stylegan2.pretrained, ("latent",)
        ),
        clip=_frozen(c, "clip", towers, clip.pretrained, ("image", "text")),
        arcface=_frozen(c, "arcface", spec(IRSE, **faces), arcface.pretrained, ("image",)),
    )


def _frozen(
    c: ConfigDict, name: str, model: ConfigDict, convert, inputs: tuple[str, ...]
) -> ConfigDict:
    """A spec of a model whose file or workdir the key `name` of the config is."""
    return spec(
        Frozen,
        model=model,
        path=c.get_oneway_ref(name),
        convert=spec(convert),
        inputs=inputs,
        flag=name,
    )


def use_fakes(c: ConfigDict, frozen: ConfigDict) -> None:
    """Makes networks of `networks` tiny and random,
    in a config or its part `frozen` that holds them.
    """
    c.update(image_size=8, z_dim=8, w_dim=8)
    frozen.generator.model.update(mapping_layers=2, channel_base=128, channel_max=8)
    towers = frozen.clip.model
    if "visual" in towers:
        towers.visual.update(width=8, num_heads=4)
        towers.text.update(width=16)
    else:
        towers.update(embed_dim=8, image_size=16, patch_size=8, vision_layers=1, vision_width=16)
        towers.update(vision_heads=2, text_width=16, text_heads=2, text_layers=1)
    for name in ("generator", "clip", "arcface"):
        if name in frozen:
            frozen[name].required = False
    if "arcface" in frozen:
        frozen.arcface.model.update(blocks=((8, 8, 1), (8, 16, 1)), image_size=16, embed_dim=8)
