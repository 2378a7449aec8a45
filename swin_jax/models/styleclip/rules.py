"""Rules for the parameters of edits only: their layout on a mesh."""

from swin_jax.models.stylegan2 import rules as stylegan2

# Latents that are optimized, and where they start, lie with the rows of the batch.
PARTITION = (
    (r"(^|/)(ws|b\d+_conv\d|start|start/\d+|faces)$", ("data", None, None)),
    (r"(^|/)(ws|b\d+_conv\d|start|start/\d+|faces)$", ("data", None)),
    *stylegan2.PARTITION,
)
