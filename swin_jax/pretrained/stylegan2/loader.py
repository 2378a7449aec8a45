"""StyleGAN2's generators and discriminators as two families of `load`."""

import dataclasses
import logging
import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from swin_jax.core.errors import UserError, warn
from swin_jax.core.params import unflatten
from swin_jax.models import stylegan2
from swin_jax.models.stylegan2 import presets
from swin_jax.pretrained import beside
from swin_jax.pretrained.e4e.convert import is_e4e
from swin_jax.pretrained.family import Family, Outputs, Prepare, Weights
from swin_jax.pretrained.preparation import RESIZED, Preparation
from swin_jax.pretrained.styleclip.mappers import is_mapper
from swin_jax.pretrained.stylegan2 import convert, origins
from swin_jax.pretrained.stylegan2.sizes import DISCRIMINATOR, GENERATOR, convolutions

log = logging.getLogger(__name__)

SIZES = ("resolution", "c_dim", "channel_base", "channel_max", "image_channels")
SOURCE = "its file, NVIDIA's .pkl or rosinality's .pt, is given as weights="
OF_DISCRIMINATOR = "-discriminator"
MEAN_SAMPLES = (
    4096  # of the mean latent where a file has none, as rosinality's and StyleCLIP's code take it
)
_BATCH = 512
# Arguments of a generator that are not part of its weights.
_AS_ONE_LIKES = {"resampling", "dtype", "remat"}
Model = stylegan2.Generator | stylegan2.Discriminator


def _fields(model: type) -> frozenset[str]:
    return frozenset(
        field.name for field in dataclasses.fields(model) if field.name not in ("parent", "name")
    )


def find_generator(word: str) -> str | None:
    """The name of the generator that a word means, in any spelling; None for none."""
    name = word.lower().replace("_", "-")
    return name if name in presets.PRESETS else None


def find_discriminator(word: str) -> str | None:
    """The name of the discriminator that a word means, in any spelling; None for none."""
    name = word.lower().replace("_", "-")
    if name.removesuffix(OF_DISCRIMINATOR) in presets.PRESETS and name.endswith(OF_DISCRIMINATOR):
        return name
    return None


def recognizes_generator(arrays: Mapping[str, np.ndarray]) -> bool:
    """True for a generator, unless it is that in a file of e4e or of a mapper,
    which is named for what it adds.
    """
    return convert.is_generator(arrays) and not is_e4e(arrays) and not is_mapper(arrays)


def _infer(kind: str) -> Callable[[Mapping[str, np.ndarray], Mapping[str, Any]], dict]:
    return lambda arrays, known: convert.read_network(arrays, kind, known).sizes


def load_generator(
    weights: Weights, fields: dict, resize: str | None, overrides: dict
) -> tuple[stylegan2.Generator, dict]:
    """A generator with these weights, made for one of `fields`, see `complete`;
    logs their license.
    """
    model, variables = _read(stylegan2.Generator, GENERATOR, weights, fields, overrides)
    return model, jax.device_put(complete(model, variables))


def complete(model: stylegan2.Generator, variables: dict) -> dict:
    """The variables of a generator with what older files lack; warnings say what that is.

    Noise maps are drawn from a fixed seed, and the mean latent is computed.
    """
    variables = dict(variables)
    if "noise" not in variables:
        warn("the weights hold no noise maps; with noise='const' these are drawn from seed 0")
        variables["noise"] = _draw_noise(model)
    if "averages" not in variables:
        warn(
            "the weights hold no mean latent, toward which latents are truncated; "
            f"it is that of {MEAN_SAMPLES} draws"
        )
        variables["averages"] = {"mapping": {"w_avg": _mean_latent(model, variables)}}
    return variables


def load_discriminator(
    weights: Weights, fields: dict, resize: str | None, overrides: dict
) -> tuple[stylegan2.Discriminator, dict]:
    """A discriminator with these weights, made for one of `fields`; logs their license."""
    model, variables = _read(stylegan2.Discriminator, DISCRIMINATOR, weights, fields, overrides)
    return model, jax.device_put(variables)


def _read(
    make: Callable, kind: str, weights: Weights, fields: dict, overrides: dict
) -> tuple[Any, dict]:
    network = convert.read_network(weights.arrays, kind, fields | overrides)
    found = {name: value for name, value in network.sizes.items() if name in convert.FREE}
    model = make(**fields | found | overrides)
    convert.check_model(network, model)
    _log_license(weights.path, *weights.words)
    return model, convert.to_variables(network.arrays)


def _log_license(path: str | Path | None, *words: str) -> None:
    log.warning("%s: %s", path, origins.license(" ".join([str(path), *words])))


def load_pretrained(
    source: str | os.PathLike | Mapping, model: Model, key: str | None = None
) -> dict:
    """The variables of a generator or a discriminator from a file or from a run,
    for `train.init_from`.

    Args:
        source: A file of `pretrained.files.read`, or the variables of a run of `tasks.gan`
            or of a network.
        model: A `Generator` or a `Discriminator`.
        key: The weights to take from a file that holds several, 'd' for a discriminator; see
            `pretrained.files.read`.

    Raises:
        UserError: An unreadable file, weights that do not fit, a run without such a network.
    """
    kind = convert.kind_of(model)
    if isinstance(source, Mapping):
        return _of_run(source, kind)
    variables = convert.from_official(beside.read(Path(source), key), model)
    _log_license(source)
    return complete(model, variables) if kind == GENERATOR else variables


def pretrained() -> Callable:
    """`load_pretrained` as a function of (source, model), for an experiment file."""
    return load_pretrained


def _of_run(variables: Mapping, kind: str) -> dict:
    """The variables of one network among those of a run; of the generator, its average."""
    params = variables["params"]
    if not {GENERATOR, DISCRIMINATOR} & params.keys():
        return {
            name: variables[name] for name in ("params", "noise", "averages") if name in variables
        }
    if kind not in params:
        raise UserError(
            f"this run keeps an average of its {' and '.join(params)} and none of its {kind}"
        )
    return {"params": params[kind], **(variables[GENERATOR] if kind == GENERATOR else {})}


def _draw_noise(model: stylegan2.Generator) -> dict:
    rng = np.random.default_rng(0)
    sides = convolutions(model.resolution)
    return unflatten(
        {
            f"synthesis/b{side}/{conv}/noise_const": rng.standard_normal(
                (side, side), dtype=np.float32
            )
            for side, conv in sides
        }
    )


def _mean_latent(model: stylegan2.Generator, variables: dict) -> np.ndarray:
    """The mean of w over draws of z, and of labels that are equally frequent."""
    rng = np.random.default_rng(0)
    known = variables | {"averages": {"mapping": {"w_avg": np.zeros(model.w_dim, np.float32)}}}
    map_latents = jax.jit(
        lambda *inputs: model.apply(known, *inputs, method="map")[:, 0].mean(axis=0)
    )
    means = []
    for _ in range(MEAN_SAMPLES // _BATCH):
        inputs = [rng.standard_normal((_BATCH, model.z_dim), dtype=np.float32)]
        if model.c_dim:
            inputs.append(
                np.eye(model.c_dim, dtype=np.float32)[rng.integers(0, model.c_dim, _BATCH)]
            )
        means.append(map_latents(*inputs))
    return np.mean(means, axis=0, dtype=np.float32)


def load_run(
    workdir: str | Path, config: dict, resize: str | None, overrides: dict
) -> tuple[stylegan2.Generator, dict]:
    """The generator that a run trained, its average; `config` is the run's."""
    from swin_jax.train import checkpoint

    if wrong := ", ".join(overrides.keys() - _AS_ONE_LIKES):
        raise UserError(
            f"{workdir} holds a generator that is loaded as it was trained; leave out {wrong}"
        )
    place = FAMILY.place
    fields = {
        name: config[f"{place}.{name}"] for name in FAMILY.fields if f"{place}.{name}" in config
    }
    found = checkpoint.load_variables(workdir)
    return stylegan2.Generator(**fields | overrides), jax.device_put(_of_run(found, GENERATOR))


def refuse_run(
    workdir: str | Path, config: dict, resize: str | None, overrides: dict
) -> tuple[stylegan2.Discriminator, dict]:
    """Raises UserError: of a run, the generator is loaded."""
    raise UserError(f"{workdir} is loaded as a generator")


def refuse_preparation(model: stylegan2.Generator, word: str | None) -> Preparation:
    """Raises UserError: a generator takes no pictures."""
    raise UserError(
        "a generator takes latents, not pictures: "
        f"model.apply(variables, z) with z of (B, {model.z_dim}) from a normal distribution"
    )


def prepare_pictures(model: stylegan2.Discriminator, word: str | None) -> Preparation:
    """Pictures as NVIDIA's training gives them to a discriminator, in -1..1;
    how they are resized is assumed.
    """
    if model.image_channels != 3:
        raise UserError(
            f"a discriminator of {model.image_channels} channels has no preparation; give your own"
        )
    arguments = dict(size=model.resolution, crop=False, interpolation="bicubic")
    return Preparation(
        "image", RESIZED, arguments, (0.5,) * 3, (0.5,) * 3, assumed=("crop", "interpolation")
    )


def _labels(model: Model) -> dict[str, jax.ShapeDtypeStruct]:
    return {"c": jax.ShapeDtypeStruct((1, model.c_dim), jnp.float32)} if model.c_dim else {}


def latents(model: stylegan2.Generator, image_size: Any = None) -> dict[str, jax.ShapeDtypeStruct]:
    """One row of `z`, and of label vectors `c` of a conditional generator."""
    return {"z": jax.ShapeDtypeStruct((1, model.z_dim), jnp.float32)} | _labels(model)


def pictures(
    model: stylegan2.Discriminator, image_size: Any = None
) -> dict[str, jax.ShapeDtypeStruct]:
    """One row of `image`, floats in -1..1, and of label vectors `c` of a
    conditional discriminator.
    """
    shape = (1, model.resolution, model.resolution, model.image_channels)
    return {"image": jax.ShapeDtypeStruct(shape, jnp.float32)} | _labels(model)


def generate(
    model: stylegan2.Generator, variables: dict, batch: Mapping[str, jax.Array], prepare: Prepare
) -> Outputs:
    """`image`, in about -1..1, of each row of `z`;
    without truncation, with the fixed noise maps.
    """
    return {"image": model.apply(variables, batch["z"], batch.get("c"))}


def judge(
    model: stylegan2.Discriminator,
    variables: dict,
    batch: Mapping[str, jax.Array],
    prepare: Prepare,
) -> Outputs:
    """`logits` of each row of `image`, high for real ones; rows of a group share one feature."""
    return {"logits": model.apply(variables, prepare(batch["image"]), batch.get("c"))}


def _names_of_discriminators() -> Collection[str]:
    return [name + OF_DISCRIMINATOR for name in presets.PRESETS]


FAMILY = Family(
    title="StyleGAN2",
    usual="stylegan2-ffhq-config-f",
    names=lambda: list(presets.PRESETS),
    fields=_fields(stylegan2.Generator),
    sizes=(*SIZES, "mapping_layers", "z_dim", "w_dim"),
    models=(stylegan2.Generator,),
    makers=(stylegan2.Generator,),
    place="task.generator",
    find=find_generator,
    fetch=origins.fetch,
    source=SOURCE,
    preset=lambda word: presets.PRESETS[find_generator(word)],
    recognizes=recognizes_generator,
    infer=_infer(GENERATOR),
    make=stylegan2.Generator,
    load=load_generator,
    load_workdir=load_run,
    preprocess=refuse_preparation,
    inputs=latents,
    predict=generate,
)
DISCRIMINATOR_FAMILY = Family(
    title="StyleGAN2 discriminator",
    usual=f"stylegan2-ffhq-config-f{OF_DISCRIMINATOR}",
    names=_names_of_discriminators,
    fields=_fields(stylegan2.Discriminator),
    sizes=(*SIZES, "architecture"),
    models=(stylegan2.Discriminator,),
    makers=(),
    find=find_discriminator,
    fetch=origins.fetch,
    source=SOURCE,
    preset=lambda word: presets.DISCRIMINATORS[
        find_discriminator(word).removesuffix(OF_DISCRIMINATOR)
    ],
    recognizes=convert.is_discriminator,
    infer=_infer(DISCRIMINATOR),
    make=stylegan2.Discriminator,
    load=load_discriminator,
    load_workdir=refuse_run,
    preprocess=prepare_pictures,
    inputs=pictures,
    predict=judge,
)
