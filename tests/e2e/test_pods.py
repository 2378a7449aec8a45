"""Every preset for pods, compiled by the real TPU compiler for its slice: it fits.

Three in the default tests. All, which take hours, or one after `experiments/benchmarks/pod_presets.py` has kept their
plans:

    python -m pytest tests/e2e/test_pods.py -m "long or not long"
"""

import pytest

from swin_jax.core import config as configs
from swin_jax.plan import chips, command, compiled_step
from tests.experiments import WITH_PODS, config_path

TABLES = {path.stem: configs.module(str(path)).PODS for path in WITH_PODS}
PRESETS = [
    (experiment, row, chip)
    for experiment, table in sorted(TABLES.items())
    for row in table
    for chip in ("v4", "v5e", "v5p", "v6e")
]
QUICK = [
    ("swin_in1k", "variant=tiny", "v5e"),
    ("clip_openai", "model=ViT-B/32", "v6e"),
    ("video_swin_k400", "variant=tiny,images=1k", "v4"),
]
ALL = QUICK + [pytest.param(*preset, marks=pytest.mark.long) for preset in PRESETS if preset not in QUICK]


@pytest.mark.parametrize("experiment, row, chip", ALL)
def test_a_preset_compiles_for_its_slice_and_fits(experiment, row, chip):
    config = configs.load(config_path(experiment) + f":{','.join(filter(None, (row, f'pod={chip}')))}")
    facts = compiled_step.plan(config, chips.topology(config.topology), command.cache_folder(), "quick")
    assert facts["memory"]["fits"], facts["memory"]
    assert facts["memory"]["peak"] <= facts["memory"]["hbm"]
    assert facts["batch_size"] == config.batch_size and facts["chips"] == chips.topology(config.topology).size
    assert facts["roofline"]["step"] > 0
