"""Rules for the parameters of Video Swin only: weight decay, and shares of the learning rate."""

from swin_jax.models.swin import rules as swin

PARTITION = swin.PARTITION  # a Video Swin's backbone is a Swin

# Groups of parameters as (no_decay, rules of `scale_by_name`). The released configs want position
# tables and norms without decay and the backbone at a tenth of the rate, but mmcv applies only the
# longest keyword that matches: tables train at the full rate, and norms and biases are decayed.
# What was meant is what mmaction2 1.x does.
GROUPS = dict(
    released=(
        (r"relative_position_bias_table",),
        ((r"relative_position_bias_table", 1.0), (r"^backbone\.", 0.1)),
    ),
    intended=(
        (r"relative_position_bias_table", r"absolute_pos_embed", r"^backbone\..*norm"),
        ((r"^backbone\.", 0.1),),
    ),
)
