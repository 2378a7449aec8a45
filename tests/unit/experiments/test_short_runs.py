"""Short runs: their curves have points, unless a flag says otherwise, and fakes warm up in time."""

import warnings

import pytest

from swin_jax.core import command_line
from swin_jax.core import config as configs
from swin_jax.train.setup import warn_of_warmup
from tests.experiments import FILES, config_path


def interval(name, *flags):
    """Updates between two lines of the log."""
    _, config = command_line.parse(["launch", f"--config={config_path(name)}", "--workdir=runs/x", *flags])
    return config.logs.every


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_fake_warms_up_and_logs_every_update(path):
    config = configs.load(f"{path}:fake")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_warmup(config)
    assert config.total_steps == 3 and config.logs.every == 1


@pytest.mark.parametrize(
    ("name", "usual"), [("quickstart", 20), ("swin_fashion_mnist", 50), ("finetune_folder:fake", 50)]
)
def test_curves_have_twenty_points_unless_an_interval_is_given(name, usual):
    for steps, every in ((0, 1), (3, 1), (39, 1), (200, 10), (100_000, usual)):
        assert interval(name, f"--config.total_steps={steps}") == every
        for order in (1, -1):
            flags = [f"--config.total_steps={steps}", "--config.logs.every=33"][::order]
            assert interval(name, *flags) == 33
    assert interval(name, "--config.logs.every=0") == 0
