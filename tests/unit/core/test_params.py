"""Paths, official names, and flat dicts of parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swin_jax.core.params import flatten, map_named, official_name, unflatten, weights_checksum

TREE = {
    "absolute_pos_embed": np.zeros((1, 4, 2)),
    "layers_10": {"blocks_1": {"norm1": {"bias": np.ones(2), "scale": np.ones(2)}}},
    "head": {"kernel": np.zeros((2, 3))},
}


def test_unflatten_inverts_flatten():
    assert jax.tree.all(jax.tree.map(np.array_equal, unflatten(flatten(TREE)), TREE))


def test_flatten_keeps_the_order_of_the_tree():
    assert [id(leaf) for leaf in flatten(TREE).values()] == [id(leaf) for leaf in jax.tree.leaves(TREE)]


@pytest.mark.parametrize(
    "path, official",
    [
        ("layers_10/blocks_1/norm1/scale", "layers.10.blocks.1.norm1.weight"),
        ("layers_0/blocks_1/attn/qkv/kernel", "layers.0.blocks.1.attn.qkv.weight"),
        ("layers_0/blocks_1/attn/qkv/bias", "layers.0.blocks.1.attn.qkv.bias"),
        ("layers_0/blocks_0/attn/relative_position_bias_table", "layers.0.blocks.0.attn.relative_position_bias_table"),
        ("layers_0/blocks_0/attn/logit_scale", "layers.0.blocks.0.attn.logit_scale"),
        ("head/kernel", "head.weight"),
        ("absolute_pos_embed", "absolute_pos_embed"),
    ],
)
def test_official_name(path, official):
    assert official_name(path) == official


def test_map_named_keeps_the_structure_and_sees_every_leaf_once():
    mapped = map_named(lambda name, leaf: (name, leaf.shape), TREE)
    found = jax.tree.leaves(mapped, is_leaf=lambda x: isinstance(x, tuple))
    assert dict(found) == {official_name(path): leaf.shape for path, leaf in flatten(TREE).items()}
    assert mapped["head"]["kernel"] == ("head.weight", (2, 3))


def test_checksum_of_weights_depends_on_every_bit():
    tree = {"a": np.zeros((2, 3), np.float32), "b": jnp.ones(4)}
    same = weights_checksum({"a": jnp.zeros((2, 3)), "b": np.ones(4, np.float32)})
    assert weights_checksum(tree) == same
    others = [tree | {"b": np.ones(5)}, tree | {"a": np.zeros((3, 2), np.float32)}, tree | {"b": -jnp.ones(4)}]
    others += [{"a": tree["a"], "c": tree["b"]}, tree | {"b": jnp.ones(4, jnp.bfloat16)}]
    assert len({weights_checksum(other) for other in others} | {same}) == 6


def test_the_checksum_that_is_saved_stays_what_it_was():
    tree = {"params": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3)}, "step": np.int32(7)}
    assert weights_checksum(tree) == "fdc7d724aeb24ba4d136f68ae6c5255f2c159a6222b6ed8ce1887535ad284331"
