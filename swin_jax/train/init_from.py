"""Weights to start a run from: another run's workdir or a file of converted weights, whole or the backbone only."""

import dataclasses
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from swin_jax.core import stacking, storage
from swin_jax.core.errors import UserError
from swin_jax.core.params import flatten, unflatten
from swin_jax.train import checkpoint


@dataclasses.dataclass(frozen=True)
class InitFrom:
    """Where first weights come from.

    Attributes:
        path: a workdir or a file of weights; '' starts from scratch.
        required: whether '' is an error instead.
        backbone: take everything but the head, which keeps its own initialisation.
        head: regex on parameter paths, what `backbone` leaves out.
        convert: (path, or {'params', 'config'} of a workdir, model) -> variables; reads a file and fits weights.
    """

    path: str = ""
    required: bool = False
    backbone: bool = False
    head: str = r"^head/"
    convert: Callable | None = None

    def load(self, task: Any, shapes: Any, mutable: Any = None) -> tuple[dict[str, np.ndarray], str]:
        """Reads the weights for a task.

        Args:
            task: whose `model` is handed to `convert`.
            shapes: tree of the parameters' shapes.
            mutable: tree of the shapes of other collections, such as batch statistics; None for none.

        Returns:
            ({path: array} of what replaces initial parameters and, under the names of their collections, other initial
            values; a line that reports it).

        Raises:
            UserError: missing, unexpected and mis-shaped keys, all of them listed.
        """
        if not self.path:
            if self.required:
                raise UserError("this experiment starts from weights: give --config.init_from.path=FILE_OR_WORKDIR", 2)
            return {}, "starts from scratch"
        path = storage.path(self.path)
        if (path / "checkpoints").is_dir():
            params, ema, meta = checkpoint.load_params(path)
            rest = checkpoint.load_variables(path) if mutable else {}
            variables = {**rest, "params": params if ema is None else ema}
            if self.convert:
                variables = self._fit({**variables, "config": meta.get("config")}, task.model)
        elif path.is_file() and self.convert is None:
            raise UserError(f"init_from.path={self.path}: this experiment reads no files of weights; give a workdir", 2)
        elif storage.is_remote(path):
            raise UserError(f"init_from.path={self.path}: only workdirs are read from a bucket; copy the file", 2)
        elif not path.is_file():
            raise UserError(
                f"init_from.path={self.path} is neither a workdir with checkpoints nor a file of weights", 2
            )
        else:
            variables = self._fit(self.path, task.model)
        collections = {name: variables.get(name, {}) for name in mutable or ()}
        wanted = flatten(shapes) | flatten(mutable or {})
        found = flatten(stacking.stack(unflatten(flatten(variables["params"])), shapes)) | flatten(collections)
        left = sorted(path for path in found.keys() | wanted.keys() if self.backbone and re.search(self.head, path))
        found = {path: array for path, array in found.items() if path not in left}
        missing = sorted(wanted.keys() - found.keys() - set(left))
        unexpected = sorted(found.keys() - wanted.keys())
        shaped = [
            f"{path} (file {found[path].shape}, model {wanted[path].shape})"
            for path in sorted(found.keys() & wanted.keys())
            if tuple(found[path].shape) != tuple(wanted[path].shape)
        ]
        if missing or unexpected or shaped:
            raise UserError(
                f"{self.path} does not fit the model. missing: {', '.join(missing) or 'none'}; unexpected: "
                f"{', '.join(unexpected) or 'none'}; other shape: {', '.join(shaped) or 'none'}"
            )
        kept = f", not taken: {', '.join(left)}" if left else ""
        return found, f"starts from {self.path}: {len(found)} of {len(wanted)} parameters{kept}"

    def _fit(self, source: Any, model: Any) -> dict:
        """A file's or another run's variables, converted for a model."""
        try:
            return self.convert(source, model)
        except UserError as error:
            text = str(error) if str(self.path) in str(error) else f"{self.path}: {error}"
            hint = " (the flag is --config.init_from.convert.resize)" if "resize=" in text else ""
            raise UserError(text + hint, error.exit_status) from error
