"""What is true of the parameters of edits only: their layout on a mesh."""

from swin_jax.models.stylegan2 import rules as stylegan2

# Latents that are optimized, and where they start, lie with their rows; mappers are small, and are whole everywhere.
PARTITION = (
    (r"(^|/)(ws|b\d+_conv\d|start|start/\d+|faces)$", ("data", None, None)),
    (r"(^|/)(ws|b\d+_conv\d|start|start/\d+|faces)$", ("data", None)),
    (r"mapping_\d/", ()),
    *stylegan2.PARTITION,
)
