"""Weights from another run's workdir or a file of converted weights:
to start from, or to read and never change.
"""

import dataclasses
import functools
import inspect
import re
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np

from swin_jax.core import stacking, storage
from swin_jax.core.errors import UserError, is_ours
from swin_jax.core.params import flatten, path_name, unflatten
from swin_jax.core.ranges import check_pattern
from swin_jax.train import checkpoint
from swin_jax.train.checkpoints import model_fields
from swin_jax.train.setup import once_options

_LISTED = 4  # mis-shaped keys in a message
_NAMED = 8  # parameters that a report names one by one


@dataclasses.dataclass(frozen=True)
class InitFrom:
    """The source of the first weights.

    Attributes:
        path: A workdir, a file of weights or a folder of a hub; '' starts from scratch.
        required: True if '' is an error instead.
        backbone: True to take everything but the head, which keeps its own initialization.
        head: Regex on parameter paths, what `backbone` leaves out.
        convert: (path, or {'params', 'config'} of a workdir, model) -> variables;
            reads a file and fits weights.
        key: The weights to take from a file that holds several, 'model_ema' or 'teacher' for
            example; handed to `convert`. '' leaves it to the rule of `pretrained.files.choose`.
        class_names: A text file of one class name a line, in the order of the weights' logits; ''
            takes the names that a workdir holds, or those in a config.json beside the weights. With
            them the classes of data sets are compared by name.
    """

    path: str = ""
    required: bool = False
    backbone: bool = False
    head: str = r"^head/"
    convert: Callable | None = None
    key: str = ""
    class_names: str = ""

    def __post_init__(self):
        check_pattern("head", self.head, self.head)

    def check(self) -> None:
        """Raises UserError where `path` names nothing that a run can start from;
        reads no weights.
        """
        if self.path:
            _check_path(self.path, self.convert, "init_from.path")
            _check_key(self.path, self.convert, self.key, "init_from")
        elif self.required:
            raise UserError(
                "this experiment starts from weights: give --config.init_from.path=FILE_OR_WORKDIR"
            )

    def load(
        self, task: Any, shapes: Any, mutable: Any = None
    ) -> tuple[dict[str, np.ndarray], str]:
        """Reads the weights for a task.

        Args:
            task: Task whose `model` is handed to `convert`.
            shapes: Tree of the parameters' shapes.
            mutable: Tree of the shapes of other collections, such as batch statistics;
                None for none.

        Returns:
            ({path: array} of what replaces initial parameters and, under the names of their
            collections, other initial values; a line that reports it).

        Raises:
            UserError: Missing, unexpected and mis-shaped keys, all of them listed;
                what `check` refuses.
        """
        self.check()
        if not self.path:
            return {}, "starts from scratch"
        wanted = flatten(shapes) | flatten(mutable or {})
        model = getattr(task, "model", None)  # a GAN has two
        found = _read(self.path, self.convert, model, shapes, mutable or {}, "init_from", self.key)
        left = sorted(
            path
            for path in found.keys() | wanted.keys()
            if self.backbone and re.search(self.head, path)
        )
        kept = self._kept(left, found, wanted)
        found = {path: array for path, array in found.items() if path not in left}
        expected = {path: leaf for path, leaf in wanted.items() if path not in left}
        absent = expected.keys() - found.keys()
        only_head = found.keys() <= expected.keys() and all(re.search(self.head, x) for x in absent)
        if absent and only_head:
            raise UserError(
                f"{self.path} has a backbone only, and lacks {_listed(absent)}: "
                "--config.init_from.backbone=True leaves them at initialization, to be trained"
            )
        _check_fit(self.path, found, expected)
        model_fields.tell_other_fields(
            self.path, _config_of(self.path), model_fields.models_of_task(task), self.backbone
        )
        return found, f"starts from {self.path}: {len(found)} of {len(wanted)} parameters{kept}"

    def _kept(self, left: list[str], found: dict[str, Any], wanted: dict[str, Any]) -> str:
        """The part of the report about the parameters that are left at initialization."""
        if not left:
            return ""
        said = f", left at initialization: {_listed(left)}"
        ours = [path for path in left if path in wanted]
        fits = (np.shape(found.get(path)) == tuple(wanted[path].shape) for path in ours)
        if ours and all(fits):
            said += " (the weights have them too: --config.init_from.backbone=False takes them)"
        return said


def _listed(paths: Iterable[str]) -> str:
    """Paths of parameters; if they are many, the modules that they begin with and their numbers."""
    paths = sorted(paths)
    if len(paths) <= _NAMED:
        return ", ".join(paths)
    modules = Counter(path.removeprefix("batch_stats/").partition("/")[0] for path in paths)
    return ", ".join(f"{module} ({count})" for module, count in modules.items())


@dataclasses.dataclass(frozen=True)
class Frozen:
    """A model that a task reads and never changes, a teacher for example, as a field of the task.

    The step finds the model's variables in `frozen[NAME OF THE FIELD]`. They are laid out by the
    run's partition, are not part of its checkpoints, and a resumed run is refused if they changed.

    Attributes:
        model: A linen module.
        path: A workdir, whose average of the weights is taken if it keeps one,
            or a file of weights.
        convert: The same as in `InitFrom`; None takes the weights of a workdir as they are.
        inputs: Keys of the batch that the model is called with, in this order. Shapes follow from
            them; bytes are float32 to the model.
        required: True if '' as the path is an error; otherwise it gives random weights, to try an
            experiment out.
        key: The same as in `InitFrom`.
        flag: The dotted key of the config that `path` refers to, for messages;
            '' for that of `path` itself.
    """

    model: Any
    path: str = ""
    convert: Callable | None = None
    inputs: tuple[str, ...] = ("image",)
    required: bool = True
    key: str = ""
    flag: str = ""

    def shapes(self, batch: dict[str, jax.ShapeDtypeStruct]) -> dict[str, Any]:
        """Abstract variables of the model for the arrays of such a batch; reads no file.

        Raises:
            UserError: The batch lacks an input.
        """
        return jax.eval_shape(self.model.init, jax.random.key(0), *self._inputs(batch))

    def load(self, batch: dict[str, jax.ShapeDtypeStruct], key: str) -> dict[str, Any]:
        """The variables as numpy arrays.

        Args:
            batch: The same as in `shapes`.
            key: The dotted key of this value in the config, for messages.

        Raises:
            UserError: No weights, or some that don't fit:
                missing, unexpected and mis-shaped keys, all of them listed.
        """
        self.check(key)
        shapes = self.shapes(batch)
        if not self.path:
            zeros = (np.zeros(x.shape, x.dtype) for x in self._inputs(batch))
            init = jax.jit(self.model.init, compiler_options=once_options())
            return jax.device_get(init(jax.random.key(0), *zeros))
        params = shapes["params"]
        others = {name: tree for name, tree in shapes.items() if name != "params"}
        found = _read(self.path, self.convert, self.model, params, others, key, self.key)
        _check_fit(self.path, found, flatten(params) | flatten(others))
        model_fields.tell_other_fields(self.path, _config_of(self.path), [self.model])

        def take(path, leaf):
            return np.asarray(found[path_name(path).removeprefix("params/")], leaf.dtype)

        return jax.tree_util.tree_map_with_path(take, shapes)

    def check(self, key: str) -> None:
        """Raises UserError, naming the flag under a dotted key of the config,
        if there are no weights to load.
        """
        flag = self.flag or f"{key}.path"
        if self.path:
            _check_path(self.path, self.convert, flag)
            _check_key(self.path, self.convert, self.key, key)
        elif self.required:
            raise UserError(
                "this experiment reads the weights of a model: "
                f"give --config.{flag}=FILE_OR_WORKDIR"
            )

    def _inputs(self, batch: dict[str, jax.ShapeDtypeStruct]) -> list[jax.ShapeDtypeStruct]:
        missing = [name for name in self.inputs if name not in batch]
        if missing:
            raise UserError(
                f"inputs={self.inputs}: the batch has {', '.join(batch)} and no {missing[0]!r}"
            )
        given = (batch[name] for name in self.inputs)
        return [
            jax.ShapeDtypeStruct(x.shape, np.float32 if x.dtype == np.uint8 else x.dtype)
            for x in given
        ]


def _config_of(name: str) -> dict[str, Any]:
    """The flat config of a workdir's run; {} for a file."""
    path = storage.path(name)
    return checkpoint.saved_config(path) if (path / "checkpoints").is_dir() else {}


def _check_path(name: str, convert: Callable | None, flag: str) -> None:
    """Raises UserError for a path that weights cannot be read from;
    `flag` is its dotted key in the config.
    """
    path = storage.path(name)
    if (path / "checkpoints").is_dir():
        return
    if path.is_file() and convert is None:
        raise UserError(f"{flag}={name}: this experiment reads no files of weights; give a workdir")
    if storage.is_remote(path):
        raise UserError(f"{flag}={name}: only workdirs are read from a bucket; copy the file")
    if not path.is_file() and (convert is None or not _is_of_hub(path)):
        raise UserError(
            f"{flag}={name} is neither a workdir with checkpoints nor a file of weights"
        )


def _check_key(name: str, convert: Callable | None, entry: str, key: str) -> None:
    """Raises UserError for the name of weights in a file where there is no file,
    or nothing that takes the name.
    """
    if not entry:
        return
    if (storage.path(name) / "checkpoints").is_dir():
        raise UserError(
            f"{key}.key={entry}: {name} is a workdir, whose weights are taken without it"
        )
    taken = inspect.signature(convert).parameters.values()
    if not any(
        argument.name == "key" or argument.kind is argument.VAR_KEYWORD for argument in taken
    ):
        raise UserError(f"{key}.key={entry}: what reads the file ({key}.convert) takes no key")


def _is_of_hub(path: Any) -> bool:
    """True for a folder with weights and a config, as the hub keeps them;
    the files are looked at by `convert`.
    """
    names = [file.name for file in path.iterdir()] if path.is_dir() else []
    return any(name.endswith("config.json") for name in names) and any(
        name.endswith((".safetensors", ".bin", ".index.json")) for name in names
    )


def _read(
    name: str,
    convert: Callable | None,
    model: Any,
    shapes: Any,
    others: dict[str, Any],
    key: str,
    entry: str,
) -> dict[str, np.ndarray]:
    """Reads a workdir, its average if it keeps one, or a file.

    Args:
        name: The path, which `_check_path` has accepted.
        convert: The same as in `InitFrom`.
        model: The model that `convert` fits the weights to.
        shapes: Tree of the parameters' shapes; their blocks are stacked as here.
        others: Collections to read as well, of batch statistics for example, by name.
        key: Dotted key of the source in the config, for messages.
        entry: The weights to take from a file that holds several; '' for those that go first.

    Returns:
        {path: array} of parameters and, under the names of their collections, others.
    """
    path = storage.path(name)
    if (path / "checkpoints").is_dir():
        params, ema, meta = checkpoint.load_params(path)
        rest = checkpoint.load_variables(path) if others else {}
        variables = {**rest, "params": params if ema is None else ema}
        if convert:
            variables = _convert(
                convert, {**variables, "config": meta.get("config")}, model, name, key
            )
        else:
            config = meta.get("config") or {}
            model_fields.check_layout(name, config, model, flatten(variables["params"]), key)
    else:
        reader = functools.partial(convert, key=entry) if entry else convert
        variables = _convert(reader, name, model, name, key)
    params = flatten(stacking.stack(unflatten(flatten(variables["params"])), shapes))
    return params | flatten({collection: variables.get(collection, {}) for collection in others})


def _convert(convert: Callable, source: Any, model: Any, name: str, key: str) -> dict:
    """A file's or another run's variables, converted for a model."""
    try:
        return convert(source, model)
    except UserError as error:
        told = error.about(name)
        hint = f" (the flag is --config.{key}.convert.resize)" if "resize=" in str(told) else ""
        raise UserError(told.message + hint, told.items) from error
    except (
        ValueError,
        TypeError,
        LookupError,
        ArithmeticError,
        AttributeError,
        MemoryError,
    ) as error:
        if isinstance(source, dict) or not is_ours(error):
            raise
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(
            f"{name}: a damaged file, or arrays of shapes that the model does not have ({reason})"
        ) from error


def _check_fit(name: str, found: dict[str, np.ndarray], wanted: dict[str, Any]) -> None:
    """Raises UserError for missing and unexpected keys, all of them listed,
    and for mis-shaped ones.
    """
    missing = sorted(wanted.keys() - found.keys())
    unexpected = sorted(found.keys() - wanted.keys())
    shaped = [
        f"{path} (file {found[path].shape}, model {wanted[path].shape})"
        for path in sorted(found.keys() & wanted.keys())
        if tuple(found[path].shape) != tuple(wanted[path].shape)
    ]
    if len(shaped) > _LISTED:  # of another size, of which a few say as much
        shaped[_LISTED:] = [f"and {len(shaped) - _LISTED} others"]
    if missing or unexpected or shaped:
        trained = _config_of(name).get("task.model.fn") if missing or unexpected else None
        of = f", it holds the weights of a {trained}" if trained else ""
        raise UserError(
            f"{name} does not fit the model{of}. missing: {', '.join(missing) or 'none'}; "
            f"unexpected: {', '.join(unexpected) or 'none'}; "
            f"other shape: {', '.join(shaped) or 'none'}"
        )
