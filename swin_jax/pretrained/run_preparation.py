"""The preparation that the saved config of a run describes."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from swin_jax.core import public_names
from swin_jax.core.errors import UserError
from swin_jax.core.ranges import FiniteFloat, PositiveFloat, PositiveInt
from swin_jax.pretrained import beside
from swin_jax.pretrained.preparation import RESIZED, TRANSFORMS, Preparation, parameters_of

# This transform always cleans texts as OpenAI does.
_NOT_TOLD = "swin_jax.data.emoji.images.pair_train_transform"
_TYPES = {"task.mean": tuple[FiniteFloat, ...], "task.std": tuple[PositiveFloat, ...]}
_TYPES |= dict.fromkeys(("task.context_length", "data.transform.context_length"), PositiveInt)


def of_run(
    config: Mapping[str, Any],
    source: str | Path,
    transform: Callable | None = None,
    given: Mapping[str, Any] | None = None,
) -> Preparation:
    """The preparation that a run's predictions use.

    Args:
        config: The run's config, flat: {dotted key: value}.
        source: The run's workdir, for messages.
        transform: The function that `predict.transform` of a live config builds, which may be the
            user's own; its task may normalize in its own way. None makes it from its name.
        given: Facts from the user: `mean`, `std`, `clean`, `transform` and its arguments, for keys
            that the config lacks.

    Raises:
        UserError: The config does not describe the preparation; the error names the missing keys.
    """
    given = given or {}
    told = {f"task.{name}": given[name] for name in ("mean", "std") if name in given}
    config = told | {"predict.transform.fn": given.get("transform")} | dict(config)
    public_names.check_names(dict(config), "predict.transform.", f"{source}/config.json")
    prefix = "predict.transform."
    arguments = {
        key.removeprefix(prefix): value for key, value in config.items() if key.startswith(prefix)
    }
    name = arguments.pop("fn")
    if arguments.get("fast") is False:  # other sources of preparations leave this default out
        del arguments["fast"]
    if name == given.get("transform"):
        arguments |= {key: value for key, value in given.items() if key in parameters_of(name)}
    missing = ([] if name else ["predict.transform"]) + [
        key for key in ("task.mean", "task.std") if key not in config
    ]
    inputs = [key for key, names in TRANSFORMS.items() if name in names]
    if transform is not None:
        inputs = ["video" if config.get("task.input") == "video" else "image"]
    elif missing or not inputs:
        is_video = "video" in f"{config.get('task.input')} {config.get('task.model.fn')}"
        what = "videos" if is_video else "pictures"
        if missing:
            reason = f"{', '.join(missing)} missing"
            advice = f"give {_advice(missing)} to swin_jax.preprocess({str(source)!r})"
        else:
            reason, advice = (
                f"predict.transform is {name}, which is not one of this package's",
                "call your own function instead",
            )
        raise UserError(
            f"{source}/config.json does not say how {what} are prepared: {reason}; {advice}"
        )
    types = {key: str for key in config if key.startswith("data.") and key.endswith(".clean")}
    beside.check_types(f"{source}/config.json", config, _TYPES | types)
    mean, std = (tuple(config.get(key) or ()) for key in ("task.mean", "task.std"))
    length = config.get("task.context_length")
    if length is not None:
        length = config.get("data.transform.context_length", length)
    clean, assumed = given.get("clean", "openai"), ()
    if length is not None and "clean" not in given:
        clean, assumed = _cleaning(config, source)
    return Preparation(
        inputs[0],
        name,
        arguments,
        mean,
        std,
        channels=len(mean) or 3,
        context_length=length,
        clean=clean,
        conversion=config.get("predict.source.conversion", "display"),
        assumed=assumed,
        function=transform,
    )


def _cleaning(config: Mapping[str, Any], source: str | Path) -> tuple[str, tuple[str, ...]]:
    """The cleaning of a run's training texts, and ('clean',) if it is only assumed, else ().

    Raises:
        UserError: The run cleans its training texts in several ways.
    """
    told = {
        value for key, value in config.items() if key.startswith("data.") and key.endswith(".clean")
    }
    if len(told) > 1:
        ways = ", ".join(sorted(map(repr, told)))
        raise UserError(
            f"{source}/config.json cleans texts in several ways, {ways}: "
            "give clean= to preprocess()"
        )
    if told:
        return told.pop(), ()
    return "openai", () if config.get("data.transform.fn") == _NOT_TOLD else ("clean",)


def _advice(missing: Sequence[str]) -> str:
    """The arguments of `preprocess` that replace missing keys of a config."""
    names = [key.removeprefix("task.") for key in missing if key.startswith("task.")]
    if "predict.transform" in missing:
        names.insert(0, f"transform={RESIZED!r} (or another of preparation.TRANSFORMS), size")
    return ", ".join(name if "=" in name else f"{name}=" for name in names)
