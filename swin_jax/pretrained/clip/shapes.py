"""The official names and shapes of a CLIP: those of openai/CLIP, and of open_clip's `CLIP`.

The functions read only the fields of a model, so this module imports no model.
"""

import math

from swin_jax.core.sizes import cells, per_axis
from swin_jax.pretrained.swin import convert as convert_swin


def official_shapes(model) -> dict[str, tuple[int, ...]]:
    """{official name: official shape} of a CLIP, in the official order and including running
    statistics.

    Args:
        model: A `models.clip.CLIP` whose towers are a VisionTransformer, a ModifiedResNet or a
            Swin, and a TextTransformer. A Swin keeps its own names, after 'visual.'.
    """
    text = model.text
    shapes = {"positional_embedding": (text.context_length, text.width)}
    shapes["text_projection"] = (text.width, text.embed_dim)
    shapes["logit_scale"] = ()
    if model.logit_bias is not None:
        shapes["logit_bias"] = ()
    if is_swin(model.visual):
        visual = {
            f"visual.{name}": shape
            for name, shape in convert_swin.official_shapes(model.visual).items()
        }
    else:
        visual = (
            _resnet_shapes(model.visual) if is_resnet(model.visual) else _vit_shapes(model.visual)
        )
    shapes |= visual | _blocks("transformer", text)
    shapes["token_embedding.weight"] = (text.vocab_size, text.width)
    return shapes | _norm("ln_final", text.width)


def is_swin(visual) -> bool:
    """True if an image tower is a Swin."""
    return "window_size" in vars(visual)


def is_resnet(visual) -> bool:
    """True if an image tower is a ResNet."""
    return "freeze_batch_norm" in vars(visual)


def position_grid(visual) -> tuple[int, int]:
    """Rows and columns of the positions of a ViT or a ResNet."""
    return cells(visual.image_size, 32 if is_resnet(visual) else visual.patch_size)


def _vit_shapes(visual) -> dict:
    width, patch = visual.width, visual.patch_size
    shapes = {
        "visual.class_embedding": (width,),
        "visual.positional_embedding": (math.prod(position_grid(visual)) + 1, width),
        "visual.proj": (width, visual.embed_dim),
        "visual.conv1.weight": (width, 3, *per_axis(patch, 2)),
    }
    shapes |= _norm("visual.ln_pre", width) | _blocks("visual.transformer", visual)
    return shapes | _norm("visual.ln_post", width)


def _resnet_shapes(visual) -> dict:
    width, shapes = visual.width, {}
    stem = ((3, width // 2), (width // 2, width // 2), (width // 2, width))
    for i, (before, after) in enumerate(stem, 1):
        shapes |= {f"visual.conv{i}.weight": (after, before, 3, 3)} | _batch_norm(
            f"visual.bn{i}", after
        )
    before = width
    for s, depth in enumerate(visual.layers):
        planes = width * 2**s
        for b in range(depth):
            block = f"visual.layer{s + 1}.{b}"
            sizes = ((planes, before, 1), (planes, planes, 3), (4 * planes, planes, 1))
            for i, (after, inside, kernel) in enumerate(sizes, 1):
                shapes[f"{block}.conv{i}.weight"] = (after, inside, kernel, kernel)
                shapes |= _batch_norm(f"{block}.bn{i}", after)
            if b == 0:
                shapes[f"{block}.downsample.0.weight"] = (4 * planes, before, 1, 1)
                shapes |= _batch_norm(f"{block}.downsample.1", 4 * planes)
            before = 4 * planes
    shapes["visual.attnpool.positional_embedding"] = (math.prod(position_grid(visual)) + 1, before)
    for part, after in (("k", before), ("q", before), ("v", before), ("c", visual.embed_dim)):
        name = f"visual.attnpool.{part}_proj"
        shapes |= {f"{name}.weight": (after, before), f"{name}.bias": (after,)}
    return shapes


def _norm(name: str, width: int) -> dict:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _batch_norm(name: str, width: int) -> dict:
    return _norm(name, width) | {f"{name}.running_mean": (width,), f"{name}.running_var": (width,)}


def _blocks(name: str, tower) -> dict:
    width, hidden = tower.width, round(tower.width * tower.mlp_ratio)
    shapes = {}
    for i in range(tower.layers):
        block = f"{name}.resblocks.{i}"
        shapes |= {
            f"{block}.attn.in_proj_weight": (3 * width, width),
            f"{block}.attn.in_proj_bias": (3 * width,),
        }
        shapes |= {
            f"{block}.attn.out_proj.weight": (width, width),
            f"{block}.attn.out_proj.bias": (width,),
        }
        shapes |= _norm(f"{block}.ln_1", width)
        shapes |= {f"{block}.mlp.c_fc.weight": (hidden, width), f"{block}.mlp.c_fc.bias": (hidden,)}
        shapes |= {
            f"{block}.mlp.c_proj.weight": (width, hidden),
            f"{block}.mlp.c_proj.bias": (width,),
        }
        shapes |= _norm(f"{block}.ln_2", width)
    return shapes
