"""The recipe of UPerNet on ADE20K: the published rows, and the optimizer against mmcv's."""

import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swin_jax.core import config as configs
from swin_jax.core.errors import UserError
from swin_jax.core.params import flatten, official_name
from swin_jax.models.segmentation import PRESETS, make_upernet
from tests.experiments import config_path

GOLDEN = Path(__file__).parents[2] / "golden"
spec = importlib.util.spec_from_file_location("golden", GOLDEN / "golden.py")
golden = importlib.util.module_from_spec(spec)
spec.loader.exec_module(golden)

CASES = sorted((GOLDEN / "segmentation").glob("optimizer_*.json"))
ROWS = {
    "": "upernet_swin_tiny_patch4_window7_512x512",
    ":variant=small": "upernet_swin_small_patch4_window7_512x512",
    ":variant=base": "upernet_swin_base_patch4_window7_512x512",
    ":variant=base_22k": "upernet_swin_base_patch4_window12_640x640_22k",
    ":variant=large_22k": "upernet_swin_large_patch4_window12_640x640_22k",
    ":variant=tiny_moby": "moby_upernet_swin_tiny_patch4_window7_512x512",
}


def load(arguments=""):
    return configs.load(config_path("upernet_ade20k" + arguments))


@pytest.mark.parametrize("arguments", ROWS)
def test_every_row_trains_the_published_model(arguments):
    c = load(arguments)
    assert configs.build(c.task.model, "task.model") == make_upernet(**PRESETS[ROWS[arguments]], drop_path_rate=0.3)
    is_published = "22k" not in arguments
    size = 512 if is_published else 640
    assert (c.image_size, c.data.transform.size, c.scale) == (size, size, (4 * size, size))
    assert c.evals.val.run.data.scale == c.evals.val.run.data.data.transform.scale == c.predict.transform.scale
    assert ("never published" in c.notice) != is_published and (c.total_steps, c.batch_size) == (160_000, 16)


def test_the_window_is_an_argument_only_where_it_was_not_published():
    assert load(":variant=large_22k,window=7").task.model.window_size == 7
    with pytest.raises(UserError, match="^window=12: variant=tiny was published with window=7$"):
        load(":window=12")


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_decay_and_rates_are_those_of_mmcv(path):
    """The decay of every parameter is seen in its update without a gradient."""
    case, c = golden.load(path), load()
    published = case.config["optimizer"]
    assert (published["lr"], published["weight_decay"]) == (c.task.tx.schedule.base_lr, c.task.tx.weight_decay)
    backbone = {key: case.config["backbone"][key] for key in ("embed_dim", "depths", "num_heads")}
    backbone = {key: tuple(value) if isinstance(value, list) else value for key, value in backbone.items()}
    heads = dict(channels=case.config["decode_head"]["channels"], num_classes=case.config["decode_head"]["num_classes"])
    model = make_upernet(**backbone, **heads, auxiliary_channels=case.config["auxiliary_head"]["channels"])
    image = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), image)["params"]
    # Decay goes by names: small arrays of few shapes compile fewer programs.
    params = jax.tree.map(lambda x: np.ones((1,) * x.ndim, np.float32), shapes)
    tx = configs.build(c.task.tx, "tx")
    # The second update: the rate of the first is nearly 0.
    state = tx.init(params)
    zeros = jax.tree.map(np.zeros_like, params)
    for _ in range(2):
        updates, state = tx.update(zeros, state, params)
    schedule = configs.build(c.task.tx.schedule, "schedule")
    decays = {
        official_name(name): float(np.unique(-leaf / schedule(1)).squeeze()) for name, leaf in flatten(updates).items()
    }
    expected = dict(zip(case.keys, case.expected("weight_decay"), strict=True))
    expected = {name: decay for name, decay in expected.items() if decay >= 0}
    assert len(decays) == len(expected)
    for name, decay in expected.items():
        np.testing.assert_allclose(decays[name], decay, rtol=1e-4, atol=1e-9, err_msg=name)
    rates = [1e5 * schedule(int(i)) for i in case.input("iterations")]
    assert case.error("learning_rate", np.array(rates)) < case.tolerance("learning_rate")
