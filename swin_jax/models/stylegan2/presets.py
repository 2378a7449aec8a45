"""The published generators, as arguments of `Generator`: the papers' configuration f, and those of ADA.

arXiv 1912.04958, tables 1 and 5; arXiv 2006.06676. Widths of ADA's: README and train.py of
NVlabs/stylegan2-ada-pytorch.
"""

CONFIG_F = dict(mapping_layers=8, channel_base=32768)
CONFIG_E = dict(mapping_layers=8, channel_base=16384)

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
}
