"""Rules for the parameters of IR-SE networks only: layout on a mesh and weight decay."""

from swin_jax.core.params import ONE_DIMENSIONAL

# Convolutions over their outputs; the last layer, more than half of all,
# over the map that it reads.
PARTITION = (
    (r"output_layer_3/kernel$", (None, None, "fsdp", "tensor")),
    (r"(input_layer_0|res_layer_[13]|shortcut_layer_0)/kernel$", (None, None, "tensor", "fsdp")),
)

# Norms, slopes and biases.
NO_DECAY = (
    *ONE_DIMENSIONAL,
    r"(^|\.)(input_layer\.[12]|output_layer\.[04]|shortcut_layer\.1|res_layer\.[024])\.weight$",
)
