"""Rules for the parameters of UPerNet only: layout on a mesh and weight decay."""

from swin_jax.models.swin import rules as swin

# Output channels of a convolution over 'tensor', its input channels over 'fsdp'.
PARTITION = swin.PARTITION + ((r"_head/.*conv/kernel$", (None, None, "fsdp", "tensor")),)

# The published recipe spares these names and no others: biases are decayed, and so are gains and
# biases of the heads' batch norms, which are called `bn`.
NO_DECAY = (r"norm", r"relative_position_bias_table", r"absolute_pos_embed")
