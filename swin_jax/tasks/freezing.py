"""Frozen parameters, and the running statistics beside them, which keep their bits."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from swin_jax.core.params import flatten, path_name
from swin_jax.core.stacking import official_names


def hold_parameters(state: Any, params: Any, freezes: Callable[[str], bool]) -> Any:
    """`params`, with those of the state before the update where `freezes(official name)`."""

    def hold(path, before, after):
        frozen = [*map(freezes, official_names(path_name(path), before))]
        if len(set(frozen)) == 1:
            return before if frozen[0] else after
        blocks = jnp.array(frozen).reshape(-1, *(1,) * (before.ndim - 1))  # of a stacked leaf
        return jnp.where(blocks, before, after)

    return jax.tree_util.tree_map_with_path(hold, state.master, params)


def hold_statistics(state: Any, mutable: Any, tx: optax.GradientTransformation) -> Any:
    """`mutable`, with the collections' entries of `state` for each module whose
    parameters `tx` freezes.

    A norm without parameters belongs to the nearest module around it that has some.
    """
    freezes = getattr(tx.update, "freezes", None)
    if freezes is None or not jax.tree.leaves(mutable):
        return mutable
    frozen = {
        path: all(map(freezes, official_names(path, leaf)))
        for path, leaf in flatten(state.master).items()
    }

    def hold(path, before, after):
        inside, module = [], path[1:-1]  # without the collection and the leaf
        while module and not inside:
            inside = [
                held for name, held in frozen.items() if name.startswith(f"{path_name(module)}/")
            ]
            module = module[:-1]
        return before if inside and all(inside) else after

    return jax.tree_util.tree_map_with_path(hold, state.mutable, mutable)
