"""The inversion of pictures, for experiments that edit them."""

from ml_collections import ConfigDict

from swin_jax.core.config import spec
from swin_jax.core.errors import UserError
from swin_jax.inference.editing.distances import FeatureDistance, PerceptualDistance
from swin_jax.inference.editing.inversion import E4EInversion, OptimizationInversion
from swin_jax.models.e4e import E4E
from swin_jax.models.lpips import LPIPS
from swin_jax.models.stylegan2.style_space import num_ws
from swin_jax.models.swin import Swin
from swin_jax.pretrained.e4e import convert as e4e
from swin_jax.pretrained.lpips import convert as lpips
from swin_jax.train.init_from import Frozen

# Of avatars_attributes.py.
_SWIN = dict(
    image_size=32, num_classes=8, patch_size=4, embed_dim=48, depths=(2, 2), num_heads=(2, 4)
)
_SWIN |= dict(window_size=4, drop_path_rate=0.0)


def inversion(c: ConfigDict, avatars: bool, projector: bool = False) -> ConfigDict:
    """A spec for `invert`; the keys of its files are added to the config.

    Args:
        c: A config with `image_size` and `w_dim` of the generator.
        avatars: True to invert by StyleGAN2's projector with the pixels and the features of
            avatars_attributes.py, whose workdir is `classifier`.
        projector: True to invert by the projector with LPIPS, whose files are `vgg16`,
            torchvision's, and `lpips`, the heads. Otherwise photographs are inverted by e4e, whose
            file is `e4e`.

    Raises:
        UserError: Both are asked for.
    """
    if avatars and projector:
        raise UserError(
            "avatars are inverted by the projector anyway, with their classifier: "
            "leave out 'projector'"
        )
    if avatars:
        return _projector(
            FeatureDistance, _frozen(c, "classifier", spec(Swin, **_SWIN)), num_steps=500
        )
    if projector:
        c.lpips = ""
        convert = spec(lpips.pretrained, heads=c.get_oneway_ref("lpips"))
        network = _frozen(c, "vgg16", spec(LPIPS), convert=convert, inputs=("image", "other"))
        return _projector(PerceptualDistance, network, batch_size=1)
    model = spec(E4E, num_ws=num_ws(c.image_size), w_dim=c.get_oneway_ref("w_dim"))
    return spec(E4EInversion, encoder=_frozen(c, "e4e", model, convert=spec(e4e.pretrained)))


def _projector(distance: type, network: ConfigDict, **fields) -> ConfigDict:
    """Latents in W+ for the noise maps of the generator, which the edit is drawn with."""
    distance = spec(distance, network=network)
    return spec(
        OptimizationInversion, distance=distance, space="w+", optimize_noise=False, **fields
    )


def _frozen(c: ConfigDict, name: str, model: ConfigDict, **fields) -> ConfigDict:
    """A spec of a model whose file is the new key `name` of the config."""
    c[name] = ""
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
