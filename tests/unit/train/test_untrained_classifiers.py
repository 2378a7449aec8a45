"""Classifiers that neither a checkpoint nor the first weights give are used by nobody."""

import types

import pytest

from swin_jax.core.errors import UserError
from swin_jax.evals.accuracy import Accuracy
from swin_jax.pretrained.segmentation.finetune import FRESH
from swin_jax.train.label_space import refuse_untrained, share_labels
from tests.unit.train.test_label_space import ANIMALS, BESIDE, Features, beside, config, evaluated, saved, train


@pytest.mark.parametrize("task, fields", [("logits", {}), ("maps", dict(head=FRESH))])
def test_a_classifier_that_nothing_trains_is_not_evaluated(tmp_path, monkeypatch, task, fields):
    path = str(beside(tmp_path, BESIDE["timm"])[0])
    task, evals = types.SimpleNamespace(predicts=task), {"val": Accuracy(evaluated(ANIMALS, 3))}
    left = config(0, path=path, backbone=True, **fields)
    with pytest.raises(UserError, match="'val' needs a classifier.*give --config.init_from.backbone=False"):
        share_labels(left, tmp_path, task, train(ANIMALS, 3), evals)
    with pytest.raises(UserError, match="--predict needs a classifier"):
        refuse_untrained(left, tmp_path, task, "--predict")
    refuse_untrained(left, tmp_path, Features(), "--predict")
    trained = config(3, path=path, backbone=True, **fields)
    auxiliary = config(0, path=path, backbone=True, head="^auxiliary_head/")
    whole = config(0, path=path, **fields)
    for fine in (trained, auxiliary, whole):
        share_labels(fine, tmp_path, task, train(("ant", "cow", "dog"), 3), evals)
    refuse_untrained(left, saved(tmp_path / "run", monkeypatch, ANIMALS), task, "--predict")
