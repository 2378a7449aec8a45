"""How the latents of pictures are found, by experiments that edit them.

The edit is drawn with the noise maps of the generator, so that latents are looked for that belong to those.
"""

from ml_collections import ConfigDict

from swin_jax.core.config import spec
from swin_jax.inference.editing.distances import FeatureDistance, PerceptualDistance
from swin_jax.inference.editing.inversion import E4EInversion, OptimizationInversion
from swin_jax.models.e4e import E4E
from swin_jax.models.lpips import LPIPS
from swin_jax.models.stylegan2.style_space import num_ws
from swin_jax.models.swin import Swin
from swin_jax.pretrained.e4e import convert as e4e
from swin_jax.pretrained.lpips import convert as lpips
from swin_jax.train.init_from import Frozen


def encoder(c: ConfigDict) -> ConfigDict:
    """A spec of the inversion of photographs by e4e, whose file is the key `e4e` of the config.

    Args:
        c: A config with `image_size` and `w_dim` of the generator, and `e4e`.
    """
    model = spec(E4E, num_ws=num_ws(c.image_size), w_dim=c.get_oneway_ref("w_dim"))
    return spec(E4EInversion, encoder=_frozen(c, "e4e", model, convert=spec(e4e.pretrained)))


def projector(c: ConfigDict) -> ConfigDict:
    """A spec of the inversion of photographs by StyleGAN2's projector, in W+.

    Args:
        c: A config whose keys `vgg16` and `lpips` are the file of torchvision's VGG16 and that of the heads of LPIPS.
    """
    convert = spec(lpips.pretrained, heads=c.get_oneway_ref("lpips"))
    network = _frozen(c, "vgg16", spec(LPIPS), convert=convert, inputs=("image", "other"))
    distance = spec(PerceptualDistance, network=network)
    return spec(OptimizationInversion, distance=distance, space="w+", optimize_noise=False, batch_size=1)


def avatars(c: ConfigDict) -> ConfigDict:
    """A spec of the inversion of avatars of 32 pixels, by the projector in W+ with 300 steps.

    Args:
        c: A config whose key `classifier` is the workdir of avatars_attributes.py.
    """
    shape = dict(patch_size=4, embed_dim=48, depths=(2, 2), num_heads=(2, 4), window_size=4, drop_path_rate=0.0)
    network = _frozen(c, "classifier", spec(Swin, **shape, image_size=32, num_classes=8))
    distance = spec(FeatureDistance, network=network)
    return spec(OptimizationInversion, distance=distance, space="w+", num_steps=300, optimize_noise=False)


def _frozen(c: ConfigDict, name: str, model: ConfigDict, **fields) -> ConfigDict:
    """A spec of a model whose file the key `name` of the config is."""
    return spec(Frozen, model=model, path=c.get_oneway_ref(name), flag=name, **fields)


def use_fakes(invert: ConfigDict) -> None:
    """Makes the network tiny and random, for the generator of `edits.use_fakes`."""
    if "encoder" in invert:
        invert.encoder.required = False
        blocks = ((2, 2, 1), (2, 3, 1), (3, 4, 1), (4, 5, 1))
        invert.encoder.model.update(num_ws=num_ws(8), image_size=16, blocks=blocks)
        return
    invert.update(num_steps=3, mean_samples=16)
    network = invert.distance.network
    network.required = False
    if "widths" in network.model:
        network.model.update(widths=(4, 4), depths=(1, 1))
    else:
        network.model.update(embed_dim=16, depths=(1, 1), num_heads=(1, 2))
