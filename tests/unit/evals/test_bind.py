"""An evaluation refuses a task that predicts something else, before anything is compiled or read."""

import re

import pytest

from swin_jax.core.errors import UserError
from swin_jax.evals.accuracy import Accuracy
from swin_jax.evals.mean_iou import MeanIoU
from swin_jax.evals.multi_view import MultiView
from swin_jax.evals.probes.few_shot import FewShot
from swin_jax.evals.probes.linear_probe import LinearProbe
from swin_jax.evals.reconstruction import Reconstruction
from swin_jax.evals.retrieval import Retrieval
from swin_jax.evals.sample_quality import SampleQuality
from swin_jax.evals.samples import SampleGrid
from swin_jax.evals.zero_shot import ZeroShot


class Edits:
    """What no evaluation here can read."""

    predicts = "edits"


@pytest.mark.parametrize(
    "evaluation, needed",
    [
        (Accuracy(None), "logits"),
        (MultiView(None), "logits"),
        (MeanIoU(None), "maps"),
        (ZeroShot(None, None), "features"),
        (Retrieval(None), "features"),
        (LinearProbe(None, None), "features"),
        (FewShot(None, None, None), "features"),
        (Reconstruction(None), "reconstruction"),
        (SampleGrid(), "samples"),
        (SampleQuality(None, None), "samples"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_a_task_that_predicts_something_else_is_refused(evaluation, needed):
    message = f"{type(evaluation).__name__} needs {needed}; Edits predicts edits"
    with pytest.raises(UserError, match=re.escape(message)):
        evaluation.bind(Edits(), None)
