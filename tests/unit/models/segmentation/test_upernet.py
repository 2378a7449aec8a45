"""UPerNet: sizes and costs of the published models, what it refuses, and the rules of its parameters."""

import importlib.util
import math
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swin_jax.core.errors import UserError
from swin_jax.core.params import flatten, official_name
from swin_jax.models.segmentation import PRESETS, UPerNet, make_upernet, rules
from swin_jax.models.segmentation.upernet import FCNHead
from swin_jax.models.swin import V2, Swin
from swin_jax.pretrained.segmentation import convert
from swin_jax.pretrained.swin.buffers import official_buffers

GOLDEN = Path(__file__).resolve().parents[3] / "golden"
spec = importlib.util.spec_from_file_location("golden", GOLDEN / "golden.py")
golden = importlib.util.module_from_spec(spec)
spec.loader.exec_module(golden)

TINY = dict(embed_dim=8, depths=(1, 1, 1, 1), num_heads=(1, 1, 2, 2), window_size=4, image_size=32)
TINY |= dict(num_classes=5, channels=8, auxiliary_channels=4)


def shapes(model, size=(32, 32)):
    image = jax.ShapeDtypeStruct((1, *size, model.backbone.in_channels), jnp.float32)
    return jax.eval_shape(model.init, jax.random.key(0), image)


# Parameters, and entries of the state dict without and with buffers, counted by running the official code.
SIZES = {
    "upernet_swin_tiny_patch4_window7_512x512": (59_941_862, 246, 271),
    "upernet_swin_small_patch4_window7_512x512": (81_259_766, 402, 439),
    "upernet_swin_base_patch4_window7_512x512": (121_279_716, 402, 439),
    "upernet_swin_base_patch4_window12_640x640_22k": (121_415_076, 402, 439),
    "upernet_swin_large_patch4_window12_640x640_22k": (233_962_976, 402, 439),
    "moby_upernet_swin_tiny_patch4_window7_512x512": (59_941_862, 246, 271),
}
PARTS = {"tiny": (31_497_366, 923_798), "base": (33_315_990, 1_218_710), "large": (36_953_238, 1_808_534)}


def test_every_preset_is_held_to_its_size():
    assert SIZES.keys() == PRESETS.keys()


@pytest.mark.parametrize("name", SIZES)
def test_parameters_and_entries_are_those_of_the_official_models(name):
    model, (parameters, entries, with_buffers) = make_upernet(**PRESETS[name]), SIZES[name]
    official = convert.official_shapes(model)
    learned = {key: math.prod(shape) for key, shape in official.items() if "running_" not in key}
    assert sum(learned.values()) == parameters and len(official) == entries
    counters = [key for key in official if key.endswith("running_var")]
    assert entries + len(official_buffers(model.backbone)) + len(counters) == with_buffers
    for variant in (variant for variant in PARTS if f"_{variant}_" in name):
        heads = [
            sum(size for key, size in learned.items() if key.startswith(head))
            for head in ("decode_head.", "auxiliary_head.")
        ]
        assert tuple(heads) == PARTS[variant]


@pytest.mark.parametrize("window, parameters", [("base", 121_279_716), ("large", 233_759_936)])
def test_window_7_has_the_other_published_counts(window, parameters):
    name = next(name for name in PRESETS if f"{window}_patch4_window12" in name)
    official = convert.official_shapes(make_upernet(**PRESETS[name] | dict(window_size=7)))
    assert sum(math.prod(shape) for key, shape in official.items() if "running_" not in key) == parameters


@pytest.mark.parametrize(
    "variant, size, gflops",
    [("tiny", (512, 2048), 944.4), ("tiny", 512, 236.9), ("base", (512, 2048), 1187.4), ("base", (640, 2560), 1839.2)],
)
def test_multiply_accumulates_are_those_that_were_counted_in_the_official_code(variant, size, gflops):
    fields = PRESETS[f"upernet_swin_{variant}_patch4_window7_512x512"]
    assert round(make_upernet(**fields | dict(image_size=size)).flops() / 1e9, 1) == gflops


@pytest.mark.parametrize("version", [{}, dict(V2, window_size=3), dict(scan=True, depths=(1, 1, 4, 1))])
def test_official_names_and_shapes_are_those_of_the_model(version):
    model = make_upernet(**TINY | version)
    variables = shapes(model, (41, 70))
    names = convert.official_shapes(model)
    assert sum(leaf.size for leaf in jax.tree.leaves(variables)) == sum(map(math.prod, names.values()))
    heads = [official_name(path) for path in flatten(variables["params"]) if not path.startswith("backbone/")]
    assert set(heads) == {name for name in names if "_head." in name and "running_" not in name}


def test_an_auxiliary_head_can_be_left_out():
    assert "auxiliary_head" not in shapes(make_upernet(**TINY | dict(auxiliary_channels=0)))["params"]


def test_kernels_start_as_kaiming_and_classifiers_small():
    head = FCNHead(num_classes=50, channels=64, dropout_rate=0.1, dtype=jnp.float32, param_dtype=jnp.float32)
    params = jax.jit(head.init, static_argnums=2)(jax.random.key(1), jnp.zeros((1, 2, 2, 32)), False)["params"]
    first, last = params["convs_0"], params["conv_seg"]
    np.testing.assert_allclose(first["conv"]["kernel"].std(), math.sqrt(2 / (9 * 64)), rtol=0.02)
    np.testing.assert_allclose(last["kernel"].std(), 0.01, rtol=0.05)
    assert not last["bias"].any() and (first["bn"]["scale"] == 1).all()


def test_what_cannot_be_is_refused():
    model = make_upernet(**TINY)
    one, bare = jnp.zeros((1, 32, 32, 3)), make_upernet(**TINY | dict(auxiliary_channels=0))
    with pytest.raises(UserError, match="one image: pooled to 1 x 1"):
        model.apply({}, one, train=True, rngs={"dropout": jax.random.key(0)}, mutable=["batch_stats"])
    with pytest.raises(UserError, match="auxiliary_channels are not 0"):
        bare.apply({}, one, auxiliary=True)
    with pytest.raises(UserError, match=r"rngs=\{'dropout'"):
        model.apply({}, jnp.zeros((2, 32, 32, 3)), train=True, mutable=["batch_stats"])
    with pytest.raises(UserError, match=r"out_norms=\(0, 1, 2, 3\), not \(3,\)"):
        shapes(UPerNet(Swin(small="keep", out_norms=(3,), num_classes=0)))


def test_decay_falls_on_what_it_falls_on_in_the_published_recipe():
    case = golden.load(GOLDEN / "segmentation" / "optimizer_160k.json")
    decay = dict(zip(case.keys, case.expected("weight_decay"), strict=True))
    learned = {name: value for name, value in decay.items() if value >= 0}
    assert set(learned.values()) == {0, np.float32(case.config["optimizer"]["weight_decay"])}
    for name, value in learned.items():
        spared = any(re.search(pattern, name) for pattern in rules.NO_DECAY)
        assert spared == (value == 0), name


def test_kernels_of_heads_are_split_by_the_partition():
    rule = next(axes for pattern, axes in rules.PARTITION if re.search(pattern, "decode_head/bottleneck/conv/kernel"))
    assert rule == (None, None, "fsdp", None)
    assert not any(re.search(pattern, "decode_head/conv_seg/kernel") for pattern, _ in rules.PARTITION)
