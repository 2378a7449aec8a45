"""Rules for the parameters of StyleGAN2 only: their layout on a mesh."""

# Output channels of a kernel over 'tensor', its input channels over 'fsdp'.
PARTITION = (
    (r"(conv\d?|skip)/kernel$", (None, None, "fsdp", "tensor")),
    (r"(fc\d*|embed)/kernel$", ("fsdp", "tensor")),
    (r"affine/kernel$", ("fsdp", None)),
)
