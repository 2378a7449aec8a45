"""The parts of every run, whatever it learns from:
steps, rates, layout over devices, checkpoints, pods.
"""

import json
import pathlib
import types

from ml_collections import ConfigDict
from ml_collections.config_dict import FieldReference

from swin_jax.core.config import derived, spec
from swin_jax.data import pipeline, sources
from swin_jax.optim import schedules
from swin_jax.plan import presets
from swin_jax.train import sharding
from swin_jax.train.init_from import InitFrom

POINTS = 20  # in the curves of a short run, if it has as many updates
# A number of updates, or a reference to one.
Updates = int | FieldReference
# The choices of an experiment's argument `pod`.
CHIPS = presets.NAMES
# Arguments that experiments have in common: preset for a pod, images or videos in folders of
# classes, made-up data.
ARGUMENTS = dict(pod=CHIPS, folder=False, fake=False)


def count_steps(c: ConfigDict, examples: str = "num_train") -> None:
    """Sets `steps_per_epoch` of a config and, if it has `epochs`, `total_steps`.

    Both follow `batch_size`.

    Args:
        c: Config with `batch_size` and the number of examples in an epoch.
        examples: Key of that number. Examples beyond whole batches are not counted.
    """
    ref = c.get_oneway_ref
    c.steps_per_epoch = ref(examples) // ref("batch_size")
    if "epochs" in c:
        c.total_steps = ref("epochs") * ref("steps_per_epoch")


def refs(c: ConfigDict, *keys: str) -> dict[str, FieldReference]:
    """References to keys of a config, for arguments of the same names: {key: reference}."""
    return {key: c.get_oneway_ref(key) for key in keys}


def warmup_cosine(c: ConfigDict, per: int, **fields) -> ConfigDict:
    """A spec of the schedule of the official Swin and SimMIM code: linear warm-up, then a cosine.

    Args:
        c: Config with `base_lr`, `warmup_lr` and `min_lr`: the rates for a batch of `per` examples,
            at the end of the warm-up, at its beginning and at the last update. All three follow
            `batch_size` linearly. The warm-up takes `warmup_epochs` of the `total_steps` updates.
        per: Number of examples that the rates are given for.
        **fields: Further arguments of `schedules.warmup_cosine`.
    """
    ref = c.get_oneway_ref
    return spec(
        schedules.warmup_cosine,
        base_lr=ref("base_lr") * ref("batch_size") / per,
        total_steps=ref("total_steps"),
        warmup_steps=ref("warmup_epochs") * ref("steps_per_epoch"),
        warmup_lr=ref("warmup_lr") * ref("batch_size") / per,
        min_lr=ref("min_lr") * ref("batch_size") / per,
        **fields,
    )


def epoch_cosine(c: ConfigDict, per: int, warmup_epochs: float) -> ConfigDict:
    """A spec of the schedule of the official Video Swin code: a cosine that falls once an epoch.

    Args:
        c: Config with `base_lr`, the rate for a batch of `per` examples, which follows `batch_size`
            linearly, and with `epochs`, `steps_per_epoch` and `accumulate`.
        per: Number of examples that the rate is given for.
        warmup_epochs: Length of the linear warm-up, in epochs.
    """
    return spec(
        schedules.epoch_cosine,
        base_lr=c.get_oneway_ref("base_lr") * c.get_oneway_ref("batch_size") / per,
        **refs(c, "epochs", "steps_per_epoch", "accumulate"),
        warmup_epochs=warmup_epochs,
    )


def predict_images(transform: ConfigDict, batch_size: int = 64) -> ConfigDict:
    """A spec of the images of a folder for --predict, prepared by `transform` (a spec)."""
    source = spec(sources.flat_folder, root="")
    return spec(pipeline.EvalData, source=source, transform=transform, batch_size=batch_size)


def init_from(**fields) -> ConfigDict:
    """A spec of the weights that a run starts from: those of `init_from.path`, or random ones.

    Args:
        **fields: Arguments of `InitFrom`, such as `convert`, the spec of what fits weights to the
            model.
    """
    return spec(InitFrom, **fields)


def set_up(c: ConfigDict, partition: tuple, every: Updates, keep=2, logs=50) -> None:
    """Sets `partition`, `mesh` (data parallel on all devices), `checkpoint` and `logs` of a config.

    Args:
        c: Config to complete.
        partition: The model's table of partition rules.
        every: Updates between two checkpoints, a number or a reference.
        keep: Number of checkpoints that are kept.
        logs: Updates between two lines of the log; fewer where a run has few updates, so that its
            curves have `POINTS` points.
    """
    c.partition = spec(sharding.Partition, rules=partition)
    c.mesh = dict(data=-1, fsdp=1, tensor=1)
    c.checkpoint = dict(every=every, keep=keep)
    total = c.get_oneway_ref("total_steps")
    interval = derived(lambda steps: min(logs, max(steps // POINTS, 1)), total)
    c.logs = dict(every=interval, wandb="")


def read_pods(experiment: str) -> dict[str, presets.Pod]:
    """The presets for pods of an experiment, {row of arguments: Pod}, from pods.json.

    There `size` is a number of chips of v5e; `settings` are set on all chips, `h100` on eight H100
    besides. docs/pod_presets.md has what the compiler reports for each row.
    """
    table = json.loads(pathlib.Path(__file__).with_name("pods.json").read_text())[experiment]
    return {row: presets.Pod(**fields) for row, fields in table.items()}


def use_pod(c: ConfigDict, arg: types.SimpleNamespace, pods: dict[str, presets.Pod]) -> ConfigDict:
    """The complete config `c` with the preset that the argument `pod` asks for, if it does.

    Raises:
        UserError: No row of `pods` is for the arguments `arg`.
    """
    presets.use(c, arg, pods)
    return c
