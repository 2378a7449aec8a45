"""What a resumed run may change."""

import pytest
from etils import epath
from ml_collections import ConfigDict

from swin_jax.core.errors import UserError
from swin_jax.train.workdir import resume


def test_colors_and_checks_of_labels_may_change(tmp_path):
    """At any depth: no result depends on them."""
    values = dict(palette="", data=dict(source=dict(root="a", palette="", check=True, split="train")))
    resume.save(ConfigDict(values), epath.Path(tmp_path))
    values["palette"] = values["data"]["source"]["palette"] = "colors.txt"
    values["data"]["source"]["check"] = False
    assert len(resume.check_resume(ConfigDict(values), epath.Path(tmp_path))) == 3
    values["data"]["source"]["split"] = "val"
    with pytest.raises(UserError, match="trained with another config: data.source.split"):
        resume.check_resume(ConfigDict(values), epath.Path(tmp_path))
