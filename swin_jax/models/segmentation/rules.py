"""Rules for the parameters of UPerNet only: layout on a mesh and weight decay."""

from swin_jax.models.swin import rules as swin

# Input channels of a convolution over 'fsdp', nothing over 'tensor': on a mesh of all three axes
# the partitioner of jax 0.10.2 makes wrong gradients of the convolutions of pooled maps where both
# sides of their kernels are split.
PARTITION = swin.PARTITION + ((r"_head/.*conv/kernel$", (None, None, "fsdp", None)),)

# The published recipe spares these names and no others: biases are decayed, and so are gains and
# biases of the heads' batch norms, which are called `bn`.
NO_DECAY = (r"norm", r"relative_position_bias_table", r"absolute_pos_embed")
