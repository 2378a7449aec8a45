"""A warm-up that outlasts the run is a warning, whichever schedule has it."""

import warnings

import pytest

from swin_jax.core import config as configs
from swin_jax.train.setup import warn_of_warmup


@pytest.mark.parametrize(
    "experiment, changes, flag",
    [
        ("quickstart.py", dict(total_steps=100), "task.tx.schedule.warmup_steps"),
        ("video_swin/video_swin_k400.py", dict(epochs=2), "task.tx.schedule.warmup_epochs"),
        ("swin/swin_in1k_finetune.py:folder", dict(num_train=200, batch_size=64, epochs=4), "warmup_epochs"),
    ],
)
def test_a_rate_that_never_peaks_is_a_warning_that_names_the_flag(experiment, changes, flag, root):
    config = configs.load(f"{root}/experiments/{experiment}")
    config.update(changes)
    with pytest.warns(UserWarning, match=rf"never reaches its peak: .* --config\.{flag}=") as found:
        warn_of_warmup(config)
    assert len(found) == 1 and f"the run has {config.total_steps}," in str(found[0].message)


@pytest.mark.parametrize("changes", [dict(), dict(total_steps=101), dict(total_steps=0)])
def test_a_warmup_within_the_run_says_nothing(changes, root):
    config = configs.load(f"{root}/experiments/quickstart.py")
    config.update(changes)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_warmup(config)


def test_a_run_tells_it_at_its_start(tmp_path, launch):
    with pytest.warns(UserWarning, match="warms up for 100 steps and the run has 3,"):
        flags = "--config.task.tx.schedule.warmup_steps=100", "--config.mesh.data=3"
        assert launch("experiments/quickstart.py:fake", tmp_path, *flags)[0] == 2
