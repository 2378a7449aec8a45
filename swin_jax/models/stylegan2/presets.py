"""The published networks: generators of the papers and of ADA, and their discriminators.

arXiv 1912.04958, tables 1 and 5; arXiv 2006.06676. Widths of ADA's: README and train.py of
NVlabs/stylegan2-ada-pytorch.
"""

CONFIG_F = dict(mapping_layers=8, channel_base=32768)
CONFIG_E = dict(mapping_layers=8, channel_base=16384)

# Arguments of `Generator`, by name.
PRESETS = {
    "stylegan2-ffhq-config-f": dict(resolution=1024, **CONFIG_F),
    "stylegan2-ffhq-config-e": dict(resolution=1024, **CONFIG_E),
    "stylegan2-ffhq-512-config-f": dict(resolution=512, **CONFIG_F),
    "stylegan2-ffhq-256-config-f": dict(resolution=256, **CONFIG_F),
    "stylegan2-ffhq-256-config-e": dict(resolution=256, **CONFIG_E),
    "stylegan2-car-config-f": dict(resolution=512, **CONFIG_F),
    "stylegan2-cat-config-f": dict(resolution=256, **CONFIG_F),
    "stylegan2-church-config-f": dict(resolution=256, **CONFIG_F),
    "stylegan2-horse-config-f": dict(resolution=256, **CONFIG_F),
    "stylegan2-ada-metfaces": dict(resolution=1024, **CONFIG_F),
    "stylegan2-ada-afhqcat": dict(resolution=512, **CONFIG_F),
    "stylegan2-ada-afhqdog": dict(resolution=512, **CONFIG_F),
    "stylegan2-ada-afhqwild": dict(resolution=512, **CONFIG_F),
    "stylegan2-ada-brecahad": dict(resolution=512, **CONFIG_F),
    "stylegan2-ada-cifar10": dict(resolution=32, c_dim=10, **CONFIG_F | dict(mapping_layers=2)),
}
# The same for `Discriminator`, where it differs from the generator's: images of a group for their
# deviation (mbstd of ADA's configurations) and shortcuts.
_GROUPS = {"stylegan2-ffhq-256-config-e": 8}
_GROUPS |= {f"stylegan2-ada-{name}": 8 for name in ("afhqcat", "afhqdog", "afhqwild", "brecahad")}
_GROUPS |= {"stylegan2-ada-cifar10": 32}
_SHARED = ("resolution", "c_dim", "channel_base")
DISCRIMINATORS = {
    name: {key: fields[key] for key in _SHARED if key in fields}
    | dict(mbstd_group_size=_GROUPS.get(name, 4))
    for name, fields in PRESETS.items()
}
DISCRIMINATORS["stylegan2-ada-cifar10"] |= dict(architecture="orig")
