"""Pictures per second of StyleCLIP's relevance of channels,
beside one plain jitted batch of the same networks.

    python experiments/benchmarks/style_relevance.py
    python experiments/benchmarks/style_relevance.py --resolution=32 --channel_base=2048 \
        --channel_max=64 --clip=avatars

Random weights. For each layer that is not a ToRGB, a few batches of its channels are timed, from
that layer on; the rate of the whole is that of all channels of all layers. The plain batch makes as
many pictures from their styles, whole, and shows them to the same CLIP. Compilation is not counted.
FLOPs are those that the table of layers implies.
"""

import argparse
import functools
import itertools
import time
from collections.abc import Callable, Sequence

import jax
import numpy as np

from swin_jax.core.errors import UserError
from swin_jax.inference.editing.relevance import Measure, Models, Piece
from swin_jax.models.clip import CLIP, ModifiedResNet, TextTransformer, make_clip
from swin_jax.models.clip.presets import OPENAI
from swin_jax.models.styleclip.relevance import Survey, flops_of_relevance, picture_view
from swin_jax.models.styleclip.statistics import Draws, style_statistics
from swin_jax.models.stylegan2 import Generator

AVATARS = dict(layers=(1, 1, 1, 1), width=24, num_heads=12, embed_dim=128, image_size=32)


def make_models(flags: argparse.Namespace) -> Models:
    """Generator and CLIP with random weights."""
    sizes = dict(channel_base=flags.channel_base, channel_max=flags.channel_max)
    generator = Generator(flags.resolution, **sizes, resampling=flags.resampling, dtype=flags.dtype)
    if flags.clip == "avatars":
        text = TextTransformer(width=64, layers=1, num_heads=2, embed_dim=128, context_length=32)
        clip = CLIP(ModifiedResNet(**AVATARS), text)
    else:
        clip = make_clip(**OPENAI[flags.clip])
    size = clip.visual.image_size
    image = np.zeros((1, size, size, 3), np.float32)
    text = np.zeros((1, clip.text.context_length), np.int32)
    keys = jax.random.split(jax.random.key(0))
    variables = jax.jit(generator.init)(keys[0], np.zeros((1, generator.z_dim), np.float32))
    return Models(generator, variables, clip, jax.jit(clip.init)(keys[1], image, text))


def plain_batch(models: Models, styles, batch_size: int) -> Callable[[], jax.Array]:
    """A call that makes whole pictures and shows them to CLIP."""
    batch = jax.device_put(tuple(np.repeat(style[:1], batch_size, axis=0) for style in styles))

    @jax.jit
    def encode(variables, clip_variables, styles):
        image = models.generator.apply(variables, styles, method="synthesize_styles")
        shown = picture_view(image, models.clip.visual.image_size)
        return models.clip.apply(clip_variables, shown, method="encode_image")

    return lambda: encode(models.variables, models.clip_variables, batch)


def fastest(calls: Sequence[Callable[[], jax.Array]], repeats: int) -> list[float]:
    """The shortest time of each call in seconds, taken in turn,
    as other work on the machine comes and goes.
    """
    times = np.zeros((repeats + 1, len(calls)))
    for turn, number in itertools.product(range(repeats + 1), range(len(calls))):
        began = time.perf_counter()
        jax.block_until_ready(calls[number]())
        times[turn, number] = time.perf_counter() - began
    return times[1:].min(axis=0).tolist()  # the first one compiles


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--resolution", type=int, default=1024)
    parser.add_argument("--channel_base", type=int, default=32768)
    parser.add_argument("--channel_max", type=int, default=512)
    parser.add_argument("--clip", default="ViT-B/32", choices=["avatars", *sorted(OPENAI)])
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--resampling", default="plain", choices=["plain", "merged"])
    parser.add_argument("--dtype", default="float32")
    flags = parser.parse_args()
    models = make_models(flags)
    survey = Survey(Draws(samples=64), images=1, batch_size=flags.batch_size)
    statistics = style_statistics(models.generator, models.variables, survey.draws)
    styles = survey.draws.styles(models.generator, models.variables, 1)
    print(
        f"{flags.resolution} px, {flags.clip}, batch {flags.batch_size}, "
        f"{jax.devices()[0].device_kind}"
    )
    print(
        "| from | channels | pictures/s | plain batches | |\n| --- | --- | --- | --- | --- |",
        flush=True,
    )
    plain, measure = (
        plain_batch(models, styles, flags.batch_size),
        Measure(models, statistics, styles, survey),
    )
    row = seconds = plain_seconds = 0
    for index, layer in enumerate(models.generator.style_layers()):
        if layer.is_rgb:
            continue
        piece = Piece(index, 0, 0, min(measure.channels, layer.channels), row)
        took, plain_took = fastest([functools.partial(measure, piece), plain], flags.repeats)
        rates = 2 * piece.count / took, flags.batch_size / plain_took
        print(
            f"| {layer.name} | {layer.channels} | {rates[0]:.2f} | {rates[1]:.2f} | "
            f"{rates[0] / rates[1]:.0%} |"
        )
        seconds, plain_seconds = (
            seconds + layer.channels / rates[0],
            plain_seconds + layer.channels / rates[1],
        )
        row += layer.channels
    cost = flops_of_relevance(models.generator.style_layers())
    print(
        f"relevance: {row / seconds:.2f} pictures/s, {plain_seconds / seconds:.0%} of plain batches"
    )
    print(
        f"{cost.pictures:,} pictures, {cost.pictures * seconds / row / 3600:.2f} h; FLOPs are",
        end=" ",
    )
    print(
        f"{cost.whole / cost.from_layer:.2f} times fewer than of whole runs "
        f"({cost.whole / cost.rank_one:.2f} at best)"
    )


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(f"error: {error}") from error
