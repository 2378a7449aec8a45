"""Prompt templates of zero-shot classification:
CLIP's 80 and 7 for ImageNet, and those of 26 other data sets.

CLIP (arXiv 2103.00020); the references are the prompt notebook and the prompts file of openai/CLIP.
A template has one {} for the class name.
"""

import itertools
from collections.abc import Iterator, Sequence

from swin_jax.core.errors import UserError


def _expand(pattern: str, *choices: Sequence[str]) -> Iterator[str]:
    """Fills the letters X and Y of a pattern with every combination of words;
    an empty word takes its space along.
    """
    for words in itertools.product(*choices):
        text = pattern
        for letter, word in zip("XY", words):
            if word:
                text = text.replace(letter, word)
            else:
                text = text.replace(f"{letter} ", "").replace(f" {letter}", "")
        yield text


_A = ("a", "the")

_IMAGENET_GRAMMAR = (
    (
        "a X photo of Y {}.",
        (
            *(
                "bad",
                "low resolution",
                "cropped",
                "bright",
                "dark",
                "close-up",
                "black and white",
                "pixelated",
            ),
            *("jpeg corrupted", "blurry", "good"),
        ),
        _A,
    ),
    ("a photo of X {}.", _A),
    (
        "a photo of X Y {}.",
        _A,
        ("hard to see", "clean", "dirty", "cool", "nice", "weird", "small", "large"),
    ),
    (
        "a X of Y {}.",
        (
            "sculpture",
            "rendering",
            "tattoo",
            "drawing",
            "painting",
            "doodle",
            "sketch",
            "rendition",
        ),
        _A,
    ),
    ("X of Y {}.", ("graffiti", "art"), _A),
    ("itap of X {}.", ("a", "the", "my")),
    ("X Y {}.", _A, ("embroidered", "plastic", "origami", "toy", "plushie", "cartoon")),
    ("X {} in a video game.", _A),
    ("a photo of X {}.", ("many", "my", "one")),
)

IMAGENET_80 = tuple(
    text for pattern, *choices in _IMAGENET_GRAMMAR for text in _expand(pattern, *choices)
)

# StyleCLIP's released code leaves one out.
IMAGENET_79 = tuple(text for text in IMAGENET_80 if text != "a photo of many {}.")

# In the order in which forward selection over the 80 found them.
IMAGENET_7 = (
    "itap of a {}.",
    "a bad photo of the {}.",
    "a origami {}.",
    "a photo of the large {}.",
    "a {} in a video game.",
    "art of the {}.",
    "a photo of the small {}.",
)

BARE = ("{}",)

_CIFAR = (
    *_expand(
        "a X photo of Y {}.",
        ("", "blurry", "black and white", "low contrast", "high contrast", "bad", "good"),
        _A,
    ),
    *_expand("a photo of X Y {}.", _A, ("small", "big")),
)

_CALTECH101 = (
    *_expand(
        "a X of Y {}.",
        ("photo", "painting", "sculpture", "sketch", "tattoo", "rendition", "drawing"),
        _A,
    ),
    *_expand("a doodle of X {}.", _A),
    *_expand("X of Y {}.", ("art", "graffiti"), _A),
    *_expand("X Y {}.", _A, ("plastic", "toy", "embroidered", "cartoon", "plushie", "origami")),
    *_expand("X {} in a video game.", _A),
)

_MEDIA = ("photo", "video", "example", "demonstration")

TEMPLATES: dict[str, tuple[str, ...]] = {
    "imagenet": IMAGENET_80,
    "food101": ("a photo of {}, a type of food.",),
    "cifar10": _CIFAR,
    "cifar100": _CIFAR,
    "birdsnap": ("a photo of a {}, a type of bird.",),
    "sun397": tuple(_expand("a photo of X {}.", _A)),
    "stanford_cars": (
        *_expand(
            "a photo of X {}.", ("a", "the", "my", "my dirty", "my clean", "my new", "my old")
        ),
        "i love my {}!",
    ),
    "fgvc_aircraft": tuple(_expand("a photo of X {}, a type of aircraft.", _A)),
    "voc2007": ("a photo of a {}.",),
    "dtd": tuple(_expand("a photo of X {} Y.", _A, ("texture", "pattern", "thing", "object"))),
    "oxford_pets": ("a photo of a {}, a type of pet.",),
    "caltech101": _CALTECH101,
    "flowers102": ("a photo of a {}, a type of flower.",),
    "mnist": ('a photo of the number: "{}".',),
    "fer2013": (
        "a photo of a {} looking face.",
        "a photo of a face showing the emotion: {}.",
        "a photo of a face looking {}.",
        "a face that looks {}.",
        "they look {}.",
        "look at how {} they are.",
    ),
    "stl10": tuple(_expand("a photo of X {}.", _A)),
    "eurosat": tuple(_expand("a centered satellite photo of X {}.", ("", "a", "the"))),
    "resisc45": tuple(
        _expand(
            "X of Y {}.",
            tuple(
                f"{view} {kind}"
                for view in ("satellite", "aerial")
                for kind in ("imagery", "photo", "view")
            ),
            ("", "a", "the"),
        )
    ),
    "gtsrb": tuple(
        _expand('a X photo of a "{}" traffic sign.', ("zoomed in", "centered", "close up"))
    ),
    "kitti_distance": BARE,
    "country211": (
        "a photo i took in {}.",
        "a photo i took while visiting {}.",
        "a photo from my home country of {}.",
        "a photo from my visit to {}.",
        "a photo showing the country of {}.",
    ),
    "pcam": ("this is a photo of {}",),
    "ucf101": tuple(
        _expand(
            "a X of Y {}.",
            _MEDIA,
            tuple(
                " ".join(filter(None, (who, what)))
                for who in ("a person", "the person")
                for what in ("", "using", "doing", "during", "performing", "practicing")
            ),
        )
    ),
    "kinetics700": tuple(
        _expand(
            "a X of Y {}.",
            _MEDIA,
            (
                "",
                *("a person", "a person using", "a person doing", "a person during"),
                *("a person performing", "a person practicing"),
            ),
        )
    ),
    "clevr_counts": ("a photo of {} objects.",),
    "hateful_memes": ("a {}.",),
    "rendered_sst2": ("a {} review of a movie.",),
}
# Robustness sets are classified with ImageNet's prompts.
for _name in ("imagenet_v2", "imagenet_a", "imagenet_r", "imagenet_sketch", "objectnet"):
    TEMPLATES[_name] = IMAGENET_80


def templates(dataset: str) -> tuple[str, ...]:
    """The templates that CLIP uses for a data set, each with one {}.

    Raises:
        UserError: A data set without templates of its own; the message lists those that have.
    """
    if dataset not in TEMPLATES:
        raise UserError(
            f"no prompt templates for {dataset!r}; there are some for "
            f"{', '.join(sorted(TEMPLATES))}: name one of these, or give templates of your own"
        )
    return TEMPLATES[dataset]


def fill(template: str, name: str) -> str:
    """One prompt: the class name in the place of {}. Other braces stay as they are.

    Raises:
        UserError: A template without {}, or with several.
    """
    if template.count("{}") != 1:
        raise UserError(f"the template {template!r} must have exactly one {{}} for the class name")
    return template.replace("{}", name)
