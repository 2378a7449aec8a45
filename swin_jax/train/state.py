"""The state that a run starts from: its newest checkpoint, the weights of `init_from`,
or a fresh one.
"""

from typing import Any

import jax
import numpy as np

from swin_jax.core import config as configs
from swin_jax.core.output.text import say
from swin_jax.core.params import path_name
from swin_jax.tasks.base import TrainState
from swin_jax.train import checkpoint, sharding
from swin_jax.train.setup import Run, once_options


def first_state(config, run: Run, manager, write: bool) -> tuple[TrainState, dict]:
    """The state to start from and the meta data of its checkpoint, {} where there is none.

    The order matters: the run's own checkpoints come before `init_from`,
    so that a run that is started again resumes.
    """
    restored = checkpoint.restore(manager, run.abstract, say, write)
    if restored is not None:
        return restored
    # First, because what is wrong with the weights should not have to wait for a program.
    flat, line = configs.build(config.init_from, "init_from").load(
        run.task, run.abstract.params, run.abstract.mutable
    )
    say(line)
    shardings = sharding.tree_shardings(run.abstract)
    init = jax.jit(run.task.init, out_shardings=shardings, compiler_options=once_options())
    state = init(jax.random.key(config.seed))
    names = ("params", "ema", "mutable")
    return state.replace(**{name: _replace(getattr(state, name), flat) for name in names}), {}


def _replace(params: Any, flat: dict[str, np.ndarray]) -> Any:
    """Puts the arrays of {path: array} into a tree, laid out as what they replace."""

    def replace(path, old):
        new = flat.get(path_name(path))
        return old if new is None else sharding.device_put_tree(new, old)

    return jax.tree_util.tree_map_with_path(replace, params)
