"""Rules for the parameters of Swin and SimMIM only:
layout on a mesh, weight decay, layer-wise learning rates.

PARTITION is a table for `sharding.Partition`;
the others are regexes on, or functions of, official names.
"""

import re
from collections.abc import Callable

from swin_jax.core.params import ONE_DIMENSIONAL
from swin_jax.core.ranges import Fraction, PositiveInts, checked

# Heads and the hidden width of the MLP over 'tensor', the other side of each matrix over 'fsdp'.
# The names are those of Swin, Video Swin (its temporal layers too) and the transformers of CLIP.
PARTITION = (
    (r"attn/qkv/kernel$", ("fsdp", None, "tensor", None)),
    (r"attn/qkv/bias$", (None, "tensor", None)),
    (r"attn/(q|v)_bias$", ("tensor", None)),
    (r"attn/logit_scale$", ("tensor", None, None)),
    (r"attn/(relative_position_bias_table|cpb_mlp_2/kernel)$", (None, "tensor")),
    (r"attn/proj/kernel$", ("tensor", None, "fsdp")),
    (r"mlp/fc1/kernel$", ("fsdp", "tensor")),
    (r"mlp/fc1/bias$", ("tensor",)),
    (r"mlp/fc2/kernel$", ("tensor", "fsdp")),
)

# Norms and biases, absolute positions, position tables, version 2's bias MLP and temperature,
# and SimMIM's mask token.
NO_DECAY = (
    *ONE_DIMENSIONAL,
    r"(^|\.)(absolute_pos_embed|mask_token)$",
    r"relative_position_bias_table",
    r"cpb_mlp",
    r"logit_scale",
)

# The published SimMIM pretraining: the keywords of what is not decayed got the prefix
# `encoder.` and were then looked for inside names where they don't occur, so that position
# tables, bias MLPs and temperatures are decayed. What is exempt by its whole name stays exempt.
# `NO_DECAY` is the corrected form.
SIMMIM_NO_DECAY = (*ONE_DIMENSIONAL, r"(^|\.)(absolute_pos_embed|mask_token)$")


@checked
def layer_decay(decay: Fraction, depths: PositiveInts) -> Callable:
    """Layer-wise learning rates of the SimMIM fine-tuning:
    the factor is decay^(last id - id of the layer).

    The patch embedding has id 0, blocks count from 1 (the main-branch norm `enorm` belongs to its
    block), a stage's `downsample` shares the id of its last block, and the final norm, the head and
    the absolute position embedding have the last id, sum(depths) + 1.

    Args:
        decay: Factor from one layer to the one before it.
        depths: Blocks per stage.

    Returns:
        A function of a Swin parameter's official name.
    """

    def layer_id(name):
        if name.startswith("patch_embed.") or name == "mask_token":
            return 0
        inside = re.match(r"layers\.(\d+)\.(?:blocks\.(\d+)|downsample)\.", name)
        if not inside:
            return sum(depths) + 1
        stage, block = int(inside[1]), inside[2]
        return sum(depths[: stage + 1]) if block is None else sum(depths[:stage]) + int(block) + 1

    return lambda name: decay ** (sum(depths) + 1 - layer_id(name))
