"""Rules for the parameters of CLIP's towers only: layout on a mesh and weight decay."""

from swin_jax.core.params import ONE_DIMENSIONAL
from swin_jax.models.swin import rules as swin

# Both towers of CLIP: the attention pool of the ResNets, what only the text tower has,
# and the projections.
PARTITION = swin.PARTITION + (
    (r"attnpool/[qkv]_proj/kernel$", ("fsdp", "tensor", None)),
    (r"attnpool/[qkv]_proj/bias$", ("tensor", None)),
    (r"attnpool/c_proj/kernel$", ("tensor", None, "fsdp")),
    (r"token_embedding/embedding$", (None, "fsdp")),  # whole rows are looked up
    (r"(text_projection|visual/proj)$", ("fsdp", None)),
)

# Weights that are gains, biases or single vectors are not decayed; embeddings of tokens and
# positions are (as open_clip does; the paper says "all weights that are not gains or biases").
# Names of towers that are Swins fit too.
NO_DECAY = (
    *ONE_DIMENSIONAL,
    r"(^|\.)(ln_\w+|bn\d|downsample\.1)\.weight$",
    r"(^|\.)(logit_scale|class_embedding)$",
    r"relative_position_bias_table",
    r"cpb_mlp",
)
