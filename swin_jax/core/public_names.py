"""Public names of callables: what a saved config stores instead of the callables themselves.

A run's config.json outlives the files of this package. So it names a callable by the
package that offers it (its face, `swin_jax.models.swin.Swin`), not by the file in which it
happens to lie. Whatever was renamed all the same, arguments and choices too, has a line in one
of the tables below, so that older runs resume, load and predict.
"""

import importlib
import inspect
import re
import sys
import types
from collections.abc import Callable
from typing import Any

from swin_jax.core.errors import UserError, did_you_mean

# The name of a callable, or of a module with all that is in it,
# in an earlier version -> the name today.
RENAMED: dict[str, str] = {
    "swin_jax.convert.clip_finetune": "swin_jax.pretrained.clip.finetune",
    "swin_jax.convert.finetune": "swin_jax.pretrained.swin.finetune",
    "swin_jax.convert.simmim": "swin_jax.pretrained.swin.simmim",
    "swin_jax.convert.video_swin_finetune": "swin_jax.pretrained.video_swin.finetune",
    "swin_jax.data.animation": "swin_jax.data.emoji.animation",
    "swin_jax.data.emoji": "swin_jax.data.emoji.images",
    "swin_jax.data.emoji_actions": "swin_jax.data.emoji.actions",
    "swin_jax.data.image": "swin_jax.data.image.transforms",
    "swin_jax.data.masking": "swin_jax.data.image.masking",
    "swin_jax.data.image_text.pairs.jsonl": "swin_jax.data.image_text.lists.jsonl",
    "swin_jax.data.own_images": "swin_jax.data.image.own_images",
    "swin_jax.data.pairs": "swin_jax.data.image_text.pairs",
    "swin_jax.data.pairs.jsonl": "swin_jax.data.image_text.lists.jsonl",
    "swin_jax.data.randaugment": "swin_jax.data.image.randaugment",
    "swin_jax.data.small_image": "swin_jax.data.image.small",
    "swin_jax.data.sources.subset": "swin_jax.data.subsets.subset",
    "swin_jax.data.style": "swin_jax.data.emoji.style",
    "swin_jax.data.tar_shards": "swin_jax.data.image_text.tar_shards",
    "swin_jax.data.text": "swin_jax.data.image_text.tokenizer",
    "swin_jax.data.tfds_directory": "swin_jax.data.tfds",
    "swin_jax.data.video": "swin_jax.data.video.transforms",
    "swin_jax.data.video_augment": "swin_jax.data.video.randaugment",
    "swin_jax.data.video_container": "swin_jax.data.video.container",
    "swin_jax.data.video_decode": "swin_jax.data.video.decode",
    "swin_jax.data.video_scan": "swin_jax.data.video.scan",
    "swin_jax.data.video_sources": "swin_jax.data.video.sources",
    "swin_jax.data.video_tfds": "swin_jax.data.video.tfds",
    "swin_jax.evals.class_names": "swin_jax.evals.prompts.class_names",
    "swin_jax.evals.emoji": "swin_jax.evals.prompts.emoji",
    "swin_jax.evals.few_shot": "swin_jax.evals.probes.few_shot",
    "swin_jax.evals.imagenet": "swin_jax.evals.prompts.imagenet",
    "swin_jax.evals.linear_probe": "swin_jax.evals.probes.linear_probe",
    "swin_jax.evals.overlap": "swin_jax.evals.analysis.overlap",
    "swin_jax.evals.prompts": "swin_jax.evals.prompts.templates",
    "swin_jax.evals.robustness": "swin_jax.evals.analysis.robustness",
    "swin_jax.evals.scores": "swin_jax.evals.metrics",
    "swin_jax.evals.subgroups": "swin_jax.evals.analysis.subgroups",
    "swin_jax.init_from": "swin_jax.train.init_from",
    "swin_jax.models.resnet": "swin_jax.models.clip",
    "swin_jax.models.text": "swin_jax.models.clip",
    "swin_jax.models.vit": "swin_jax.models.clip",
    "swin_jax.optim.layer_decay": "swin_jax.models.swin.layer_decay",
    "swin_jax.schedules": "swin_jax.optim.schedules",
    "swin_jax.sharding": "swin_jax.train.sharding",
    "swin_jax.task": "swin_jax.tasks.base",
    "swin_jax.tasks.gan.AdaptiveAugmentation": (
        "swin_jax.tasks.adaptive_augmentation.AdaptiveAugmentation"
    ),
    "swin_jax.tasks.simmim": "swin_jax.tasks.masked_image",
}

# (callable, name of its argument in an earlier version) -> the argument's name today.
RENAMED_ARGUMENTS: dict[tuple[str, str], str] = {
    ("swin_jax.data.emoji.animation.action_train_transform", "recolour"): "recolor",
    ("swin_jax.data.emoji.style.style_train_transform", "grey"): "gray",
    ("swin_jax.data.image.color.color_train_transform", "grey"): "gray",
    ("swin_jax.optim.lazy_adam", "learning_rate"): "schedule",
}

# (callable, argument) that was a number -> the callable that is given today, and its argument
# that is the number.
WAS_A_NUMBER: dict[tuple[str, str], tuple[str, str]] = {
    ("swin_jax.optim.lazy_adam", "schedule"): ("swin_jax.optim.schedules.constant", "base_lr"),
}

# (callable, argument) -> {its value in an earlier version: the value today}.
RENAMED_VALUES: dict[tuple[str, str], dict[str, str]] = {
    ("swin_jax.models.video_swin.make_video_swin", "design"): {"factorised": "factorized"},
    ("swin_jax.pretrained.video_swin.finetune.pretrained", "bias"): {"centre": "center"},
    ("swin_jax.pretrained.video_swin.finetune.pretrained", "patch"): {"centre": "center"},
}

# What an argument of a callable that is no more its default stood for before it existed.
BEFORE: dict[tuple[str, str], str] = {
    ("swin_jax.data.sources.image_folder", "conversion"): "reference",
    ("swin_jax.data.image_text.pairs.folder", "conversion"): "reference",
    ("swin_jax.data.image_text.lists.jsonl", "conversion"): "reference",
}


def name_of(fn: Callable) -> str:
    """The public name of a function or class.

    Returns:
        'PACKAGE.NAME' if the package around the callable's module lists NAME in its `__all__`,
        else 'MODULE.NAME'.
    """
    package = fn.__module__.rpartition(".")[0]
    if fn.__qualname__ in getattr(sys.modules.get(package), "__all__", ()):
        return f"{package}.{fn.__qualname__}"
    return f"{fn.__module__}.{fn.__qualname__}"


def find(name: str) -> Any:
    """The object, or else the module, that a dotted name means; None if there is neither."""
    parts = name.split(".")
    for length in range(1, len(parts) + 1):
        found = _module(".".join(parts[:length]))
        for part in parts[length:]:
            found = getattr(found, part, None)
        if found is not None:
            return found
    return None


def _module(name: str) -> types.ModuleType | None:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        return None


def current_name(name: str) -> str:
    """The name that a callable has today, given one that it may have had before."""
    module, _, last = name.rpartition(".")
    moved = f"{RENAMED[module]}.{last}" if module in RENAMED else name
    return RENAMED.get(name, moved)


def first_name(name: str) -> str:
    """The oldest name in the table for a name of today;
    keys of caches are made of it, as it outlives renaming.
    """
    module, _, last = name.rpartition(".")
    for old in sorted(RENAMED):
        if RENAMED[old] == name:
            return old
        if RENAMED[old] == module:
            return f"{old}.{last}"
    return name


def current_names(config: dict) -> dict:
    """A saved flat config, {dotted key: value}, with the names that callables, their arguments
    and the choices among values have today.
    """
    found = {
        key: current_name(value) if isinstance(value, str) else value
        for key, value in config.items()
    }
    # From the innermost callable outward: an argument that is renamed may hold callables.
    for key in sorted(found, key=lambda key: key.count("."), reverse=True):
        if key.rpartition(".")[2] == "fn":
            found = _current_arguments(found, key.removesuffix("fn"), found[key])
    return found


def _current_arguments(config: dict, prefix: str, fn: Any) -> dict:
    """A flat config in which the callable `fn`, whose keys begin with `prefix`, has the arguments
    and values of today.
    """
    for (name, before), today in RENAMED_ARGUMENTS.items():
        if name == fn:
            argument = re.compile(re.escape(prefix + before) + r"(?=\.|$)")
            config = {argument.sub(prefix + today, key): v for key, v in config.items()}
    for (name, argument), values in RENAMED_VALUES.items():
        value = config.get(prefix + argument)
        if name == fn and isinstance(value, str):
            config[prefix + argument] = values.get(value, value)
    for (name, argument), (given, inner) in WAS_A_NUMBER.items():
        key = prefix + argument
        if name == fn and isinstance(config.get(key), (int, float)):
            config[f"{key}.{inner}"] = config.pop(key)
            config[f"{key}.fn"] = given
    return config


def check_names(config: dict, prefix: str, source: Any) -> None:
    """Checks that this version has the callables of this package that a saved config names.

    Args:
        config: Flat config with the names of today.
        prefix: Beginning of the dotted keys that are checked.
        source: File or folder that the config is from, for the message.

    Raises:
        UserError: A name that does not exist, with its key and the nearest name.
    """
    for key, value in config.items():
        if key.startswith(prefix) and is_unknown(value):
            raise UserError(
                f"{source}: {key} is {value}, which this version does not have{nearest_name(value)}"
            )


def is_unknown(value: Any) -> bool:
    """True if a value of a saved config looks like a name of this package but means nothing."""
    return isinstance(value, str) and value.startswith("swin_jax.") and find(value) is None


def nearest_name(name: str) -> str:
    """`; did you mean 'x'?` for a name of a callable that does not exist,
    or '' where none is near.
    """
    module = name.rpartition(".")[0]
    beside = find(module)
    names = [f"{module}.{other}" for other in dir(beside)] if inspect.ismodule(beside) else []
    return did_you_mean(name, [*names, *RENAMED.values()], cutoff=0.8)
