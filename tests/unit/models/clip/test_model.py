"""CLIP's towers: sizes of the published models, initial values, what tokens see, patch dropout, statistics, dtypes."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from swin_jax.core.errors import UserError
from swin_jax.core.params import flatten
from swin_jax.models import clip
from swin_jax.models.clip import CLIP, PRESETS, make_clip
from swin_jax.models.clip.presets import OPENAI, canonical_name
from swin_jax.models.swin import Swin
from swin_jax.pretrained.clip import convert

SMALL = dict(embed_dim=8, image_size=32, context_length=12, vocab_size=40, text_width=64, text_layers=2)
VIT = dict(SMALL, vision_layers=2, vision_width=64, patch_size=8)
RESNET = dict(SMALL, vision_layers=(1, 2, 1, 1), vision_width=4, vision_heads=4, patch_size=None)

# Image tower, text tower, batch norms; openai/CLIP's models, by the shapes in its clip/model.py.
COUNTS = {
    "RN50": (38_316_896, 63_690_240, 55),
    "RN101": (56_259_936, 63_428_096, 106),
    "RN50x4": (87_137_080, 91_163_520, 85),
    "RN50x16": (167_328_912, 123_650_304, 127),
    "RN50x64": (420_380_352, 202_877_952, 199),
    "ViT-B/32": (87_849_216, 63_428_096, 0),
    "ViT-B/16": (86_192_640, 63_428_096, 0),
    "ViT-L/14": (303_966_208, 123_650_304, 0),
    "ViT-L/14@336px": (304_293_888, 123_650_304, 0),
}
# Millions, as open_clip's model_profile.csv rounds them.
OPEN_CLIP_COUNTS = {
    "ViT-S-32": 63.09,
    "ViT-M-32": 103.12,
    "ViT-B-16-plus-240": 208.38,
    "ViT-H-14": 986.11,
    "ViT-g-14": 1366.68,
    "ViT-bigG-14": 2539.57,
}


def inputs(batch=2, length=12):
    rng = np.random.default_rng(0)
    image = rng.normal(size=(batch, 32, 32, 3)).astype(np.float32)
    ids = rng.integers(1, 30, (batch, length)).astype(np.int32)
    ids[:, length // 2] = 39  # the end of text, and content after it
    return jnp.asarray(image), jnp.asarray(ids)


def initialize(model):
    return jax.jit(model.init)(jax.random.key(0), *inputs(1))


@pytest.fixture(scope="module")
def vit():
    model = make_clip(**VIT)
    return model, initialize(model)


@pytest.fixture(scope="module")
def resnet():
    """Gains of the last norms of blocks are 0 at first: with random ones every parameter matters."""
    model = make_clip(**RESNET)
    variables = initialize(model)
    rng = np.random.default_rng(1)
    params = jax.tree.map(lambda x: x + 0.1 * rng.normal(size=x.shape).astype(np.float32), variables["params"])
    return model, variables | {"params": params}


def abstract(model):
    size = model.visual.image_size
    shapes = ((1, size, size, 3), jnp.float32), ((1, 4), jnp.int32)
    return jax.eval_shape(model.init, jax.random.key(0), *(jax.ShapeDtypeStruct(*shape) for shape in shapes))


def count(shapes):
    return sum(math.prod(shape) for shape in shapes)


@pytest.mark.parametrize("name", OPENAI)
def test_parameter_counts_are_the_published_ones(name):
    shapes = convert.official_shapes(make_clip(**PRESETS[name]))
    learned = {n: shape for n, shape in shapes.items() if "running_" not in n}
    image = count(shape for n, shape in learned.items() if n.startswith("visual."))
    found = image, count(learned.values()) - image - 1, sum(n.endswith("running_var") for n in shapes)
    assert found == COUNTS[name]


@pytest.mark.parametrize("name", OPEN_CLIP_COUNTS)
def test_parameter_counts_of_open_clips_configurations(name):
    total = count(convert.official_shapes(make_clip(**PRESETS[name])).values())
    assert round(total / 1e6, 2) == OPEN_CLIP_COUNTS[name]
    assert PRESETS[name]["act"] == "gelu"


@pytest.mark.parametrize("name", ["RN50", "ViT-B/32"])
def test_a_model_makes_the_parameters_that_were_counted(name):
    variables = abstract(make_clip(**PRESETS[name]))
    image, text = (count(x.shape for x in jax.tree.leaves(variables["params"][t])) for t in ("visual", "text"))
    norms = len(jax.tree.leaves(variables.get("batch_stats", {}))) // 2
    assert (image, text, norms) == COUNTS[name]


def test_names_have_several_spellings():
    for name in ("ViT-L/14@336px", "ViT-L-14-336", "vit-l-14-336px", "ViT-L/14@336px-quickgelu"):
        assert canonical_name(name) == "ViT-L/14@336px"
    assert [canonical_name(name) for name in ("RN50", "rn50x64", "ViT-B-32-quickgelu")] == [
        "RN50",
        "RN50x64",
        "ViT-B/32",
    ]
    assert canonical_name("ViT-B") is None and canonical_name("") is None


def test_initial_values_have_the_deviations_of_the_official_code():
    """Normal ones by their deviation, uniform ones by their bound too: bound = sqrt(3) deviations."""
    model = make_clip(64, 32, 2, 192, None, 4.0, 4, 77, 500, 128, None, 3)
    flat = flatten(initialize_for(model, 32)["params"])
    w, t = 192, 128
    normal = {
        "text/token_embedding/embedding": 0.02,
        "text/positional_embedding": 0.01,
        "text/text_projection": t**-0.5,
        "text/transformer/resblocks_1/attn/qkv/kernel": t**-0.5,
        "text/transformer/resblocks_1/attn/proj/kernel": (6 * t) ** -0.5,
        "text/transformer/resblocks_1/mlp/fc1/kernel": (2 * t) ** -0.5,
        "text/transformer/resblocks_1/mlp/fc2/kernel": (6 * t) ** -0.5,
        "visual/positional_embedding": w**-0.5,
        "visual/class_embedding": w**-0.5,
        "visual/proj": w**-0.5,
    }
    bounds = {
        "visual/conv1/kernel": (3 * 4 * 4) ** -0.5,
        "visual/transformer/resblocks_1/attn/qkv/kernel": math.sqrt(6 / (4 * w)),
        "visual/transformer/resblocks_1/attn/proj/kernel": w**-0.5,
        "visual/transformer/resblocks_1/mlp/fc1/kernel": w**-0.5,
        "visual/transformer/resblocks_1/mlp/fc1/bias": w**-0.5,
        "visual/transformer/resblocks_1/mlp/fc2/kernel": (4 * w) ** -0.5,
        "text/transformer/resblocks_1/mlp/fc1/bias": t**-0.5,
        "text/transformer/resblocks_1/mlp/fc2/bias": (4 * t) ** -0.5,
    }
    check_deviations(flat, normal, bounds)
    for path, leaf in flat.items():
        if path.endswith(("qkv/bias", "attn/proj/bias")) or "norm" in path and path.endswith("bias"):
            assert not np.any(leaf), path
        if path.endswith("scale") and "logit" not in path:
            assert np.all(np.asarray(leaf) == 1), path
    assert flat["logit_scale"] == np.float32(math.log(1 / 0.07))


def test_initial_values_of_the_resnet_have_the_deviations_of_the_official_code():
    model = make_clip(**RESNET | dict(vision_width=8))
    flat = flatten(initialize_for(model, 32)["params"]["visual"])
    normal = {f"attnpool/{part}_proj/kernel": 256**-0.5 for part in "qkvc"}
    normal["attnpool/positional_embedding"] = 256**-0.5
    bounds = {
        "layer1_0/conv2/kernel": (9 * 8) ** -0.5,
        "layer3_0/conv3/kernel": 32**-0.5,
        "layer4_0/downsample_0/kernel": 128**-0.5,
        "attnpool/k_proj/bias": 256**-0.5,
    }
    check_deviations(flat, normal, bounds)
    for path, leaf in flat.items():
        if path.endswith("scale"):
            assert np.all(np.asarray(leaf) == (0 if path.startswith("layer") and "/bn3/" in path else 1)), path


def initialize_for(model, size):
    return jax.jit(model.init)(jax.random.key(3), jnp.zeros((1, size, size, 3)), jnp.zeros((1, 5), jnp.int32))


def check_deviations(flat, normal, bounds):
    for path, deviation in normal.items():
        leaf = np.asarray(flat[path])
        slack = 5 / math.sqrt(2 * leaf.size)  # five standard errors of a standard deviation
        assert abs(leaf.std() / deviation - 1) < slack, (path, leaf.std(), deviation)
        assert leaf.size < 1000 or np.abs(leaf).max() > 2.5 * deviation, f"{path} is cut off"
    for path, bound in bounds.items():
        leaf = np.abs(np.asarray(flat[path]))
        assert leaf.max() <= bound and leaf.max() > (1 - 20 / leaf.size) * bound, (path, leaf.max(), bound)
        assert abs(leaf.mean() / bound - 0.5) < 3 / math.sqrt(leaf.size), path


def test_short_texts_need_no_padding_and_nothing_after_the_end_counts(vit):
    model, variables = vit
    _, ids = inputs()
    encode = jax.jit(lambda ids: model.apply(variables, ids, method="encode_text"))
    whole = encode(ids)
    np.testing.assert_allclose(encode(ids[:, :7]), whole, atol=1e-5)
    np.testing.assert_array_equal(encode(ids.at[:, 8:].set(3)), whole)
    np.testing.assert_array_equal(encode(ids.at[:, 9].set(39)), whole)  # the first end of text counts
    assert np.abs(encode(ids.at[:, 2].set(3)) - whole).max() > 1e-3


def test_texts_that_cannot_be_read_are_refused(vit):
    model, variables = vit
    for ids, error, message in (
        (jnp.ones((2, 13), jnp.int32), UserError, r"\(2, 13\).*context_length=12.*truncate=True"),
        (jnp.ones(5, jnp.int32), UserError, "expected"),
        (jnp.ones((2, 5)), ValueError, "tokenize"),
    ):
        with pytest.raises(error, match=message):
            model.apply(variables, ids, method="encode_text")


@pytest.mark.parametrize("fields", [VIT, RESNET], ids=["vit", "resnet"])
def test_images_of_another_size_or_type_are_refused(fields):
    model = make_clip(**fields)
    variables = abstract(model)
    for image, error, message in (
        (jnp.zeros((1, 64, 64, 3)), UserError, r"\(1, 64, 64, 3\).*\(B, 32, 32, 3\).*image_size"),
        (jnp.zeros((1, 32, 32, 3), jnp.uint8), ValueError, "uint8; normalize"),
    ):
        with pytest.raises(error, match=message):
            jax.eval_shape(lambda v, x=image: model.apply(v, x, method="encode_image"), variables)


def test_patch_dropout_leaves_out_the_same_number_of_patches_of_every_image(vit):
    model, variables = vit
    tower, params = model.visual.clone(patch_dropout=0.6), {"params": variables["params"]["visual"]}
    image, _ = inputs(4)
    apply = lambda x, key: tower.apply(params, x, train=True, rngs={"patch_dropout": key})  # noqa: E731
    gradient = jax.jit(jax.grad(lambda x, key: jnp.sum(apply(x, key) ** 2)))
    masks = []
    for seed in range(2):
        patches = np.asarray(gradient(image, jax.random.key(seed))).reshape(4, 4, 8, 4, 8, 3)
        masks.append(np.abs(patches).max(axis=(2, 4, 5)) > 0)  # (4, rows, columns)
        assert np.all(masks[-1].sum(axis=(1, 2)) == 6)  # floor of 0.4 x 16
    assert len({mask.tobytes() for mask in masks[0]}) > 1 and np.any(masks[0] != masks[1])
    np.testing.assert_array_equal(tower.apply(params, image), model.visual.apply(params, image))
    with pytest.raises(ValueError, match="patch_dropout"):
        tower.clone(patch_dropout=1.0).apply(params, image)


@pytest.mark.parametrize("tower", ["vit", "resnet"])
def test_features_before_the_projection_and_in_space(tower, request):
    model, variables = request.getfixturevalue(tower)
    visual = model.visual
    inside = {collection: tree["visual"] for collection, tree in variables.items()}
    image, _ = inputs()
    run = lambda method: jax.jit(lambda v, x: visual.apply(v, x, method=method))(inside, image)  # noqa: E731
    whole, pooled, maps = run("__call__"), run("pooled"), run("features")
    params = inside["params"]
    if tower == "vit":
        projected = pooled @ params["proj"]
        assert [m.shape for m in maps] == [(2, 4, 4, 64)]
    else:
        last = params["attnpool"]["c_proj"]
        projected = pooled @ last["kernel"].reshape(128, 8) + last["bias"][None]
        assert [m.shape for m in maps] == [(2, 8, 8, 16), (2, 4, 4, 32), (2, 2, 2, 64), (2, 1, 1, 128)]
    np.testing.assert_allclose(projected, whole, atol=1e-5)


def test_the_map_of_a_vit_is_in_the_order_of_the_pixels(vit):
    """With blocks that add nothing, a patch token is a function of its own patch alone."""
    model, variables = vit
    params = dict(variables["params"]["visual"])
    params["transformer"] = jax.tree.map(jnp.zeros_like, params["transformer"])
    image, _ = inputs(1)
    features = jax.jit(lambda x: model.visual.apply({"params": params}, x, method="features")[0])
    changed = np.abs(features(image.at[:, 8:16, 24:32].add(1.0)) - features(image)).max(axis=(0, 3))
    assert [tuple(place) for place in np.argwhere(changed > 1e-6)] == [(1, 3)]


@pytest.mark.parametrize("tower", ["vit", "resnet"])
@pytest.mark.parametrize("remat", ["full", "dots"])
def test_rematerialization_changes_no_gradient(tower, remat, request):
    model, variables = request.getfixturevalue(tower)
    fields = VIT if tower == "vit" else RESNET

    def gradient(model):
        def loss(params):
            rest = {key: value for key, value in variables.items() if key != "params"}
            (logits, _), _ = model.apply(
                {"params": params, **rest}, *inputs(), train=True, mutable=["batch_stats"], rngs={}
            )
            return jnp.sum(logits**2)

        return jax.jit(jax.grad(loss))(variables["params"])

    plain, again = gradient(model), gradient(make_clip(**fields, remat=remat))
    for path, leaf in flatten(plain).items():
        other = flatten(again)[path]
        np.testing.assert_allclose(other, leaf, atol=1e-5 * np.abs(leaf).max() + 1e-6, err_msg=path)


@pytest.mark.parametrize("tower", ["vit", "resnet"])
def test_half_precision_computes_nearly_the_same_and_keeps_float32_parameters(tower, request):
    model, variables = request.getfixturevalue(tower)
    half = make_clip(**(VIT if tower == "vit" else RESNET), dtype="bfloat16")
    assert {leaf.dtype for leaf in jax.tree.leaves(abstract(half))} == {np.dtype("float32")}
    image, ids = inputs()
    encode = lambda m: jax.jit(lambda v: m.apply(v, image, normalize=True, method="encode_image"))(variables)  # noqa: E731
    exact, rounded = encode(model), encode(half)
    assert rounded.dtype == np.float32
    assert 1e-6 < np.abs(rounded - exact).max() < 0.05
    inside = {collection: tree["visual"] for collection, tree in variables.items()}
    assert jax.eval_shape(half.visual.apply, inside, image).dtype == jnp.bfloat16
    text = {"params": variables["params"]["text"]}
    assert jax.eval_shape(half.text.apply, text, ids).dtype == jnp.bfloat16


def test_statistics_move_in_training_only(resnet):
    model, variables = resnet
    image, _ = inputs(4)

    @jax.jit
    def train(image):
        encode = lambda m: m.apply(variables, image, train=True, mutable=["batch_stats"], method="encode_image")  # noqa: E731
        return *encode(model), *encode(make_clip(**RESNET, freeze_batch_norm=True))

    moved_out, moved, frozen_out, frozen = train(image)
    first = variables["params"]["visual"]["conv1"]["kernel"]
    x = jax.lax.conv_general_dilated(image, first, (2, 2), ((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC"))
    stats = moved["batch_stats"]["visual"]["bn1"]
    np.testing.assert_allclose(stats["mean"], 0.1 * x.mean(axis=(0, 1, 2)), atol=1e-5)
    np.testing.assert_allclose(stats["var"], 0.9 + 0.1 * x.var(axis=(0, 1, 2)), rtol=1e-4)
    jax.tree.map(np.testing.assert_array_equal, frozen["batch_stats"], variables["batch_stats"])
    still = jax.jit(lambda: model.apply(variables, image, method="encode_image"))()
    np.testing.assert_allclose(frozen_out, still, atol=1e-4)
    assert np.abs(moved_out - still).max() > 1e-2


def test_statistics_are_of_the_batch_on_all_devices(resnet):
    model, variables = resnet
    image, _ = inputs(8)
    image = image * jnp.arange(8.0).reshape(8, 1, 1, 1)  # every device sees another distribution
    train = jax.jit(lambda x: model.apply(variables, x, train=True, mutable=["batch_stats"], method="encode_image"))
    mesh = Mesh(np.asarray(jax.devices()[:4]), ("data",))
    split = jax.device_put(image, NamedSharding(mesh, PartitionSpec("data")))
    (alone, stats), (together, all_stats) = train(image), train(split)
    np.testing.assert_allclose(together, alone, atol=1e-3)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), all_stats, stats)


def test_logits_are_scaled_cosines():
    model = make_clip(**VIT, logit_bias=-10.0, init_logit_scale=math.log(10))
    variables = initialize(model)
    image, ids = inputs()

    @jax.jit
    def run(variables):
        images = model.apply(variables, image, method="encode_image")
        return *model.apply(variables, image, ids[:1]), images, model.apply(variables, ids[:1], method="encode_text")

    per_image, per_text, images, texts = run(variables)
    unit = [x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (np.asarray(images), np.asarray(texts))]
    np.testing.assert_allclose(per_image, 10 * unit[0] @ unit[1].T - 10, atol=1e-4)
    np.testing.assert_array_equal(per_text, per_image.T)
    assert np.isfinite(jax.grad(lambda x: jnp.sum(clip.normalize(x)))(jnp.zeros((1, 4)))).all()


def test_any_tower_that_gives_embeddings_will_do():
    visual = Swin(num_classes=8, image_size=32, embed_dim=8, depths=(1, 1), num_heads=(1, 2), window_size=4)
    model = CLIP(visual, make_clip(**VIT).text)
    variables = initialize(model)
    apply = jax.jit(lambda v: model.apply(v, *inputs(), train=True, rngs={"dropout": jax.random.key(0)}))
    logits, _ = apply(variables)
    assert logits.shape == (2, 2) and set(variables["params"]) == {"visual", "text", "logit_scale"}


def test_attention_maps_can_be_kept(vit):
    model, variables = vit
    _, kept = jax.jit(lambda v: model.apply(v, *inputs(), mutable=["attention"]))(variables)
    weights = [kept["attention"][t]["transformer"]["resblocks_1"]["attn"]["weights"][0] for t in ("visual", "text")]
    assert [w.shape for w in weights] == [(2, 1, 17, 17), (2, 1, 12, 12)]
    for w in weights:
        np.testing.assert_allclose(w.sum(axis=-1), 1, rtol=1e-5)
    assert not np.any(np.triu(weights[1], 1)) and np.all(weights[0] > 0)


@pytest.mark.parametrize(
    "fields, message",
    [
        (VIT | dict(act="relu"), "act='relu' is not one of"),
        (VIT | dict(remat="some"), "remat"),
        (VIT | dict(text_heads=3), "3 heads do not divide"),
        (VIT | dict(patch_size=7), "not a multiple of patch_size"),
        (RESNET | dict(image_size=40), "not a multiple of 32"),
        (RESNET | dict(vision_layers=(1, 1)), "four stages"),
        (RESNET | dict(vision_heads=5), "5 heads do not divide"),
    ],
)
def test_fields_that_contradict_each_other_are_said(fields, message):
    with pytest.raises(ValueError, match=message):
        abstract(make_clip(**fields))
