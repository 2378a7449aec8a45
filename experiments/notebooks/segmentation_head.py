"""A segmentation head on a dense Swin backbone:
learns discs and squares in half a minute on two CPU cores.

    python experiments/notebooks/segmentation_head.py

The backbone takes images of any size, odd ones too, and gives a map per stage (strides 4, 8, 16).
The head brings the maps to one width and to the finest grid and adds them, a feature pyramid
(arXiv 1612.03144) at its smallest. Images are made up: on a noisy ground, discs in warm and squares
in cold colors that cover each other.
"""

import argparse

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from swin_jax.models.swin import Swin

SIZE = (61, 83)
CLASSES = ("ground", "disc", "square")


class Segmenter(nn.Module):
    """(B, H, W, 3) normalized images to (B, H, W, classes) logits."""

    backbone: Swin
    width: int = 32

    @nn.compact
    def __call__(self, image):
        maps = self.backbone(image)  # coarser by 2 from stage to stage, each after its own norm
        batch, *finest, _ = maps[0].shape
        total = 0
        for i, x in enumerate(maps):
            x = nn.Dense(self.width, name=f"lateral{i}")(x)
            x = jax.image.resize(
                x, (batch, x.shape[1] << i, x.shape[2] << i, self.width), "bilinear"
            )
            total += x[:, : finest[0], : finest[1]]  # merging had padded odd grids at their end
        # 4 x 4 pixels per token, each with its own weights,
        # so that outlines are sharper than the grid.
        x = nn.Dense(16 * len(CLASSES), name="head")(nn.gelu(total))
        x = x.reshape(batch, *finest, 4, 4, len(CLASSES)).transpose(0, 1, 3, 2, 4, 5)
        return x.reshape(batch, 4 * finest[0], 4 * finest[1], -1)[
            :, : image.shape[1], : image.shape[2]
        ]


def pictures(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """`count` images (B, *SIZE, 3) float32 and their classes (B, *SIZE) int32."""
    image = rng.uniform(-1.5, 0.5, (count, 1, 1, 3)) + rng.normal(0, 0.4, (count, *SIZE, 3))
    label = np.zeros((count, *SIZE), np.int32)
    y, x = np.indices(SIZE)
    for i in range(count):
        for _ in range(rng.integers(3, 6)):
            radius = rng.uniform(8, 14)
            dy, dx = abs(y - rng.uniform(0, SIZE[0])), abs(x - rng.uniform(0, SIZE[1]))
            kind = rng.integers(1, 3)
            inside = np.hypot(dy, dx) < radius if kind == 1 else np.maximum(dy, dx) < 0.9 * radius
            low, high = rng.uniform(-0.5, 0.5), rng.uniform(0.5, 1.5)
            if kind == 1:
                color = [high, rng.uniform(-0.5, 1.5), low]
            else:
                color = [low, rng.uniform(-0.5, 1.5), high]
            image[i, inside] = color + rng.normal(0, 0.4, (inside.sum(), 3))
            label[i, inside] = kind
    return image.astype(np.float32), label


def main(
    steps: int = 150, path: str = "segmentation.png", batch_size: int = 8
) -> tuple[float, float]:
    """Trains, prints and draws; returns the pixel accuracy on new images and the
    share of the ground.
    """
    backbone = Swin(
        embed_dim=32,
        depths=(2, 2, 2),
        num_heads=(2, 4, 8),
        window_size=4,
        small="keep",
        out_norms=(0, 1, 2),
    )
    model, rng = Segmenter(backbone), np.random.default_rng(0)
    tx = optax.adamw(optax.warmup_cosine_decay_schedule(0, 3e-3, steps // 10, steps))
    # Draws of this kind of key compile faster on the CPU.
    params = jax.jit(model.init)(jax.random.key(0, impl="rbg"), np.zeros((1, *SIZE, 3), np.float32))

    @jax.jit
    def step(params, opt_state, image, label):
        def loss_fn(params):
            return optax.softmax_cross_entropy(
                model.apply(params, image), jax.nn.one_hot(label, len(CLASSES))
            ).mean()

        loss, grads = jax.value_and_grad(loss_fn)(params)
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, loss

    opt_state = tx.init(params)
    for i in range(steps):
        params, opt_state, loss = step(params, opt_state, *pictures(rng, batch_size))
        if (i + 1) % 25 == 0:
            print(f"step {i + 1}: loss {loss:.3f}", flush=True)
    image, label = pictures(np.random.default_rng(1), 32)
    found = np.asarray(jax.jit(lambda x: jnp.argmax(model.apply(params, x), axis=-1))(image))
    accuracy, ground = float((found == label).mean()), float((label == 0).mean())
    print(f"pixel accuracy {accuracy:.3f}; naming every pixel the ground would give {ground:.3f}")
    for k, name in enumerate(CLASSES):
        overlap, union = ((found == k) & (label == k)).sum(), ((found == k) | (label == k)).sum()
        print(f"  {name}: intersection over union {overlap / union:.3f}")
    draw(path, image[:6], label[:6], found[:6])
    return accuracy, ground


def draw(path: str, image: np.ndarray, label: np.ndarray, found: np.ndarray) -> None:
    """Images, their classes and the predicted ones, a line each."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2 * len(image), 4.8), layout="constrained")
    panels = figure.subplots(3, len(image))
    for line, (name, shown) in zip(
        panels,
        {"image": np.clip((image + 2.5) / 5, 0, 1), "classes": label, "predicted": found}.items(),
    ):
        line[0].set_ylabel(name)
        for axes, picture in zip(line, shown):
            axes.imshow(picture, cmap="viridis", vmin=0, vmax=2)
            axes.set(xticks=[], yticks=[])
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--path", default="segmentation.png", help="picture to write")
    arguments = parser.parse_args()
    main(arguments.steps, arguments.path)
