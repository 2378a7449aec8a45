"""A run's own settings have ranges; messages name the key."""

import pytest
from ml_collections import ConfigDict

from swin_jax.core import config as configs
from swin_jax.core import storage
from swin_jax.core.errors import UserError
from swin_jax.train.setup import bind_evaluations, build_run, check_start

WRONG = {
    "seed": (-1, 2**32),
    "batch_size": (0, -8),
    "total_steps": (-1,),
    "max_bad_records": (-1,),
    "mesh.data": (0, -2),
    "checkpoint.every": (-1,),
    "checkpoint.keep": (0, -1),
    "logs.every": (-1,),
    "evals.test.every": (-1,),
    "task.tx.clip_norm": (-1.0, float("nan")),
    "task.tx.schedule.base_lr": (-1e-3,),
}


@pytest.mark.parametrize("key, value", [(key, value) for key, values in WRONG.items() for value in values])
def test_out_of_range(key, value):
    config = configs.load("experiments/swin/swin_fashion_mnist.py:fake")
    config.update_from_flattened_dict({key: value})
    with pytest.raises(UserError, match=rf"^--config\.{key}={value}: it must be "):
        build_run(config)


@pytest.mark.parametrize("word", ["False", "None", "no", "0"])
def test_a_word_for_none_is_no_project(word, tmp_path):
    config = configs.load("experiments/quickstart.py:fake")
    check_start(config, storage.path(tmp_path))
    config.logs.wandb = word
    with pytest.raises(UserError, match=rf"^--config.logs.wandb={word} would be a project of this name"):
        check_start(config, storage.path(tmp_path))


@pytest.mark.parametrize("binds", [True, False])
@pytest.mark.parametrize("said, hint", [("no pixel", ""), ("with unreadable='leave_out'",
                                        r" \(--config.evals.val.run.data.data.unreadable=leave_out\)")])  # fmt: skip
def test_errors_of_an_evaluation_name_it_and_its_flag(binds, said, hint):
    class Evaluation:
        def bind(self, task, placement):
            if not binds:
                raise UserError(said)

            def run(state, frozen):
                raise UserError(said)

            return run

    data = {"data": {"data": {"unreadable": "refuse"}}}
    config = ConfigDict({"evals": {"val": {"every": 3, "run": data}, "other": {"every": 2, "run": data}}})
    with pytest.raises(UserError, match=f"^the evaluation 'val': {said}{hint}$"):
        every, run = bind_evaluations(config, {"val": Evaluation()}, None, None)["val"]
        assert every == 3
        for _ in range(2):  # again and again
            with pytest.raises(UserError, match="^the evaluation 'val'"):
                run(None, None)
        run(None, None)
