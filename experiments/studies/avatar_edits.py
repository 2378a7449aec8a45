"""Edits of avatars by texts, judged by attributes:
did the one that was asked for change, did the others stay?

    python experiments/studies/avatar_edits.py --generator=runs/avatars --clip=runs/clip_avatars \
        --classifier=runs/attributes --identity=runs/identity --out=runs/avatar_edits \
        [--mappers=runs/mapper] [--methods global,random,mean,latent,mapper]

Texts are those of `data.avatars.captions.TEXT_PAIRS`, what an attribute is and what hides it those
of `data.avatars.attributes`. Alpha and beta are chosen for each text on the seeds 0 to 49 and by
one rule: of all pairs of the grids below, the one with the largest product of success and kept; of
equal ones the smallest alpha, then the largest beta. Then 200 other seeds are edited, the first
ones from 1000 on whose picture lacks the attribute. All latents are truncated by 0.7.

success: share of the pictures that have the attribute afterward. kept: share of the other
attributes that are visible before and after whose class is the same, as a mean over pictures.
identity: mean cosine of the identity network before and after. seconds: of one edit, in batches,
as the median over those after the first, in which programs are compiled.

Methods: `global`, global directions; `random`, as many random channels of S with the same length in
deviations; `mean`, the difference of mean styles between samples with and without the attribute, at
the same length; `latent`, latent optimization; `mapper`, a trained mapper, from MAPPERS_ATTRIBUTE.
Unedited pictures (alpha 0) have a success of 0 and keep everything by definition; they are measured
like the others.

It writes table.csv, choices.csv, seeds.csv with a line for each seed and method, and a sheet for
each text. Rows of earlier runs in the same folder stay, if they are of other methods.
"""

import argparse
import csv
import dataclasses
import functools
import itertools
import pathlib
import time
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

import swin_jax
from swin_jax.core import config as configs
from swin_jax.core.errors import UserError
from swin_jax.data.avatars import attributes as avatars
from swin_jax.data.avatars.captions import TEXT_PAIRS
from swin_jax.evals.samples import tile, to_bytes
from swin_jax.inference.attribute_judge import AttributeJudge
from swin_jax.inference.editing import sources
from swin_jax.models.styleclip.directions import Direction, NoChannel

ALPHAS = (1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 10.0, 14.0)
BETAS = (0.05, 0.08, 0.1, 0.12, 0.15, 0.2, 0.25, 0.3, 0.4)
CHOICE, FIRST, COUNT = range(50), 1000, 200
TRUNCATION, BATCH, SHOWN = 0.7, 50, 8
WITH_CHOICE = {"global", "random", "mean"}  # the methods that alpha and beta are chosen for
SAMPLES = 5000  # whose mean styles give the baseline


class Studio:
    """The generator, and the networks that judge its pictures."""

    def __init__(self, args: argparse.Namespace):
        self.model, self.variables = swin_jax.load(weights=args.generator)
        self.judge = AttributeJudge(args.classifier)
        self.identity = swin_jax.load(weights=args.identity)
        self.styles = jax.jit(lambda ws: self.model.apply(self.variables, ws, method="styles"))
        self.draw = jax.jit(
            lambda styles: to_bytes(
                self.model.apply(self.variables, styles, method="synthesize_styles")
            )
        )
        self.embed = jax.jit(lambda image: self.identity[0].apply(self.identity[1], image))

    @functools.cached_property
    def samples(self) -> tuple[list[np.ndarray], np.ndarray]:
        """Styles of many latents, and what their pictures are seen to have."""
        styles, marks = [], []
        for start in range(10**6, 10**6 + SAMPLES, BATCH):
            styles.append(self.styles(self.latents(range(start, start + BATCH))))
            marks.append(self.marks(self.pictures(styles[-1])))
        return [np.concatenate(layer) for layer in zip(*styles)], np.concatenate(marks)

    def latents(self, seeds) -> np.ndarray:
        return sources.draw(self.model, self.variables, tuple(seeds), TRUNCATION)

    def pictures(self, styles) -> np.ndarray:
        parts = [
            self.draw(tuple(s[i : i + BATCH] for s in styles))
            for i in range(0, len(styles[0]), BATCH)
        ]
        return np.concatenate([np.asarray(part) for part in parts])

    def marks(self, pictures: np.ndarray) -> np.ndarray:
        return self.judge(pictures)[0]

    def cosines(self, before: np.ndarray, after: np.ndarray) -> np.ndarray:
        one, other = (self.embed(jnp.float32(x) / 127.5 - 1) for x in (before, after))
        return np.asarray((one * other).sum(axis=1))


def compare(attribute: int, before: np.ndarray, after: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each picture: whether it has the attribute now;
    the share of other visible attributes that stayed.
    """
    seen = avatars.visible(before) & avatars.visible(after)
    seen[:, attribute] = False
    same = (before == after) & seen
    return after[:, attribute], same.sum(axis=1) / np.maximum(seen.sum(axis=1), 1)


def lacking(studio: Studio, attribute: int, seeds, count: int) -> list[int]:
    """The first seeds whose picture visibly lacks an attribute."""
    found = []
    for start in range(0, len(seeds), BATCH):
        some = list(seeds[start : start + BATCH])
        marks = studio.marks(studio.pictures(studio.styles(studio.latents(some))))
        lacks = ~marks[:, attribute] & avatars.visible(marks)[:, attribute]
        found += [seed for seed, wanted in zip(some, lacks) if wanted]
        if len(found) >= count:
            break
    return found[:count]


def choose(studio: Studio, editor, attribute: int) -> dict:
    """Alpha and beta by the rule, and what they reach on the seeds of the choice."""
    seeds = lacking(studio, attribute, CHOICE, len(CHOICE))
    if not seeds:
        raise UserError(
            f"no picture of the seeds {CHOICE[0]} to {CHOICE[-1]} visibly "
            f"lacks {avatars.ATTRIBUTES[attribute]}: the generator is not trained well enough"
        )
    ws = studio.latents(seeds)
    before = studio.marks(studio.pictures(studio.styles(ws)))
    best = None
    for alpha, beta in itertools.product(ALPHAS, sorted(BETAS, reverse=True)):
        edited = editor.edit(ws, alpha=alpha, beta=beta)
        if edited.note:
            continue
        has, kept = compare(attribute, before, studio.marks(studio.pictures(edited.styles)))
        score = float(has.mean() * kept.mean())
        if best is None or score > best["score"] + 1e-9:
            row = dict(alpha=alpha, beta=beta, channels=len(edited.chosen[0]))
            best = row | dict(success=has.mean(), kept=kept.mean(), score=score, seeds=len(seeds))
    if best is None:
        raise NoChannel(min(BETAS), 0.0, 0, "none")
    return best


def random_direction(
    direction: Direction, deviations, layers, rng: np.random.Generator
) -> Direction:
    """A direction of as many random channels, with a step of the same length in deviations."""
    weights = np.array([weight for _, _, weight in direction.chosen])
    places = [
        (i, c) for i, layer in enumerate(layers) if not layer.is_rgb for c in range(layer.channels)
    ]
    drawn = rng.standard_normal(len(weights))
    drawn *= np.linalg.norm(weights) / np.linalg.norm(drawn)
    steps = [np.zeros(layer.channels, np.float32) for layer in layers]
    for (layer, channel), weight in zip(rng.permutation(places)[: len(weights)], drawn):
        steps[layer][channel] = weight * deviations[layer][channel]
    return Direction(tuple(steps), ())


def mean_direction(
    studio: Studio, attribute: int, direction: Direction, deviations, layers
) -> Direction:
    """The difference of mean styles of samples with and without an attribute,
    of the same length in deviations.
    """
    styles, marks = studio.samples
    seen, has = avatars.visible(marks)[:, attribute], marks[:, attribute]
    if not (seen & has).any() or not (seen & ~has).any():
        raise UserError(
            f"all or none of {len(marks)} samples have {avatars.ATTRIBUTES[attribute]}: the "
            "generator is not trained well enough to be judged"
        )
    steps = [np.zeros(layer.channels) for layer in layers]
    for i, layer in enumerate(layers):
        if not layer.is_rgb:
            steps[i] = styles[i][seen & has].mean(axis=0) - styles[i][seen & ~has].mean(axis=0)
    length = np.sqrt(sum(((step / dev) ** 2).sum() for step, dev in zip(steps, deviations)))
    scale = np.linalg.norm([weight for _, _, weight in direction.chosen]) / length
    return Direction(tuple(np.float32(step * scale) for step in steps), ())


def experiment(name: str, args: argparse.Namespace, attribute: str, **settings):
    """The editor of an experiment with the avatars' networks, loaded."""
    config = configs.load(f"experiments/styleclip/styleclip_{name}.py:avatars")
    config.update(generator=args.generator, clip=args.clip, arcface=args.identity)
    config.text = TEXT_PAIRS[attribute][0]
    for key, value in settings.items():
        config[key] = value
    editor = configs.build(config.edit, "edit")
    editor.check()
    return editor.load(f"{args.mappers}_{attribute}" if name == "mapper" else f"{args.out}/{name}")


def editing(studio: Studio, args, name: str, attribute: str, choice, editor) -> Callable:
    """A method's edit of latents, ready to run: W+ (N, num_ws, w_dim) -> styles."""
    if name == "unedited":
        return studio.styles
    if name in ("latent", "mapper"):
        other = experiment(name, args, attribute)
        return lambda ws: other.edit(ws).styles
    alpha, layers = choice["alpha"], studio.model.style_layers()
    if name == "global":
        return lambda ws: editor.edit(ws, alpha=alpha, beta=choice["beta"]).styles
    (wish,) = editor.wishes
    chosen = editor.directions.direction(dataclasses.replace(wish, beta=choice["beta"]))
    deviations = editor.directions.statistics.deviations
    number = avatars.ATTRIBUTES.index(attribute)
    if name == "random":
        made = random_direction(chosen, deviations, layers, np.random.default_rng(number))
    else:
        made = mean_direction(studio, number, chosen, deviations, layers)
    return lambda ws: made.edit(studio.styles(ws), alpha)


def edit_all(edit: Callable, ws: np.ndarray) -> tuple[tuple[np.ndarray, ...], float]:
    """Styles of edited latents, and the seconds of one edit: the median over the batches
    after the first, in which programs are compiled.
    """
    parts, seconds = [], []
    for start in range(0, len(ws), BATCH):
        batch = ws[start : start + BATCH]
        began = time.monotonic()
        parts.append(jax.block_until_ready(edit(batch)))
        seconds.append((time.monotonic() - began) / len(batch))
    styles = tuple(np.concatenate(layer) for layer in zip(*parts))
    return styles, float(np.median(seconds[1:] or seconds))


def read_rows(path: pathlib.Path, methods: Sequence[str]) -> list[dict]:
    """The rows of an earlier table whose method is not in `methods`."""
    if not path.is_file():
        return []
    with open(path, newline="") as file:
        return [row for row in csv.DictReader(file) if row["method"] not in methods]


def write_rows(path: pathlib.Path, rows: list[dict]) -> None:
    """Writes rows as a csv, numbers with four digits."""
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        for row in rows:
            writer.writerow({k: shorten(v) for k, v in row.items()})


def shorten(value):
    """A number with a fraction in four digits, anything else as it is."""
    return f"{value:.4f}" if isinstance(value, (float, np.floating)) else value


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--generator", required=True)
    parser.add_argument("--clip", required=True)
    parser.add_argument("--classifier", required=True)
    parser.add_argument("--identity", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--mappers", default="runs/mapper")
    parser.add_argument("--methods", default="unedited,global,random,mean")
    parser.add_argument("--count", type=int, default=COUNT)
    args = parser.parse_args()
    out = pathlib.Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    methods = args.methods.split(",")
    table, lines = (read_rows(out / name, methods) for name in ("table.csv", "seeds.csv"))
    studio, choices = Studio(args), []
    for number, attribute in enumerate(avatars.ATTRIBUTES):
        editor = choice = None
        if WITH_CHOICE.intersection(methods):
            editor = experiment("global", args, attribute)
            choice = choose(studio, editor, number)
            choices.append({"attribute": attribute} | choice)
            print(attribute, {k: shorten(v) for k, v in choice.items()}, flush=True)
        seeds = lacking(studio, number, range(FIRST, FIRST + 100 * args.count), args.count)
        ws = studio.latents(seeds)
        pictures = studio.pictures(studio.styles(ws))
        before, shown = studio.marks(pictures), [pictures[:SHOWN]]
        for method in methods:
            edit = editing(studio, args, method, attribute, choice, editor)
            styles, seconds = edit_all(edit, ws)
            after = studio.pictures(styles)
            has, kept = compare(number, before, studio.marks(after))
            cosines = studio.cosines(pictures, after)
            row = dict(attribute=attribute, method=method, success=has.mean(), kept=kept.mean())
            row |= dict(identity=cosines.mean(), seconds=seconds, seeds=len(seeds))
            table.append(row)
            print({k: shorten(v) for k, v in row.items()}, flush=True)
            columns = zip(seeds, has, kept, cosines)
            lines += [
                dict(attribute=attribute, method=method, seed=s, has=int(h), kept=k, identity=c)
                for s, h, k, c in columns
            ]
            shown.append(after[:SHOWN])
        sheet = tile(np.concatenate(shown), SHOWN).repeat(3, axis=0).repeat(3, axis=1)
        Image.fromarray(sheet).save(out / f"{attribute}_{'_'.join(methods)}.png")
        written = {"table": table, "seeds": lines}
        if choices:
            written["choices"] = choices
        for name, rows in written.items():
            write_rows(out / f"{name}.csv", rows)


if __name__ == "__main__":
    main()
