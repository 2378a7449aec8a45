"""The networks whose speed is measured, and the programs that JAX compiles of them.

A row is a published network, or a small one in its place, by the arguments that both sides are
built from. Nothing is dropped at random on either side, weights and inputs are random, and the
training step is the gradient of the loss and an update by AdamW. Two rows are attention inside
windows alone, whose step is the gradient of q, k, v and bias.
"""

import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from swin_jax.models.clip import PRESETS as CLIPS
from swin_jax.models.clip import make_clip
from swin_jax.models.stylegan2 import PRESETS as GENERATORS
from swin_jax.models.stylegan2 import Discriminator, Generator
from swin_jax.models.swin import Swin
from swin_jax.models.swin.presets import PRESETS as SWINS
from swin_jax.models.video_swin import make_video_swin
from swin_jax.models.video_swin.presets import PRESETS as VIDEO_SWINS
from swin_jax.ops import attention, losses
from swin_jax.ops.contrastive import softmax_loss
from swin_jax.optim.optimizers import adamw
from swin_jax.optim.schedules import constant
from swin_jax.plan import flops

LEARNING_RATE, WEIGHT_DECAY = 1e-4, 0.05
Arrays = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Row:
    """A network.

    Attributes:
        family: 'attention', 'swin', 'video_swin', 'clip' or 'stylegan2'.
        fields: Arguments of the network; of attention the windows of an image, their tokens, and
            the number and size of heads.
        small: Arguments that replace some of them where only the command is tried.
        cpu_batch, gpu_batch: Examples of a batch.
        example: The word for an example.
        gpu_fields: Arguments that replace some of `fields` on a GPU.
        forward_bytes: Bytes that a forward in bfloat16 reads and writes for each example on a GPU,
            at the least, if everything between two matrix products is fused with one of them and
            no logits are stored; 0 if they were not counted.
    """

    family: str
    fields: dict[str, Any]
    small: dict[str, Any]
    cpu_batch: int
    gpu_batch: int = 128
    example: str = "image"
    gpu_fields: dict[str, Any] = dataclasses.field(default_factory=dict)
    forward_bytes: float = 0.0

    def arguments(self, device: str, is_small: bool) -> dict[str, Any]:
        """The arguments of the network on a device, 'cpu' or 'gpu'."""
        other = self.gpu_fields if device == "gpu" else {}
        return self.fields | other | (self.small if is_small else {})

    def batch_size(self, device: str, is_small: bool) -> int:
        """Examples of a batch on a device, 'cpu' or 'gpu'."""
        if is_small:
            return 2
        return self.gpu_batch if device == "gpu" else self.cpu_batch


_SMALL_CORE = dict(windows=2, tokens=4, heads=2, size=8)
_STAGES = dict(embed_dim=16, depths=(2, 2), num_heads=(1, 2), num_classes=8)
_SMALL = _STAGES | dict(image_size=56)
_SMALL_V2 = _STAGES | dict(image_size=64)
_SMALL_VIDEO = _STAGES | dict(image_size=(4, 56, 56))
_TOWERS = dict(embed_dim=16, image_size=32, vision_layers=1, text_layers=1, vocab_size=64)
_SMALL_CLIP = _TOWERS | dict(vision_width=64, text_width=64, patch_size=16, context_length=8)
_SMALL_GAN = dict(resolution=16, channel_base=128, channel_max=8, z_dim=16, w_dim=16)


def _swin(name: str, small: dict[str, Any], cpu_batch: int, megabytes: float) -> Row:
    fields = SWINS[name] | dict(drop_path_rate=0.0)
    return Row("swin", fields, small, cpu_batch, forward_bytes=1e6 * megabytes)


def _stylegan2(small: dict[str, Any], cpu_batch: int, gpu_batch: int, **sizes: int) -> Row:
    fields = GENERATORS["stylegan2-ffhq-256-config-e"] | sizes
    return Row("stylegan2", fields, small, cpu_batch, gpu_batch)


ROWS = {
    # The first stages of Swin-T and of Video Swin-T.
    "attention_7x7": Row(
        "attention", dict(windows=64, tokens=49, heads=3, size=32), _SMALL_CORE, cpu_batch=8
    ),
    "attention_8x7x7": Row(
        "attention",
        dict(windows=64, tokens=392, heads=3, size=32),
        _SMALL_CORE,
        cpu_batch=1,
        gpu_batch=16,
        example="clip",
    ),
    "swin_tiny": _swin("swin_tiny_patch4_window7_224", _SMALL, 8, 66),
    "swin_base": _swin("swin_base_patch4_window7_224", _SMALL, 4, 142),
    "swinv2_tiny": _swin("swinv2_tiny_patch4_window8_256", _SMALL_V2, 8, 86),
    "swinv2_base": _swin("swinv2_base_patch4_window8_256", _SMALL_V2, 4, 185),
    "video_swin_tiny": Row(
        "video_swin",
        VIDEO_SWINS["swin_tiny_patch244_window877_kinetics400_1k"]
        | dict(image_size=(16, 224, 224), drop_path_rate=0.0, dropout_rate=0.0),
        _SMALL_VIDEO,
        cpu_batch=1,
        gpu_batch=8,
        example="clip",
        gpu_fields=dict(image_size=(32, 224, 224)),
        forward_bytes=1060e6,
    ),
    "clip_vit_b32": Row(
        "clip",
        dict(context_length=77, vocab_size=49408, text_layers=12) | CLIPS["ViT-B/32"],
        _SMALL_CLIP,
        cpu_batch=16,
        example="pair",
        forward_bytes=42e6,
    ),
    "stylegan2_small": _stylegan2(_SMALL_GAN, 16, 128, resolution=64, channel_base=4096),
    "stylegan2_256": _stylegan2(_SMALL_GAN, 2, 32),
}


@dataclasses.dataclass(frozen=True)
class Network:
    """A network of ours.

    Attributes:
        params: Its parameters.
        inputs: Arrays that it reads and that are not trained.
        forward: (params, inputs) -> outputs.
        loss: (params, inputs) -> () float32.
        trains: True if a step updates the parameters; False if it is their gradient alone.
    """

    params: Any
    inputs: Arrays
    forward: Callable[[Any, Arrays], Any]
    loss: Callable[[Any, Arrays], jax.Array]
    trains: bool = True

    def cast(self, dtype: str) -> "Network":
        """The same network, with parameters of a type."""
        params = jax.tree.map(lambda leaf: leaf.astype(dtype), self.params)
        return dataclasses.replace(self, params=params)


@dataclasses.dataclass(frozen=True)
class Program:
    """A compiled program.

    Attributes:
        run: Starts it once and returns what `wait` takes.
        wait: Returns when a run has ended, and with it all before.
        compile_seconds: The time that tracing and compiling took.
        flops: FLOPs of its matrix products and convolutions; None if they were not counted.
    """

    run: Callable[[], Any]
    wait: Callable[[Any], Any]
    compile_seconds: float = 0.0
    flops: int | None = None


def make_inputs(row: Row, fields: Mapping[str, Any], batch_size: int) -> dict[str, np.ndarray]:
    """Random inputs of a network, and what its loss compares with.

    Args:
        row: Row of the network.
        fields: Arguments of the network.
        batch_size: B.

    Returns:
        `image` (B, H, W, 3) or `video` (B, T, H, W, 3), float32, with `label` (B,) int32 or with
        `text` (B, L) int32; of a generator `z` (B, z_dim) float32; of attention `qkv` (B, nW, N, 3,
        h, d) and `gradient` (B, nW, N, h, d) float32.
    """
    rng = np.random.default_rng(0)
    if row.family == "attention":
        rows, heads = (batch_size, fields["windows"], fields["tokens"]), fields["heads"]
        shapes = dict(
            qkv=(*rows, 3, heads, fields["size"]), gradient=(*rows, heads, fields["size"])
        )
        return {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    if row.family == "stylegan2":
        width = fields.get("z_dim", 512)
        return {"z": rng.standard_normal((batch_size, width), np.float32)}
    size = fields.get("image_size", 224)
    sides = size if isinstance(size, tuple) else (size, size)
    pixels = rng.standard_normal((batch_size, *sides, 3), np.float32)
    if row.family == "clip":
        last = fields["vocab_size"] - 1  # the end of a text, at which its features are read
        text = rng.integers(1, last, (batch_size, fields["context_length"]), np.int32)
        text[:, -1] = last
        return {"image": pixels, "text": text}
    label = rng.integers(0, fields["num_classes"], batch_size, np.int32)
    return {"video" if len(sides) == 3 else "image": pixels, "label": label}


def make_network(family: str, fields: Mapping[str, Any], inputs: Arrays, dtype: str) -> Network:
    """A network of ours with random weights; `dtype` is that of its matrix products."""
    return _FAMILIES[family](fields, jax.tree.map(jnp.asarray, dict(inputs)), dtype)


def _attention(fields: Mapping[str, Any], inputs: Arrays, dtype: str) -> Network:
    """Attention inside windows; the inputs q, k and v are parameters, for their gradient."""
    heads, tokens = fields["heads"], fields["tokens"]

    def forward(params, inputs):
        qkv = params["qkv"].reshape(-1, *params["qkv"].shape[2:]).astype(dtype)
        bias = params["bias"].astype(jnp.float32)
        return attention.window_attention(qkv, bias, implementation="auto")

    def loss(params, inputs):
        out = forward(params, inputs).astype(jnp.float32)
        return (out * inputs["gradient"].reshape(out.shape)).sum()

    params = {"qkv": inputs["qkv"], "bias": jnp.zeros((1, heads, tokens, tokens))}
    return Network(params, {"gradient": inputs["gradient"]}, forward, loss, trains=False)


def _classifier(model, name: str, inputs: Arrays) -> Network:
    def forward(params, inputs):
        return model.apply({"params": params}, inputs[name])

    def loss(params, inputs):
        logits = forward(params, inputs)
        target = losses.smooth_one_hot(inputs["label"], logits.shape[-1])
        return losses.soft_cross_entropy(logits, target).mean()

    return Network(_init(model, inputs[name][:1])["params"], inputs, forward, loss)


def _image_swin(fields: Mapping[str, Any], inputs: Arrays, dtype: str) -> Network:
    return _classifier(Swin(**fields, dtype=dtype), "image", inputs)


def _video_swin(fields: Mapping[str, Any], inputs: Arrays, dtype: str) -> Network:
    return _classifier(make_video_swin(**fields, dtype=dtype), "video", inputs)


def _clip(fields: Mapping[str, Any], inputs: Arrays, dtype: str) -> Network:
    model = make_clip(**fields, dtype=dtype)

    def forward(params, inputs):
        return model.apply({"params": params}, inputs["image"], inputs["text"])

    def loss(params, inputs):
        variables, rows = {"params": params}, jnp.arange(inputs["text"].shape[0])
        features = [
            model.apply(variables, inputs[name], normalize=True, method=f"encode_{name}")
            for name in ("image", "text")
        ]
        return softmax_loss(*features, jnp.exp(params["logit_scale"]), rows)[0]

    params = _init(model, inputs["image"][:1], inputs["text"][:1])["params"]
    return Network(params, inputs, forward, loss)


def _gan(fields: Mapping[str, Any], inputs: Arrays, dtype: str) -> Network:
    """A generator; its loss is that of its update, through a discriminator that stays."""
    sizes = {
        name: fields[name]
        for name in ("resolution", "channel_base", "channel_max")
        if name in fields
    }
    generator, judge = Generator(**fields, dtype=dtype), Discriminator(**sizes, dtype=dtype)
    held = _init(generator, inputs["z"][:1])
    params = held.pop("params")

    def forward(params, inputs):
        return generator.apply({"params": params, **inputs["held"]}, inputs["z"])

    def loss(params, inputs):
        logits = judge.apply(inputs["judge"], forward(params, inputs))
        return jax.nn.softplus(-logits).mean()

    side = generator.resolution
    weights = _init(judge, jnp.zeros((1, side, side, 3)))
    return Network(params, {**inputs, "held": held, "judge": weights}, forward, loss)


_FAMILIES = {
    "attention": _attention,
    "swin": _image_swin,
    "video_swin": _video_swin,
    "clip": _clip,
    "stylegan2": _gan,
}


def _init(model, *examples: jax.Array) -> dict[str, Any]:
    return dict(jax.jit(model.init)(jax.random.key(0), *examples))


def forward_program(network: Network) -> Program:
    """The compiled forward of a network."""
    began = time.perf_counter()
    traced = jax.jit(network.forward).trace(network.params, network.inputs)
    compiled = traced.lower().compile()
    seconds = time.perf_counter() - began

    def run():
        return compiled(network.params, network.inputs)

    return Program(run, jax.block_until_ready, seconds, flops.count_jaxpr(traced.jaxpr))


def step_program(network: Network) -> Program:
    """The compiled training step of a network, which updates a copy of its parameters; or the
    gradient, if it does not train.
    """
    if not network.trains:
        gradient = jax.value_and_grad(network.loss)
        return forward_program(dataclasses.replace(network, forward=gradient))
    tx = adamw(constant(LEARNING_RATE), (), weight_decay=WEIGHT_DECAY, clip_norm=0.0)

    def step(params, opt_state, inputs):
        loss, gradient = jax.value_and_grad(network.loss)(params, inputs)
        updates, opt_state = tx.update(gradient, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, loss

    params = jax.tree.map(jnp.copy, network.params)
    state = [params, jax.jit(tx.init)(params)]
    began = time.perf_counter()
    traced = jax.jit(step, donate_argnums=(0, 1)).trace(*state, network.inputs)
    compiled = traced.lower().compile()
    seconds = time.perf_counter() - began

    def run():
        *state[:], loss = compiled(*state, network.inputs)
        return loss

    return Program(run, jax.block_until_ready, seconds, flops.count_jaxpr(traced.jaxpr))


def measured_peak(dtype: str, side: int, repeats: int = 5) -> float:
    """FLOP/s of the fastest of several products of two square matrices."""
    matrix = jnp.ones((side, side), dtype)
    product = jax.jit(jnp.matmul)
    product(matrix, matrix).block_until_ready()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        product(matrix, matrix).block_until_ready()
        times.append(time.perf_counter() - began)
    return 2 * side**3 / min(times)
