"""How the latents of pictures are found, for experiments that edit pictures: of photographs, or of avatars."""

from ml_collections import ConfigDict

from swin_jax.core.config import spec
from swin_jax.inference.editing.distances import FeatureDistance
from swin_jax.inference.editing.inversion import E4EInversion, OptimizationInversion
from swin_jax.models.e4e import E4E
from swin_jax.models.stylegan2.style_space import num_ws
from swin_jax.models.swin import Swin
from swin_jax.pretrained.e4e import convert as e4e
from swin_jax.train.init_from import Frozen


def inversion(c: ConfigDict, avatars: bool) -> ConfigDict:
    """A spec for `invert`, and the key of its file in the config: `e4e`, or `classifier` for avatars.

    Args:
        c: A config with `image_size` and `w_dim` of the generator.
        avatars: By optimization, with the pixels and the features of avatars_attributes.py, in place of e4e.
    """
    name = "classifier" if avatars else "e4e"
    c[name] = ""
    file = dict(path=c.get_oneway_ref(name), flag=name)
    if not avatars:
        model = spec(E4E, num_ws=num_ws(c.image_size), w_dim=c.get_oneway_ref("w_dim"))
        return spec(E4EInversion, encoder=spec(Frozen, model=model, convert=spec(e4e.pretrained), **file))
    shape = dict(patch_size=4, embed_dim=48, depths=(2, 2), num_heads=(2, 4), window_size=4, drop_path_rate=0.0)
    model = spec(Swin, **shape, image_size=32, num_classes=8)
    distance = spec(FeatureDistance, network=spec(Frozen, model=model, **file))
    # The edit is drawn with the generator's own noise maps.
    return spec(OptimizationInversion, distance=distance, space="w+", num_steps=300, optimize_noise=False)


def use_fakes(invert: ConfigDict) -> None:
    """Makes the network tiny and random, for the generator of `edits.use_fakes`."""
    if "encoder" in invert:
        invert.encoder.required = False
        blocks = ((2, 2, 1), (2, 3, 1), (3, 4, 1), (4, 5, 1))
        invert.encoder.model.update(num_ws=num_ws(8), image_size=16, blocks=blocks)
    else:
        invert.update(num_steps=3, mean_samples=16)
        invert.distance.network.required = False
        invert.distance.network.model.update(embed_dim=16, depths=(1, 1), num_heads=(1, 2))
